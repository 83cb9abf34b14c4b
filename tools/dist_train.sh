#!/usr/bin/env bash
# tools/train.py on several GPUs: dist_train.sh CONFIG GPUS [flags of tools/train.py]
# On several machines set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail
if (($# < 2)); then
    echo 'usage: dist_train.sh CONFIG GPUS [flags of tools/train.py]' >&2
    exit 2
fi
exec python -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" --nproc_per_node "$2" \
    "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"

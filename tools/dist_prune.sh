#!/usr/bin/env bash
# tools/prune.py on several GPUs: dist_prune.sh CONFIG GPUS [flags of tools/prune.py]
# On several machines set NNODES, NODE_RANK, MASTER_ADDR and PORT on each; all must see the same work dir.
set -euo pipefail
if (($# < 2)); then
    echo 'usage: dist_prune.sh CONFIG GPUS [flags of tools/prune.py]' >&2
    exit 2
fi
exec python -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" \
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" --nproc_per_node "$2" \
    "$(dirname "$0")/prune.py" "$1" --launcher pytorch "${@:3}"

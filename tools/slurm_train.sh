#!/usr/bin/env bash
# tools/train.py under Slurm: slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [flags of tools/train.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS (further options of srun) come from the environment.
set -euo pipefail
if (($# < 4)); then
    echo 'usage: slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [flags of tools/train.py]' >&2
    exit 2
fi
read -ra srun_args <<<"${SRUN_ARGS:-}"
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
exec srun --partition "$1" --job-name "$2" \
    --ntasks "$gpus" --ntasks-per-node "$gpus_per_node" --gres "gpu:$gpus_per_node" \
    --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 "${srun_args[@]}" \
    python -u "$(dirname "$0")/train.py" "$3" --work-dir "$4" --launcher slurm "${@:5}"

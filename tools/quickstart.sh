#!/usr/bin/env bash
# From nothing to a result: sets up the environment, makes a small world of drives, prunes it, trains a detector on what
# is left, and says where the report is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

DATA=data/minidrive
CONFIG=configs/minidrive/quickstart.py
WORK_DIR=work_dirs/quickstart
PYTHON=.venv/bin/python
[ "${STACK:-stable}" != modern ] || PYTHON=.venv-modern/bin/python

bash tools/setup_env.sh
# One thread per process is steady; two beside another busy process can be 20 times slower.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

$PYTHON tools/make_minidrive.py "$DATA" --scenes 24 --frames 20 --formats coco
$PYTHON tools/train.py "$CONFIG" --work-dir "$WORK_DIR" "$@"
echo "The report: $PWD/$WORK_DIR/adadedup/report.html"

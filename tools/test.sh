#!/usr/bin/env bash
# Sets up the environment if need be, then runs the checks and the tests; further arguments go to pytest, in WORKERS
# processes (default 2).
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
bash tools/setup_env.sh || exit

# One thread per process is steady; two beside another busy process can be 20 times slower.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
WORKERS=${WORKERS:-2}
PYTHON=.venv/bin/python
status=0

check() {
    echo "test: $*"
    "$@"
    local code=$?
    ((status)) || status=$code
}

check $PYTHON -m ruff check .
check $PYTHON -m mypy
check $PYTHON -m pytest -q -n "$WORKERS" --dist loadfile "$@"
exit $status

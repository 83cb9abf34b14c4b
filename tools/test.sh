#!/usr/bin/env bash
# Sets up the environment if need be, then runs the checks and the tests; further arguments go to pytest, in WORKERS
# processes (default 2). STACK=modern runs the tests with a current torch; see tools/setup_env.sh.
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

if [ "${STACK:-stable}" = modern ]; then
    PYTHON=.venv-modern/bin/python
else
    # The types are those of the stable stack's releases.
    check $PYTHON -m ruff check .
    check $PYTHON -m ruff format --check .
    check $PYTHON -m mypy
fi
check $PYTHON -m pytest -q -n "$WORKERS" --dist loadfile "$@"
exit $status

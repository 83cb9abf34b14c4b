#!/usr/bin/env bash
# Makes the environment .venv in the repository root: Python 3.11, the packages of requirements.txt, mmcv with its
# compiled operators, mmdet3d and this package (editable). Needs Python 3.11 and, to build mmcv, a C++ compiler.
# When nothing changed since the last run it returns at once; after an interruption it picks up where that one stopped.
#
#   STACK=modern          makes .venv-modern instead: Python 3.12 or 3.11, the packages of requirements/modern.txt
#   PYTHON=...            the Python to use (default: python3.11, or python3 if that is 3.11)
#   PIP_FIND_LINKS=...    where pip may find a prebuilt mmcv, such as OpenMMLab's page for your torch and CUDA
#   FORCE_CUDA=1          build mmcv's CUDA operators although no GPU is visible (images)
#   MAX_JOBS=...          compilers at a time while mmcv is built (default: one per core with 2 GB of memory)
set -euo pipefail
shopt -s nullglob

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
case ${STACK:-stable} in
    stable) VENV=$ROOT/.venv REQUIREMENTS=requirements.txt WITHOUT_DEPS=requirements/mminstall.txt PYTHONS=(3.11) ;;
    modern) VENV=$ROOT/.venv-modern REQUIREMENTS=requirements/modern.txt
            WITHOUT_DEPS=requirements/modern_mminstall.txt PYTHONS=(3.12 3.11) ;;
    *) echo "error: STACK=$STACK is neither stable nor modern" >&2; exit 2 ;;
esac
STAMP=$VENV/.set-up
LOG=$VENV/set-up.log
SCRATCH=$VENV/tmp
NEEDED_GB=10
cd "$ROOT"
unset PYTHONPATH PYTHONHOME
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PROGRESS_BAR=off

MMCV=$(grep '^mmcv==' requirements/mminstall.txt)
HEADLESS=$(grep '^opencv-python-headless==' "$REQUIREMENTS")
TORCH=$(grep '^torch==' "$REQUIREMENTS")

main() {
    ! is_ready || return 0
    exec 9<"$ROOT"
    if type -p flock >/dev/null && ! flock -n 9; then
        say 'set-up: another one is at work here, waiting for it'
        flock 9
        ! is_ready || return 0
    fi
    make_venv
    TAG=$("$VENV/bin/python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/adadedup_mm/wheels/${TORCH/==/-}-$TAG
    rm -f "$STAMP"
    : >"$LOG"
    # Not /tmp, which may be small; and what a killed pip leaves here is found again.
    export TMPDIR=$SCRATCH
    rm -rf "$SCRATCH"
    mkdir "$SCRATCH"
    drop_partial_packages
    mmcv_works || look_for_mmcv
    run "packages of $REQUIREMENTS, 2.6 GB to download the first time" '2 to 5 minutes' \
        pip install -r "$REQUIREMENTS"
    # Both OpenCV packages write into one folder; the files that stay must be those that need no libGL.
    run 'OpenCV without a display' '3 s' pip install --no-deps --force-reinstall "$HEADLESS"
    mmcv_works || install_mmcv
    run 'mmdet3d and this package' '5 s' install_plugin
    rm -rf "$SCRATCH"
    wanted >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
    say 'set-up: done'
}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }
pip() { "$VENV/bin/python" -m pip "$@"; }

# What the environment depends on; the stamp of a finished set-up holds the same hash.
wanted() {
    { cat requirements.txt requirements/*.txt pyproject.toml tools/setup_env.sh
      echo "$ROOT"
      "$VENV/bin/python" -VV; } | sha256sum
}

is_ready() { [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(wanted 2>/dev/null)" ]; }

# run WHAT USUAL COMMAND...: says what is done and how long it takes, then the seconds that have passed. The command's
# output goes to the log, and its end is shown if the command fails. Its own process group makes Ctrl-C reach all of it.
run() {
    local what=$1 begun=$SECONDS job
    say "set-up: $what (usually $2)"
    set -m
    "${@:3}" >>"$LOG" 2>&1 </dev/null &
    job=$!
    set +m
    trap 'kill -- -$job 2>/dev/null; say "set-up: interrupted"; exit 130' INT TERM HUP
    while kill -0 "$job" 2>/dev/null; do
        sleep 1
        if [ -t 2 ]; then
            printf '\r        %d s' $((SECONDS - begun)) >&2
        elif (((SECONDS - begun) % 30 == 0)); then
            say "        $((SECONDS - begun)) s"
        fi
    done
    trap - INT TERM HUP
    [ ! -t 2 ] || say
    wait "$job" || { tail -n 20 "$LOG" >&2; die "'$what' failed; the whole output is in $LOG"; }
}

make_venv() {
    local python
    if "$VENV/bin/python" -c '' 2>/dev/null; then
        is_wanted "$VENV/bin/python" || die "$VENV holds another Python than ${PYTHONS[*]}; remove it or move it away"
        # The paths inside an environment are absolute: one that was moved or copied is made anew.
        if grep -qsF " $VENV" "$VENV/pyvenv.cfg" && "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
            return
        fi
    fi
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python has no venv module; install it (Debian, Ubuntu: ${python##*/}-venv)"
    check_disk
    say "set-up: virtual environment ${VENV##*/} of $python"
    "$python" -m venv --clear "$VENV" || die "$python cannot make a virtual environment in $VENV"
}

find_python() {
    local candidates candidate
    if [ -n "${PYTHON:-}" ]; then
        is_wanted "$PYTHON" || die "PYTHON=$PYTHON is not a Python ${PYTHONS[*]}"
        echo "$PYTHON"
        return
    fi
    mapfile -t candidates < <(type -ap "${PYTHONS[@]/#/python}" python3)
    for candidate in "${candidates[@]}"; do
        if is_wanted "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    local name=python${PYTHONS[0]}
    die "Python ${PYTHONS[0]} is missing; install it (Debian, Ubuntu: $name $name-venv $name-dev) or set PYTHON"
}

is_wanted() {
    "$1" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] not in sys.argv[1:])' "${PYTHONS[@]}" 2>/dev/null
}

check_disk() {
    local free
    free=$(df -Pk "$ROOT" | awk 'NR == 2 { print int($4 / 1048576) }')
    ((free >= NEEDED_GB)) || die "$ROOT has $free GB of free disk, the environment needs $NEEDED_GB GB"
}

# A killed pip leaves packages without a RECORD, which it can neither use nor remove.
drop_partial_packages() {
    local site folder
    site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    for folder in "$site"/*.dist-info; do
        [ -s "$folder/RECORD" ] || rm -rf "$folder"
    done
    rm -rf "$site"/~*
}

# A wheel that was built against another torch does not get past the import.
mmcv_works() {
    "$VENV/bin/python" - "$MMCV" <<'PY' >>"$LOG" 2>&1
import sys

import mmcv
import torch
from mmcv.ops import nms

boxes = torch.tensor([[0., 0., 4., 4.], [0., 0., 4., 5.]])
sys.exit(f'mmcv=={mmcv.__version__}' != sys.argv[1] or len(nms(boxes, torch.tensor([.9, .8]), .5)[1]) != 1)
PY
}

# Asks for a prebuilt mmcv, and where there is none for a compiler, before the long download.
look_for_mmcv() {
    pip download --no-deps --only-binary :all: -d "$SCRATCH/prebuilt" "$MMCV" >>"$LOG" 2>&1 ||
        [ -n "$(wheel_in "$CACHE"*)" ] || check_compiler
}

wheel_in() {
    local folder wheels=()
    for folder; do
        wheels+=("$folder/${MMCV/==/-}-$TAG"-*"$(uname -m).whl")
    done
    echo "${wheels[0]:-}"
}

check_compiler() {
    local compiler=${CXX:-c++} include
    type -p "$compiler" >/dev/null ||
        die 'a C++ compiler is missing, and pip finds no prebuilt mmcv; install one (Debian, Ubuntu: g++)'
    include=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    echo '#include <Python.h>' | "$compiler" -I"$include" -x c++ -E - >/dev/null 2>>"$LOG" ||
        die "Python.h is missing, and pip finds no prebuilt mmcv; install it (Debian, Ubuntu: python${PYTHONS[0]}-dev)"
}

# A prebuilt wheel, else the one of an earlier build, else a build; the first that works.
install_mmcv() {
    local cuda folder=$CACHE usual='5 minutes on 2 cores' wheel
    cuda=$(build_cuda)
    if [ "$cuda" = 1 ]; then
        folder+=-cuda
        usual='half an hour or more'
    fi
    for wheel in "$(wheel_in "$SCRATCH/prebuilt")" "$(wheel_in "$folder")"; do
        [ -n "$wheel" ] || continue
        run "mmcv from $wheel" '5 s' pip install --no-deps --force-reinstall "$wheel"
        ! mmcv_works || return 0
        say 'set-up: this wheel does not work with the torch that is installed'
    done
    check_compiler
    if [ "$cuda" = 0 ] && nvidia-smi -L >/dev/null 2>&1; then
        say "set-up: a GPU, but no nvcc of torch's CUDA: mmcv's operators will only run on the CPU;"
        say '        set PIP_FIND_LINKS to a page with a prebuilt mmcv, or install that CUDA and set CUDA_HOME'
    fi
    run "mmcv's operators, compiled once and kept in $folder" "$usual" build_mmcv "$cuda"
    run 'mmcv from the new wheel' '5 s' pip install --no-deps --force-reinstall "$(wheel_in "$SCRATCH/built")"
    mmcv_works || die "mmcv was built but does not work; the reason is at the end of $LOG"
    mkdir -p "$folder"
    wheel=$(wheel_in "$SCRATCH/built")
    cp "$wheel" "$folder/.new.$$"
    mv "$folder/.new.$$" "$folder/${wheel##*/}"
}

# 1 where mmcv gets CUDA operators: asked for, or a GPU and an nvcc of torch's CUDA are there.
build_cuda() {
    "$VENV/bin/python" - <<'PY' 2>>"$LOG"
import os
import subprocess

import torch
from torch.utils.cpp_extension import CUDA_HOME

wanted = os.environ.get('FORCE_CUDA', '')
if not wanted and torch.cuda.is_available():
    nvcc = f'{CUDA_HOME}/bin/nvcc'
    release = subprocess.run([nvcc, '--version'], capture_output=True, text=True).stdout if os.path.exists(nvcc) else ''
    wanted = str(int(f'release {torch.version.cuda.split(".")[0]}.' in release))
print(int(wanted == '1'))
PY
}

build_mmcv() {
    local jobs=${MAX_JOBS:-} memory
    if [ -z "$jobs" ]; then
        jobs=$(nproc)
        memory=$(awk '/MemTotal/ { print int($2 / 2097152) + 1 }' /proc/meminfo)
        ((jobs <= memory)) || jobs=$memory
    fi
    # mmcv's set-up builds for CUDA whenever it sees a GPU, also where no nvcc could.
    [ "$1" != 0 ] || export CUDA_VISIBLE_DEVICES=
    # pip's own cache does not know which torch a wheel was built against.
    MMCV_WITH_OPS=1 FORCE_CUDA=$1 MAX_JOBS=$jobs \
        pip wheel --no-cache-dir --no-deps --no-build-isolation --no-binary mmcv -w "$SCRATCH/built" "$MMCV"
}

install_plugin() {
    pip install --no-deps -r "$WITHOUT_DEPS" && pip install --no-deps --no-build-isolation -e .
}

main

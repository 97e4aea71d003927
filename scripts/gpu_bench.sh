#!/bin/sh
# Measures lookbook on a machine with a GPU that has neither Rust nor a package index: everything is carried there.
#   gpu_bench.sh pack [--device cpu] [--quick] [--photos FOLDER] [--architecture 90] [FOLDER]   here
#   gpu_bench.sh run  [--device cpu] [--quick] [--sections NAME,...] [FOLDER]                   there
# `pack` writes pieces of 48 MiB at most into FOLDER (output/gpu), `run` unpacks them and measures; --help says more. `run` needs
# Python 3 with PyTorch (and the NVIDIA libraries that come with it), safetensors, pyarrow and Pillow: PYTHON=... names one.
set -eu
scripts=$(cd -- "$(dirname -- "$0")" && pwd)

case "${1:-}" in
pack | run) step=$1 ;;
*)
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
shift
exec "${PYTHON:-python3}" "$scripts/gpu/$step.py" "$@"

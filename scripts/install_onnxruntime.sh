#!/bin/sh
# Installs ONNX Runtime from its pinned Python wheel: install_onnxruntime.sh [FOLDER], default .runtime beside the Makefile.
#   GPU=1        the build with CUDA, and the NVIDIA libraries it needs in FOLDER/nvidia
#   PYTHON=...   the Python whose pip downloads the wheel (default python3); nothing is installed into it
# Every wheel is checked against the SHA-256 in onnxruntime.txt or onnxruntime-gpu.txt. Does nothing if it is installed already.
set -eu

fail() {
    echo "install_onnxruntime: $*" >&2
    exit 1
}

scripts=$(cd -- "$(dirname -- "$0")" && pwd)
runtime=${1:-$(dirname -- "$scripts")/.runtime}
. "$scripts/link_for_target.sh"
python=${PYTHON:-python3}
variant=onnxruntime
[ "${GPU:-0}" = 0 ] || [ -z "${GPU:-}" ] || variant=onnxruntime-gpu
requirements=$scripts/$variant.txt
version=$(sed -n 's/^onnxruntime[a-z-]*==\([0-9.]*\).*/\1/p' "$requirements")

# The CUDA build also satisfies a request for the plain one.
for have in "$variant" onnxruntime-gpu; do
    if [ -e "$runtime/libonnxruntime.so" ] && [ "$(cat "$runtime/STAMP" 2>/dev/null)" = "$have $version" ]; then
        exit 0
    fi
done

system="$(uname -s) $(uname -m)"
case "$variant $system" in
"onnxruntime Linux x86_64" | "onnxruntime Linux aarch64" | "onnxruntime-gpu Linux x86_64") ;;
*) fail "there is no $variant $version wheel for $system; set ORT_DYLIB_PATH to a library of ONNX Runtime 1.31" ;;
esac
command -v "$python" >/dev/null 2>&1 ||
    fail "'$python' is not there; install Python 3 with pip (Debian, Ubuntu: apt install python3 python3-pip), or name one: PYTHON=/path/to/python3"
"$python" -m pip --version >/dev/null 2>&1 ||
    fail "'$python' has no pip; install it (Debian, Ubuntu: apt install python3-pip), or name another Python: PYTHON=/path/to/python3"

mkdir -p -- "$(dirname -- "$runtime")"
work=$(mktemp -d "$runtime.partial.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT TERM

# If this Python has no wheel, download that of another version: only the library inside is used.
set --
if ! "$python" -c 'import sys; sys.exit(not (sys.implementation.name == "cpython" and
        (3, 11) <= sys.version_info[:2] <= (3, 14) and "t" not in getattr(sys, "abiflags", "")))'; then
    set -- --python-version 3.12 --implementation cp --abi cp312 --abi none
    for platform in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux2010 manylinux1; do
        set -- "$@" --platform "${platform}_$(uname -m)"
    done
fi

echo "install_onnxruntime: downloading $variant $version" >&2
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --requirement "$requirements" --dest "$work/wheels" "$@" || fail "pip could not download $variant $version (its message is above).
Without a network: put the wheels listed in $requirements
into a folder and set PIP_NO_INDEX=1 PIP_FIND_LINKS=that folder. Behind a mirror: set PIP_INDEX_URL.
If a hash did not match, the package index served a different file from the one tested: do not use it."

"$python" - "$work" "$runtime" "$variant $version" <<'PYTHON'
"""Unpacks the libraries from the wheels and moves the complete folder into place."""
import os, pathlib, shutil, sys, zipfile

work, runtime, stamp = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
new = work / "runtime"
new.mkdir()


def unpack(archive, member, target):
    target.parent.mkdir(exist_ok=True)
    with archive.open(member) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


for wheel in sorted((work / "wheels").glob("*.whl")):
    nvidia = wheel.name.startswith("nvidia")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            name = pathlib.PurePosixPath(member).name
            if nvidia and name.startswith("lib") and ".so" in name:
                unpack(archive, member, new / "nvidia" / name)
            elif not nvidia and name.startswith("libonnxruntime") and "tensorrt" not in name:
                unpack(archive, member, new / name)
            elif not nvidia and member in ("onnxruntime/LICENSE", "onnxruntime/ThirdPartyNotices.txt"):
                unpack(archive, member, new / name)

libraries = sorted(new.glob("libonnxruntime.so.1.*"))
if len(libraries) != 1:
    sys.exit(f"install_onnxruntime: the wheel holds {len(libraries)} libraries libonnxruntime.so.1.*, expected one")
(new / "libonnxruntime.so").symlink_to(libraries[0].name)
(new / "STAMP").write_text(stamp + "\n")

# Two renames; a running program keeps the library it has open.
old = work / "old"
if runtime.exists():
    runtime.rename(old)
new.rename(runtime)
PYTHON
echo "install_onnxruntime: installed $variant $version in $runtime" >&2

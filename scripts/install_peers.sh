#!/bin/sh
# Makes the virtual environment .peers/ with what lookbook is measured against (about 3 GB to download), or brings it up to
# changed requirements; does nothing where it has them. torch.compile needs a C++ compiler and Python's headers as well.
set -eu
cd -- "$(dirname -- "$0")/.."

wanted=scripts/peers/requirements.txt
if cmp -s "$wanted" .peers/requirements.txt; then
    exit 0
fi
echo "install_peers: getting the packages of $wanted" >&2
[ -x .peers/bin/python ] || python3 -m venv .peers
.peers/bin/python -m pip install --quiet --disable-pip-version-check -r "$wanted"
cp "$wanted" .peers/requirements.txt
echo "install_peers: .peers/ is ready" >&2

#!/bin/sh
# Creates the virtual environment .peers/ with the packages lookbook is benchmarked against (a download of about 3 GB), or
# updates it if the requirements have changed; otherwise does nothing. torch.compile also needs a C++ compiler and the Python
# headers.
set -eu
cd -- "$(dirname -- "$0")/.."

wanted=scripts/peers/requirements.txt
if cmp -s "$wanted" .peers/requirements.txt; then
    exit 0
fi
echo "install_peers: installing the packages in $wanted" >&2
[ -x .peers/bin/python ] || python3 -m venv .peers
.peers/bin/python -m pip install --quiet --disable-pip-version-check -r "$wanted"
cp "$wanted" .peers/requirements.txt
echo "install_peers: .peers/ is ready" >&2

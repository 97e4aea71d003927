#!/bin/sh
# Creates the virtual environment .parsers/ with the packages that export parsers (a download of about 3 GB), or updates it if
# the requirements have changed; otherwise does nothing.
set -eu
cd -- "$(dirname -- "$0")/.."

wanted=scripts/parsers/requirements.txt
if cmp -s "$wanted" .parsers/requirements.txt; then
    exit 0
fi
echo "install_parsers: installing the packages in $wanted" >&2
[ -x .parsers/bin/python ] || python3 -m venv .parsers
.parsers/bin/python -m pip install --quiet --disable-pip-version-check -r "$wanted"
cp "$wanted" .parsers/requirements.txt
echo "install_parsers: .parsers/ is ready" >&2

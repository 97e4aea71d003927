#!/bin/sh
# Installs the Python packages that the tests need into .python/ (with pip only: no virtual environment, and the system's
# packages are not touched). Does nothing if the current requirements are installed already.
set -eu
cd -- "$(dirname -- "$0")/.."

wanted=scripts/test_requirements.txt
if cmp -s "$wanted" .python/requirements.txt; then
    exit 0
fi
rm -rf .python
python3 -m pip install --quiet --disable-pip-version-check --target .python -r "$wanted"
cp "$wanted" .python/requirements.txt
echo "install_python_packages: .python/ is ready" >&2

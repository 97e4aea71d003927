#!/bin/sh
# Puts the Python packages that the tests need into .python/ (pip alone: no virtual environment, nothing of the system's
# is touched); does nothing where they are there for these requirements.
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

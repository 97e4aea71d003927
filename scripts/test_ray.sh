#!/bin/sh
# Runs shards on a real Ray cluster of three nodes on this machine, one of which is killed: test_ray.sh PROGRAM. Ray is installed
# into .ray/ (a separate virtual environment, recreated only if the pinned versions change).
set -eu
program=$(realpath -- "$1")
cd -- "$(dirname -- "$0")/.."
scripts/install_environment.sh store

wanted=pipelines/ray/requirements.txt
if ! cmp -s "$wanted" .ray/requirements.txt; then
    rm -rf .ray
    python3 -m venv .ray
    echo "test_ray: installing Ray into .ray/" >&2
    .ray/bin/python -m pip install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" .ray/requirements.txt
fi

LOOKBOOK_PROGRAM=$program exec .ray/bin/python pipelines/ray/test_lookbook_ray.py

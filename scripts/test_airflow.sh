#!/bin/sh
# Runs the actual Airflow DAG on a small sample: test_airflow.sh PROGRAM. Airflow is installed into .airflow/ (a separate
# virtual environment, recreated only if the pinned versions change); its database and logs go into a temporary folder.
set -eu
program=$(realpath -- "$1")
cd -- "$(dirname -- "$0")/.."
scripts/install_environment.sh store

wanted=pipelines/airflow/requirements.txt
if ! cmp -s "$wanted" .airflow/requirements.txt; then
    rm -rf .airflow
    python3 -m venv .airflow
    echo "test_airflow: installing Airflow into .airflow/" >&2
    .airflow/bin/python -m pip install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" .airflow/requirements.txt
fi

LOOKBOOK_PROGRAM=$program exec .airflow/bin/python pipelines/airflow/test_lookbook_nightly.py

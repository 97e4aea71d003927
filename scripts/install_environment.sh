#!/bin/sh
# Creates the virtual environment .NAME/ with the packages of scripts/NAME/requirements.txt or pipelines/NAME/requirements.txt, or
# updates it if they have changed; otherwise does nothing. install_environment.sh NAME, of:
#   airflow   Airflow, for its DAG's test (800 MB)
#   duplicates  what `lookbook duplicates` is benchmarked against (imagededup needs PyTorch: a download of about 3 GB)
#   outfits   what `recommend --interactions` is compared with (300 MB)
#   parsers   what exports third-party networks (about 3 GB)
#   peers     what lookbook is benchmarked against (a download of about 3 GB); torch.compile also needs a C++ compiler and the
#             Python headers
#   ray       Ray, for its script's test (300 MB)
#   store     an S3 server and a reader of Delta tables, for tests (500 MB)
#   stores    a client of Azure's store, for tests (30 MB); install_stores.sh gets the servers
#   wheel     what builds and tries the wheel (500 MB)
set -eu
cd -- "$(dirname -- "$0")/.."

name=$1
wanted=scripts/$name/requirements.txt
[ -e "$wanted" ] || wanted=pipelines/$name/requirements.txt
if cmp -s "$wanted" ".$name/requirements.txt"; then
    exit 0
fi
echo "install_environment: installing the packages in $wanted" >&2
[ -x ".$name/bin/python" ] || python3 -m venv ".$name"
".$name/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted"
cp "$wanted" ".$name/requirements.txt"
echo "install_environment: .$name/ is ready" >&2

#!/bin/sh
# Gets stores that their own people keep, for `make test-store`, into .stores/: Azurite (needs npm), a second S3 server that checks
# signatures (s3s-fs, built by cargo), and a client of Azure's. Does nothing for those that are there.
set -eu
cd -- "$(dirname -- "$0")/.."

S3S_FS=0.14.1
AZURITE=3.37.0

scripts/install_environment.sh stores
if [ ! -x .stores/bin/s3s-fs ]; then
    echo "install_stores: building s3s-fs $S3S_FS" >&2
    # With the lock file of that version, and apart from the program's own artefacts.
    CARGO_TARGET_DIR=.stores/target cargo install --quiet --debug --locked --features binary --root .stores "s3s-fs@$S3S_FS"
    rm -rf .stores/target
fi
if [ ! -x .stores/node_modules/.bin/azurite-blob ]; then
    if ! command -v npm >/dev/null 2>&1; then
        echo "install_stores: there is no npm, so Azurite is left out (Debian, Ubuntu: apt install npm)" >&2
        exit 0
    fi
    echo "install_stores: installing Azurite $AZURITE" >&2
    npm install --silent --no-fund --no-audit --prefix .stores "azurite@$AZURITE"
fi

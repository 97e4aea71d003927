#!/bin/sh
# Measures lookbook beside its peers: bench_peers.sh [SECTION ...]; markdown tables to stdout. Leave the machine alone
# meanwhile. The sections are those of scripts/peers/bench.py.
set -eu
cd -- "$(dirname -- "$0")/.."

scripts/install_onnxruntime.sh
scripts/install_peers.sh
"${CARGO:-cargo}" build --release --locked --bin lookbook --example bench_worker --example similarity_worker
exec .peers/bin/python scripts/peers/bench.py "$@"

#!/bin/sh
# Benchmarks lookbook against its peers: bench_peers.sh [SECTION ...]; prints Markdown tables to stdout. Leave the machine
# idle otherwise. For the sections see scripts/peers/bench.py.
set -eu
cd -- "$(dirname -- "$0")/.."

scripts/install_onnxruntime.sh
scripts/install_environment.sh peers
"${CARGO:-cargo}" build --release --locked --bin lookbook --example bench_worker --example similarity_worker
RUSTFLAGS="-C target-cpu=native" "${CARGO:-cargo}" build --release --locked \
    --manifest-path scripts/peers/rust/Cargo.toml --target-dir .peers/rust
exec .peers/bin/python scripts/peers/bench.py "$@"

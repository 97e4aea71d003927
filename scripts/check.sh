#!/bin/sh
# Runs all checks, cheapest first, and stops at the first failure. Needs Rust, a C compiler and Python 3 with pip;
# installs the rest on Debian and Ubuntu.
# Uses one profile (release) throughout, so that the dependencies are compiled only once.
set -eu
cd -- "$(dirname -- "$0")/.."

step() {
    echo "check: $*" >&2
    "$@"
}

step cargo fmt --check
step scripts/install_build_tools.sh
step cargo clippy --release --locked --all-targets -- -D warnings
# As on a processor other than x86-64.
step cargo clippy --release --locked --features portable -- -D warnings
step scripts/install_onnxruntime.sh
step scripts/install_python_packages.sh
step scripts/install_test_tools.sh
step cargo test --release --locked
step scripts/check_memory.sh
step env RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps
echo "check: all checks passed" >&2

#!/bin/sh
# All checks, the cheapest first; stops at the first that fails. Needs Rust, a C compiler and Python 3 with pip.
# One profile (release) throughout: the dependencies are compiled once.
set -eu
cd -- "$(dirname -- "$0")/.."

step() {
    echo "check: $*" >&2
    "$@"
}

step cargo fmt --check
step cargo clippy --release --locked --all-targets -- -D warnings
# As on a processor that is no x86-64.
step cargo clippy --release --locked --features portable -- -D warnings
step scripts/install_onnxruntime.sh
step scripts/install_python_packages.sh
step scripts/install_test_tools.sh
step cargo test --release --locked
step scripts/check_memory.sh
step env RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps
echo "check: all is well" >&2

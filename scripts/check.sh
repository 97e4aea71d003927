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
step scripts/install_encoder.sh
step scripts/install_python_packages.sh
step scripts/install_test_tools.sh
step scripts/install_environment.sh store
LOOKBOOK_SKIPPED=$(mktemp)
export LOOKBOOK_SKIPPED
trap 'rm -f "$LOOKBOOK_SKIPPED"' EXIT
# Overflow checks for our own code in the tests only: the program that is shipped does not pay for them, and the
# dependencies are not compiled again.
step cargo test --release --locked --config profile.release.package.lookbook.overflow-checks=true
step scripts/check_memory.sh
step env RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps
# By test: one may be skipped for more than one reason, and say so more than once.
skipped=$(sed 's/: .*//' "$LOOKBOOK_SKIPPED" | sort -u | wc -l)
echo "check: $skipped tests were skipped, at least in part (counted as passed above)" >&2
sort -u "$LOOKBOOK_SKIPPED" >&2
echo "check: all checks passed" >&2

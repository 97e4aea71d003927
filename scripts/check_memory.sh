#!/bin/sh
# Runs the native operators' tests under valgrind, to find reads and writes out of bounds. valgrind supports AVX2 at most and
# reports that to the program, so the AVX-512 kernels do not run here: the ordinary tests check those with guard pages
# (ops/tests/kernels/bounds.rs). Uses of uninitialised values are not reported: optimised iterators compare such values when the
# outcome does not matter.
set -eu
cd -- "$(dirname -- "$0")/.."

if ! command -v valgrind >/dev/null 2>&1; then
    echo "check_memory: SKIPPED: valgrind is not installed (Debian, Ubuntu: apt install valgrind)" >&2
    exit 0
fi
runner='["valgrind", "--quiet", "--error-exitcode=1", "--leak-check=no", "--undef-value-errors=no"]'
"${CARGO:-cargo}" test --release --locked --test kernels --config "target.'cfg(unix)'.runner = $runner"

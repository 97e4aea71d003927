#!/bin/sh
# The native operators' tests under valgrind: reads and writes out of bounds. valgrind knows AVX2 and no more, and says so to
# the program, so the AVX-512 forms do not run here: guard pages check those (src/ops/bounds.rs) in the plain tests. Values
# that nobody wrote are left out: optimised iterators compare such a value where its outcome does not matter.
set -eu
cd -- "$(dirname -- "$0")/.."

if ! command -v valgrind >/dev/null 2>&1; then
    echo "check_memory: SKIPPED: there is no valgrind (Debian, Ubuntu: apt install valgrind)" >&2
    exit 0
fi
runner='["valgrind", "--quiet", "--error-exitcode=1", "--leak-check=no", "--undef-value-errors=no"]'
"${CARGO:-cargo}" test --release --locked --lib --config "target.'cfg(unix)'.runner = $runner" ops::

#!/bin/sh
# The native operators' tests under valgrind: reads and writes out of bounds and of memory that nobody wrote. valgrind knows
# AVX2 and says so to the program, so the AVX-512 forms are not run here; guard pages check those in the plain tests.
set -eu
cd -- "$(dirname -- "$0")/.."

if ! command -v valgrind >/dev/null 2>&1; then
    echo "check_memory: SKIPPED: there is no valgrind (Debian, Ubuntu: apt install valgrind)" >&2
    exit 0
fi
runner='["valgrind", "--quiet", "--error-exitcode=1", "--leak-check=no"]'
"${CARGO:-cargo}" test --release --locked --lib --config "target.'cfg(unix)'.runner = $runner" ops::

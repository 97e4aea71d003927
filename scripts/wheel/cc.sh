#!/bin/sh
# The linker of the wheel's program: Zig's, for the C library of manylinux_2_28 (glibc 2.28), whichever the build machine has. What
# cargo compiled is linked as it is: Rust's library needs glibc 2.17 alone, and the C code that the crates bring calls nothing newer
# that is not linked in here.
tools=$(CDPATH='' cd -- "$(dirname -- "$0")/../../.wheel/bin" && pwd)
PATH=$tools:$PATH exec "$tools/maturin" zig cc -- -target "$(uname -m)-linux-gnu.2.28" "$@"

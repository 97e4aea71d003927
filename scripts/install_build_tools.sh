#!/bin/sh
# Installs what the build needs besides Rust and a C compiler, on Debian or Ubuntu: CMake, which builds libjpeg-turbo, and NASM,
# without which it decodes at half the speed on x86. Does nothing if both are installed. Without root or apt it says what is
# missing, and fails if that is CMake.
set -eu

missing=
for tool in cmake nasm; do
    command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "install_build_tools: installing$missing" >&2
    # shellcheck disable=SC2086
    { apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } >/dev/null ||
        echo "install_build_tools: apt-get could not install$missing (its message is above)" >&2
else
    echo "install_build_tools: missing:$missing; install them (Debian, Ubuntu: apt install$missing)" >&2
fi
command -v cmake >/dev/null 2>&1

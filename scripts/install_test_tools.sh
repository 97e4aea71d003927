#!/bin/sh
# Puts onto a Debian or Ubuntu machine what some tests need: Chromium and its driver (the report is opened in a browser) and
# strace (faults are injected into file system calls). Does nothing if all are there. Without root or apt it says what is
# missing and ends well: the tests that need it then say that they were skipped.
set -eu

missing=
for tool in chromium chromedriver strace; do
    command -v "$tool" >/dev/null 2>&1 && continue
    case $tool in
        chromedriver) missing="$missing chromium-driver" ;;
        *) missing="$missing $tool" ;;
    esac
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "install_test_tools: missing:$missing; install them (Debian: apt install$missing)" >&2
    exit 0
fi
echo "install_test_tools: getting$missing" >&2
# shellcheck disable=SC2086
{ apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } >/dev/null ||
    echo "install_test_tools: apt-get could not get$missing (its message is above); the tests that need them are skipped" >&2

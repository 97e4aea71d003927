#!/bin/sh
# install_test_tools.sh [TOOL...]
# Installs what some tests need on Debian or Ubuntu, unless others are named: Chromium and its driver (to open the report in a
# browser) and strace (to inject faults into file system calls). Does nothing if all are installed. Without root or apt it reports what is missing
# and exits successfully: the tests that need it then report that they were skipped.
set -eu

missing=
for tool in ${*:-chromium chromedriver strace}; do
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
echo "install_test_tools: installing$missing" >&2
# shellcheck disable=SC2086
{ apt-get update -q && apt-get install -y -q --no-install-recommends $missing; } >/dev/null ||
    echo "install_test_tools: apt-get could not install$missing (its message is above); the tests that need them are skipped" >&2

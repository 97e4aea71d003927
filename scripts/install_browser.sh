#!/bin/sh
# Puts Chromium and its driver onto a Debian or Ubuntu machine, for the test that opens the report; does nothing where both
# are there. Without root or apt it says what is missing and ends well: the test then says that it was skipped.
set -eu

if command -v chromium >/dev/null 2>&1 && command -v chromedriver >/dev/null 2>&1; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "install_browser: there is no chromium with chromedriver; install both (Debian: apt install chromium chromium-driver)" >&2
    exit 0
fi
echo "install_browser: getting chromium and chromium-driver" >&2
{ apt-get update -q && apt-get install -y -q --no-install-recommends chromium chromium-driver; } >/dev/null ||
    echo "install_browser: apt-get could not get them (its message is above); the report is not tested in a browser" >&2

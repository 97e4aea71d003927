#!/bin/sh
# Times every stage on the sample, from scratch, in a temporary folder: bench.sh PROGRAM SETTINGS
set -eu

place=$(mktemp -d)
trap 'rm -rf -- "$place"' EXIT
trap 'exit 130' INT TERM

make --no-print-directory all OUTPUT="$place/output" CONFIG="$2" DATA= >&2
echo "$(date +%Y-%m-%d) $(uname -n) $(uname -m) $(getconf _NPROCESSORS_ONLN) processors, $("$1" --version), $2"
for stage in sample dataset model features similarity report; do
    printf '%-12s %8.1f s\n' "$stage" \
        "$(sed -n 's/^  "elapsed_secs": \([0-9.]*\),$/\1/p' "$place/output/$stage/run.json")"
done

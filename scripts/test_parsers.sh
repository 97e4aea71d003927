#!/bin/sh
# Exports the networks of docs/parsers.md, untrained, and compares `lookbook parser check` with the programs that they come from.
# PYTHON names another Python than that of .parsers/.
set -eu
lookbook=$1
cd -- "$(dirname -- "$0")/.."

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
photo=${2:-}
if [ -z "$photo" ]; then
    "$lookbook" sample --photos 1 --output "$place/sample" > "$place/sample.txt"
    photo=$(ls "$place"/sample/image/* | head -n 1)
fi
"${PYTHON:-.parsers/bin/python}" scripts/parsers/export.py "$place" "$photo"
count=0
for folder in "$place"/parsers/*; do
    "$lookbook" parser check "$folder" --photo "$place/photo.png" --expect "$folder/expected.png" --log-format json > "$folder/report.json"
    "${PYTHON:-.parsers/bin/python}" scripts/parsers/judge.py "$folder"
    count=$((count + 1))
done
[ "$count" -ge 4 ] || { echo "test_parsers: only $count parsers were exported" >&2; exit 1; }
echo "test_parsers: $count parsers label the photo as the programs do that they come from" >&2

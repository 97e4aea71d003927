#!/bin/sh
# Exports the networks of docs/parsers.md, untrained, and compares `lookbook parser check` and the embeddings of `lookbook
# segment` with the programs that they come from: test_parsers.sh LOOKBOOK [PHOTOS]. PHOTOS is a folder; without it real photos
# of the shared data, or else drawn ones. PYTHON names another Python than that of .parsers/.
set -eu
lookbook=$1
cd -- "$(dirname -- "$0")/.."

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
photos=${2:-${LOOKBOOK_SHARED:-../shared}/data/ccp/photos}
if [ ! -d "$photos" ]; then
    echo "test_parsers: there is no $photos; photos are drawn" >&2
    "$lookbook" sample --photos 8 --output "$place/sample" > "$place/sample.txt"
    photos=$place/sample/image
fi
mkdir "$place/photos"
find "$photos" -type f | sort | head -n 8 | while read -r photo; do cp "$photo" "$place/photos/"; done

"${PYTHON:-.parsers/bin/python}" scripts/parsers/export.py "$place"
count=0
for folder in "$place"/parsers/*; do
    "$lookbook" parser check "$folder" --photo "$place/photo.png" --expect "$folder/expected.png" --log-format json > "$folder/report.json"
    "${PYTHON:-.parsers/bin/python}" scripts/parsers/judge.py "$folder"
    count=$((count + 1))
done
[ "$count" -ge 4 ] || { echo "test_parsers: only $count parsers were exported" >&2; exit 1; }
echo "test_parsers: $count parsers label the photo as the programs do that they come from" >&2
count=0
for folder in "$place"/embedders/*; do
    "$lookbook" parser check "$folder" --photo "$place/photo.png"
    "$lookbook" segment --catalogue "$place/photos" --model "$place/parsers/yolo-modanet" --embedder "$folder" --output "$place/features"
    "${PYTHON:-.parsers/bin/python}" scripts/parsers/judge_embeddings.py "$folder" "$place/features"
    count=$((count + 1))
done
[ "$count" -ge 1 ] || { echo "test_parsers: no embedder was exported" >&2; exit 1; }
echo "test_parsers: $count embedders give the embeddings that the programs give that they come from" >&2

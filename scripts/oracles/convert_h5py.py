"""Prints what h5py reads of a source in the CFPD layout, as a JSON object: photo name to a hash of its labels.

    python3 scripts/oracles/convert_h5py.py tests/data/cfpd_small > tests/data/convert_cfpd_small.json
    python3 scripts/oracles/convert_h5py.py ../shared/data/cfpd > tests/data/convert_cfpd.json     (h5py 3, numpy 2)

The hash is the first 16 digits of the SHA-256 of the category of each pixel (u8, 0-based, row by row), then the colour of
each pixel: every label of every photo counts.
"""

import hashlib
import json
import pathlib
import sys

import h5py


def labels(group):
    superpixels = group["segmentation"][:].T.astype("i8")
    for field in ("category_label", "color_label"):
        yield (group[field][0].astype("i8") - 1)[superpixels].astype("u1").tobytes()


def main(folder):
    hashes = {}
    with h5py.File(folder / "fashon_parsing_data.mat") as file:
        for reference in file["fashion_dataset"][:, 0]:
            group = file[reference]
            name = "".join(map(chr, group["img_name"][:, 0]))
            hashes[name] = hashlib.sha256(b"".join(labels(group))).hexdigest()[:16]
    json.dump(hashes, sys.stdout, indent=0)
    print()


main(pathlib.Path(sys.argv[1]))

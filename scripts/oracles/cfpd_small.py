"""Writes tests/data/cfpd_small: a small source in the CFPD layout, made by h5py and Pillow instead of this project.

    python3 scripts/oracles/cfpd_small.py tests/data/cfpd_small     (h5py 3, numpy 2, Pillow 11)

Its labels are noise, in photos of a size of their own, with other numeric types than the original in the last one.
"""

import pathlib
import sys

import h5py
import numpy as np
from PIL import Image

CATEGORIES = ("bk T-shirt bag belt blazer blouse coat dress face hair hat jeans legging pants scarf shoe shorts skin "
              "skirt socks stocking sunglass sweater").split()
COLORS = "bk beige black blue brown gray green orange pink purple red white yellow".split()
HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created by h5py for a test HDF5 schema 1.00 .".ljust(116)
SUPERPIXELS = 425


def text(group, name, value):
    data = group.create_dataset(name, data=np.frombuffer(value.encode("utf-16-le"), "<u2").reshape(-1, 1))
    data.attrs["MATLAB_class"] = np.bytes_("char")
    data.attrs["MATLAB_int_decode"] = np.int32(2)
    return data.ref


def cell(file, name, references, shape):
    data = file.create_dataset(name, shape, dtype=h5py.ref_dtype)
    data[...] = np.array(references, dtype=object).reshape(shape)
    data.attrs["MATLAB_class"] = np.bytes_("cell")


def main(folder):
    random = np.random.default_rng(7)
    (folder / "image").mkdir(parents=True, exist_ok=True)
    path = folder / "fashon_parsing_data.mat"
    with h5py.File(path, "w", userblock_size=512, libver="earliest") as file:
        refs = file.create_group("#refs#")
        categories = [text(refs, f"c{i}", name) for i, name in enumerate(CATEGORIES)]
        colors = [text(refs, f"k{i}", name) for i, name in enumerate(COLORS)]
        photos = []
        for index, (width, height) in enumerate([(40, 60), (40, 60), (53, 31)]):
            name = f"{index + 1:04}.jpg"
            group = refs.create_group(f"p{index}")
            text(group, "img_name", name)
            kinds = ("f8", "f8", "f4") if index < 2 else ("u1", "i2", "f8")
            group["category_label"] = random.integers(1, 24, (1, SUPERPIXELS)).astype(kinds[0])
            group["color_label"] = random.integers(1, 14, (1, SUPERPIXELS)).astype(kinds[1])
            numbers = random.integers(0, SUPERPIXELS, (width, height)).astype(kinds[2])
            storage = {"chunks": (13, 17), "compression": "gzip", "shuffle": True} if index == 1 else {}
            group.create_dataset("segmentation", data=numbers, **storage)
            photos.append(group.ref)
            pixels = random.integers(0, 256, (height, width, 3)).astype("u1")
            Image.fromarray(pixels).save(folder / "image" / name, quality=60)
        cell(file, "all_category_name", categories, (1, len(categories)))
        cell(file, "all_colors_name", colors, (1, len(colors)))
        cell(file, "fashion_dataset", photos, (len(photos), 1))
    with path.open("r+b") as file:
        file.write(HEADER + bytes(8) + b"\0\2IM")


main(pathlib.Path(sys.argv[1]))

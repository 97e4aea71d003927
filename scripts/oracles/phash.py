"""Makes tests/data/phash.json: hashes of pictures made by a formula, by imagehash.

Run with imagehash 4.3 and pillow: python scripts/oracles/phash.py
"""

import json
import pathlib

import imagehash
import numpy
from PIL import Image

FILE = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "phash.json"
PICTURES = 8


def picture(number, width, height):
    """Rings and stripes, `[height, width]`; the formula is also in src/photo/hashes.rs."""
    y, x = numpy.mgrid[:height, :width]
    x, y = x * 32 // width, y * 32 // height
    return ((x * x * (number + 1) + 3 * y * y + 5 * x * y + 7 * number) // 4 % 256).astype(numpy.uint8)


def phash(pixels):
    return str(imagehash.phash(Image.fromarray(pixels)))


made = {
    "of_32_x_32": [phash(picture(number, 32, 32)) for number in range(PICTURES)],
    "of_200_x_300": [phash(picture(number, 200, 300)) for number in range(PICTURES)],
}
FILE.write_text(json.dumps(made, indent=1) + "\n")

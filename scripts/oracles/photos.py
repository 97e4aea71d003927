"""Makes tests/data/photos: small photos in every encoding that the strict decoder must take, and Pillow's reading of them;
in tests/data/photos/bad files that it must refuse, each with the reason.

Run with Pillow 12 and numpy 2: python scripts/oracles/photos.py
"""

import json
import pathlib
import struct
import zlib

import numpy
from PIL import Image, ImageOps

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "photos"
WIDTH, HEIGHT = 45, 37


def picture():
    """Four quadrants, each of a colour of its own with a gentle slope and some grain."""
    random = numpy.random.default_rng(0)
    y, x = numpy.mgrid[0:HEIGHT, 0:WIDTH]
    colors = numpy.array([[200, 40, 40], [40, 160, 60], [50, 70, 190], [230, 220, 120]])
    rgb = colors[(y * 2 // HEIGHT) * 2 + x * 2 // WIDTH] + (x[..., None] - WIDTH / 2) * 0.5
    rgb = rgb + random.normal(0, 4, rgb.shape)
    return Image.fromarray(numpy.clip(rgb, 0, 255).astype(numpy.uint8))


def quadrant_means(image):
    """Mean RGB of the inside of the four quadrants, left to right, top to bottom."""
    rgb = numpy.asarray(image.convert("RGB")).astype(float)
    rows, columns = (slice(2, HEIGHT // 2 - 2), slice(HEIGHT // 2 + 3, HEIGHT - 2)), (
        slice(2, WIDTH // 2 - 2),
        slice(WIDTH // 2 + 3, WIDTH - 2),
    )
    return [[round(v, 2) for v in rgb[r, c].mean(axis=(0, 1))] for r in rows for c in columns]


def over_white(image):
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def turned(image, orientation):
    """What a camera stores under an EXIF orientation, so that turning it as told gives `image`, and the tag."""
    turns = Image.Transpose
    back = {
        1: None,
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_90,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return image.transpose(back) if back is not None else image, exif


def defects():
    """Bad files: name, content, reason."""

    def good(name):
        return (FOLDER / name).read_bytes()

    bomb = bytearray(good("sixteen_bit.png"))
    bomb[16:24] = (60_000).to_bytes(4) * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4)
    baseline = good("baseline_420.jpg")
    return [
        ("empty.jpg", b"", "photo_empty"),
        ("page.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "photo_undecodable"),
        ("picture.gif", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "photo_undecodable"),
        ("zeros.jpg", bytes(4096), "photo_undecodable"),
        ("cut_baseline.jpg", baseline[:-200], "photo_truncated"),
        ("cut_and_closed.jpg", baseline[:-200] + b"\xff\xd9", "photo_truncated"),
        ("cut_progressive.jpg", good("progressive_422.jpg")[:-100], "photo_truncated"),
        ("cut.png", good("alpha.png")[:-30], "photo_truncated"),
        ("cut.webp", good("lossy.webp")[:-30], "photo_truncated"),
        ("bomb.png", bytes(bomb), "photo_too_large"),
    ]


def sixteen_bit(image):
    """A 16-bit RGB PNG, written by hand: Pillow does not write them."""
    rgb = numpy.asarray(image).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in rgb)

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    rgb = picture()
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(numpy.tile(numpy.linspace(0, 255, WIDTH).astype(numpy.uint8), (HEIGHT, 1))))
    made = {
        "baseline_420.jpg": (rgb, dict(quality=90, subsampling="4:2:0")),
        "baseline_444.jpg": (rgb, dict(quality=90, subsampling="4:4:4")),
        "progressive_420.jpg": (rgb, dict(quality=90, subsampling="4:2:0", progressive=True)),
        "progressive_422.jpg": (rgb, dict(quality=70, subsampling="4:2:2", progressive=True, optimize=True)),
        "restarts.jpg": (rgb, dict(quality=85, restart_marker_blocks=2)),
        "grey.jpg": (rgb.convert("L"), dict(quality=90)),
        "grey_progressive.jpg": (rgb.convert("L"), dict(quality=90, progressive=True)),
        "cmyk.jpg": (rgb.convert("CMYK"), dict(quality=95)),
        "png_named.jpg": (rgb, dict(format="PNG")),
        "alpha.png": (alpha, {}),
        "grey.png": (rgb.convert("L"), {}),
        "palette.png": (rgb.quantize(32), {}),
        "lossy.webp": (rgb, dict(quality=90)),
        "lossless_alpha.webp": (alpha, dict(lossless=True, exact=True)),
    }
    expected = {}
    for name, (image, options) in made.items():
        image.save(FOLDER / name, **options)
        expected[name] = quadrant_means(over_white(Image.open(FOLDER / name)))
    (FOLDER / "sixteen_bit.png").write_bytes(sixteen_bit(rgb))
    expected["sixteen_bit.png"] = quadrant_means(rgb)
    for orientation in range(1, 9):
        name = f"orientation_{orientation}.jpg"
        stored, exif = turned(rgb, orientation)
        stored.save(FOLDER / name, quality=90, exif=exif)
        expected[name] = quadrant_means(ImageOps.exif_transpose(Image.open(FOLDER / name)))
    (FOLDER / "bad").mkdir(exist_ok=True)
    reasons = {}
    for name, content, reason in defects():
        (FOLDER / "bad" / name).write_bytes(content)
        reasons[name] = reason
    found = {"width_px": WIDTH, "height_px": HEIGHT, "quadrant_means": expected, "reasons": reasons}
    text = json.dumps(found, indent=1)
    (FOLDER / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

"""Writes photos that tell their orientation in every way into a folder, and beside each what Pillow makes of it.

    python scripts/oracles/orientation_grid.py FOLDER

NAME.jpg, .png or .webp, and NAME.ppm: as ImageOps.exif_transpose turns it. Needs Pillow.
"""

import io
import pathlib
import struct
import sys
import zlib

from PIL import Image, ImageOps

# TIFF types by name: number, and the format of a value.
TYPES = {"BYTE": (1, "B"), "SHORT": (3, "H"), "LONG": (4, "L"), "SSHORT": (8, "h"), "SLONG": (9, "l"), "IFD": (13, "L")}


def tiff(order, kind, values):
    """TIFF data with an orientation and a tag on either side of it."""
    number, code = TYPES[kind]
    value = struct.pack(order + code * len(values), *values)
    place, rest = value.ljust(4, b"\0"), b""
    if len(value) > 4:
        place, rest = struct.pack(order + "L", 8 + 2 + 3 * 12 + 4), value
    entries = struct.pack(order + "HHL4s", 0x010F, 2, 4, b"abc\0")
    entries += struct.pack(order + "HHL4s", 0x0112, number, len(values), place)
    entries += struct.pack(order + "HHL4s", 0x0128, 3, 1, struct.pack(order + "HH", 2, 0))
    start = b"II*\0" if order == "<" else b"MM\0*"
    return start + struct.pack(order + "LH", 8, 3) + entries + bytes(4) + rest


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def jpegs(image, data):
    plain = encoded(image, "JPEG", quality=95)

    def with_segments(*contents):
        segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(it) + 2) + it for it in contents)
        return plain[:2] + segments + plain[2:]

    yield "app1.jpg", with_segments(b"Exif\0\0" + data)
    yield "two_app1.jpg", with_segments(b"Exif\0\0" + data[:20], b"http://ns.adobe.com/xap/1.0/\0<x/>", b"Exif\0\0" + data[20:])
    yield "two_prefixes.jpg", with_segments(b"Exif\0\0Exif\0\0" + data)
    yield "no_prefix.jpg", with_segments(data)


def pngs(image, data):
    plain = encoded(image, "PNG")
    first, last = plain.index(b"IDAT") - 4, plain.index(b"IEND") - 4

    def with_chunk(at, kind, content):
        chunk = struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))
        return plain[:at] + chunk + plain[at:]

    digits = (b"Exif\0\0" + data).hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    text = f"\nexif\n{len(data) + 6:8}\n{lines}\n".encode()
    key = b"Raw profile type exif\0"
    yield "exif_chunk.png", with_chunk(first, b"eXIf", data)
    yield "exif_chunk_behind.png", with_chunk(last, b"eXIf", data)
    yield "profile_ztxt.png", with_chunk(first, b"zTXt", key + b"\0" + zlib.compress(text))
    yield "profile_text.png", with_chunk(first, b"tEXt", key + text)
    yield "profile_itxt.png", with_chunk(first, b"iTXt", key + b"\0\0\0\0" + text)
    yield "profile_itxt_packed.png", with_chunk(last, b"iTXt", key + b"\1\0en\0name\0" + zlib.compress(text))


def webps(image, data):
    def with_exif(content):
        return encoded(image, "WEBP", lossless=True, exif=content)

    yield "plain.webp", with_exif(data)
    prefixed = with_exif(b"Exif\0\0" + data)
    if b"EXIF" + struct.pack("<L", len(data) + 6) not in prefixed:
        # Pillow strips the prefix: put it back.
        at = prefixed.index(b"EXIF")
        content = b"Exif\0\0" + data
        chunk = b"EXIF" + struct.pack("<L", len(content)) + content + bytes(len(content) % 2)
        body = prefixed[8:at] + chunk
        prefixed = b"RIFF" + struct.pack("<L", len(body)) + body
    yield "prefixed.webp", prefixed
    unannounced = bytearray(prefixed)
    unannounced[unannounced.index(b"VP8X") + 8] &= ~0x08
    yield "unannounced.webp", bytes(unannounced)


def main():
    folder = pathlib.Path(sys.argv[1])
    image = Image.new("RGB", (24, 16))
    for place, color in zip([(0, 0), (12, 0), (0, 8), (12, 8)], ["#c81e1e", "#1eb428", "#1e32d2", "#f0e63c"]):
        image.paste(Image.new("RGB", (12, 8), color), place)
    cases = [(order, kind, [it]) for order in "<>" for kind in TYPES for it in range(10)]
    cases += [(order, kind, [6, 3, 1]) for order in "<>" for kind in TYPES]
    for order, kind, values in cases:
        data = tiff(order, kind, values)
        endian = "little" if order == "<" else "big"
        for maker in (jpegs, pngs, webps):
            for name, content in maker(image, data):
                path = folder / f"{endian}_{kind}_{'_'.join(map(str, values))}_{name}"
                path.write_bytes(content)
                ImageOps.exif_transpose(Image.open(path)).convert("RGB").save(path.with_name(path.name + ".ppm"))


if __name__ == "__main__":
    main()

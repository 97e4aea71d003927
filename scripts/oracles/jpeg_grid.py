"""Writes JPEG files of every kind into a folder, and beside each what libjpeg-turbo (in Pillow) makes of it.

    python scripts/oracles/jpeg_grid.py FOLDER

NAME.jpg, NAME.rgb (height x width x 3 bytes, as Pillow converts it to RGB), and NAME.half.rgb if both sides are even: decoded
at half its size. The files differ in sampling, scan order, colour markers, component ids, restart interval, Huffman tables
and size; their coefficients are drawn at random and written by the encoder below (ITU-T T.81), because no encoder writes all
of these. Needs Pillow and numpy.
"""

import io
import itertools
import pathlib
import struct
import sys

import numpy
from PIL import Image

SAMPLINGS = {
    "444": [(1, 1), (1, 1), (1, 1)],
    "422": [(2, 1), (1, 1), (1, 1)],
    "420": [(2, 2), (1, 1), (1, 1)],
    "440": [(1, 2), (1, 1), (1, 1)],
    "411": [(4, 1), (1, 1), (1, 1)],
    "410": [(4, 2), (1, 1), (1, 1)],
    "441": [(1, 4), (1, 1), (1, 1)],
    "mixed": [(2, 2), (2, 1), (1, 2)],
    "all_2x1": [(2, 1), (2, 1), (2, 1)],
}
# Components of each scan.
ORDERS = {
    "together": [[0, 1, 2]],
    "apart": [[0], [1], [2]],
    "backwards": [[2], [1], [0]],
    "y_then_chroma": [[0], [1, 2]],
}
MARKERS = ["none", "jfif", "adobe0", "adobe1", "jfif_adobe0", "jfif_adobe1", "adobe7"]
IDS = {"123": [1, 2, 3], "RGB": [82, 71, 66], "012": [0, 1, 2]}
SIZES = [(45, 37), (64, 48), (17, 19), (8, 8), (1, 1), (130, 6)]
RESTARTS = [0, 1, 3]
QUANTUM = 12

ZIGZAG = sorted(range(64), key=lambda it: (it // 8 + it % 8, it // 8 if (it // 8 + it % 8) % 2 else it % 8))
# The tables of annex K.3: counts of codes by length, symbols.
DC_TABLES = [
    (bytes([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]), bytes(range(12))),
    (bytes([0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]), bytes(range(12))),
]


def ac_tables():
    """The AC tables of annex K.3, taken from a file by libjpeg-turbo."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    data, at, tables = file.getvalue(), 2, {}
    while data[at + 1] != 0xDA:
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        segment = data[at + 4 : at + 2 + length]
        while data[at + 1] == 0xC4 and segment:
            total = sum(segment[1:17])
            tables[segment[0]] = (segment[1:17], segment[17 : 17 + total])
            segment = segment[17 + total :]
        at += 2 + length
    return [tables[0x10], tables[0x11]]


AC_TABLES = ac_tables()


def codes(table):
    """Code and length of each symbol (annex C)."""
    counts, symbols = table
    found, code, place = {}, 0, 0
    for length, count in enumerate(counts, 1):
        for symbol in symbols[place : place + count]:
            found[symbol] = (code, length)
            code += 1
        place += count
        code <<= 1
    return found


DC_CODES, AC_CODES = [codes(it) for it in DC_TABLES], [codes(it) for it in AC_TABLES]


class Bits:
    """Entropy-coded data."""

    def __init__(self):
        self.data, self.bits = bytearray(), ""

    def put(self, value, length):
        if length:
            self.bits += format(value, f"0{length}b")

    def number(self, value, size):
        self.put(value if value >= 0 else value + (1 << size) - 1, size)

    def align(self):
        bits = self.bits + "1" * (-len(self.bits) % 8)
        for byte in (int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)):
            self.data += bytes([byte, 0] if byte == 0xFF else [byte])
        self.bits = ""

    def restart(self, number):
        self.align()
        self.data += bytes([0xFF, 0xD0 + number % 8])


def put_ac(bits, block, table, first, last):
    zeros = 0
    for value in block[first : last + 1]:
        if value == 0:
            zeros += 1
            continue
        for _ in range(zeros // 16):
            bits.put(*table[0xF0])
        size = int(abs(value)).bit_length()
        bits.put(*table[zeros % 16 << 4 | size])
        bits.number(int(value), size)
        zeros = 0
    if zeros:
        bits.put(*table[0])


class Picture:
    """Random coefficients of a picture."""

    def __init__(self, random, size, sampling):
        self.size, self.sampling = size, sampling
        self.most = (max(h for h, _ in sampling), max(v for _, v in sampling))
        self.units = tuple(-(-side // (8 * most)) for side, most in zip(size, self.most))
        self.blocks = []
        for h, v in sampling:
            rows, columns = self.units[1] * v, self.units[0] * h
            blocks = numpy.zeros((rows, columns, 64), int)
            blocks[..., 0] = random.integers(-60, 61, (rows, columns))
            strength = 8 / numpy.arange(1, 16)
            blocks[..., 1:16] = numpy.round(random.normal(0, 1, (rows, columns, 15)) * strength)
            blocks[..., 40] = random.integers(-1, 2, (rows, columns))
            self.blocks.append(blocks)

    def scan(self, members, restart, first, last):
        """The data of one scan (A.2): coefficients `first` to `last` of the components `members`."""
        bits, before = Bits(), [0] * len(self.blocks)
        if len(members) == 1:
            h, v = self.sampling[members[0]]
            columns, rows = (-(-side * of // (8 * most)) for side, of, most in zip(self.size, (h, v), self.most))
            units = [[(members[0], row, column)] for row in range(rows) for column in range(columns)]
        else:
            units = [
                [
                    (member, row * self.sampling[member][1] + y, column * self.sampling[member][0] + x)
                    for member in members
                    for y in range(self.sampling[member][1])
                    for x in range(self.sampling[member][0])
                ]
                for row in range(self.units[1])
                for column in range(self.units[0])
            ]
        for number, unit in enumerate(units):
            if restart and number and number % restart == 0:
                bits.restart(number // restart - 1)
                before = [0] * len(self.blocks)
            for member, row, column in unit:
                block = self.blocks[member][row, column]
                if first == 0:
                    difference = int(block[0]) - before[member]
                    before[member] = int(block[0])
                    size = abs(difference).bit_length()
                    bits.put(*DC_CODES[member > 0][size])
                    bits.number(difference, size)
                if last > 0:
                    put_ac(bits, block, AC_CODES[member > 0], max(first, 1), last)
        bits.align()
        return bytes(bits.data)


def segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg(picture, orders, markers, ids, restart, progressive, tables):
    count = len(picture.sampling)
    out = b"\xff\xd8"
    if "jfif" in markers:
        out += segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")
    if "adobe" in markers:
        out += segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([int(markers[-1])]))
    out += segment(0xDB, b"\0" + bytes([QUANTUM] * 64))
    described = b"".join(bytes([ids[it], h << 4 | v, 0]) for it, (h, v) in enumerate(picture.sampling))
    width, height = picture.size
    out += segment(0xC2 if progressive else 0xC0, struct.pack(">BHHB", 8, height, width, count) + described)
    if tables:
        for number in range(2):
            out += segment(0xC4, bytes([number]) + b"".join(DC_TABLES[number]))
            out += segment(0xC4, bytes([0x10 | number]) + b"".join(AC_TABLES[number]))
    if restart:
        out += segment(0xDD, struct.pack(">H", restart))
    passes = [(members, 0, 63) for members in orders]
    if progressive:
        passes = [(members, 0, 0) for members in orders]
        passes += [([it], first, last) for first, last in [(1, 5), (6, 63)] for it in range(count)]
    for members, first, last in passes:
        header = bytes([len(members)]) + b"".join(bytes([ids[it], 0x11 if it else 0]) for it in members)
        out += segment(0xDA, header + bytes([first, last, 0])) + picture.scan(members, restart, first, last)
    return out + b"\xff\xd9"


def grid():
    """Name and content of each file."""
    random = numpy.random.default_rng(14)
    turn = 0
    for sampling, order, markers, ids in itertools.product(SAMPLINGS, ORDERS, MARKERS, IDS):
        # Sizes, restarts, coding and tables take turns of lengths without a common divisor.
        size, restart = SIZES[turn % len(SIZES)], RESTARTS[turn // 7 % len(RESTARTS)]
        progressive, tables = turn % 5 == 4, turn % 11 != 10 or turn % 5 == 4
        picture = Picture(random, size, SAMPLINGS[sampling])
        name = f"{sampling}_{order}_{markers}_{ids}_{size[0]}x{size[1]}_r{restart}"
        name += "_progressive" * progressive + "_no_tables" * (not tables)
        yield name, jpeg(picture, ORDERS[order], markers, IDS[ids], restart, progressive, tables)
        turn += 1
    for count, markers, size in itertools.product([1, 4], MARKERS + ["adobe2"], SIZES):
        for sampling, orders in [([(1, 1)] * count, [list(range(count))]), ([(2, 2)] + [(1, 1)] * (count - 1), None)]:
            orders = orders or [[it] for it in range(count)]
            picture = Picture(random, size, sampling)
            name = f"{count}_components_{sampling[0][0]}x{sampling[0][1]}_{markers}_{size[0]}x{size[1]}"
            yield name, jpeg(picture, orders, markers, [1, 2, 3, 4], 0, False, True)


def main():
    folder = pathlib.Path(sys.argv[1])
    for name, content in grid():
        (folder / f"{name}.jpg").write_bytes(content)
        image = Image.open(io.BytesIO(content))
        (folder / f"{name}.rgb").write_bytes(image.convert("RGB").tobytes())
        width, height = image.size
        if width % 2 == 0 and height % 2 == 0:
            image = Image.open(io.BytesIO(content))
            image.draft(None, (width // 2, height // 2))
            assert image.size == (width // 2, height // 2)
            (folder / f"{name}.half.rgb").write_bytes(image.convert("RGB").tobytes())


if __name__ == "__main__":
    main()

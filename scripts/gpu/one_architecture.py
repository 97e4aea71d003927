"""Empties the code of all GPU architectures but one in a library of CUDA, so that it compresses to a fraction.

For carrying to a machine whose GPU is known, never for users. A library holds "fat binaries": a header (the magic number, u16
version, u16 size of the header, u64 size of what follows) and entries (u16 kind: 2 is machine code; u32 size of the header at
4, u64 size of the code at 8, u32 architecture at 28), as `cuobjdump` lists them.
"""

import collections
import struct

MAGIC = struct.pack("<I", 0xBA55ED50)
HEADER, MACHINE_CODE, ARCHITECTURE_AT = 16, 2, 28
# Sizes of an entry's header that are plausible; anything else is not an entry.
ENTRY_HEADERS = range(64, 4097)


def fat_binaries(library):
    """Start and end of the entries of each."""
    at = 0
    while 0 <= (at := library.find(MAGIC, at)) <= len(library) - HEADER:
        version, header, size = struct.unpack_from("<HHQ", library, at + 4)
        start, end = at + header, at + header + size
        if version == 1 and header == HEADER and end <= len(library):
            yield start, end
            at = end
        else:
            at += len(MAGIC)


def keep_one(library, architecture):
    """Zeroes the other code of the bytearray in place; bytes of code by architecture. Code of none but the one that is kept runs
    then, not even what is compiled as it is loaded.
    """
    sizes = collections.Counter()
    for at, end in fat_binaries(library):
        while at + ENTRY_HEADERS.start <= end:
            kind, _, header, size = struct.unpack_from("<HHIQ", library, at)
            if header not in ENTRY_HEADERS or size > end - at:
                break
            (of,) = struct.unpack_from("<I", library, at + ARCHITECTURE_AT)
            sizes[of] += size
            if kind != MACHINE_CODE or of != architecture:
                library[at + header : at + header + size] = bytes(size)
            at += header + size
    return sizes

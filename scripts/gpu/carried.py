"""The folder that is carried to the machine with the GPU: pieces of one compressed archive, and their checksums."""

import hashlib
import io
import lzma
import pathlib
import shutil
import sys
import tarfile

PROJECT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = PROJECT / "output" / "gpu"
PIECE_BYTES = 48 << 20
CHECKSUMS, UNPACKED, STAMP = "pieces.sha256", "unpacked", "STAMP"
# Compresses zeroed code well enough; more costs minutes.
PRESET = 3


class Pieces(io.RawIOBase):
    """Writes a stream into numbered files of `PIECE_BYTES` at most."""

    def __init__(self, folder):
        self.folder, self.paths, self.file = folder, [], None

    def writable(self):
        return True

    def write(self, content):
        left = memoryview(content)
        while left:
            if self.file is None or self.file.tell() == PIECE_BYTES:
                self.begin()
            room = PIECE_BYTES - self.file.tell()
            self.file.write(left[:room])
            left = left[room:]
        return len(content)

    def begin(self):
        self.end()
        self.paths.append(self.folder / f"piece-{len(self.paths):02}")
        self.file = open(self.paths[-1], "wb")

    def end(self):
        if self.file:
            self.file.close()


class Joined(io.RawIOBase):
    """Reads files one after the other."""

    def __init__(self, paths):
        self.files = (open(path, "rb") for path in paths)
        self.file = next(self.files)

    def readable(self):
        return True

    def readinto(self, buffer):
        while not (count := self.file.readinto(buffer)):
            self.file.close()
            self.file = next(self.files, None)
            if self.file is None:
                self.file = io.BytesIO()
                return 0
        return count


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(source, folder):
    """Packs a folder; the pieces' paths."""
    for old in folder.glob("piece-*"):
        old.unlink()
    pieces = Pieces(folder)
    with lzma.open(pieces, "wb", preset=PRESET) as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
        for path in sorted(source.iterdir()):
            archive.add(path, path.name)
    pieces.end()
    lines = "".join(f"{sha256(it)}  {it.name}\n" for it in pieces.paths)
    (folder / CHECKSUMS).write_text(lines)
    return pieces.paths


def unpack(folder):
    """The folder with what was packed; unpacks it unless it has been. Exits with what is missing or damaged."""
    checksums = folder / CHECKSUMS
    if not checksums.is_file():
        sys.exit(f"gpu_bench: there is no {checksums}; `scripts/gpu_bench.sh pack` writes it, with the pieces to carry")
    wanted, unpacked = checksums.read_text(), folder / UNPACKED
    stamp = unpacked / STAMP
    if stamp.is_file() and stamp.read_text() == wanted:
        return unpacked
    paths = []
    for line in wanted.splitlines():
        expected, name = line.split("  ")
        path = folder / name
        if not path.is_file():
            sys.exit(f"gpu_bench: there is no {path}; carry all pieces that {checksums} names")
        if sha256(path) != expected:
            sys.exit(f"gpu_bench: {path} has another checksum than in {checksums}; carry it again")
        paths.append(path)
    shutil.rmtree(unpacked, ignore_errors=True)
    joined = io.BufferedReader(Joined(paths), 1 << 20)
    with lzma.open(joined) as content, tarfile.open(fileobj=content, mode="r|") as archive:
        archive.extractall(unpacked, filter="data")
    stamp.write_text(wanted)
    return unpacked

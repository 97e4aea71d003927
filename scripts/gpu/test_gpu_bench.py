"""Packs and runs gpu_bench.sh with the CPU in the GPU's place: all tables come out with figures, and a section that fails is shown
as failed beside the others. Needs what bench.py's peers need; `make test-gpu-bench` calls it.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import one_architecture
from run import SECTIONS

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "gpu_bench.sh"
ROWS = {"placement": 3, "parity": 5, "step-16": 5, "train": 2, "segment": 2, "step-4": 5, "prediction-4": 4}


def call(*arguments):
    command = [str(it) for it in (SCRIPT, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHON": sys.executable})


def rows(markdown):
    """Cells of the rows of all tables, the headers left out."""
    found = []
    for line in markdown.splitlines():
        if line.startswith("| ---"):
            found.pop()
        elif line.startswith("| "):
            found.append([it.strip() for it in line.strip("|").split("|")])
    return found


class GpuBench(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.place.name) / "gpu"
        done = call("pack", "--device", "cpu", "--quick", cls.folder)
        assert done.returncode == 0, done.stderr

    @classmethod
    def tearDownClass(cls):
        cls.place.cleanup()

    def test_all_tables_have_figures(self):
        done = call("run", "--device", "cpu", "--quick", self.folder)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        found = rows(done.stdout)
        self.assertEqual(len(found), sum(ROWS.values()), done.stdout)
        for cells in found:
            self.assertNotIn("failed", " ".join(cells), done.stdout)
            self.assertTrue(all(cells), cells)
            self.assertTrue(any(re.fullmatch(r"[\d.]+(e-\d+)?%?", it) for it in cells[1:]), cells)
        self.assertNotIn("OUTSIDE", done.stdout)
        self.assertEqual((self.folder / "results" / "results.md").read_text(), done.stdout)

    def test_a_section_that_fails_is_shown_beside_the_others(self):
        output = pathlib.Path(self.place.name) / "failing"
        done = call("run", "--device", "cpu", "--quick", "--sections", "nothing", "--output", output, self.folder)
        self.assertEqual(done.returncode, 2)
        self.assertIn("there are placement, parity", done.stderr)
        done = call("run", "--device", "cuda", "--quick", "--sections", "placement,segment", "--output", output, self.folder)
        self.assertEqual(len(rows(done.stdout)), ROWS["placement"] + ROWS["segment"], done.stdout)
        self.assertIn("CUDA does not work here", done.stdout)
        self.assertTrue(all(cells[1].startswith("failed: ") for cells in rows(done.stdout)), done.stdout)

    def test_no_time_is_left(self):
        output = pathlib.Path(self.place.name) / "late"
        flags = ["--device", "cpu", "--quick", "--max-secs", "0", "--output", output]
        done = call("run", *flags, self.folder)
        self.assertNotEqual(done.returncode, 0)
        for name in SECTIONS:
            self.assertIn(f"{name} failed: no time was left", done.stdout)

    def test_a_damaged_piece_is_named(self):
        copy = pathlib.Path(self.place.name) / "copy"
        copy.mkdir()
        (copy / "pieces.sha256").write_text((self.folder / "pieces.sha256").read_text())
        done = call("run", "--device", "cpu", copy)
        self.assertIn("piece-00; carry all pieces", done.stderr)
        (copy / "piece-00").write_bytes(b"other")
        done = call("run", "--device", "cpu", copy)
        self.assertIn("piece-00 has another checksum", done.stderr)


class OneArchitecture(unittest.TestCase):
    def test_the_code_of_the_others_is_zeroed(self):
        def entry(kind, architecture, code):
            header = bytearray(64)
            header[0:2] = kind.to_bytes(2, "little")
            header[4:8] = (64).to_bytes(4, "little")
            header[8:16] = len(code).to_bytes(8, "little")
            header[28:32] = architecture.to_bytes(4, "little")
            return bytes(header) + code

        entries = entry(2, 80, b"a" * 24) + entry(2, 90, b"b" * 40) + entry(1, 90, b"c" * 8)
        magic = one_architecture.MAGIC + (1).to_bytes(2, "little") + (16).to_bytes(2, "little")
        binary = magic + len(entries).to_bytes(8, "little") + entries
        library = bytearray(b"before" + binary + b"after" + one_architecture.MAGIC)
        sizes = one_architecture.keep_one(library, 90)
        self.assertEqual(dict(sizes), {80: 24, 90: 48})
        left = bytes(library)
        self.assertEqual((left.count(b"a" * 24), left.count(b"b" * 40), left.count(b"c" * 8)), (0, 1, 0))
        self.assertTrue(left.startswith(b"before") and b"after" in left)
        self.assertEqual(len(left), len(b"before" + binary + b"after") + 4)


if __name__ == "__main__":
    unittest.main()

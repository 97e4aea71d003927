"""Prints how far the embeddings of a feature table are from those that an embedder's own program gives, and fails if they are
further than 1e-4, or if no photo is told from another.

    judge_embeddings.py FOLDER FEATURES

FOLDER is the embedder's, with expected.npz; FEATURES the folder that `lookbook segment` wrote.
"""

import itertools
import sys
from pathlib import Path

import numpy
import pyarrow.parquet

MOST = 1e-4
# Embeddings of different photos have to be so far from each other that the comparison means something.
LEAST_BETWEEN = 50 * MOST

folder, features = map(Path, sys.argv[1:])
expected = numpy.load(folder / "expected.npz")
table = pyarrow.parquet.read_table(sorted(features.glob("part-*.parquet")), columns=["file_name", "embedding"])
found = {row["file_name"]: numpy.array(row["embedding"], numpy.float32) for row in table.to_pylist()}
assert sorted(found) == sorted(expected), (sorted(found), sorted(expected))
largest = max(abs(found[name] - expected[name]).max() for name in found)
between = min(abs(expected[a] - expected[b]).max() for a, b in itertools.combinations(expected, 2))
cosines = [float(found[name] @ expected[name]) for name in found]
print(f"{folder.name}: {len(found)} photos, {len(next(iter(found.values())))} dimensions, largest difference {largest:.1e}, "
      f"least cosine {min(cosines):.7f}; two photos differ by {between:.1e} at least")
sys.exit(largest > MOST or between < LEAST_BETWEEN or len(found) < 2)

"""Measures `lookbook similarity` beside numpy, faiss, pandas and a plain loop: similarity.py --lookbook PROGRAM [SECTION ...]

PROGRAM is target/release/lookbook, with `cargo build --release --example similarity_worker` beside it. Sections: matrix,
neighbours, co_rated, embedding, agreement; all of them where none is named. Every contestant does its work once a
round, in a process of its own, two threads each, one at a time; the tables have the medians of the rounds and the largest
resident memory. Processor seconds are those of the whole process, imports and reading included. lookbook's time is that of
the whole command: it starts, reads the feature table, computes, writes, flushes to disk, checks and publishes. A peer's time
is the work alone: its imports and the reading of the table are left out, and nothing is flushed.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

THREADS = "2"
for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = THREADS
os.environ["POLARS_MAX_THREADS"] = THREADS

TOP = 10
MIN_COMMON = 3
DIMENSIONS = 512
VECTORS = "embeddings.npy"
# Of a part that `lookbook segment` writes.
PART_ROWS = 8192
CATEGORIES = {
    "bk": 0, "Tshirt": 0.25, "bag": 0.7, "belt": 0.2, "blazer": 0.2, "blouse": 0.35, "coat": 0.3, "dress": 0.3,
    "face": 0, "hair": 0, "hat": 0.1, "jeans": 0.2, "legging": 0.08, "pants": 0.3, "scarf": 0.1, "shoe": 0.95,
    "shorts": 0.1, "skin": 0, "skirt": 0.2, "socks": 0.08, "stocking": 0.12, "sunglass": 0.12, "sweater": 0.2,
}  # fmt: skip
COLORS = {
    "beige": 0.06, "black": 0.62, "blue": 0.1, "brown": 0.28, "gray": 0.42, "green": 0.03, "orange": 0.01,
    "pink": 0.04, "purple": 0.02, "red": 0.05, "white": 0.18, "yellow": 0.02,
}  # fmt: skip


def pixel_counts(photos, seed=0):
    """Pixels `[photos, 228]`: like real street photos, 8.5 cells of 228 a photo, shoes and black in most."""
    import numpy

    random = numpy.random.default_rng(seed)
    worn = numpy.array([share for share in CATEGORIES.values() if share])
    category = random.random((photos, len(worn))) < worn
    color = random.random((photos, len(worn) * len(COLORS))) < numpy.tile(list(COLORS.values()), len(worn))
    present = category.repeat(len(COLORS), axis=1) & color
    pixels = numpy.exp(random.normal(7.0, 1.5, present.shape)).astype(numpy.uint32) + 1
    return numpy.where(present, pixels, 0).astype(numpy.uint32)


def write_features(folder, photos, with_embeddings):
    """A features folder as `lookbook segment` writes it; see docs/tables.md."""
    import numpy
    import pyarrow
    import pyarrow.parquet

    counts = pixel_counts(photos)
    apparel = counts.sum(axis=1, dtype=numpy.uint32)
    ids = numpy.arange(photos, dtype=numpy.uint32)
    names = [f"{photo:07}.jpg" for photo in range(photos)]
    columns = {"photo_id": ids, "file_name": names, "path": names}
    columns["content_sha256"] = [f"{photo:064x}" for photo in range(photos)]
    columns["model_id"] = ["labels"] * photos
    columns |= {name: numpy.full(photos, side, numpy.uint32) for name, side in [("width_px", 400), ("height_px", 600)]}
    columns |= {f"px_{name}": numpy.zeros(photos, numpy.uint32) for name in CATEGORIES}
    columns["apparel_px"] = apparel
    shares = counts / numpy.maximum(apparel, 1)[:, None].astype(numpy.float64)
    cells = [f"{category}_{color}" for category, odds in CATEGORIES.items() if odds for color in COLORS]
    for cell, share in zip(cells, shares.T.astype(numpy.float32)):
        columns[cell] = pyarrow.array(share, mask=share == 0)
    table = pyarrow.table(columns)
    fields = [field.with_nullable(field.name in cells) for field in table.schema]
    metadata = {"lookbook.table": "features", "lookbook.schema_version": "1"}
    table = table.cast(pyarrow.schema(fields, metadata))
    folder.mkdir(parents=True)
    if with_embeddings:
        table, vectors = add_embeddings(table)
        # For the peers, which need nothing else.
        numpy.save(folder / VECTORS, vectors)
    for number, first in enumerate(range(0, photos, PART_ROWS)):
        part = table.slice(first, PART_ROWS)
        pyarrow.parquet.write_table(part, folder / f"part-{number:05}.parquet", compression="zstd")


def drawn_embeddings(photos, seed=0):
    """Drawn vectors of length 1, `[photos, DIMENSIONS]` f32."""
    import numpy

    vectors = numpy.random.default_rng(seed).standard_normal((photos, DIMENSIONS), numpy.float32)
    return vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)


def add_embeddings(table):
    import pyarrow

    vectors = drawn_embeddings(len(table))
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), DIMENSIONS)
    field = pyarrow.field("embedding", lists.type, metadata={"lookbook.embedder": "drawn"})
    return table.append_column(field, lists), vectors


def read_cells(features):
    """Shares `[photos, 228]` f32; NaN where absent."""
    import polars

    frame = polars.read_parquet(features / "part-*.parquet")
    first = frame.columns.index("apparel_px") + 1
    return frame.select(frame.columns[first : first + 228]).to_numpy()


def unit_rows(cells):
    """Rows less their means, of length 1 (Pearson is their dot product); 0 where nothing is worn."""
    import numpy

    rows = numpy.nan_to_num(cells)
    rows -= rows.mean(axis=1, keepdims=True)
    norms = numpy.linalg.norm(rows, axis=1, keepdims=True)
    return rows / numpy.where(norms == 0, 1, norms)


def numpy_neighbours(cells):
    """The f32 product and `argpartition` over it, a thousand rows at a time."""
    import numpy

    rows = unit_rows(cells)
    product = rows @ rows.T
    numpy.fill_diagonal(product, -2)
    nearest = [numpy.argpartition(product[first : first + 1000], -TOP)[:, -TOP:] for first in range(0, len(rows), 1000)]
    return product, nearest


def numpy_matrix(cells, place):
    """The same, and pyarrow writes the table that lookbook writes, as it does by default."""
    import numpy
    import pyarrow
    import pyarrow.parquet

    product, _ = numpy_neighbours(cells)
    numpy.fill_diagonal(product, 1)
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(product.ravel()), len(product))
    table = pyarrow.table({"photo_id": numpy.arange(len(product), dtype=numpy.uint32), "correlation": lists})
    pyarrow.parquet.write_table(table, place / "matrix.parquet")


def faiss_neighbours(rows):
    """The exact index for inner products; one more than asked for, the photo itself."""
    import faiss

    faiss.omp_set_num_threads(int(THREADS))
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index.search(rows, TOP + 1)


def pandas_co_rated(cells):
    import pandas

    return pandas.DataFrame(cells.T).corr(min_periods=MIN_COMMON).to_numpy()


def loop_co_rated(cells):
    """What the seed does: for each photo and each other `numpy.corrcoef` over the cells that both have."""
    import numpy

    rows = cells.astype(numpy.float64)
    present = ~numpy.isnan(rows)
    result = numpy.full((len(rows), len(rows)), numpy.nan)
    with numpy.errstate(invalid="ignore", divide="ignore"):
        for a in range(len(rows)):
            for b in range(len(rows)):
                common = present[a] & present[b]
                if common.sum() >= MIN_COMMON:
                    result[a, b] = numpy.corrcoef(rows[a, common], rows[b, common])[0, 1]
    return result


PEERS = {
    "numpy-matrix": numpy_matrix,
    "numpy-neighbours": lambda cells, _: numpy_neighbours(cells),
    "faiss": lambda cells, _: faiss_neighbours(unit_rows(cells)),
    "faiss-embedding": lambda vectors, _: faiss_neighbours(vectors),
    "faiss-parquet-embedding": lambda vectors, _: faiss_neighbours(vectors),
    "pandas": lambda cells, _: pandas_co_rated(cells),
    "loop": lambda cells, _: loop_co_rated(cells),
}


def work(peer, features, place):
    """A peer's round, in its own process: the seconds go to stdout."""
    import numpy

    # What a peer imports and reads is not part of its time, but of its memory: so no more than it needs.
    if peer.startswith("faiss"):
        import faiss  # noqa: F401
    if peer == "faiss-parquet-embedding":
        import pyarrow.parquet

        column = pyarrow.parquet.read_table(sorted(features.glob("part-*.parquet")), columns=["embedding"])["embedding"]
        cells = column.combine_chunks().flatten().to_numpy().reshape(-1, DIMENSIONS)
    elif peer.endswith("-embedding"):
        cells = numpy.load(features / VECTORS)
    else:
        import pandas, pyarrow.parquet  # noqa: E401, F401

        cells = read_cells(features)
    start = time.perf_counter()
    PEERS[peer](cells, place)
    print(json.dumps({"secs": time.perf_counter() - start}))


def run(command):
    """Seconds (those that the process prints, where it does), its processor seconds, and largest resident memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} failed")
    own = json.loads(output)["secs"] if output.startswith('{"secs"') else elapsed
    return own, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


class Bench:
    def __init__(self, lookbook, place, rounds):
        self.lookbook, self.place, self.rounds = lookbook, place, rounds

    def features(self, photos, with_embeddings=False):
        folder = self.place / f"features-{photos}{'-embedding' * with_embeddings}"
        if not folder.exists():
            # In another process: what this one holds would count as memory of those that it starts.
            command = [sys.executable, __file__, "--write", str(photos), folder]
            subprocess.run(command + ["--embeddings"] * with_embeddings, check=True)
        return folder

    def ours(self, photos, *flags):
        paths = ["--features", self.features(photos, "embedding" in flags), "--output", self.place / "similarity", "--threads", THREADS]
        return [self.lookbook, "similarity", *paths, *flags]

    def in_memory(self, photos, measure):
        """The matrix alone, as a peer makes it (examples/similarity_worker.rs)."""
        worker = self.lookbook.parent / "examples" / "similarity_worker"
        return ["env", f"RAYON_NUM_THREADS={THREADS}", worker, self.features(photos), measure]

    def peer(self, photos, name):
        return [sys.executable, __file__, "--work", name, self.features(photos, name.endswith("-embedding")), self.place]

    def measure(self, title, contestants, rounds=None):
        """Interleaved rounds; the first contestant is lookbook."""
        results = {name: [] for name in contestants}
        for _ in range(rounds or self.rounds):
            for name, command in contestants.items():
                shutil.rmtree(self.place / "similarity", ignore_errors=True)
                results[name].append(run(command))
        print(f"\n{title}\n\n| | median s | ratio | processor s | memory MB |\n| --- | --- | --- | --- | --- |")
        ours = statistics.median(secs for secs, *_ in next(iter(results.values())))
        for name, measured in results.items():
            secs, processor = [statistics.median(it[at] for it in measured) for at in (0, 1)]
            memory = max(memory for *_, memory in measured)
            print(f"| {name} | {secs:.3g} | {secs / ours:.2g} | {processor:.3g} | {memory:.0f} |", flush=True)

    def matrix(self):
        contestants = {"lookbook": self.ours(20_000), "numpy, pyarrow": self.peer(20_000, "numpy-matrix")}
        self.measure("`pearson`, 20,000 photos: matrix as Parquet and top 10", contestants)

    def neighbours(self):
        contestants = {
            "lookbook": self.ours(20_000, "--matrix", "none"),
            "numpy": self.peer(20_000, "numpy-neighbours"),
            "faiss.IndexFlatIP": self.peer(20_000, "faiss"),
        }
        self.measure("`pearson`, 20,000 photos: top 10 alone", contestants)

    def co_rated(self):
        small = ["--measure", "co_rated"]

        def ours(photos):
            return {
                "lookbook, matrix in memory": self.in_memory(photos, "co_rated"),
                "lookbook, the whole command: matrix as Parquet and top 10": self.ours(photos, *small),
                "lookbook, the whole command: top 10 alone": self.ours(photos, *small, "--matrix", "none"),
            }

        pandas = {"pandas, matrix in memory": self.peer(2_682, "pandas")}
        self.measure("`co_rated`, 2,682 photos", ours(2_682) | pandas)
        loop = {"a loop over numpy.corrcoef, matrix in memory": self.peer(2_682, "loop")}
        self.measure("`co_rated`, 2,682 photos, once", ours(2_682) | loop, rounds=1)
        self.measure("`co_rated`, 20,000 photos", ours(20_000))

    def embedding(self):
        contestants = {
            "lookbook": self.ours(20_000, "--measure", "embedding", "--matrix", "none"),
            "faiss.IndexFlatIP, from the same Parquet by pyarrow": self.peer(20_000, "faiss-parquet-embedding"),
            "faiss.IndexFlatIP, from a .npy file": self.peer(20_000, "faiss-embedding"),
        }
        self.measure(f"`embedding` of {DIMENSIONS} dimensions, 20,000 photos: top 10 alone", contestants)

    def agreement(self):
        """Largest differences from numpy and pandas, and whether the same are undefined."""
        import numpy
        import polars

        print("\nlargest difference, 2,682 photos\n\n| | of | |\n| --- | --- | --- |")
        cells = read_cells(self.features(2_682)).astype(numpy.float64)
        with numpy.errstate(invalid="ignore"):
            oracles = {
                "pearson": ("numpy.corrcoef", numpy.corrcoef(numpy.nan_to_num(cells))),
                "co_rated": ("pandas", pandas_co_rated(cells)),
            }
        vectors = drawn_embeddings(2_682).astype(numpy.float64)
        oracles["embedding"] = ("numpy, in f64", vectors @ vectors.T)
        for measure, (name, expected) in oracles.items():
            run(self.ours(2_682, "--measure", measure))
            frame = polars.read_parquet(self.place / "similarity" / "matrix" / "part-*.parquet")
            found = frame["correlation"].explode().to_numpy().reshape(expected.shape)
            same = (numpy.isnan(found) == numpy.isnan(expected)).all()
            print(f"| `{measure}` | {name} | {numpy.nanmax(abs(found - expected)):.1e}, same nulls: {same} |")


SECTIONS = ["matrix", "neighbours", "co_rated", "embedding", "agreement"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--lookbook", type=pathlib.Path)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--work", nargs=3, metavar=("PEER", "FEATURES", "PLACE"), help=argparse.SUPPRESS)
    arguments.add_argument("--write", nargs=2, metavar=("PHOTOS", "FEATURES"), help=argparse.SUPPRESS)
    arguments.add_argument("--embeddings", action="store_true", help=argparse.SUPPRESS)
    arguments.add_argument("sections", nargs="*", metavar="SECTION", default=SECTIONS)
    given = arguments.parse_args()
    if given.work:
        return work(given.work[0], pathlib.Path(given.work[1]), pathlib.Path(given.work[2]))
    if given.write:
        return write_features(pathlib.Path(given.write[1]), int(given.write[0]), given.embeddings)
    unknown = set(given.sections) - set(SECTIONS)
    if unknown or not given.lookbook:
        arguments.error(f"name --lookbook and sections of {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(given.lookbook.resolve(), pathlib.Path(place), given.rounds)
        # Agreement last: what this process holds then would count as memory of those that it starts.
        for section in filter(given.sections.__contains__, SECTIONS):
            getattr(bench, section)()


if __name__ == "__main__":
    main()

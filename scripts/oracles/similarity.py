"""Makes tests/data/similarity_oracle.json: a small feature table and its correlations by numpy and pandas.

Run with numpy 2 and pandas 3: python scripts/oracles/similarity.py
"""

import json
import pathlib

import numpy
import pandas

FILE = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "similarity_oracle.json"
CELLS = 228
LATENT_DIMENSIONS = 8


def pixel_counts(random, photos):
    """Pixels by cell of each photo: few cells, some of them common to most photos; then rows that are hard."""
    rows = []
    for _ in range(photos):
        cells = set(random.choice(12, random.integers(1, 6), replace=False) * 3)
        cells |= set(random.choice(CELLS, random.integers(1, 8), replace=False))
        rows.append({int(cell): int(random.integers(1, 20_000)) for cell in sorted(cells)})
    rows.append({})  # nothing worn
    rows.append({5: 700})  # one cell
    rows.append(dict(rows[0]))  # the same as another
    rows.append({cell: 250 for cell in range(0, 36, 3)})  # does not vary over its own cells
    rows.append({0: 10, 3: 20, 6: 30})
    rows.append({0: 30, 3: 20, 6: 10})  # exactly the reverse
    rows.append({cell: 1 + cell for cell in range(CELLS)})  # every cell
    rows.append({cell: 100_000 + (cell == 7) for cell in range(CELLS)})  # all but constant
    rows.append({0: 900_000, 3: 10_000, 6: 10_001, 9: 10_000})  # all but constant beside one cell
    rows.append({3: 5, 6: 7, 9: 6})  # has just those three in common with it
    rows.append({0: 8, 3: 5})  # two cells
    return rows


def upper(matrix):
    """The upper triangle with the diagonal, row by row; None where undefined."""
    rows, columns = numpy.triu_indices(len(matrix))
    return [None if numpy.isnan(v) else round(float(v), 9) for v in numpy.asarray(matrix)[rows, columns]]


def latent(shares, dimensions):
    """Correlations of the rows of the centred table's best approximation of that rank; none for rows without a cell."""
    centred = shares - shares.mean(axis=0)
    left, values, right = numpy.linalg.svd(centred, full_matrices=False)
    correlations = numpy.corrcoef(left[:, :dimensions] * values[:dimensions] @ right[:dimensions])
    empty = ~shares.any(axis=1)
    correlations[empty] = correlations[:, empty] = numpy.nan
    return correlations


def main():
    counts = pixel_counts(numpy.random.default_rng(0), 40)
    shares = numpy.zeros((len(counts), CELLS), numpy.float32)
    for row, cells in zip(shares, counts):
        for cell, count in cells.items():
            row[cell] = count / sum(cells.values())
    with numpy.errstate(invalid="ignore"):
        pearson = numpy.corrcoef(shares.astype(numpy.float64))
    present = pandas.DataFrame(shares.T.astype(numpy.float64)).replace(0.0, numpy.nan)
    norms = numpy.linalg.norm(shares.astype(numpy.float64), axis=1)
    with numpy.errstate(invalid="ignore"):
        cosine = shares.astype(numpy.float64) @ shares.T.astype(numpy.float64) / numpy.outer(norms, norms)
    oracle = {
        "cell_px": [list(cells.items()) for cells in counts],
        "pearson": upper(pearson),
        "co_rated": upper(present.corr(min_periods=3)),
        "cosine": upper(cosine),
        "latent_dimensions": LATENT_DIMENSIONS,
        "latent": upper(latent(shares.astype(numpy.float64), LATENT_DIMENSIONS)),
    }
    FILE.write_text(json.dumps(oracle, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

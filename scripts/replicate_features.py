"""Makes a large feature table of a small one, for measurements: replicate_features.py FEATURES OUTPUT ROWS

Rows are drawn with replacement (seed 0); each share is multiplied by 0.7 to 1.3, and the row scaled to its former sum. Ids,
names and checksums are new. Run with numpy 2 and pyarrow 21 or later.
"""

import pathlib
import shutil
import sys

import numpy
import pyarrow
from pyarrow import parquet

PART_ROWS = 8192


def new_rows(table, chosen, first, random):
    """The rows `chosen` of `table`, changed; the first gets the id `first`."""
    cells = [field.name for field in table.schema if field.type == pyarrow.float32()]
    part = table.take(pyarrow.array(chosen))
    shares = numpy.stack([numpy.nan_to_num(part[name].to_numpy()) for name in cells], axis=1)
    changed = shares * random.uniform(0.7, 1.3, shares.shape)
    changed *= (shares.sum(1) / numpy.maximum(changed.sum(1), 1e-9))[:, None]
    changed = numpy.minimum(changed, 1).astype(numpy.float32)
    columns = {name: pyarrow.array(changed[:, at], mask=changed[:, at] == 0) for at, name in enumerate(cells)}
    ids = range(first, first + len(chosen))
    columns["photo_id"] = pyarrow.array(ids, pyarrow.uint32())
    columns["file_name"] = columns["path"] = pyarrow.array([f"{id:07}.jpg" for id in ids])
    columns["content_sha256"] = pyarrow.array([f"{id * 2654435761 % 2**64:016x}" * 4 for id in ids])
    for at, field in enumerate(table.schema):
        if field.name in columns:
            part = part.set_column(at, field, columns[field.name])
    return part


def main(source: str, output: str, rows: str) -> None:
    paths = sorted(pathlib.Path(source).glob("part-*.parquet"))
    table = pyarrow.concat_tables([parquet.read_table(path) for path in paths])
    random = numpy.random.default_rng(0)
    folder = pathlib.Path(output)
    folder.mkdir(parents=True)
    for number, first in enumerate(range(0, int(rows), PART_ROWS)):
        chosen = random.integers(0, len(table), min(PART_ROWS, int(rows) - first))
        part = new_rows(table, chosen, first, random)
        parquet.write_table(part, folder / f"part-{number:05}.parquet", compression="zstd")
    shutil.copy(pathlib.Path(source) / "run.json", folder / "run.json")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What Python reads of a Delta table of features: delta_in_python.py TABLE. Prints JSON: for each version the file name and the
cell of each row, by deltalake and by polars, and the number of parts of the last version. Needs polars and pyarrow
(`PYTHONPATH=.python`)."""

import json
import sys

import deltalake
import polars


def rows(table):
    """File name and the first cell that the photo has, by file name."""
    cells = [name for name, kind in table.schema.items() if kind == polars.Float32]
    assert table.schema["photo_id"] == polars.Int64, table.schema["photo_id"]
    found = table.sort("file_name").to_dicts()
    return [[row["file_name"], next(name for name in cells if row[name] is not None)] for row in found]


place = sys.argv[1]
last = deltalake.DeltaTable(place)
versions = range(last.version() + 1)
by_deltalake = [rows(polars.from_arrow(deltalake.DeltaTable(place, version=it).to_pyarrow_table())) for it in versions]
by_polars = [rows(polars.scan_delta(place, version=it).collect()) for it in versions]
print(json.dumps({"deltalake": by_deltalake, "polars": by_polars, "parts": len(last.file_uris())}))

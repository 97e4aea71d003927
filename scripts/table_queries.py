"""Runs the examples of docs/tables.md: table_queries.py FOLDER

FOLDER holds `output/` of a run. Each block of Python that imports polars or pandas is run as it stands, each block of SQL by
DuckDB; what they print goes to stdout. Exit 1 at the first that fails, or where there are fewer than three of each.
"""

import os
import pathlib
import re
import sys

import duckdb

DOCUMENT = pathlib.Path(__file__).resolve().parents[1] / "docs" / "tables.md"
LEAST = 3


def main(folder: str) -> int:
    os.chdir(folder)
    seen = {"polars": 0, "pandas": 0, "duckdb": 0}
    for language, code in re.findall(r"```(python|sql)\n(.*?)```", DOCUMENT.read_text(), re.DOTALL):
        engine = "duckdb" if language == "sql" else next((it for it in seen if f"import {it}" in code), None)
        if engine is None:
            continue
        print(f"# {engine}: {code.strip().splitlines()[-1]}", flush=True)
        if engine == "duckdb":
            print(duckdb.sql(code))
        else:
            exec(compile(code, str(DOCUMENT), "exec"), {})
        seen[engine] += 1
    few = [engine for engine, count in seen.items() if count < LEAST]
    if few:
        print(f"fewer than {LEAST} examples of {', '.join(few)}", file=sys.stderr)
    return 1 if few else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

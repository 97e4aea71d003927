"""Makes tests/data/conditions.json: a table of metadata and which of its rows fulfil conditions in SQL, by polars.

Run with polars 2: python scripts/oracles/conditions.py
"""

import json
import pathlib
import random

import polars

FILE = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "conditions.json"
ROWS = 200
CONDITIONS = [
    "price < 80 and brand = 'X' and stock > 0",
    "price < 80",
    "not (price < 80)",
    "price <= 40.5 or stock >= 15",
    "price = 40.5",
    "price <> 40.5",
    "price is null or brand is null",
    "price is not null and brand is not null and sale is not null",
    "brand in ('X', 'Müller & Söhne')",
    "brand not in ('X', 'O''Neill')",
    "brand like 'M%'",
    "brand not like '%l%'",
    "brand ilike 'x'",
    "brand > 'N'",
    "sale",
    "not sale",
    "sale = true and stock between 3 and 9",
    "stock not between 3 and 9",
    "sale is true or sale is null",
    "sale is not true",
    "sale is not false",
    "price * stock > 400",
    "price / 2 + 1 < stock",
    "stock / 4 > 2.2",
    "stock - 10 > -3 and -stock < -8",
    "stock % 3 = 1",
    "price = stock",
    "price > stock and (brand = 'X' or brand = 'Y') and not sale",
    "1 = 1",
    "1 = 2",
    "\"size, cm\" > 30",
    "brand = '<b>x</b>'",
    "brand = 'x''; drop table items; --'",
]


def table():
    draw = random.Random(19)
    brands = ["X", "x", "Y", "O'Neill", "Müller & Söhne", "<b>x</b>", "x'; drop table items; --", None]
    return [
        {
            "photo_id": photo_id,
            "price": draw.choice([None, 40.5, 80.0, round(draw.uniform(5, 120), 2)]),
            "brand": draw.choice(brands),
            "stock": draw.choice([None, *range(20)]),
            "sale": draw.choice([None, True, False]),
            "size, cm": draw.randrange(20, 50),
        }
        for photo_id in range(ROWS)
    ]


def main():
    rows = table()
    frame = polars.DataFrame(rows)
    answers = []
    for condition in CONDITIONS:
        found = polars.SQLContext(items=frame).execute(f"select photo_id from items where {condition}", eager=True)
        answers.append({"condition": condition, "photo_ids": found["photo_id"].to_list()})
    FILE.write_text(json.dumps({"rows": rows, "answers": answers}, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes docs/images/segmentations.png out of a report of the sample: readme_picture.py REPORT_FOLDER. Needs Pillow.

Two rows of the report's segmentations.png side by side with the legend, smaller, to stay below
300 KB."""
import pathlib
import sys

from PIL import Image

MARGIN_PX, ROW_PX, WIDTH_PX = 14, 356, 820

sheet = Image.open(pathlib.Path(sys.argv[1]) / "segmentations.png").convert("RGB")
rows = (sheet.height - MARGIN_PX) // ROW_PX
legend = sheet.crop((0, MARGIN_PX + rows * ROW_PX, sheet.width, sheet.height))
picture = Image.new("RGB", (2 * sheet.width, MARGIN_PX + ROW_PX + legend.height), "white")
for place, row in enumerate([0, 1]):
    strip = sheet.crop((0, row * ROW_PX, sheet.width, (row + 1) * ROW_PX))
    picture.paste(strip, (place * sheet.width, 0))
picture.paste(legend, (0, ROW_PX))
picture = picture.resize((WIDTH_PX, picture.height * WIDTH_PX // picture.width), Image.LANCZOS)
target = pathlib.Path(__file__).resolve().parent.parent / "docs/images/segmentations.png"
target.parent.mkdir(exist_ok=True)
picture.save(target, optimize=True)
print(f"{target}: {target.stat().st_size} bytes")

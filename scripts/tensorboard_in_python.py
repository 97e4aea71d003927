"""Reads a model's event file with TensorBoard's own reader and compares it with the model's loss.csv.

usage: tensorboard_in_python.py MODEL

MODEL is a model folder. Every figure of every epoch must be there once, as loss.csv has it, and every picture must open.
Prints what was found; exit 1 where something is missing or different.
"""

import csv
import io
import pathlib
import sys

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def tag(column: str) -> str:
    part, _, figure = column.partition("_")
    return f"{figure}/{part}" if part in ("train", "validation") else column


def main(model: pathlib.Path) -> int:
    events = EventAccumulator(str(model / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    tags = events.Tags()
    with open(model / "loss.csv", newline="") as file:
        history = list(csv.DictReader(file))
    not_figures = ("epoch", "photo_width_px", "photo_height_px", "elapsed_secs")
    columns = [name for name in history[0] if name not in not_figures]
    problems = []
    if sorted(tags["scalars"]) != sorted(map(tag, columns)):
        problems.append(f"the figures are {tags['scalars']}")
    for column in columns:
        found = [(event.step, event.value) for event in events.Scalars(tag(column))]
        wanted = [(int(row["epoch"]), float(row[column])) for row in history]
        same = len(found) == len(wanted) and all(
            a[0] == b[0] and abs(a[1] - b[1]) <= 1e-6 * max(1, abs(b[1])) for a, b in zip(found, wanted)
        )
        if not same:
            problems.append(f"{column}: {found}, in loss.csv {wanted}")
    pictures = [(name, event) for name in tags["images"] for event in events.Images(name)]
    for name, event in pictures:
        picture = Image.open(io.BytesIO(event.encoded_image_string))
        picture.load()
        if picture.size != (event.width, event.height):
            problems.append(f"{name}: {picture.size}, said to be {event.width} x {event.height}")
    if not pictures:
        problems.append("there are no pictures")
    print(f"{len(columns)} figures of {len(history)} epochs, {len(pictures)} pictures of {len(tags['images'])} photos")
    print("\n".join(problems))
    return int(bool(problems))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1])))

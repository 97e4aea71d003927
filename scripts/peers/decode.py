"""Measures how fast JPEG photos are decoded, on one thread, and prints the table of docs/benchmarks.md.

    decode.py [--photos FOLDER] [--worker PROGRAM] [--before PROGRAM]

Decodes photos of 600 x 400 and of 12 megapixels: those of FOLDER scaled to these sizes, or else drawn at random, saved by
Pillow at quality 90 with its usual 4:2:0. --before names the decode_worker of another
version. Each contestant is a process
of its own; they do a round to warm up and then take turns. The run fails if the pixels differ. Needs Pillow and numpy.
"""

import argparse
import io
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
from PIL import Image, ImageOps, features

PROJECT = pathlib.Path(__file__).resolve().parents[2]
ROUNDS = 7
SIZES = {"600 x 400": (600, 400, 100), "12 megapixels": (4000, 3000, 4)}
FIT = (400, 600)
# Largest difference of the mean of all channels; other decoders and scaled decoding cost some.
LEVELS = {"whole": 0.5, "fitted": 2.0}


class Worker:
    """A contestant's process."""

    def __init__(self, label, command):
        self.label, self.rounds = label, []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def round(self):
        print("round", file=self.process.stdin, flush=True)
        self.rounds.append(json.loads(self.process.stdout.readline()))

    def secs(self):
        """Seconds of the rounds after the one that warms up."""
        return [it["secs"] for it in self.rounds[1:]]


def draw(random, size):
    """Soft colours with edges and grain."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=numpy.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = Image.fromarray(random.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=numpy.uint8)).resize(size)
    grain = random.normal(0, 4, (size[1], size[0], 1))
    mixed = numpy.asarray(Image.blend(coarse, fine, 0.15)).astype(float) + grain
    return Image.fromarray(numpy.clip(mixed, 0, 255).astype(numpy.uint8))


def write_photos(source, size, count, folder):
    random = numpy.random.default_rng(1)
    paths = sorted(source.glob("*.jpg"))[:count] if source else []
    for index in range(count):
        image = ImageOps.fit(Image.open(paths[index]).convert("RGB"), size) if source else draw(random, size)
        image.save(folder / f"{index:03}.jpg", quality=90)


def pillow(folder, fitted):
    """Pillow as a contestant: answers lines like decode_worker."""
    photos = [path.read_bytes() for path in sorted(folder.iterdir())]
    for _ in sys.stdin:
        secs, total = 0.0, 0
        for content in photos:
            start = time.perf_counter()
            image = Image.open(io.BytesIO(content))
            if fitted:
                limit = ImageOps.contain(Image.new("1", image.size), FIT).size
                image.draft("RGB", limit)
            ImageOps.exif_transpose(image, in_place=True)
            if fitted:
                image = image.resize(limit, Image.Resampling.BILINEAR)
            secs += time.perf_counter() - start
            total += int(numpy.asarray(image).sum(dtype=numpy.uint64))
        print(json.dumps({"secs": secs, "sum": total}), flush=True)


def measure(folder, worker, before):
    """Seconds of each round of each contestant, by group and name."""
    ours = {"before": before} if before else {}
    ours |= {"**lookbook**": worker}
    groups = {
        "whole": {name: [path, "lookbook", folder] for name, path in ours.items()}
        | {
            "libjpeg-turbo alone": [worker, "library", folder],
            "Pillow": [sys.executable, __file__, "--pillow", "whole", folder],
        },
        "fitted": {name: [path, "fitted", folder] for name, path in ours.items()}
        | {"Pillow, draft and resize": [sys.executable, __file__, "--pillow", "fitted", folder]},
    }
    for group, commands in groups.items():
        workers = [Worker(name, [str(it) for it in command]) for name, command in commands.items()]
        for turn in range(ROUNDS + 1):
            for place in range(len(workers)):
                workers[(turn + place) % len(workers)].round()
        yield group, workers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path)
    parser.add_argument("--before", type=pathlib.Path)
    parser.add_argument("--worker", type=pathlib.Path)
    parser.add_argument("--pillow", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pillow:
        return pillow(pathlib.Path(arguments.pillow[1]), arguments.pillow[0] == "fitted")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
    worker = arguments.worker or target / "release" / "examples" / "decode_worker"
    print(f"Pillow's libjpeg-turbo: {features.version('libjpeg_turbo')}; medians of {ROUNDS} rounds\n")
    print("| | decoded | median, ms a photo | photos/s | times lookbook's |\n| --- | --- | ---: | ---: | ---: |")
    for label, (width, height, count) in SIZES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place)
            write_photos(arguments.photos, (width, height), count, folder)
            for group, workers in measure(folder, worker, arguments.before):
                own = next(it for it in workers if it.label == "**lookbook**")
                base = statistics.median(own.secs())
                bytes_of = count * 3 * (width * height if group == "whole" else 400 * (400 * height // width))
                for it in sorted(workers, key=lambda it: statistics.median(it.secs())):
                    difference = abs(it.rounds[0]["sum"] - own.rounds[0]["sum"]) / bytes_of
                    if difference > LEVELS[group]:
                        sys.exit(f"{label}, {group}: {it.label} differs from lookbook by {difference:.2f} levels")
                    secs = statistics.median(it.secs())
                    row = f"{secs / count * 1000:.2f} | {count / secs:.1f} | {secs / base:.2f}"
                    print(f"| {it.label} | {label}, {group} | {row} |")


if __name__ == "__main__":
    main()

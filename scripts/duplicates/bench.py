"""Finds changed copies of real photos by lookbook, imagededup and imagehash, and prints the tables of docs/duplicates.md:
bench.py PROGRAM PHOTOS [FOLDER]

PROGRAM is lookbook, PHOTOS a folder of JPEG files, FOLDER a place for the copies (default: a temporary folder). A pair is a
changed copy and an original. It is true if the one was made of the other, and of lookbook found if both are in one group; a
peer finds it if their hashes are near. Pairs of originals that are themselves near-duplicates (SAME) do not count.
"""

import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from multiprocessing import Pool

import imagehash
import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

# Two shots of one moment among the 804 photos of the Colorful Fashion Parsing data: found by eye.
SAME = [("0594", "0722"), ("0197", "0671"), ("0183", "0730"), ("0692", "0732"), ("0223", "0616")]
# imagededup's default, and the distance of equal hashes, which are what imagehash's own find_similar_images.py groups.
DEFAULTS = {"imagededup PHash": 10, "imagehash phash": 0}
# imagehash's crop_resistant_hash takes a tenth of a second or more: of so many photos one is tried.
CROP_RESISTANT_EVERY = 20
DISTANCES = range(12)
THREADS = len(os.sched_getaffinity(0))
# A network that takes seconds to train: which categories it sees makes no difference here.
SETTINGS = """[train]
recipe = "seed"
epochs = 1
batch_size = 1
loss = "softmax"
photo_width_px = 32
photo_height_px = 48
"""


def resized(photo, factor):
    return photo.resize((round(photo.width * factor), round(photo.height * factor)), Image.Resampling.LANCZOS)


def cropped(photo, left, top, right, bottom):
    width, height = photo.size
    box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
    return photo.crop(tuple(round(side) for side in box))


def watermarked(photo):
    layer = Image.new("RGBA", photo.size, (0, 0, 0, 0))
    font = ImageFont.load_default(photo.width // 8)
    centre = (photo.width / 2, photo.height / 2)
    ImageDraw.Draw(layer).text(centre, "SAMPLE SHOP", font=font, fill=(255, 255, 255, 128), anchor="mm")
    return Image.alpha_composite(photo.convert("RGBA"), layer).convert("RGB")


def signed(photo):
    photo = photo.copy()
    font = ImageFont.load_default(photo.width // 14)
    corner = (photo.width * 0.97, photo.height * 0.97)
    ImageDraw.Draw(photo).text(corner, "(c) example.org", font=font, fill="white", anchor="rb")
    return photo


def brighter(photo, factor):
    return ImageEnhance.Brightness(photo).enhance(factor)


def bordered(photo, share, color):
    return ImageOps.expand(photo, round(photo.width * share), fill=color)


# Each with the JPEG quality that the copy is saved in.
CHANGES = {f"JPEG quality {quality}": (lambda photo: photo, quality) for quality in (30, 50, 75, 95)}
CHANGES |= {
    name: (change, 90)
    for name, change in {
        "half the size": lambda photo: resized(photo, 1 / 2),
        "a third of the size": lambda photo: resized(photo, 1 / 3),
        "twice the size": lambda photo: resized(photo, 2),
        "cropped by 5 % at every side": lambda photo: cropped(photo, 0.05, 0.05, 0.05, 0.05),
        "cropped by 2.5 % at every side": lambda photo: cropped(photo, 0.025, 0.025, 0.025, 0.025),
        "cropped by 5 % at the left": lambda photo: cropped(photo, 0.05, 0, 0, 0),
        "cropped by 5 % at the top": lambda photo: cropped(photo, 0, 0.05, 0, 0),
        "cropped by 5 % at the left and top": lambda photo: cropped(photo, 0.05, 0.05, 0, 0),
        "mirrored": ImageOps.mirror,
        "brighter by 30 %": lambda photo: brighter(photo, 1.3),
        "brighter by 50 %": lambda photo: brighter(photo, 1.5),
        "darker by 30 %": lambda photo: brighter(photo, 0.7),
        "white border of 5 %": lambda photo: bordered(photo, 0.05, "white"),
        "black border of 10 %": lambda photo: bordered(photo, 0.1, "black"),
        "padded to a square": lambda photo: ImageOps.pad(photo, (max(photo.size),) * 2, color="white"),
        "watermark across": watermarked,
        "signed in the corner": signed,
        "mirrored, cropped, half the size": lambda photo: resized(cropped(ImageOps.mirror(photo), 0.05, 0.05, 0.05, 0.05), 1 / 2),
    }.items()
}
NAMES = list(CHANGES)


def make_copies(task):
    """Writes a photo and its changed copies below a folder."""
    source, folder = task
    (folder / "original" / source.name).write_bytes(source.read_bytes())
    photo = Image.open(source).convert("RGB")
    for number, (change, quality) in enumerate(CHANGES.values()):
        change(photo).save(folder / f"{number:02}" / source.name, quality=quality)


def lookbook(program, *arguments):
    done = subprocess.run([program, "--log-format", "json", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout)


def segmented(program, folder):
    """Trains a small network on the built-in sample and makes the feature table of all copies."""
    (folder / "small.toml").write_text(SETTINGS)
    place = {name: str(folder / name) for name in ("sample", "dataset", "model", "shop", "features", "small.toml")}
    lookbook(program, "sample", "--photos", "8", "--output", place["sample"])
    lookbook(program, "convert", "--source", place["sample"], "--output", place["dataset"])
    settings = ["--config", place["small.toml"], "train", "--dataset", place["dataset"], "--output", place["model"]]
    lookbook(program, *settings)
    arguments = ["--catalogue", place["shop"], "--model", place["model"], "--output", place["features"]]
    return lookbook(program, "segment", *arguments)["elapsed_secs"]


def places(folder, files):
    """For each row of the feature table, the place of its file."""
    table = pq.read_table(sorted((folder / "features").glob("part-*.parquet")), columns=["photo_id", "path"]).to_pydict()
    place = {str(path): number for number, path in enumerate(files)}
    return {photo_id: place[path] for photo_id, path in zip(table["photo_id"], table["path"])}


def grouped(program, folder, place_of, distance):
    """The group of each file by lookbook."""
    output = folder / "duplicates"
    lookbook(program, "duplicates", "--features", str(folder / "features"), "--output", str(output), "--distance", str(distance))
    groups = pq.read_table(output / "groups.parquet").to_pydict()
    found = np.zeros(len(place_of), dtype=np.int64)
    for photo_id, group_id in zip(groups["photo_id"], groups["group_id"]):
        found[place_of[photo_id]] = group_id
    return found


def hash_by_imagededup(path):
    from imagededup.methods import PHash

    logging.disable(logging.INFO)
    return int(PHash(verbose=False).encode_image(image_file=path), 16)


def hash_by_imagehash(path):
    return int(str(imagehash.phash(Image.open(path))), 16)


def crop_resistant(path):
    return imagehash.crop_resistant_hash(Image.open(path))


def hashed(pool, name, function, files):
    started = time.perf_counter()
    hashes = pool.map(function, files, chunksize=64)
    secs = time.perf_counter() - started
    print(f"{name}: {1e3 * secs * THREADS / len(files):.1f} ms of one core a photo", file=sys.stderr)
    return hashes


def figures(found, truth, ignored):
    """Precision, recall and F1 of pairs, `[copies, originals]` of bool."""
    found = found & ~ignored
    true = (found & truth).sum()
    precision = true / found.sum() if found.any() else float("nan")
    recall = true / truth.sum()
    return precision, recall, 2 * true / (found.sum() + truth.sum())


def row(*cells):
    print("| " + " | ".join(cells) + " |")


def show(label, threshold, found, truth, ignored):
    precision, recall, f1 = figures(found, truth, ignored)
    row(label, threshold, f"{precision:.4f}", f"{recall:.4f}", f"**{f1:.4f}**" if label.startswith("lookbook") else f"{f1:.4f}")


def main():
    program, source = sys.argv[1], pathlib.Path(sys.argv[2])
    given = sys.argv[3:]
    folder = pathlib.Path(given[0] if given else tempfile.mkdtemp(prefix="duplicates-")).resolve()
    shop, names = folder / "shop", sorted(path.name for path in source.glob("*.jpg"))
    kinds = ["original"] + [f"{number:02}" for number in range(len(CHANGES))]
    for kind in kinds:
        (shop / kind).mkdir(parents=True, exist_ok=True)
    files = [shop / kind / name for kind in kinds for name in names]
    count = len(names)
    truth = np.tile(np.eye(count, dtype=bool), (len(CHANGES), 1))
    same = np.zeros((count, count), dtype=bool)
    stems = [pathlib.Path(name).stem for name in names]
    for a, b in SAME:
        if a in stems and b in stems:
            same[stems.index(a), stems.index(b)] = same[stems.index(b), stems.index(a)] = True
    ignored = np.tile(same, (len(CHANGES), 1))
    with Pool(THREADS) as pool:
        pool.map(make_copies, [(source / name, shop) for name in names], chunksize=8)
        secs = segmented(program, folder)
        print(f"lookbook segment, all of it: {1e3 * secs * THREADS / len(files):.1f} ms of one core a photo", file=sys.stderr)
        peers = {
            "imagededup PHash": hashed(pool, "imagededup PHash", hash_by_imagededup, files),
            "imagehash phash": hashed(pool, "imagehash phash", hash_by_imagehash, files),
        }
        some = [kind * count + photo for kind in range(len(kinds)) for photo in range(0, count, CROP_RESISTANT_EVERY)]
        resistant = hashed(pool, "imagehash crop_resistant_hash", crop_resistant, [files[place] for place in some])
    place_of = places(folder, files)
    found = {}
    row("", "distance", "precision", "recall", "F1")
    row("---", "---", "---", "---", "---")
    for distance in DISTANCES:
        groups = grouped(program, folder, place_of, distance)
        pairs = groups[count:, None] == groups[None, :count]
        found["lookbook", distance] = pairs
        show("lookbook", f"{distance}", pairs, truth, ignored)
    found["lookbook, default"] = found["lookbook", 8]
    for name, hashes in peers.items():
        hashes = np.array(hashes, dtype=np.uint64)
        apart = np.bitwise_count(hashes[count:, None] ^ hashes[None, :count])
        best = max(range(33), key=lambda threshold: figures(apart <= threshold, truth, ignored)[2])
        show(name, f"{DEFAULTS[name]}, its default", apart <= DEFAULTS[name], truth, ignored)
        show(name, f"{best}, its best", apart <= best, truth, ignored)
        found[f"{name}, default"], found[f"{name}, best"] = apart <= DEFAULTS[name], apart <= best
    per_kind = len(some) // len(kinds)
    matches = np.array([[a.matches(b) for b in resistant[:per_kind]] for a in resistant[per_kind:]])
    few = [place - count for place in some[per_kind:]]
    chosen = np.ix_(few, some[:per_kind])
    show("imagehash crop_resistant_hash", f"its default, {per_kind} photos", matches, truth[chosen], ignored[chosen])
    show("lookbook", f"8, the same {per_kind} photos", found["lookbook", 8][chosen], truth[chosen], ignored[chosen])
    print()
    columns = ["lookbook, default", "imagededup PHash, default", "imagededup PHash, best", "imagehash phash, best"]
    row("found of the copies", *columns)
    row(*["---"] * (len(columns) + 1))
    for number, change in enumerate(NAMES):
        part = slice(number * count, (number + 1) * count)
        shares = [f"{(found[name][part] & truth[part]).sum() / count:.1%}" for name in columns]
        row(change, *[share.replace("%", " %") for share in shares])


if __name__ == "__main__":
    main()

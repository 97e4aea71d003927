"""A second reading of docs/parsers.md: labels photos by parser folders with NumPy, Pillow and Python's ONNX Runtime.

    parser_in_python.py PHOTOS FOLDER...

For each picture of the folder PHOTOS, each parser FOLDER gets a PNG of the same name (place of each pixel's label in
output.labels), as `lookbook parser check --expect` reads it, and another below `sure/` that is white where the label is the
same for all pictures on the network's input that differ by one in the bytes of any colours: filters round differently.
"""

import itertools
import sys
import tomllib
from pathlib import Path

import numpy
import onnxruntime
from PIL import Image

RESAMPLE = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "nearest": Image.NEAREST}
NEIGHBOURS = [(0, 0, 0), *itertools.product((-1, 1), repeat=3)]
TYPES = {"f32": numpy.float32, "f16": numpy.float16, "u8": numpy.uint8}


def laid(photo, declared):
    """The photo in the input's size, and its bounds there: left, top, width, height."""
    size = width, height = declared["width_px"], declared["height_px"]
    resample = RESAMPLE[declared.get("resample", "bilinear")]
    if declared["fit"] == "stretch":
        return photo.resize(size, resample), (0, 0, width, height)
    if declared["fit"] == "crop":
        wide = width * photo.height >= height * photo.width
        covering = (width, width * photo.height // photo.width) if wide else (height * photo.width // photo.height, height)
        left, top = (covering[0] - width) // 2, (covering[1] - height) // 2
        picture = photo.resize(covering, resample).crop((left, top, left + width, top + height))
        return picture, (-left, -top, *covering)
    scale = min(width / photo.width, height / photo.height)
    fitted = tuple(min(max(int(side * scale + 0.5), 1), limit) for side, limit in zip(photo.size, size))
    picture = Image.new("RGB", size, tuple(declared.get("fill", (0, 0, 0))))
    middle = declared.get("place", "center") == "center"
    left, top = ((width - fitted[0]) // 2, (height - fitted[1]) // 2) if middle else (0, 0)
    picture.paste(photo.resize(fitted, resample), (left, top))
    return picture, (left, top, *fitted)


def fed(values, declared):
    """What the network is fed for the bytes of a picture."""
    if declared.get("color", "rgb") == "bgr":
        values = values[:, :, ::-1]
    if declared["type"] != "u8":
        values = (values * declared.get("scale", 1.0)).astype(numpy.float32)
        values = (values - numpy.float32(declared.get("mean", 0))) / numpy.float32(declared.get("std", 1))
    values = values.astype(TYPES[declared["type"]])
    return values.transpose(2, 0, 1) if declared["layout"] == "nchw" else values


def places(start, length, side, count, pixels):
    """Where the centre of each pixel lies on the answer; NaN outside of the input. And the photo's bounds there."""
    on_input = start + (numpy.arange(pixels) + 0.5) * length / pixels
    inside = (on_input >= 0) & (on_input < side)
    scale = count / side
    first = max(int(numpy.floor(start * scale)), 0)
    last = min(int(numpy.ceil((start + length) * scale)), count) - 1
    return numpy.where(inside, on_input * scale, numpy.nan), first, last


def nearest(axis):
    place, first, last = axis
    return numpy.clip(numpy.floor(numpy.nan_to_num(place)), first, last).astype(int)


def between(axis):
    place, first, last = axis
    place = numpy.clip(numpy.nan_to_num(place) - 0.5, first, last)
    low = numpy.floor(place).astype(int)
    return low, numpy.minimum(low + 1, last), (place - low).astype(numpy.float32)


def labels_of(answer, bounds, declaration, size, background):
    """The label of each pixel of a photo of `size` (width, height) from the network's answer for it."""
    declared, output = declaration["input"], declaration["output"]
    kind = output["kind"]
    if kind == "label_map":
        answer = answer.reshape(answer.shape[-2:] if output.get("layout", "nchw") == "nchw" else answer.shape[:2])
    elif output.get("layout", "nchw") == "nhwc":
        answer = answer.transpose(2, 0, 1)
    left, top, width, height = bounds
    across = places(left, width, declared["width_px"], answer.shape[-1], size[0])
    down = places(top, height, declared["height_px"], answer.shape[-2], size[1])
    resize = output.get("resize", "labels" if kind == "label_map" else "logits")
    if resize == "logits":
        scores = answer.astype(numpy.float32)
        low, high, weight = between(down)
        scores = scores[:, low] * (1 - weight)[:, None] + scores[:, high] * weight[:, None]
        low, high, weight = between(across)
        labels = (scores[:, :, low] * (1 - weight) + scores[:, :, high] * weight).argmax(0)
    else:
        labels = answer if kind == "label_map" else answer.argmax(0)
        labels = labels[numpy.ix_(nearest(down), nearest(across))]
    outside = numpy.isnan(down[0])[:, None] | numpy.isnan(across[0])[None]
    return numpy.where(outside, background, labels).astype(numpy.uint8)


def main(photos, folders):
    photos = [(path.name, Image.open(path).convert("RGB")) for path in sorted(Path(photos).glob("*.png"))]
    assert photos, "there are no photos"
    for folder in map(Path, folders):
        declaration = tomllib.loads((folder / "parser.toml").read_text())
        session = onnxruntime.InferenceSession(folder / declaration["network"], providers=["CPUExecutionProvider"])
        of_network = session.get_inputs()[0]
        batch = of_network.shape[0] if isinstance(of_network.shape[0], int) else 1
        output = declaration["output"].get("name", session.get_outputs()[0].name)
        labels, fold = declaration["output"]["labels"], declaration.get("fold", {})
        if isinstance(fold, str):
            fold = tomllib.loads((folder / fold).read_text())["fold"]
        background = next((place for place, label in enumerate(labels) if fold.get(label, label) == "bk"), 0)
        for name, photo in photos:
            picture, bounds = laid(photo, declaration["input"])
            found = []
            for change in NEIGHBOURS:
                values = numpy.clip(numpy.asarray(picture).astype(int) + change, 0, 255).astype(numpy.uint8)
                given = numpy.stack([fed(values, declaration["input"])] * batch)
                answer = session.run([output], {of_network.name: given})[0][0]
                found.append(labels_of(answer, bounds, declaration, photo.size, background))
            sure = (numpy.stack(found) == found[0]).all(0)
            (folder / "sure").mkdir(exist_ok=True)
            Image.fromarray(found[0], "L").save(folder / name)
            Image.fromarray((sure * 255).astype(numpy.uint8), "L").save(folder / "sure" / name)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

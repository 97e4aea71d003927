"""What a model gains if each photo is also predicted mirrored: mirrored.py --dataset DIR --model DIR [--split validation]

Prints pixel accuracy, foreground accuracy and mean IoU at the photos' own size, of the model as it is and with the mean of the
probabilities for a photo and for its mirror image. Enlarges probabilities instead of logits, so the first row differs a little
from `lookbook evaluate`.
Needs numpy, onnxruntime, pillow and pyarrow: `PYTHONPATH=.python` after scripts/install_python_packages.sh.
"""

import argparse
import io
import json
import pathlib

import numpy as np
import onnxruntime
import PIL.Image
import pyarrow.parquet

CATEGORY_COUNT = 23


def enlarged(maps, width, height):
    """Maps of shape [23, rows, columns], by bilinear interpolation."""
    resized = [PIL.Image.fromarray(it).resize((width, height), PIL.Image.Resampling.BILINEAR) for it in maps]
    return np.stack([np.asarray(it) for it in resized])


class Network:
    """predict.onnx with the size of its photos and of its canvas."""

    def __init__(self, model):
        spec = json.loads((model / "model.json").read_text())["network"]["spec"]
        self.limit = spec["photo_width_px"], spec["photo_height_px"]
        self.session = onnxruntime.InferenceSession(model / "predict.onnx", providers=["CPUExecutionProvider"])
        self.rows, self.columns = self.session.get_inputs()[0].shape[1:3]

    def probabilities(self, photo):
        """Of each category, at the photo's own size: [23, height, width]."""
        share = min(limit / side for limit, side in zip(self.limit, photo.size))
        width, height = (max(1, round(side * share)) for side in photo.size)
        canvas = np.zeros((1, self.rows, self.columns, 3), np.uint8)
        canvas[0, :height, :width] = photo.resize((width, height), PIL.Image.Resampling.BILINEAR)
        (maps,) = self.session.run(["probabilities"], {"photos": canvas})[0]
        on_photo = enlarged(maps, self.columns, self.rows)[:, :height, :width]
        return enlarged(on_photo, *photo.size)


def row(name, confusion, background):
    """A row of the table, from pixels by truth and prediction."""
    right, true, found = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    seen = true + found > 0
    iou = right[seen] / (true + found - right)[seen]
    worn = np.arange(CATEGORY_COUNT) != background
    figures = right.sum() / true.sum(), right[worn].sum() / true[worn].sum(), iou.mean()
    return f"| {name} | {' | '.join(f'{it:.3f}' for it in figures)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=pathlib.Path, required=True)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--split", default="validation")
    arguments = parser.parse_args()
    network = Network(arguments.model)
    names = pyarrow.parquet.read_table(arguments.dataset / "categories.parquet").to_pylist()
    background = next(it["id"] for it in names if it["name"] == "bk")
    photos = pyarrow.parquet.read_table(arguments.dataset / "photos.parquet", filters=[("split", "=", arguments.split)])
    confusions = {name: np.zeros((CATEGORY_COUNT, CATEGORY_COUNT), np.int64) for name in ("as it is", "with its mirror image")}
    for record in photos.to_pylist():
        photo = PIL.Image.open(io.BytesIO(record["photo"]["bytes"])).convert("RGB")
        truth = np.array(record["superpixel_category"])[np.array(record["superpixels"])]
        plain = network.probabilities(photo)
        mirrored = network.probabilities(photo.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT))[:, :, ::-1]
        for confusion, maps in zip(confusions.values(), (plain, plain + mirrored)):
            np.add.at(confusion, (truth, maps.argmax(0).ravel()), 1)
    print(f"| {arguments.split} part | pixel accuracy | foreground accuracy | mean IoU |\n| --- | ---: | ---: | ---: |")
    for name, confusion in confusions.items():
        print(row(name, confusion, background))


if __name__ == "__main__":
    main()

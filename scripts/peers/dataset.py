"""Dataset tables as arrays, and the metrics of label maps, for train_torch.py and train_keras.py."""

import io
import pathlib
import sys

import numpy as np
import pyarrow.parquet
from PIL import Image

CATEGORY_COUNT = 23
SIDE_MULTIPLE = 16


class Examples:
    """A split of a dataset folder whose photos are all of one size: `photos` u8 [count, rows, columns, 3] and `labels` u8
    [count, rows, columns]. The photos' own pixels are `real`; below and right of them photos are black and labels repeat."""

    def __init__(self, dataset, split):
        path = pathlib.Path(dataset) / "photos.parquet"
        columns = ["split", "photo", "width_px", "height_px", "superpixels", "superpixel_category"]
        photos, labels = [], []
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(32, columns=columns):
            for row in range(batch.num_rows):
                cell = {name: batch.column(name)[row] for name in columns}
                if cell["split"].as_py() == split:
                    photos.append(photo(cell["photo"]["bytes"].as_py()))
                    labels.append(label_map(cell))
        sizes = {it.shape for it in labels}
        if len(sizes) != 1:
            sys.exit(f"{path}: the photos of the {split} part have {len(sizes)} sizes, expected one")
        (height, width) = sizes.pop()
        self.real = (slice(None), slice(height), slice(width))
        pad = [(0, 0), (0, -height % SIDE_MULTIPLE), (0, -width % SIDE_MULTIPLE)]
        self.photos = np.pad(np.stack(photos), [*pad, (0, 0)])
        self.labels = np.pad(np.stack(labels), pad, mode="edge")

    def __len__(self):
        return len(self.photos)


def photo(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def label_map(cell):
    category = cell["superpixel_category"].values.to_numpy()
    of_pixels = category[cell["superpixels"].values.to_numpy()]
    return of_pixels.reshape(cell["height_px"].as_py(), cell["width_px"].as_py()).astype(np.uint8)


def confusion(truth, predicted):
    """Pixels by truth (rows) and prediction."""
    pairs = truth.astype(np.int64).ravel() * CATEGORY_COUNT + predicted.ravel()
    return np.bincount(pairs, minlength=CATEGORY_COUNT**2).reshape(CATEGORY_COUNT, CATEGORY_COUNT)


def metrics(counts):
    """The metrics of lookbook's evaluation.json that depend on the counts."""
    right, truth = np.diag(counts), counts.sum(axis=1)
    iou = right[truth > 0] / (truth + counts.sum(axis=0) - right)[truth > 0]
    return {
        "pixel accuracy": right.sum() / counts.sum(),
        "foreground accuracy": right[1:].sum() / truth[1:].sum(),
        "mean IoU": iou.mean(),
    }


def epochs(seed, examples, count, batch_size):
    """The ids of each step, epoch by epoch: the train part alone is shuffled."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        order = random.permutation(len(examples))
        yield [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def evaluate(recipe, examples, batch_size=4):
    """Metrics of a split; `recipe.evaluate(photos, labels, real)` answers mean loss and label maps of real pixels."""
    counts, loss = np.zeros((CATEGORY_COUNT, CATEGORY_COUNT), np.int64), 0.0
    for start in range(0, len(examples), batch_size):
        ids = slice(start, start + batch_size)
        photos, labels = examples.photos[ids], examples.labels[ids]
        of_batch, maps = recipe.evaluate(photos, labels, examples.real)
        loss += of_batch * len(photos) / len(examples)
        counts += confusion(labels[examples.real], maps)
    return metrics(counts) | {"BCE": loss}

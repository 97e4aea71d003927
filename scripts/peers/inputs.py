"""What the contestants of bench.py work on, written into a folder: 16 seeded examples and initial weights."""

import json

import numpy as np
import torch
from safetensors.numpy import save_file
from unet_torch import CATEGORY_COUNT, UNet

PHOTOS, ROWS, COLUMNS, PATCH_PX = 16, 608, 400, 16


def examples(random):
    """Photos u8 [16, 608, 400, 3] and labels u8 [16, 608, 400]: patches, each of its category's colour, with noise."""
    labels = random.integers(0, CATEGORY_COUNT, (PHOTOS, ROWS // PATCH_PX, COLUMNS // PATCH_PX), np.uint8)
    labels = labels.repeat(PATCH_PX, axis=1).repeat(PATCH_PX, axis=2)
    colors = random.integers(32, 224, (CATEGORY_COUNT, 3), np.uint8)
    photos = colors[labels] + random.integers(-32, 32, (*labels.shape, 3), np.int8).view(np.uint8)
    return {"photos": photos, "labels": labels}


def write(folder):
    save_file(examples(np.random.default_rng(0)), folder / "examples.safetensors")
    torch.manual_seed(0)
    weights = {name: values.numpy() for name, values in UNet().state_dict().items()}
    spec = {"photo_width_px": COLUMNS, "photo_height_px": ROWS, "loss": "bce"}
    save_file(weights, folder / "weights.safetensors", {"lookbook.spec": json.dumps(spec)})


def flop(batch):
    """Multiplications and additions of the convolutions over `batch` photos: (of a prediction, of a training step)."""
    of_layers = []

    def count(layer, inputs, output):
        places = inputs[0] if isinstance(layer, torch.nn.ConvTranspose2d) else output
        of_layers.append(2 * layer.weight.numel() * batch * places.shape[-2] * places.shape[-1])

    with torch.device("meta"):
        network = UNet()
        for layer in network.children():
            layer.register_forward_hook(count)
        network(torch.empty((1, ROWS, COLUMNS, 3), dtype=torch.uint8))
    # A layer goes back as two such products, but nobody needs the gradient of the photos.
    return sum(of_layers), 3 * sum(of_layers) - of_layers[0]

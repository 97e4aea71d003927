"""What the contestants of bench.py work on, written into a folder: 16 seeded examples and the initial weights of a recipe."""

import json
from typing import NamedTuple

import numpy as np
import pretrained_torch
import torch
import unet_torch
from safetensors.numpy import save_file
from unet_torch import CATEGORY_COUNT

PHOTOS, ROWS, PATCH_PX = 16, 608, 16


class Network(NamedTuple):
    module: type
    # Columns of the photos.
    columns: int
    # Pixels of a photo, in each direction, per pixel of the maps.
    stride: int
    spec: dict


NETWORKS = {
    "seed": Network(
        unet_torch.UNet, 400, 1, {"photo_width_px": 400, "photo_height_px": ROWS, "loss": "bce"}
    ),
    "pretrained": Network(pretrained_torch.EncoderUNet, 416, 2, pretrained_torch.spec(416, ROWS)),
}


def examples(random, network):
    """Photos u8 [16, 608, columns, 3] and labels u8 [16, map rows, map columns]: patches, each of its category's colour,
    with noise.
    """
    patches = (PHOTOS, ROWS // PATCH_PX, network.columns // PATCH_PX)
    labels = random.integers(0, CATEGORY_COUNT, patches, np.uint8)
    labels = labels.repeat(PATCH_PX, axis=1).repeat(PATCH_PX, axis=2)
    colors = random.integers(32, 224, (CATEGORY_COUNT, 3), np.uint8)
    photos = colors[labels] + random.integers(-32, 32, (*labels.shape, 3), np.int8).view(np.uint8)
    of_maps = labels[:, network.stride // 2 :: network.stride, network.stride // 2 :: network.stride]
    return {"photos": photos, "labels": np.ascontiguousarray(of_maps)}


def write(folder, recipe):
    network = NETWORKS[recipe]
    those = examples(np.random.default_rng(0), network)
    save_file(those, folder / "examples.safetensors")
    torch.manual_seed(0)
    module = network.module()
    if recipe == "pretrained":
        pretrained_torch.take_statistics(module, torch.from_numpy(those["photos"][:1]))
    weights = {name: values.numpy() for name, values in module.state_dict().items()}
    save_file(weights, folder / "weights.safetensors", {"lookbook.spec": json.dumps(network.spec)})


def flop(recipe, batch):
    """Multiplications and additions of the convolutions over `batch` photos: (of a prediction, of a training step)."""
    network, of_layers = NETWORKS[recipe], []

    def count(layer, inputs, output):
        places = inputs[0] if isinstance(layer, torch.nn.ConvTranspose2d) else output
        of_layers.append(2 * layer.weight.numel() * batch * places.shape[-2] * places.shape[-1])

    with torch.device("meta"):
        module = network.module()
        for layer in module.modules():
            if hasattr(layer, "weight"):
                layer.register_forward_hook(count)
        module(torch.empty((1, ROWS, network.columns, 3), dtype=torch.uint8))
    # A layer goes back as two such products, but nobody needs the gradient of the photos.
    return sum(of_layers), 3 * sum(of_layers) - of_layers[0]

"""Writes tests/data/parser_inputs.json: what the image processors of transformers and the transforms of torchvision feed their
networks for a few real photos, at some places.

    parser_inputs.py DATA > tests/data/parser_inputs.json

DATA is the folder of real photos (ccp/photos, cfpd/image). Run it in the environment of `scripts/install_environment.sh parsers`.
"""

import json
import sys
from pathlib import Path

import numpy
import torchvision
import transformers
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import pil_to_tensor

SAMPLES = 120
SCALE = "scale = 0.00392156862745098"
IMAGENET = "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]"
HALVES = "mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]"
CLIP = "mean = [0.48145466, 0.4578275, 0.40821073]\nstd = [0.26862954, 0.26130258, 0.27577711]"


def declared(values, numbers, resample="bilinear", fit="stretch"):
    _, height, width = values.shape
    form = f'layout = "nchw"\ntype = "f32"\nwidth_px = {width}\nheight_px = {height}\nfit = "{fit}"'
    return f'{form}\nresample = "{resample}"\n{SCALE}\n{numbers}'


def processor(name, **settings):
    made = getattr(transformers, name)(**settings)
    return lambda photo: made(photo, return_tensors="np")["pixel_values"][0]


def deeplab(as_tensor):
    made = torchvision.transforms._presets.SemanticSegmentation(resize_size=520, interpolation=InterpolationMode.BILINEAR)
    return lambda photo: made(pil_to_tensor(photo) if as_tensor else photo).numpy()


SIZE = {"height": 512, "width": 512}
MAKERS = {
    "transformers SegformerImageProcessor": (processor("SegformerImageProcessor", size=SIZE), IMAGENET, "bilinear"),
    "transformers BeitImageProcessor, bicubic": (
        processor("BeitImageProcessor", size={"height": 320, "width": 240}, do_center_crop=False, resample=3),
        HALVES,
        "bicubic",
    ),
    # Its shorter side is 520 pixels long, whatever the photo's shape.
    "torchvision DeepLab, PIL": (deeplab(False), IMAGENET, "bilinear"),
    "torchvision DeepLab, tensor": (deeplab(True), IMAGENET, "bilinear"),
    "transformers CLIPImageProcessor": (processor("CLIPImageProcessor"), CLIP, "bicubic", "crop"),
}


def main(data):
    photos = [path.relative_to(data).as_posix() for path in sorted((data / "ccp/photos").iterdir())[:2]]
    photos += [path.relative_to(data).as_posix() for path in sorted((data / "cfpd/image").iterdir())[:1]]
    random = numpy.random.default_rng(0)
    cases = []
    for photo in photos:
        picture = Image.open(data / photo).convert("RGB")
        for name, (make, *declaration) in MAKERS.items():
            values = make(picture)
            text = declared(values, *declaration)
            places = [[int(random.integers(side)) for side in values.shape] for _ in range(SAMPLES)]
            samples = [[*place, round(float(values[tuple(place)]), 5)] for place in places]
            cases.append({"made_by": name, "photo": photo, "input": text, "samples": samples})
    versions = {it.__name__: it.__version__ for it in (torchvision, transformers)}
    lines = ",\n".join(json.dumps(case) for case in cases)
    print(f'{{"versions": {json.dumps(versions)}, "cases": [\n{lines}\n]}}')


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Exports the networks of docs/parsers.md, untrained, as parser folders, with what their own programs say of photos.

    export.py PLACE

PLACE/photos/ holds the photos. Writes the first of them as PLACE/photo.png; for each parser PLACE/parsers/NAME/ (network.onnx,
parser.toml, fold, and expected.png of that photo); for each embedder PLACE/embedders/NAME/ (network.onnx, parser.toml, and
expected.npz with the embedding of each photo by its file name). For weights of your own, call the `export` of your network
with a trained model in place of the one that it makes.
"""

import shutil
import sys
from pathlib import Path

import numpy
import torch
import torch.nn.functional as functional
import torchvision
import transformers
from PIL import Image

ATR = ["Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt", "Left-shoe",
       "Right-shoe", "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf"]
LIP = ["Background", "Hat", "Hair", "Glove", "Sunglasses", "Upper-clothes", "Dress", "Coat", "Socks", "Pants", "Jumpsuits",
       "Scarf", "Skirt", "Face", "Left-arm", "Right-arm", "Left-leg", "Right-leg", "Left-shoe", "Right-shoe"]
MODANET = ["background", "bag", "belt", "boots", "footwear", "outer", "dress", "sunglasses", "pants", "top", "shorts", "skirt",
           "headwear", "scarf/tie"]
FOLDS = Path(__file__).resolve().parents[2] / "pipelines/folds"


class Output(torch.nn.Module):
    """A network with one plain output."""

    def __init__(self, network, output):
        super().__init__()
        self.network, self.output = network, output

    def forward(self, pixels):
        return self.output(self.network(pixels))


def settled(network, classifier, pixels):
    """Sets statistics and the last bias by a photo: an untrained network says the same of all pixels otherwise."""
    halves = functional.interpolate(pixels.float(), (128, 128)).split(64, 3)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.cat(halves))
        scores = network.eval()(pixels)
        classifier.weight /= scores.std()
        classifier.bias.copy_((classifier.bias - scores.mean((0, 2, 3))) / scores.std())
    return network


def export(network, pixels, folder, name="network.onnx"):
    """The network as an ONNX file for any number of photos."""
    folder.mkdir(parents=True)
    # Of two photos: a batch of one would be taken for the only one.
    torch.onnx.export(network, (torch.cat([pixels, pixels]),), folder / name, input_names=["pixels"], output_names=["answer"], dynamo=True,
                      dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}}, external_data=False, verbose=False)


def declare(folder, name, fold, labels, network_input, output):
    shutil.copy(FOLDS / fold, folder / fold)
    names = ", ".join(f'"{label}"' for label in labels)
    (folder / "parser.toml").write_text(f'''name = "{name}"
license = "MIT"
network = "network.onnx"
fold = "{fold}"
[input]
{network_input.strip()}
[output]
{output.strip()}
labels = [{names}]
''')


def expect(folder, labels):
    Image.fromarray(numpy.asarray(labels).astype(numpy.uint8), "L").save(folder / "expected.png")


def segformer(folder, photo):
    processor = transformers.SegformerImageProcessor(size={"height": 512, "width": 512})
    model = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(num_labels=len(ATR))).eval()
    pixels = processor(photo, return_tensors="pt")["pixel_values"]
    network = settled(Output(model, lambda it: it.logits), model.decode_head.classifier, pixels)
    export(network, pixels, folder)
    declare(folder, "segformer-clothes", "atr.toml", ATR, '''
layout = "nchw"
type = "f32"
width_px = 512
height_px = 512
fit = "stretch"
resample = "bilinear"
color = "rgb"
scale = 0.00392156862745098
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
''', '''
kind = "logits"
layout = "nchw"
resize = "logits"
''')
    with torch.no_grad():
        outputs = model(pixels)
    expect(folder, processor.post_process_semantic_segmentation(outputs, target_sizes=[photo.size[::-1]])[0])


def deeplab(folder, photo):
    model = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=len(MODANET)).eval()
    transform = torchvision.transforms._presets.SemanticSegmentation(resize_size=520)
    pixels = transform(photo)[None]
    network = settled(Output(model, lambda it: it["out"]), model.classifier[-1], pixels)
    export(network, pixels, folder)
    rows, columns = pixels.shape[2:]
    declare(folder, "deeplab-modanet", "modanet.toml", MODANET, f'''
layout = "nchw"
type = "f32"
width_px = {columns}
height_px = {rows}
fit = "stretch"
scale = 0.00392156862745098
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
''', 'kind = "logits"')
    with torch.no_grad():
        scores = functional.interpolate(network(pixels), photo.size[::-1], mode="bilinear", align_corners=False)
    expect(folder, scores[0].argmax(0))


def letterboxed(photo, side, fill):
    """The photo in its own shape in the middle of a square, with its size and its left and upper edge there."""
    scale = side / max(photo.size)
    size = tuple(round(it * scale) for it in photo.size)
    left, top = [(side - it) // 2 for it in size]
    picture = Image.new("RGB", (side, side), fill)
    picture.paste(photo.resize(size, Image.BILINEAR), (left, top))
    return picture, size, left, top


def schp(folder, photo):
    """In the form of SCHP: blue, green, red, a photo in its own shape on black, and an answer of a quarter of the size, enlarged
    from corner to corner in the graph."""
    side = 473
    model = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=len(LIP)).eval()
    # As it is drawn, a quarter of the labels change with a thousandth of the contrast: what a block adds is made smaller.
    for block in model.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            torch.nn.init.constant_(block.bn3.weight, 0.1)
    picture, size, left, top = letterboxed(photo, side, (0, 0, 0))
    values = numpy.asarray(picture, numpy.float32)[:, :, ::-1] / 255
    values = (values - [0.406, 0.456, 0.485]) / [0.225, 0.224, 0.229]
    pixels = torch.from_numpy(values.astype(numpy.float32).transpose(2, 0, 1))[None]
    enlarged = lambda it, size: functional.interpolate(it, (size, size), mode="bilinear", align_corners=True)
    network = settled(Output(model, lambda it: enlarged(enlarged(it["out"], 119), side)), model.classifier[-1], pixels)
    export(network, pixels, folder)
    declare(folder, "schp-lip", "lip.toml", LIP, f'''
layout = "nchw"
type = "f32"
width_px = {side}
height_px = {side}
fit = "letterbox"
fill = [0, 0, 0]
color = "bgr"
scale = 0.00392156862745098
mean = [0.406, 0.456, 0.485]
std = [0.225, 0.224, 0.229]
''', 'kind = "logits"')
    with torch.no_grad():
        scores = network(pixels)[:, :, top:top + size[1], left:left + size[0]]
        scores = functional.interpolate(scores, photo.size[::-1], mode="bilinear", align_corners=False)
    expect(folder, scores[0].argmax(0))


class LabelMap(torch.nn.Module):
    """In the form of YOLO segmenters whose masks are merged in the graph: bytes in, the class of each pixel out."""

    def __init__(self, classes):
        super().__init__()
        self.features = torch.nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.classifier = torch.nn.Conv2d(8, classes, 1)

    def scores(self, pixels):
        x = pixels.permute(0, 3, 1, 2).float() / 255
        return self.classifier(torch.relu(self.features(x)))

    def forward(self, pixels):
        return self.scores(pixels).argmax(1)


def yolo(folder, photo):
    side = 640
    picture, size, left, top = letterboxed(photo, side, (114, 114, 114))
    pixels = torch.from_numpy(numpy.array(picture))[None]
    network = LabelMap(len(MODANET)).eval()
    with torch.no_grad():
        network.classifier.bias -= network.scores(pixels).mean((0, 2, 3))
    export(network, pixels, folder)
    declare(folder, "yolo-modanet", "modanet.toml", MODANET, f'''
layout = "nhwc"
type = "u8"
width_px = {side}
height_px = {side}
fit = "letterbox"
fill = [114, 114, 114]
''', 'kind = "label_map"')
    with torch.no_grad():
        labels = network(pixels)[0].numpy()
    # Each pixel of the photo takes the label at its centre.
    row, column = [(((numpy.arange(own) + 0.5) * on / own + start) / 4).astype(int)
                   for own, on, start in zip(photo.size[::-1], size[::-1], (top, left))]
    expect(folder, labels[numpy.ix_(row, column)])


def clip(folder, photos):
    """CLIP's image tower, ViT-B/32: the shorter side scaled to 224 pixels, and the middle of it."""
    processor = transformers.CLIPImageProcessor()
    model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig()).eval()
    network = Output(model, lambda it: it.image_embeds)
    pixels = {path.name: processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"] for path in photos}
    export(network, next(iter(pixels.values())), folder)
    (folder / "parser.toml").write_text(f'''name = "clip-vit-b-32"
license = "MIT"
network = "network.onnx"
[input]
layout = "nchw"
type = "f32"
width_px = 224
height_px = 224
fit = "crop"
resample = "bicubic"
scale = 0.00392156862745098
mean = {list(processor.image_mean)}
std = {list(processor.image_std)}
[output]
kind = "embedding"
''')
    with torch.no_grad():
        embeddings = {name: functional.normalize(network(pixels))[0].numpy() for name, pixels in pixels.items()}
    numpy.savez(folder / "expected.npz", **embeddings)


def main(place):
    torch.manual_seed(0)
    photos = sorted((place / "photos").iterdir())
    picture = Image.open(photos[0]).convert("RGB")
    picture.save(place / "photo.png")
    for name, make in {"segformer-atr": segformer, "deeplab-modanet": deeplab, "schp-lip": schp, "yolo-modanet": yolo}.items():
        make(place / "parsers" / name, picture)
    clip(place / "embedders/clip-vit-b-32", photos)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

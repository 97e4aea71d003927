"""Writes tests/data/masks: small data sets as labelling tools export them, and their label maps by other programs.

    python3 scripts/oracles/masks.py tests/data/masks
        (pycocotools 2.0.11, label-studio-sdk 2.1.2, pillow 13, numpy 2, opencv-python-headless; pip install them)

`polygons.json` has polygons of every shape and, for each, the run lengths of pycocotools' `frPyObjects`; `coco/`, `voc/`,
`palette/` and `label_studio/` are sources, and `expected.json` the SHA-256 (first 16 digits) of each photo's label map,
`[height, width]` u8: of COCO by `annToMask`, painted in the order of the file; of the masks by Pillow; of Label Studio by
its own converter: brushes by `decode_rle`, polygons by its export to COCO and pycocotools.
"""

import hashlib
import io
import json
import pathlib
import shutil
import sys

import numpy as np
from label_studio_sdk.converter import brush
from label_studio_sdk.converter.converter import Converter, Format
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

CATEGORIES = ("bk T-shirt bag belt blazer blouse coat dress face hair hat jeans legging pants scarf shoe shorts skin "
              "skirt socks stocking sunglass sweater").split()
SIZES = [(40, 60), (61, 37), (30, 30), (1, 50), (50, 1), (97, 103)]


def text(rle):
    return {"size": [int(it) for it in rle["size"]], "counts": rle["counts"].decode()}


def counts(mask):
    """Uncompressed run lengths."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": runs if flat[0] == 0 else [0] + runs}


def polygon(rng, width, height, kind):
    count = int(rng.integers(3, 12))
    if kind == "inside":
        xy = rng.random((count, 2)) * [width, height]
    elif kind == "outside":
        xy = (rng.random((count, 2)) * 3 - 1) * [width, height]
    elif kind == "whole":
        xy = rng.integers(-3, max(width, height) + 4, (count, 2)).astype(float)
    elif kind == "tenths":
        xy = rng.integers(0, 10 * max(width, height), (count, 2)) / 10
    elif kind == "repeated":
        xy = np.repeat(rng.integers(0, max(width, height), (count, 2)).astype(float), 2, axis=0)
    elif kind == "thin":
        x = rng.random() * width
        xy = np.array([[x, 0], [x + 0.3, height], [x + 0.1, height / 2]])
    else:
        xy = (rng.random((count, 2)) * 2000 - 1000)
    return [round(float(it), 3) for it in xy.ravel()]


def write_polygons(folder, rng):
    cases = []
    for width, height in SIZES:
        for kind in ("inside", "outside", "whole", "tenths", "repeated", "thin", "far"):
            for _ in range(6):
                points = polygon(rng, width, height, kind)
                rle = coco_mask.frPyObjects([points], height, width)[0]
                cases.append({"polygon": points, **text(rle)})
    (folder / "polygons.json").write_text(json.dumps(cases))


def photo(path, width, height, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (height, width, 3), "u1")).save(path, quality=50)


def digest(label_map):
    return hashlib.sha256(np.ascontiguousarray(label_map, "u1").tobytes()).hexdigest()[:16]


def blob(rng, width, height):
    """A mask of some ellipses."""
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(3):
        cx, cy, rx, ry = rng.random(4) * [width, height, width / 3 + 1, height / 3 + 1] + [0, 0, 1, 1]
        mask |= ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
    return mask.astype("u1")


def write_coco(folder, rng):
    """Two files of parts; the categories' ids are not in order, and their names are folded."""
    names = {7: "shirt, blouse", 3: "T-shirt", 12: "shoe", 5: "hair"}
    fold = {7: 5, 3: 1, 12: 15, 5: 9}
    expected = {}
    for part, sizes in (("train", SIZES[:4]), ("val", SIZES[4:])):
        images, annotations = [], []
        for image, (width, height) in enumerate(sizes, 100):
            name = f"{part}_{image}.jpg"
            photo(folder / "images" / name, width, height, rng)
            images.append({"id": image, "file_name": name, "width": width, "height": height})
            for kind in ("polygons", "text", "counts", "crowd"):
                if kind == "polygons":
                    shape = [polygon(rng, width, height, it) for it in ("inside", "outside", "tenths")]
                elif kind == "text":
                    shape = text(coco_mask.encode(np.asfortranarray(blob(rng, width, height))))
                else:
                    shape = counts(blob(rng, width, height))
                annotations.append({
                    "id": len(annotations) + 1, "image_id": image, "category_id": int(rng.choice(list(names))),
                    "segmentation": shape, "iscrowd": int(kind == "crowd"), "bbox": [0, 0, 1, 1], "area": 1.0,
                })
        file = folder / "annotations" / f"instances_{part}2020.json"
        file.parent.mkdir(exist_ok=True)
        categories = [{"id": it, "name": name, "supercategory": ""} for it, name in names.items()]
        file.write_text(json.dumps({
            "info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}))
        coco = COCO(file)
        for image in images:
            label_map = np.zeros((image["height"], image["width"]), "u1")
            of_image = [it for it in annotations if it["image_id"] == image["id"]]
            for it in of_image:
                label_map[coco.annToMask(it) > 0] = fold[it["category_id"]]
            expected[image["file_name"]] = digest(label_map)
    (folder / "fold.toml").write_text('[fold]\n"shirt, blouse" = "blouse"\n')
    return expected


def index_map(rng, width, height, most):
    label_map = np.zeros((height, width), "u1")
    for _ in range(5):
        label_map[blob(rng, width, height) > 0] = rng.integers(0, most)
    return label_map


def write_palette(folder, rng):
    """Indices of 1, 2, 4 and 8 bits, of a palette and grey; the names of the indices are in labels.txt."""
    names = ["background", "skin", "hair", "dress", "shoe", "bag", "hat", "face"]
    (folder / "masks").mkdir(parents=True)
    (folder / "labels.txt").write_text("\n".join(names) + "\n")
    expected = {}
    for number, (bits, mode) in enumerate([(1, "P"), (2, "P"), (4, "P"), (8, "P"), (8, "L"), (1, "1")]):
        width, height = SIZES[number % 3]
        label_map = index_map(rng, width, height, min(1 << bits, len(names)))
        photo(folder / "photos" / f"p{number}.jpg", width, height, rng)
        path = folder / "masks" / f"p{number}.png"
        if mode == "1":
            Image.fromarray(label_map.astype(bool)).save(path)
        else:
            mask = Image.fromarray(label_map, mode="L")
            if mode == "P":
                mask = mask.convert("L")
                mask.putpalette([value for it in range(256) for value in (it * 7 % 256, it * 31 % 256, 255 - it)])
                mask.save(path, bits=bits)
            else:
                mask.save(path)
        read = np.array(Image.open(path)).astype("u1")
        assert (read == label_map).all(), path
        expected[f"p{number}.jpg"] = digest(np.array([CATEGORIES.index(it) if it != "background" else 0 for it in names])[read])
    return expected


def write_voc(folder, rng):
    """Colours of pixels and of a palette by labelmap.txt, a void border, and lists of parts."""
    colors = {"background": (0, 0, 0), "skin": (250, 50, 83), "T-shirt": (51, 221, 255), "kimono": (10, 200, 10)}
    fold = {"background": 0, "skin": 17, "T-shirt": 1, "kimono": 6, "void": 0}
    lines = ["# label:color_rgb:parts:actions"] + [f"{name}:{r},{g},{b}::" for name, (r, g, b) in colors.items()]
    (folder / "SegmentationClass").mkdir(parents=True)
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    (folder / "labelmap.txt").write_text("\n".join(lines) + "\n")
    (folder / "fold.toml").write_text('[fold]\nkimono = "coat"\nvoid = "bk"\n')
    names, expected = list(colors) + ["void"], {}
    table = np.array([*colors.values(), (224, 224, 192)], "u1")
    for number in range(4):
        width, height = SIZES[number % 3]
        label_map = index_map(rng, width, height, 4)
        label_map[:2, :] = 4
        photo(folder / "JPEGImages" / f"v{number}.jpg", width, height, rng)
        path = folder / "SegmentationClass" / f"v{number}.png"
        if number % 2:
            # A palette in another order.
            order = [3, 1, 4, 0, 2]
            mask = Image.fromarray(np.argsort(order)[label_map].astype("u1"), mode="L")
            mask.putpalette(table[order].ravel().tolist())
            mask.save(path)
        else:
            Image.fromarray(table[label_map]).save(path)
        read = np.array(Image.open(path).convert("RGB"))
        back = np.argmax((read[:, :, None] == table).all(3), axis=2)
        expected[f"v{number}.jpg"] = digest(np.array([fold[it] for it in names])[back])
    for part, photos in (("train", "v0\nv1\n"), ("val", "v3\n"), ("trainval", "v0\nv1\nv3\n"), ("test", "v2\n")):
        (folder / "ImageSets/Segmentation" / f"{part}.txt").write_text(photos)
    return expected


def write_label_studio(folder, rng):
    config = ('<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
              + "".join(f'<Label value="{it}"/>' for it in CATEGORIES)
              + '</BrushLabels><PolygonLabels name="polygon" toName="image">'
              + "".join(f'<Label value="{it}"/>' for it in CATEGORIES) + "</PolygonLabels></View>")
    tasks, expected = [], {}
    for number, (width, height) in enumerate(SIZES):
        name = f"1a2b3c4d-l{number}.jpg"
        photo(folder / "images" / name, width, height, rng)
        label_map, result = np.zeros((height, width), "u1"), []
        for kind in ("brush", "polygon", "brush", "polygon"):
            label = str(rng.choice(CATEGORIES[1:]))
            value = {f"{kind}labels": [label]}
            if kind == "brush":
                mask = blob(rng, width, height) * 255
                if number % 2:
                    # As the editor writes it: the colour of the label, and edges that are half transparent.
                    rgba = np.zeros((height, width, 4), "u1")
                    rgba[mask > 0] = (200, 30, 40, 255)
                    rgba[np.logical_xor(mask > 0, np.roll(mask, 1, axis=0) > 0)] = (200, 30, 40, 120)
                    value |= {"format": "rle", "rle": brush.encode_rle(rgba.ravel())}
                else:
                    value |= {"format": "rle", "rle": brush.mask2rle(mask)}
                decoded = brush.decode_rle(value["rle"]).reshape(height, width, 4)[:, :, 3]
                label_map[decoded > 0] = CATEGORIES.index(label)
            else:
                points = (rng.random((int(rng.integers(3, 9)), 2)) * 110 - 5).round(8)
                value["points"] = points.tolist()
                value["closed"] = True
            result.append({"id": f"r{len(result)}", "type": f"{kind}labels", "from_name": kind, "to_name": "image",
                           "original_width": width, "original_height": height, "image_rotation": 0, "value": value})
            if kind == "polygon":
                label_map[exported(config, folder, name, result[-1], width, height) > 0] = CATEGORIES.index(label)
        choice = {"id": "c", "type": "choices", "from_name": "c", "to_name": "image", "value": {"choices": ["good"]}}
        old = {"id": 1, "was_cancelled": True, "result": result[:1]}
        tasks.append({"id": number + 1, "data": {"image": f"/data/upload/3/{name}"},
                      "annotations": [{"id": 2, "was_cancelled": False, "result": result + [choice]}, old],
                      "predictions": [17]})
        expected[name] = digest(label_map)
    (folder / "project-3.json").write_text(json.dumps(tasks))
    return expected


def exported(config, folder, name, region, width, height):
    """The mask of a polygon by Label Studio's export to COCO, which has it in pixels."""
    import tempfile
    task = {"id": 1, "data": {"image": name}, "annotations": [{"id": 1, "result": [region], "completed_by": 1}]}
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        (place / "in").mkdir()
        (place / "out/images").mkdir(parents=True)
        shutil.copy(folder / "images" / name, place / "out/images" / name)
        (place / "in/tasks.json").write_text(json.dumps([task]))
        converter = Converter(config, str(place), download_resources=False)
        converter.convert_to_coco(str(place / "in"), str(place / "out"), output_image_dir=str(place / "out/images"))
        result = json.loads((place / "out/result.json").read_text())
    shapes = coco_mask.frPyObjects(result["annotations"][0]["segmentation"], height, width)
    return coco_mask.decode(coco_mask.merge(shapes))


def main(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(20)
    write_polygons(folder, rng)
    expected = {}
    for name, write in (("coco", write_coco), ("palette", write_palette), ("voc", write_voc),
                        ("label_studio", write_label_studio)):
        (folder / name).mkdir()
        expected[name] = write(folder / name, rng)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

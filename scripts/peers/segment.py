"""Measures `lookbook segment` beside pipelines in Python: segment.py --lookbook PROGRAM [--photos FOLDER] [--rounds 3]

PROGRAM is target/release/lookbook, with `cargo build --release --example bench_worker` beside it. All go from the same photo
files (without --photos: drawn ones) to a feature table as Parquet, with the same network of 608 x 400, in a process of their
own, one at a time, in turns. lookbook's time is that of the whole command: it starts, loads the model, works, flushes to disk,
checks and publishes. A peer's time is the work alone: imports, the model's loading and a batch to warm up are left out.
Nothing is flushed. "the network alone" is lookbook's network over as many batches of four photos that are in memory.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import io
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

BATCH = 4
FIT = (400, 600)
ROWS, COLUMNS = 608, 400
CATEGORIES, COLORS = 23, 13
NOT_WORN = (0, 8, 9, 17)
# Photos that a peer decodes ahead of its network.
AHEAD = 4 * BATCH
# Rounds of the network alone.
NETWORK_ROUNDS = 30
# Least share of pixels with the same category; the same for bf16.
AGREEMENT, BF16_AGREEMENT = 0.999, 0.98


def onnxruntime_network(model, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda photos: session.run(["label_map"], {"photos": photos})[0]


def openvino_network(model, threads, precision):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    return lambda photos: compiled(photos)[0]


NETWORKS = {
    "onnxruntime": onnxruntime_network,
    "onnxruntime-loop": onnxruntime_network,
    "openvino-f32": lambda *it: openvino_network(*it, "f32"),
    "openvino-bf16": lambda *it: openvino_network(*it, "bf16"),
}


class Loop(concurrent.futures.Executor):
    """Does everything at once and in place, as a plain loop does."""

    def submit(self, work, *arguments):
        done = concurrent.futures.Future()
        done.set_result(work(*arguments))
        return done


def read(path):
    """Path, SHA-256, size and the photo, upright and fitted."""
    import numpy
    from PIL import Image, ImageOps

    encoded = path.read_bytes()
    photo = Image.open(io.BytesIO(encoded))
    photo.draft("RGB", FIT)
    photo = ImageOps.exif_transpose(photo).convert("RGB")
    size = photo.size
    fitted = ImageOps.contain(photo, FIT, Image.Resampling.BILINEAR)
    return str(path), hashlib.sha256(encoded).hexdigest(), size, numpy.asarray(fitted)


def count(photo, label_map, table):
    """Pixels by category and colour, [23, 13]."""
    import numpy

    height, width, _ = photo.shape
    cells = photo >> 3
    cells = cells[..., 0].astype(numpy.uint16) << 10 | cells[..., 1].astype(numpy.uint16) << 5 | cells[..., 2]
    pairs = label_map[:height, :width].astype(numpy.int32) * COLORS + table[cells]
    return numpy.bincount(pairs.ravel(), minlength=CATEGORIES * COLORS).reshape(CATEGORIES, COLORS)


def batches(paths, workers):
    """Batches of what `read` gives; workers read ahead."""
    ahead, batch = collections.deque(), []
    for path in paths:
        ahead.append(workers.submit(read, path))
        if len(ahead) >= AHEAD:
            batch.append(ahead.popleft().result())
        if len(batch) == BATCH:
            yield batch
            batch = []
    for future in ahead:
        batch.append(future.result())
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def features(paths, network, table, workers):
    """The feature table; workers read ahead and count."""
    import numpy
    import pyarrow

    columns, counts = collections.defaultdict(list), []
    for batch in batches(paths, workers):
        canvas = numpy.zeros((len(batch), ROWS, COLUMNS, 3), numpy.uint8)
        for place, (path, digest, size, photo) in zip(canvas, batch):
            place[: photo.shape[0], : photo.shape[1]] = photo
            columns["path"].append(path)
            columns["content_sha256"].append(digest)
            for name, side in zip(("photo_width_px", "photo_height_px"), size):
                columns[name].append(side)
        for photo, label_map in zip(batch, network(canvas)):
            counts.append(workers.submit(count, photo[3], label_map, table))
    counts = numpy.stack([it.result() for it in counts])
    worn = [it for it in range(CATEGORIES) if it not in NOT_WORN]
    apparel = counts[:, worn].sum(axis=(1, 2))
    shares = counts[:, worn, 1:] / numpy.maximum(apparel, 1)[:, None, None]
    cells = {f"px_{it}": counts[:, it].sum(axis=1) for it in range(CATEGORIES)} | {"apparel_px": apparel}
    for place, category in enumerate(worn):
        for color in range(COLORS - 1):
            share = shares[:, place, color].astype(numpy.float32)
            cells[f"{category}_{color}"] = pyarrow.array(share, mask=share == 0)
    return pyarrow.table(columns | cells)


def peer(name, model, photos, output, threads):
    """A peer's round: prints its seconds."""
    import numpy
    import pyarrow.parquet

    os.environ.update(OMP_NUM_THREADS=threads)
    network = NETWORKS[name](model / "predict.onnx", int(threads))
    network(numpy.zeros((BATCH, ROWS, COLUMNS, 3), numpy.uint8))
    colors = pyarrow.parquet.read_table(model / "color_table.parquet")["color"].to_numpy()
    start = time.perf_counter()
    paths = sorted(it for it in photos.rglob("*") if it.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    workers = Loop() if name.endswith("-loop") else concurrent.futures.ThreadPoolExecutor(int(threads))
    with workers:
        table = features(paths, network, colors, workers)
    pyarrow.parquet.write_table(table, output / "features.parquet", compression="zstd")
    print(json.dumps({"secs": time.perf_counter() - start}))


def measured(command):
    """Seconds of a command (its own, where it prints any), and its largest resident memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen([str(it) for it in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    secs = time.perf_counter() - start
    if status:
        sys.exit(f"{command}: {err}")
    told = out.strip().splitlines()[-1:]
    if told and told[0].startswith('{"secs"'):
        secs = json.loads(told[0])["secs"]
    return secs, usage.ru_maxrss / 1024


class Bench:
    def __init__(self, lookbook, place, photos, rounds, threads):
        self.lookbook, self.place, self.rounds, self.threads = lookbook, place, rounds, threads
        self.worker = lookbook.parent / "examples" / "bench_worker"
        self.photos = photos or self.drawn(804)
        self.model = self.trained()

    def run(self, *arguments):
        subprocess.run([self.lookbook, *map(str, arguments)], check=True, capture_output=True)

    def drawn(self, photos):
        self.run("sample", "--photos", photos, "--output", self.place / "drawn")
        return self.place / "drawn" / "image"

    def trained(self):
        """A model of 608 x 400: what it has learnt does not matter here. Also as the peers take it, label maps alone."""
        self.run("sample", "--photos", 16, "--output", self.place / "sample")
        self.run("convert", "--source", self.place / "sample", "--output", self.place / "dataset")
        flags = ["--recipe", "seed", "--epochs", 1, "--batch-size", 4, "--output", self.place / "model"]
        self.run("train", "--dataset", self.place / "dataset", *flags)
        peers = self.place / "peers"
        peers.mkdir()
        for name in ("weights.safetensors", "color_table.parquet"):
            shutil.copy(self.place / "model" / name, peers)
        subprocess.run([self.worker, "export", peers], check=True)
        return self.place / "model"

    def ours(self, *flags):
        paths = ["--catalogue", self.photos, "--model", self.model, "--output", self.place / "features"]
        return [self.lookbook, "segment", *paths, "--threads", self.threads, "--device", "cpu", *flags]

    def peer(self, name):
        return [sys.executable, __file__, "--peer", name, self.place / "peers", self.photos, self.place, self.threads]

    def network_secs(self, name, photos):
        """What the network alone takes for so many photos, four at a time, in memory."""
        import numpy
        from safetensors.numpy import save_file

        folder = self.place / "network"
        if not folder.exists():
            folder.mkdir()
            shutil.copy(self.model / "weights.safetensors", folder)
            files = sorted(self.photos.rglob("*.jpg"))[:BATCH]
            canvas = numpy.zeros((BATCH, ROWS, COLUMNS, 3), numpy.uint8)
            for place, file in zip(canvas, files):
                photo = read(file)[3]
                place[: photo.shape[0], : photo.shape[1]] = photo
            labels = numpy.zeros((BATCH, ROWS, COLUMNS), numpy.uint8)
            save_file({"photos": canvas, "labels": labels}, folder / "examples.safetensors")
        command = [str(it) for it in (self.worker, "prediction", name, folder, BATCH, self.threads)]
        rounds = "round\n" * (NETWORK_ROUNDS + 1)
        told = subprocess.run(command, input=rounds, check=True, capture_output=True, text=True).stdout.splitlines()
        return statistics.mean(json.loads(line)["secs"] for line in told[1:]) * photos / BATCH

    def pixels(self):
        """Pixels by category of each photo, [photos, 23], as the last contestant counted them."""
        import numpy
        import pyarrow.parquet

        ours = sorted((self.place / "features").glob("part-*.parquet"))
        files = ours or [self.place / "features.parquet"]
        tables = [pyarrow.parquet.read_table(it) for it in files]
        columns = [name for name in tables[0].column_names if name.startswith("px_")]
        return numpy.concatenate([numpy.stack([it[name].to_numpy() for name in columns], axis=1) for it in tables])

    def measure(self):
        contestants = {
            "**lookbook, native**": self.ours("--dialect", "native"),
            "**lookbook, native, bf16**": self.ours("--dialect", "native", "--precision", "bf16"),
            "**lookbook, portable**": self.ours("--dialect", "portable"),
            "Pillow, ONNX Runtime, numpy, pyarrow": self.peer("onnxruntime"),
            "Pillow, ONNX Runtime, numpy, pyarrow in one loop": self.peer("onnxruntime-loop"),
            "Pillow, OpenVINO, numpy, pyarrow": self.peer("openvino-f32"),
            "Pillow, OpenVINO bf16, numpy, pyarrow": self.peer("openvino-bf16"),
        }
        networks = {"**lookbook, native**": "native", "**lookbook, native, bf16**": "native-bf16"}
        networks["**lookbook, portable**"] = "portable"
        results, alone, pixels = collections.defaultdict(list), collections.defaultdict(list), {}
        for turn in range(self.rounds):
            names = list(contestants)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                for left in ("features", ".features.previous-1", "features.parquet"):
                    path = self.place / left
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                results[name].append(measured(contestants[name]))
                pixels[name] = self.pixels()
                if name in networks:
                    alone[name].append(self.network_secs(networks[name], len(pixels[name])))
            print(f"segment: round {turn + 1} of {self.rounds}", file=sys.stderr, flush=True)
        self.table(results, alone, pixels)

    def table(self, results, alone, pixels):
        ours = next(iter(results))
        photos = len(pixels[ours])
        print(f"\n### {photos} photos to a feature table\n")
        print("| | median, s | photos/s | times lookbook's | the network alone, s | peak memory, MiB | same category |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        medians = {name: statistics.median(secs for secs, _ in of) for name, of in results.items()}
        for name, secs in sorted(medians.items(), key=lambda it: it[1]):
            memory = max(memory for _, memory in results[name])
            network = f"{statistics.median(alone[name]):.1f}" if name in alone else ""
            same = 1 - abs(pixels[name].astype(int) - pixels[ours]).sum() / 2 / pixels[ours].sum()
            if same < (BF16_AGREEMENT if "bf16" in name else AGREEMENT):
                sys.exit(f"{name} does not compute what lookbook does: {same:.3%} of the pixels")
            numbers = f"{secs:.1f} | {photos / secs:.1f} | {secs / medians[ours]:.2f} | {network} | {memory:.0f}"
            print(f"| {name} | {numbers} | {same:.3%} |", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--lookbook", type=pathlib.Path)
    arguments.add_argument("--photos", type=pathlib.Path)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--peer", nargs=5, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.peer:
        name, model, photos, output, threads = given.peer
        return peer(name, pathlib.Path(model), pathlib.Path(photos), pathlib.Path(output), threads)
    if not given.lookbook:
        arguments.error("name --lookbook")
    with tempfile.TemporaryDirectory() as place:
        photos = given.photos and given.photos.resolve()
        Bench(given.lookbook.resolve(), pathlib.Path(place), photos, given.rounds, given.threads).measure()


if __name__ == "__main__":
    main()

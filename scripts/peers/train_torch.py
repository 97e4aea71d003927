"""The recipe `seed` in PyTorch on a dataset folder: what lookbook's training is measured against.

Prints seconds and photos a second of each epoch, then the metrics of the test part. With --steps it times training steps
on random photos of 608 x 400 instead (with --predict too, predictions) and needs no dataset.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from dataset import Examples, epochs, evaluate
from unet_torch import Seed


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def train(recipe, arguments):
    train, validation, test = (Examples(arguments.dataset, it) for it in ("train", "validation", "test"))
    # The whole train part lies on the device: nothing is uploaded from step to step.
    photos, labels = (torch.from_numpy(it).to(arguments.device) for it in (train.photos, train.labels))
    begin = time.perf_counter()
    for number, steps in enumerate(epochs(arguments.seed, train, arguments.epochs, arguments.batch), start=1):
        start, loss = time.perf_counter(), 0.0
        for ids in steps:
            ids = torch.from_numpy(ids).to(arguments.device)
            loss += recipe.step(photos[ids], labels[ids]) * len(ids)
        synchronize(arguments.device)
        secs = time.perf_counter() - start
        figures = {"loss": loss.item() / len(train)} | evaluate(recipe, validation)
        text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        print(f"epoch {number}: {secs:.2f} s, {len(train) / secs:.1f} photos/s, {text}", flush=True)
    print(f"whole run: {time.perf_counter() - begin:.1f} s")
    print("test part: " + ", ".join(f"{name} {value:.4f}" for name, value in evaluate(recipe, test).items()))


def time_steps(recipe, arguments):
    random = np.random.default_rng(arguments.seed)
    size = (arguments.batch, 608, 400)
    photos = torch.from_numpy(random.integers(0, 256, (*size, 3), np.uint8)).to(arguments.device)
    labels = torch.from_numpy(random.integers(0, 23, size, np.uint8)).to(arguments.device)
    secs = []
    for _ in range(arguments.warm_up + arguments.steps):
        synchronize(arguments.device)
        start = time.perf_counter()
        recipe.predict(photos) if arguments.predict else recipe.step(photos, labels)
        synchronize(arguments.device)
        secs.append(time.perf_counter() - start)
    secs = secs[arguments.warm_up :]
    what = "a prediction" if arguments.predict else "a step"
    print(f"{what} of {arguments.batch} photos: median {statistics.median(secs):.5f} s, best {min(secs):.5f} s")
    if arguments.device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB on {torch.cuda.get_device_name()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="output/dataset", help="what lookbook convert wrote")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--form", choices=["eager", "compile"], default="eager")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="default: what PyTorch takes")
    parser.add_argument("--steps", type=int, help="time so many steps instead")
    parser.add_argument("--predict", action="store_true", help="with --steps: time predictions instead")
    parser.add_argument("--warm-up", type=int, default=5, help="steps before those that are timed")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    recipe = Seed(arguments.device, arguments.form, arguments.precision)
    print(f"PyTorch {torch.__version__}, {arguments.device}, {arguments.form}, {arguments.precision}")
    (time_steps if arguments.steps else train)(recipe, arguments)


if __name__ == "__main__":
    main()

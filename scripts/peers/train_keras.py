"""The recipe `seed` in Keras on TensorFlow on a dataset folder: what lookbook's training is measured against.

Prints seconds and photos a second of each epoch, then the metrics of the test part.
"""

import argparse
import time

from dataset import Examples, epochs, evaluate
from unet_keras import Seed, keras, tf


def train(recipe, arguments):
    train, validation, test = (Examples(arguments.dataset, it) for it in ("train", "validation", "test"))
    begin = time.perf_counter()
    for number, steps in enumerate(epochs(arguments.seed, train, arguments.epochs, arguments.batch), start=1):
        start, loss = time.perf_counter(), 0.0
        for ids in steps:
            loss += float(recipe.step(train.photos[ids], train.labels[ids])) * len(ids)
        secs = time.perf_counter() - start
        figures = {"loss": loss / len(train)} | evaluate(recipe, validation)
        text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        print(f"epoch {number}: {secs:.2f} s, {len(train) / secs:.1f} photos/s, {text}", flush=True)
    print(f"whole run: {time.perf_counter() - begin:.1f} s")
    print("test part: " + ", ".join(f"{name} {value:.4f}" for name, value in evaluate(recipe, test).items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="output/dataset", help="what lookbook convert wrote")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="default: what TensorFlow takes")
    arguments = parser.parse_args()
    if arguments.threads:
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    keras.utils.set_random_seed(arguments.seed)
    print(f"Keras {keras.__version__}, TensorFlow {tf.__version__}, {arguments.device}")
    with tf.device("GPU:0" if arguments.device == "cuda" else "CPU:0"):
        train(Seed(), arguments)


if __name__ == "__main__":
    main()

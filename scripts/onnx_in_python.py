"""Runs the exported graphs in Python's ONNX Runtime and compares with what the program computed.

usage: onnx_in_python.py FOLDER

FOLDER holds train_step.onnx, predict.onnx and steps.safetensors: photos [steps, batch, rows, columns, 3] u8, labels, the
flat weights before the first step, the loss of each step and the weights after the last one as the program has them, and
the probabilities of the first batch for those weights. Prints the largest differences; exit 1 where one is above 1e-5.
"""

import pathlib
import sys

import numpy as np
import onnxruntime
from safetensors.numpy import load_file

LIMIT = 1e-5


def main(folder: pathlib.Path) -> int:
    data = load_file(folder / "steps.safetensors")
    step = onnxruntime.InferenceSession(folder / "train_step.onnx", providers=["CPUExecutionProvider"])
    weights = data["weights"]
    moments = [np.zeros_like(weights), np.zeros_like(weights)]
    losses = []
    for number, (photos, labels) in enumerate(zip(data["photos"], data["labels"]), start=1):
        feeds = {
            "photos": photos,
            "labels": labels,
            "step": np.array(number, np.float32),
            "learning_rate": np.array(1e-3, np.float32),
            "weights": weights,
            "first_moment": moments[0],
            "second_moment": moments[1],
        }
        names = ["loss", "new_weights", "new_first_moment", "new_second_moment"]
        loss, weights, *moments = step.run(names, feeds)
        losses.append(float(loss))

    predict = onnxruntime.InferenceSession(folder / "predict.onnx", providers=["CPUExecutionProvider"])
    (probabilities,) = predict.run(["probabilities"], {"photos": data["photos"][0]})
    differences = {
        "loss": np.abs(np.array(losses) - data["losses"]).max(),
        "weights": np.abs(weights - data["new_weights"]).max(),
        "probabilities": np.abs(probabilities - data["probabilities"]).max(),
    }
    for name, difference in differences.items():
        print(f"{name}: largest difference {difference:.2e}, limit {LIMIT:.0e}")
    return int(any(not difference <= LIMIT for difference in differences.values()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1])))

"""One contestant of bench.py, in a process of its own: worker.py RECIPE CONTESTANT FOLDER BATCH THREADS

RECIPE is `seed` or `pretrained`. FOLDER is what `inputs.py` wrote. Speaks by lines: `round` does the work once and answers {"secs": ...}, with "loss" where
it learns; `maps PATH` writes the last label maps there, u8. Ends with its input.
"""

import json
import os
import pathlib
import sys
import time

import int8

SGEMM_SIDE = 3072


class Inputs:
    """The recipe; the first `batch` photos and their labels; the initial weights by name."""

    def __init__(self, recipe, folder, batch):
        from safetensors.numpy import load_file

        self.recipe, self.folder = recipe, folder
        examples = load_file(folder / "examples.safetensors")
        self.photos, self.labels = (examples[name][:batch] for name in ("photos", "labels"))
        self.weights = load_file(folder / "weights.safetensors")


def torch_recipe(inputs, threads, form, precision):
    import torch
    from pretrained_torch import Pretrained
    from unet_torch import Seed

    torch.set_num_threads(threads)
    weights = {name: torch.from_numpy(values) for name, values in inputs.weights.items()}
    recipe = {"seed": Seed, "pretrained": Pretrained}[inputs.recipe]
    photos, labels = torch.from_numpy(inputs.photos), torch.from_numpy(inputs.labels)
    return recipe(form=form, precision=precision, weights=weights), photos, labels


def torch_step(*contestant):
    recipe, photos, labels = torch_recipe(*contestant)
    return lambda: {"loss": recipe.step(photos, labels).item()}


def torch_prediction(*contestant):
    recipe, photos, _ = torch_recipe(*contestant)
    return lambda: {"maps": recipe.predict(photos).numpy()}


def keras_seed(inputs, threads):
    from unet_keras import Seed, tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    return Seed(weights=inputs.weights)


def keras_step(inputs, threads):
    seed = keras_seed(inputs, threads)
    return lambda: {"loss": float(seed.step(inputs.photos, inputs.labels))}


def keras_prediction(inputs, threads):
    seed = keras_seed(inputs, threads)
    return lambda: {"maps": seed.predict(inputs.photos).numpy()}


def openvino_prediction(inputs, threads, precision):
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    model = core.read_model(inputs.folder / "predict.onnx")
    model.reshape(inputs.photos.shape)
    compiled = core.compile_model(model, "CPU", settings)
    return lambda: {"maps": compiled(inputs.photos)[0]}


def onnxruntime_prediction(inputs, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = inputs.folder / "predict.onnx"
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: {"maps": session.run(["label_map"], {"photos": inputs.photos})[0]}


def sgemm(inputs, threads):
    """The machine's rate of multiplying f32 matrices: what a step could reach if it were nothing else."""
    import numpy

    a, b = numpy.random.default_rng(0).random((2, SGEMM_SIDE, SGEMM_SIDE), numpy.float32)
    c = numpy.empty_like(a)

    def multiply():
        numpy.matmul(a, b, out=c)
        return {"flop": 2 * SGEMM_SIDE**3}

    return multiply


CONTESTANTS = {
    "keras-step": keras_step,
    "torch-eager-step": lambda *it: torch_step(*it, "eager", "fp32"),
    "torch-compile-step": lambda *it: torch_step(*it, "compile", "fp32"),
    "torch-bf16-step": lambda *it: torch_step(*it, "eager", "bf16"),
    "torch-compile-bf16-step": lambda *it: torch_step(*it, "compile", "bf16"),
    "keras-prediction": keras_prediction,
    "torch-eager-prediction": lambda *it: torch_prediction(*it, "eager", "fp32"),
    "torch-compile-prediction": lambda *it: torch_prediction(*it, "compile", "fp32"),
    "torch-bf16-prediction": lambda *it: torch_prediction(*it, "eager", "bf16"),
    "torch-compile-bf16-prediction": lambda *it: torch_prediction(*it, "compile", "bf16"),
    "openvino-f32-prediction": lambda *it: openvino_prediction(*it, "f32"),
    "openvino-bf16-prediction": lambda *it: openvino_prediction(*it, "bf16"),
    "onnxruntime-prediction": onnxruntime_prediction,
    "openvino-int8-prediction": int8.openvino_prediction,
    "torch-compile-int8-prediction": lambda *it: int8.torch_prediction(*torch_recipe(*it, "eager", "fp32")[:2]),
    "sgemm": sgemm,
}


def main(recipe, contestant, folder, batch, threads):
    os.environ.update(OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries that print don't get between the answers
    work = CONTESTANTS[contestant](Inputs(recipe, pathlib.Path(folder), int(batch)), int(threads))
    maps = None
    for line in sys.stdin:
        command, _, path = line.strip().partition(" ")
        if command == "maps":
            maps.tofile(path)
            answer = {}
        else:
            start = time.perf_counter()
            answer = work()
            answer["secs"] = time.perf_counter() - start
            maps = answer.pop("maps", None)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])

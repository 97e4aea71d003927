"""The sections of run.py: each prints the tables of docs/benchmarks.md that need a GPU."""

import functools
import json
import pathlib
import re
import shutil
import statistics

import bench
from bench import Failed, Use

STRICT = {"NVIDIA_TF32_OVERRIDE": "0"}
# Our forms on a device: the worker's engine, and the environment. CUDA computes f32 in TF32 unless that is forbidden.
ENGINES = {
    "cuda": {"f32": ("cuda", STRICT), "TF32": ("cuda", {}), "f16": ("cuda-f16", {})},
    "cpu": {"f32": ("portable", {}), "TF32": ("portable", {}), "f16": ("portable-f16", {})},
}
# The other forms, those that matter first: what the time does not suffice for is shown as failed.
TORCH = (
    ("eager", "fp32"),
    ("eager", "tf32"),
    ("compile", "tf32"),
    ("compile", "bf16"),
    ("eager", "bf16"),
    ("compile", "fp32"),
)
QUICK_TORCH = (("eager", "fp32"), ("eager", "tf32"))
# Largest relative difference of losses from those of the CPU; least share of pixels with the same category.
BOUNDS = {"f32": 0.01, "TF32": 0.01, "f16": 0.05}
AGREEMENT = {"f32": 0.999, "TF32": 0.98}
# The original project's run, whose time the settings `pipelines/full.toml` are judged by.
SEED_PHOTOS, SEED_EPOCHS = 2172, 25


def seconds(secs):
    return f"{secs:.4f}" if secs < 1 else f"{secs:.2f}"


def placement(it, report):
    """Whether whole graphs run on the device. A session on CUDA is created only if CUDA runs each of its operators: the
    fallback to the CPU is switched off, and ONNX Runtime's refusal names the operator.
    """
    report.line("\n### Placement\n")
    try:
        for line in it.run(it.lookbook, "doctor", may_fail=True).splitlines():
            report.line(f"    {line}")
    except Failed as failed:
        report.line(f"    failed: {failed}")
    report.table("graph", "all operators on", "first round, s")
    engines = ENGINES[it.device]
    graphs = {"step, f32": ("step", "f32"), "step, f16": ("step", "f16"), "prediction": ("prediction", "f32")}
    for label, (task, form) in graphs.items():

        def first():
            answers = it.rounds(task, engines[form][0], 1, 0)
            return [it.device.upper(), seconds(answers[0]["secs"])]

        report.row(label, first)


def parity(it, report):
    """Losses of ten steps, and label maps, beside those of the native operators on the CPU."""
    photos, rounds = (1, 2) if it.quick else (4, 10)
    report.line(f"\n### Parity with the CPU, {photos} photos\n")
    report.table("steps", "first loss, CPU", "first loss", "last loss, CPU", "last loss", "largest difference", "bound", "")
    losses = functools.cache(lambda *engine: [each["loss"] for each in it.rounds("step", *engine, photos, rounds)])
    for form, (engine, environment) in ENGINES[it.device].items():

        def compared():
            expected = losses("native")
            found = [each["loss"] for each in it.rounds("step", engine, photos, rounds, **environment)]
            difference = max(abs(ours / theirs - 1) for ours, theirs in zip(found, expected))
            ends = [f"{value:.6f}" for place in (0, -1) for value in (expected[place], found[place])]
            verdict = "within" if difference <= BOUNDS[form] else "OUTSIDE"
            return [*ends, f"{difference:.1e}", f"{BOUNDS[form]:.0e}", verdict]

        report.row(form, compared)
    report.table("label maps", "same category", "bound", "")
    for form, bound in AGREEMENT.items():

        def maps():
            paths = [it.work / f"maps-{name}" for name in ("cpu", form)]
            engine, environment = ENGINES[it.device][form]
            it.rounds("prediction", "native", photos, 0, maps=paths[0])
            it.rounds("prediction", engine, photos, 0, maps=paths[1], **environment)
            expected, found = (path.read_bytes() for path in paths)
            same = sum(ours == theirs for ours, theirs in zip(found, expected)) / len(expected)
            return [f"{same:.3%}", f"{bound:.1%}", "within" if same >= bound else "OUTSIDE"]

        report.row(form, maps)


def beside_torch(it, report, task, photos, forms):
    """A table of `task` of so many photos, lookbook's forms first."""
    title = {"step": "Training step", "prediction": "Prediction"}[task]
    report.line(f"\n### {title} of {photos} photos on {it.device.upper()}\n")
    report.table("", "median, s", "best, s", "photos/s", "memory in use, MiB")
    rounds = 2 if it.quick else 20

    def cells(median, best, use):
        return [seconds(median), seconds(best), f"{photos / median:.0f}", use.peak_mib()]

    for form in forms:

        def ours():
            engine, environment = ENGINES[it.device][form]
            with Use(it.device) as use:
                answers = it.rounds(task, engine, photos, rounds, **environment)
            secs = [each["secs"] for each in answers[bench.WARM_UP :]]
            return cells(statistics.median(secs), min(secs), use)

        report.row(f"**lookbook, {form}**", ours)
    for form, precision in QUICK_TORCH if it.quick else TORCH:

        def theirs():
            flags = ["--steps", rounds, "--batch", photos, "--form", form, "--precision", precision, "--device", it.device]
            if task == "prediction":
                flags.append("--predict")
            with Use(it.device) as use:
                told = it.run(it.python, it.peers / "train_torch.py", *flags)
            found = re.search(r"median ([\d.]+) s, best ([\d.]+) s", told)
            if not found:
                raise Failed("it printed no seconds")
            return cells(float(found[1]), float(found[2]), use)

        label = "PyTorch" if form == "eager" else "PyTorch, torch.compile"
        report.row(f"{label}, {precision}", theirs)


def step_4(it, report):
    beside_torch(it, report, "step", 1 if it.quick else 4, ENGINES[it.device])


def step_16(it, report):
    beside_torch(it, report, "step", 2 if it.quick else 16, ENGINES[it.device])


def prediction_4(it, report):
    beside_torch(it, report, "prediction", 1 if it.quick else 4, ["f32", "TF32"])


def trained(it, name, settings, *engine):
    """Trains a model of the recipe `seed`; its folder and its `run.json`."""
    folder, config = it.work / name, it.work / f"{name}.toml"
    config.write_text("[train]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
    it.run(it.lookbook, "train", "--config", config, "--dataset", it.dataset(), "--output", folder, *engine)
    return folder, json.loads((folder / "run.json").read_text())


def settings_of(it, mixed):
    epochs, batch = (1, 4) if it.quick else (SEED_EPOCHS, 16)
    return {"recipe": "seed", "epochs": epochs, "batch_size": batch, "mixed_precision": mixed}


def train(it, report):
    """A whole training run, from the command's start to the published folder."""
    settings, engine = settings_of(it, False), ["--device", it.device, "--dialect", "portable"]
    report.line(f"\n### A whole training run on {it.device.upper()}: recipe `seed`, {settings['epochs']} epochs\n")
    columns = ["train photos", "the command, s", "photos/s", f"{SEED_PHOTOS:,} photos, {SEED_EPOCHS} epochs at that rate, s"]
    report.table("", *columns, "device's use, %", "memory in use, MiB", "mean IoU", "foreground accuracy")
    for form, mixed in {"TF32": False, "f16": True}.items():

        def whole():
            it.dataset()
            with Use(it.device) as use:
                folder, run = trained(it, f"model-{form}", settings_of(it, mixed), *engine)
            counts = run["counts"]
            rate, photos = counts["last_epoch"]["photos_per_sec"], counts["train_photos"]
            if run["execution_provider"] != it.device:
                raise Failed(f"it ran on {run['execution_provider']}")
            found = json.loads((folder / "evaluation.json").read_text())
            figures = [f"{photos}", f"{run['elapsed_secs']:.1f}", f"{rate:.1f}", f"{SEED_PHOTOS * SEED_EPOCHS / rate:.0f}"]
            measures = [f"{found[name]:.4f}" for name in ("mean_iou", "foreground_accuracy")]
            return [*figures, use.mean(), use.peak_mib(), *measures]

        report.row(f"**lookbook, {form}**", whole)


def model(it):
    """A model to segment with: what `train` made, otherwise one of an epoch on the CPU."""
    made = it.work / "model-TF32"
    settings = {"recipe": "seed", "epochs": 1, "batch_size": 4}
    return made if made.exists() else trained(it, "model-of-one-epoch", settings, "--device", "cpu")[0]


def segment(it, report):
    """Photos to a feature table, beside the network alone."""
    report.line(f"\n### Photos to a feature table on {it.device.upper()}\n")
    report.table("", "photos", "the command, s", "photos/s", "the network alone, photos/s", "device's use, %", "memory in use, MiB")
    for form, (engine, environment) in ENGINES[it.device].items():
        if form == "f16":
            continue

        def whole():
            output, photos_at = it.work / f"features-{form}", it.carried / "photos" / "image"
            # Otherwise it would recognise the photos of an earlier run.
            shutil.rmtree(output, ignore_errors=True)
            flags = ["--catalogue", photos_at, "--model", model(it), "--output", output, "--dialect", "portable"]
            with Use(it.device) as use:
                it.run(it.lookbook, "segment", *flags, "--device", it.device, **environment)
            run = json.loads((output / "run.json").read_text())
            photos, secs = run["counts"]["segmented"], run["elapsed_secs"]
            rounds = 2 if it.quick else 20
            answers = it.rounds("prediction", engine, 4, rounds, **environment)[bench.WARM_UP :]
            alone = 4 / statistics.median(each["secs"] for each in answers)
            return [f"{photos}", seconds(secs), f"{photos / secs:.1f}", f"{alone:.1f}", use.mean(), use.peak_mib()]

        report.row(f"**lookbook, {form}**", whole)


def conditions(it):
    """The machine and the versions, in a line."""
    about = pathlib.Path("/proc/cpuinfo").read_text()
    processor = about.split("model name\t: ")[1].split("\n")[0] if "model name\t: " in about else "unknown processor"
    query = ["nvidia-smi", "--id=0", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    versions = "import torch; print(torch.__version__, torch.version.cuda, torch.backends.cudnn.version())"
    commands = {"GPU": query} if it.device == "cuda" else {}
    commands |= {"lookbook": [it.lookbook, "--version"], "PyTorch, CUDA, cuDNN": [it.python, "-c", versions]}
    facts = [f"{it.threads} threads of {processor}"]
    for label, command in commands.items():
        try:
            facts.append(f"{label}: {it.run(*command).strip()}")
        except Failed as failed:
            facts.append(f"{label}: {failed}")
    return "; ".join(facts)

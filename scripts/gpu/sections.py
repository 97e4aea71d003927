"""The sections of run.py: each prints the tables of docs/benchmarks.md that need a GPU."""

import functools
import json
import pathlib
import re
import shutil
import statistics

from bench import Failed, Use

STRICT = {"NVIDIA_TF32_OVERRIDE": "0"}
# Our forms on a device: the worker's engine, and the environment. CUDA computes f32 in TF32 unless that is forbidden.
ENGINES = {
    "cuda": {"f32": ("cuda", STRICT), "TF32": ("cuda", {}), "f16": ("cuda-f16", {})},
    "cpu": {"f32": ("portable", {}), "TF32": ("portable", {}), "f16": ("portable-f16", {})},
}
# On the CPU the same graphs as there, as far as it has their operators.
DIALECT = {"cuda": [], "cpu": ["--dialect", "portable"]}
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
        for line in it.run(it.lookbook, "doctor", may_fail=True).strip().splitlines():
            report.line(f"    {line}")
    except Failed as failed:
        report.line(f"    failed: {failed}")
    report.table("graph", "all operators on", "first round, s")
    for label, task, form in (("step, f32", "step", "f32"), ("step, f16", "step", "f16"), ("prediction", "prediction", "f32")):
        report.row(label, lambda: first_round(it, task, ENGINES[it.device][form][0]))


def first_round(it, task, engine):
    return [it.device.upper(), seconds(it.rounds(task, engine, 1, 0)[0]["secs"])]


def parity(it, report):
    """Losses of ten steps, and label maps, beside those of the native operators on the CPU."""
    photos, rounds = (1, 2) if it.quick else (4, 10)
    report.line(f"\n### Parity with the CPU, {photos} photos")
    report.table("steps", "first loss, CPU", "first loss", "last loss, CPU", "last loss", "largest difference", "bound", "")
    expected = functools.cache(lambda: losses(it, "native", photos, rounds))
    for form in ENGINES[it.device]:
        report.row(form, lambda: compared_losses(expected(), our_losses(it, form, photos, rounds), BOUNDS[form]))
    report.table("label maps", "same category", "bound", "")
    expected = functools.cache(lambda: label_maps(it, "native", photos))
    for form, bound in AGREEMENT.items():
        report.row(form, lambda: compared_maps(expected(), our_label_maps(it, form, photos), bound))


def losses(it, engine, photos, rounds, **environment):
    return [each["loss"] for each in it.rounds("step", engine, photos, rounds, **environment)]


def our_losses(it, form, photos, rounds):
    engine, environment = ENGINES[it.device][form]
    return losses(it, engine, photos, rounds, **environment)


def compared_losses(expected, found, bound):
    difference = max(abs(one / other - 1) for one, other in zip(found, expected, strict=True))
    ends = [f"{value:.6f}" for place in (0, -1) for value in (expected[place], found[place])]
    return [*ends, f"{difference:.1e}", f"{bound:.0e}", "within" if difference <= bound else "OUTSIDE"]


def label_maps(it, engine, photos, **environment):
    path = it.work / f"maps-{engine}"
    it.rounds("prediction", engine, photos, 0, maps=path, **environment)
    return path.read_bytes()


def our_label_maps(it, form, photos):
    engine, environment = ENGINES[it.device][form]
    return label_maps(it, engine, photos, **environment)


def compared_maps(expected, found, bound):
    same = sum(one == other for one, other in zip(found, expected, strict=True)) / len(expected)
    return [f"{same:.3%}", f"{bound:.1%}", "within" if same >= bound else "OUTSIDE"]


def beside_torch(it, report, task, photos, forms):
    """A table of `task` of so many photos, lookbook's forms first."""
    title = {"step": "Training step", "prediction": "Prediction"}[task]
    report.line(f"\n### {title} of {photos} photos on {it.device.upper()}")
    report.table("", "median, s", "best, s", "photos/s", "memory in use, MiB")
    rounds = 2 if it.quick else 20
    for form in forms:
        report.row(f"**lookbook, {form}**", lambda: our_times(it, task, photos, rounds, form))
    for form, precision in QUICK_TORCH if it.quick else TORCH:
        label = "PyTorch" if form == "eager" else "PyTorch, torch.compile"
        report.row(f"{label}, {precision}", lambda: times_of_torch(it, task, photos, rounds, form, precision))


def our_times(it, task, photos, rounds, form):
    engine, environment = ENGINES[it.device][form]
    with Use(it.device) as use:
        secs = it.secs(task, engine, photos, rounds, **environment)
    return times(photos, statistics.median(secs), min(secs), use)


def times_of_torch(it, task, photos, rounds, form, precision):
    flags = ["--form", form, "--precision", precision, "--device", it.device, "--batch", photos]
    flags += ["--steps", rounds, "--warm-up", it.warm_up, *(["--predict"] if task == "prediction" else [])]
    with Use(it.device) as use:
        told = it.run(it.python, it.peers / "train_torch.py", *flags)
    found = re.search(r"median ([\d.]+) s, best ([\d.]+) s", told)
    if not found:
        raise Failed("it printed no seconds")
    return times(photos, float(found[1]), float(found[2]), use)


def times(photos, median, best, use):
    return [seconds(median), seconds(best), f"{photos / median:.1f}", use.peak_mib()]


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
    report.line(f"\n### A whole training run on {it.device.upper()}: recipe `seed`, {settings_of(it, False)['epochs']} epochs")
    columns = ["train photos", "the command, s", "photos/s", f"{SEED_PHOTOS:,} photos, {SEED_EPOCHS} epochs at that rate, s"]
    report.table("", *columns, "device's use, %", "memory in use, MiB", "mean IoU", "foreground accuracy")
    for form, mixed in {"TF32": False, "f16": True}.items():
        report.row(f"**lookbook, {form}**", lambda: whole_run(it, f"model-{form}", settings_of(it, mixed)))


def whole_run(it, name, settings):
    it.dataset()
    with Use(it.device) as use:
        folder, run = trained(it, name, settings, "--device", it.device, *DIALECT[it.device])
    if run["execution_provider"] != it.device:
        raise Failed(f"it ran on {run['execution_provider']}")
    photos, rate = run["counts"]["train_photos"], run["counts"]["last_epoch"]["photos_per_sec"]
    figures = [f"{photos}", f"{run['elapsed_secs']:.1f}", f"{rate:.1f}", f"{SEED_PHOTOS * SEED_EPOCHS / rate:.0f}"]
    found = json.loads((folder / "evaluation.json").read_text())
    return [*figures, use.mean(), use.peak_mib(), *(f"{found[measure]:.4f}" for measure in ("mean_iou", "foreground_accuracy"))]


def model(it):
    """A model to segment with: what `train` made, otherwise one of an epoch on the CPU."""
    made = it.work / "model-TF32"
    settings = {"recipe": "seed", "epochs": 1, "batch_size": 4}
    return made if made.exists() else trained(it, "model-of-one-epoch", settings, "--device", "cpu")[0]


def segment(it, report):
    """Photos to a feature table, beside the network alone."""
    report.line(f"\n### Photos to a feature table on {it.device.upper()}")
    columns = ["photos", "the command, s", "photos/s", "the network alone, photos/s"]
    report.table("", *columns, "device's use, %", "memory in use, MiB")
    for form in ("f32", "TF32"):
        report.row(f"**lookbook, {form}**", lambda: whole_catalogue(it, form))


def whole_catalogue(it, form):
    engine, environment = ENGINES[it.device][form]
    output = it.work / f"features-{form}"
    # Otherwise it would recognise the photos of an earlier run.
    shutil.rmtree(output, ignore_errors=True)
    flags = ["--catalogue", it.carried / "photos" / "image", "--model", model(it), "--output", output]
    with Use(it.device) as use:
        it.run(it.lookbook, "segment", *flags, "--device", it.device, *DIALECT[it.device], **environment)
    run = json.loads((output / "run.json").read_text())
    photos, secs = run["counts"]["segmented"], run["elapsed_secs"]
    alone = 4 / statistics.median(it.secs("prediction", engine, 4, 2 if it.quick else 20, **environment))
    return [f"{photos}", seconds(secs), f"{photos / secs:.1f}", f"{alone:.1f}", use.mean(), use.peak_mib()]


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

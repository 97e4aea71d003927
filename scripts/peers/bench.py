"""Measures lookbook beside its peers and prints the tables of docs/benchmarks.md: bench.py [SECTION ...]

Sections: step-4, step-16, prediction-4, pretrained-step-4, pretrained-prediction-4, similarity, segment; all of them where
none is named. Each contestant is a process of its own; they start one after the other, do a round to warm up, and then
take turns, one at work at a time. The order rotates from round to round. What they computed is compared; the run fails
where it differs.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib

import numpy as np

import inputs

ROUNDS = 7
HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
BINARIES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target")) / "release"
WORKER = BINARIES / "examples" / "bench_worker"
# The contestants in Rust, as bench_peers.sh builds them.
RUST_WORKER, RUST_LOCK = PROJECT / ".peers" / "rust" / "release" / "lookbook-peers", HERE / "rust" / "Cargo.lock"
THREADS = len(os.sched_getaffinity(0))
OURS = ("native", "native-bf16", "native-int8", "portable")
IN_RUST = ("burn-step", "candle-step", "tract-prediction")
PACKAGES = ["torch", "torchao", "tensorflow-cpu", "keras", "openvino", "nncf", "onnxruntime", "numpy"]
CRATES = ["burn", "candle-core", "tract-onnx"]
# Time for the threads of the one that was at work to go to sleep.
PAUSE_SECS = 0.1
# Largest relative difference of losses; least share of pixels with the same category, and the same for bf16 and int8 by recipe: the
# weights are drawn, so many pixels are close calls, and through the 60 layers of `pretrained` every tenth changes.
LOSS_TOLERANCE, AGREEMENT = 0.01, 0.999
NARROW_AGREEMENT = {"bf16": {"seed": 0.98, "pretrained": 0.85}, "int8": {"seed": 0.98}}


def agreement(label, recipe):
    """The least share of pixels with the same category."""
    return next((least[recipe] for name, least in NARROW_AGREEMENT.items() if name in label), AGREEMENT)


# Contestants by what the tables call them; the first is what the others are compared with.
STEP = {
    "**lookbook, native**": "native",
    "**lookbook, native, bf16**": "native-bf16",
    "**lookbook, portable**": "portable",
    "Keras / TensorFlow": "keras-step",
    "PyTorch": "torch-eager-step",
    "PyTorch, torch.compile": "torch-compile-step",
    "PyTorch, bf16": "torch-bf16-step",
    "PyTorch, torch.compile, bf16": "torch-compile-bf16-step",
    "burn": "burn-step",
    "candle": "candle-step",
}
PREDICTION = {
    "**lookbook, native**": "native",
    "**lookbook, native, bf16**": "native-bf16",
    "**lookbook, native, int8**": "native-int8",
    "**lookbook, portable**": "portable",
    "OpenVINO": "openvino-f32-prediction",
    "OpenVINO, bf16": "openvino-bf16-prediction",
    "ONNX Runtime": "onnxruntime-prediction",
    "Keras / TensorFlow": "keras-prediction",
    "PyTorch": "torch-eager-prediction",
    "PyTorch, bf16": "torch-bf16-prediction",
    "PyTorch, torch.compile, bf16": "torch-compile-bf16-prediction",
    "OpenVINO, int8": "openvino-int8-prediction",
    "PyTorch, torch.compile, int8": "torch-compile-int8-prediction",
    "tract": "tract-prediction",
}
# A step of so many photos takes too long for the other forms.
FORMS_OF_16 = ("native", "native-bf16", "portable", "keras-step", "torch-eager-step", "torch-compile-bf16-step")
# The machine's own rate, measured beside them.
SGEMM = {"SGEMM": "sgemm"}


def those(contestants, is_wanted):
    return {label: name for label, name in contestants.items() if is_wanted(name)}


def of_pretrained(contestants):
    """Without those that have no such network, and without int8: of its drawn weights too little would be left to compare."""
    return those(contestants, lambda name: not name.startswith(("keras", "burn", "candle")) and "int8" not in name)


# Recipe, task, photos, contestants.
SECTIONS = {
    "step-4": ("seed", "step", 4, STEP),
    "step-16": ("seed", "step", 16, those(STEP, FORMS_OF_16.__contains__)),
    "prediction-4": ("seed", "prediction", 4, PREDICTION),
    "pretrained-step-4": ("pretrained", "step", 4, of_pretrained(STEP)),
    "pretrained-prediction-4": (
        "pretrained",
        "prediction",
        4,
        of_pretrained(PREDICTION) | {"PyTorch, torch.compile": "torch-compile-prediction"},
    ),
}
# What scripts of their own measure.
SCRIPTS = ("similarity", "segment")


class Worker:
    """A contestant's process."""

    def __init__(self, label, command):
        self.label, self.rounds = label, []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{self.label}: the process ended with {self.process.wait()}")
        return json.loads(answer)

    def round(self):
        time.sleep(PAUSE_SECS)
        self.rounds.append(self.ask("round"))

    def secs(self):
        """Seconds of the rounds after the one that warms up."""
        return [it["secs"] for it in self.rounds[1:]]

    def maps(self, folder):
        path = folder / "maps"
        self.ask(f"maps {path}")
        return np.fromfile(path, np.uint8)

    def peak_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def used_secs(self):
        """Processor time so far, of all its threads."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def commands(section, folder):
    recipe, task, batch, contestants = SECTIONS[section]
    tail = [str(it) for it in (folder, batch, THREADS)]
    for label, name in (contestants | SGEMM).items():
        yield label, [*program(recipe, task, name), name, *tail]


def program(recipe, task, name):
    if name in OURS:
        return [WORKER, task]
    return [RUST_WORKER] if name in IN_RUST else [sys.executable, HERE / "worker.py", recipe]


def measure(section, folder):
    workers = []
    for label, command in commands(section, folder):
        print(f"{section}: {label} starts", file=sys.stderr, flush=True)
        workers.append(Worker(label, command))
        workers[-1].round()
    before, start = others_secs(workers), time.perf_counter()
    for turn in range(ROUNDS):
        for place in range(len(workers)):
            workers[(turn + place) % len(workers)].round()
        print(f"{section}: round {turn + 1} of {ROUNDS}", file=sys.stderr, flush=True)
    others = (others_secs(workers) - before) / (time.perf_counter() - start) / os.cpu_count()
    return workers, others


def others_secs(workers):
    """Processor time that other processes had, and other machines on the same host, since the start of the machine."""
    user, nice, system, _idle, _waiting, interrupts, more_interrupts, stolen = (
        int(it) / os.sysconf("SC_CLK_TCK") for it in pathlib.Path("/proc/stat").read_text().split()[1:9]
    )
    return user + nice + system + interrupts + more_interrupts + stolen - sum(it.used_secs() for it in workers)


def differences(recipe, workers, folder):
    """By label: how far the losses or the label maps are from ours; exits where that is too far."""
    if "loss" in workers[0].rounds[0]:
        losses = {it.label: np.array([each["loss"] for each in it.rounds]) for it in workers}
        ours = losses[workers[0].label]
        found = {label: np.abs(loss / ours - 1).max() for label, loss in losses.items()}
        bad = [label for label, it in found.items() if not it <= LOSS_TOLERANCE]
        texts = {label: f"{it:.1e}" for label, it in found.items()}
    else:
        maps = {it.label: it.maps(folder) for it in workers}
        ours = maps[workers[0].label]
        found = {label: (it == ours).mean() for label, it in maps.items()}
        bad = [label for label, it in found.items() if it < agreement(label, recipe)]
        texts = {label: f"{it:.3%}" for label, it in found.items()}
    if bad:
        sys.exit(f"these do not compute what lookbook does: {', '.join(bad)}: {texts}")
    return texts


def table(section, workers, others, folder):
    recipe, task, batch, _ = SECTIONS[section]
    *contestants, sgemm = workers
    compared = differences(recipe, contestants, folder)
    ours = statistics.median(contestants[0].secs())
    title = {"step": "Training step", "prediction": "Prediction"}[task]
    last = {"step": "largest difference of losses", "prediction": "same category"}[task]
    print(f"\n### {title} of {batch} photos, recipe `{recipe}`\n")
    print(f"| | median, s | best, s | times lookbook's | peak memory, MiB | {last} |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for it in sorted(contestants, key=lambda it: statistics.median(it.secs())):
        median = statistics.median(it.secs())
        numbers = f"{median:.3f} | {min(it.secs()):.3f} | {median / ours:.2f} | {it.peak_mib():.0f}"
        print(f"| {it.label} | {numbers} | {compared[it.label]} |")
    flop = inputs.flop(recipe, batch)[task == "step"]
    rate = sgemm.rounds[0]["flop"] / statistics.median(sgemm.secs())
    print(
        f"\nThe convolutions are {flop / 1e9:.1f} GFLOP; NumPy's SGEMM reached {rate / 1e9:.0f} GFLOP/s in the same rounds,"
        f" at which they take {flop / rate:.3f} s: lookbook's rate is {flop / rate / ours:.0%} of that. Others had {others:.1%} of the processors meanwhile."
    )


def conditions():
    """Date, machine, versions, load: what the figures depend on."""
    processor = pathlib.Path("/proc/cpuinfo").read_text()
    model = processor.split("model name\t: ")[1].split("\n")[0]
    extensions = [it for it in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni") if f" {it} " in processor]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    packages = {it: importlib.metadata.version(it) for it in PACKAGES}
    locked = {it["name"]: it["version"] for it in tomllib.loads(RUST_LOCK.read_text())["package"]}
    versions = ", ".join(f"{name} {version}" for name, version in (packages | {it: locked[it] for it in CRATES}).items())
    print(f"{datetime.date.today()}, {model} ({' '.join(extensions)}), {THREADS} threads, {memory:.0f} GiB;")
    print(f"load before: {os.getloadavg()[0]:.2f}; lookbook {revision.stdout.strip()}, {versions};")
    print(f"medians of {ROUNDS} interleaved rounds after one to warm up; peak memory is the process's.", flush=True)


def run(section):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        inputs.write(folder, SECTIONS[section][0])
        subprocess.run([WORKER, "export", folder], check=True)
        workers, others = measure(section, folder)
        table(section, workers, others, folder)
        for it in workers:
            it.end()


def main(sections):
    known = [*SECTIONS, *SCRIPTS]
    unknown = set(sections) - set(known)
    if unknown:
        sys.exit(f"there is no section {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    conditions()
    for section in sections or known:
        if section in SCRIPTS:
            subprocess.run([sys.executable, HERE / f"{section}.py", "--lookbook", BINARIES / "lookbook"], check=True)
        else:
            run(section)


if __name__ == "__main__":
    main(sys.argv[1:])

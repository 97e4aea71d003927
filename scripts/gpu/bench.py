"""What the sections of run.py work with: commands within a section's time, a device's use while they run, tables as they come."""

import json
import os
import pathlib
import statistics
import subprocess
import threading
import time

# Time for what comes before the first section.
START_SECS = 60
TIMES_UP = "the section's time was up"


class Failed(Exception):
    """Why something has no figure."""


class Report:
    """Markdown, written as it comes to the terminal and to a file."""

    def __init__(self, path):
        self.file = open(path, "w", buffering=1)

    def line(self, text=""):
        print(text, flush=True)
        print(text, file=self.file)

    def table(self, first, *columns):
        self.line()
        self.line(f"| {' | '.join((first, *columns))} |")
        self.line(f"| --- |{' ---: |' * len(columns)}")
        self.columns = len(columns)

    def row(self, label, work):
        """A row with what `work` answers, or with why it failed: the others go on."""
        try:
            cells = work()
        except Failed as failed:
            cells = [f"failed: {failed}"] + [""] * (self.columns - 1)
        self.line(f"| {' | '.join([label, *cells])} |")


class Use:
    """Mean use of the device in percent, and its largest used memory in MiB, while a `with` runs: of the GPU by nvidia-smi, of
    the processors by the kernel's counters.
    """

    PERIOD_SECS = 0.2

    def __init__(self, device):
        self.device, self.samples, self.ends = device, [], threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self.of_gpu if self.device == "cuda" else self.of_processors)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()

    def of_gpu(self):
        query = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        command = [*query, f"--loop-ms={int(self.PERIOD_SECS * 1000)}"]
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        except OSError:
            return
        for line in process.stdout:
            if self.ends.is_set():
                break
            fields = line.split(",")
            if all(it.strip().isdigit() for it in fields):
                self.samples.append(tuple(float(it) for it in fields))
        process.kill()
        process.wait()

    def of_processors(self):
        before = times_of_processors()
        while not self.ends.wait(self.PERIOD_SECS):
            now = times_of_processors()
            idle, all_of_them = (after - earlier for after, earlier in zip(now, before))
            before = now
            self.samples.append((100 * (1 - idle / max(all_of_them, 1)), used_memory_mib()))

    def mean(self):
        return f"{statistics.mean(it[0] for it in self.samples):.0f}" if self.samples else "not sampled"

    def peak_mib(self):
        return f"{max(it[1] for it in self.samples):.0f}" if self.samples else "not sampled"


def times_of_processors():
    """Ticks without work, and all, since the start of the machine."""
    fields = [int(it) for it in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


def used_memory_mib():
    lines = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return (total - available) / 1024


class Bench:
    """The machine and the folders. `carried` is what pack.py packed; `work` is what the sections write."""

    def __init__(self, device, quick, carried, work, python):
        self.device, self.quick, self.carried, self.work, self.python = device, quick, carried, work, python
        self.warm_up = 1 if quick else 5
        self.threads = len(os.sched_getaffinity(0))
        # On the monotonic clock: when the section at work has to end.
        self.deadline = time.monotonic() + START_SECS
        self.lookbook = carried / "program" / "lookbook"
        self.worker = carried / "program" / "examples" / "bench_worker"
        self.peers = carried / "scripts" / "peers"
        self.environment = os.environ | {
            "ORT_DYLIB_PATH": str(carried / "runtime" / "libonnxruntime.so"),
            "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
        }
        if device == "cuda":
            nvidia = self.link_nvidia()
            path = [str(nvidia), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
            self.environment["LD_LIBRARY_PATH"] = ":".join(path)

    def link_nvidia(self):
        """The folder beside the runtime from which it loads NVIDIA's libraries: links to those that came with PyTorch."""
        folder = self.carried / "runtime" / "nvidia"
        folder.mkdir(exist_ok=True)
        script = "import nvidia; print(*nvidia.__path__, sep='\\n')"
        found = subprocess.run([self.python, "-c", script], capture_output=True, text=True).stdout.splitlines()
        for library in (it for place in found for it in pathlib.Path(place).rglob("lib*.so*")):
            link = folder / library.name
            if not link.is_symlink():
                link.symlink_to(library)
        return folder

    def run(self, *command, told=None, may_fail=False, **environment):
        """The output of a command. Fails with its last message (unless it may fail), or if the section's time is up."""
        command = [str(it) for it in command]
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Failed(TIMES_UP)
        try:
            done = subprocess.run(
                command, input=told, timeout=left, capture_output=True, text=True, env=self.environment | environment
            )
        except subprocess.TimeoutExpired:
            raise Failed(TIMES_UP) from None
        except OSError as error:
            raise Failed(str(error)) from None
        with open(self.work / "log.txt", "a") as log:
            log.write(f"$ {' '.join(command)}\n{done.stdout}{done.stderr}\n")
        if done.returncode and not may_fail:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise Failed(lines[-1].replace("|", "\\|")[:300])
        return done.stdout

    def inputs(self):
        """The folder with seeded photos, labels and weights that lookbook's worker works on."""
        folder = self.work / "inputs"
        if not (folder / "weights.safetensors").exists():
            folder.mkdir(exist_ok=True)
            script = "import sys, pathlib, inputs; inputs.write(pathlib.Path(sys.argv[1]), 'seed')"
            self.run(self.python, "-c", script, folder, PYTHONPATH=str(self.peers))
        return folder

    def rounds(self, task, engine, photos, rounds, maps=None, **environment):
        """Answers of lookbook's worker, those that warm up included."""
        told = "round\n" * (self.warm_up + rounds) + (f"maps {maps}\n" if maps else "")
        command = [self.worker, task, engine, self.inputs(), photos, self.threads]
        answers = self.run(*command, told=told, **environment).splitlines()
        return [json.loads(it) for it in answers[: self.warm_up + rounds]]

    def secs(self, task, engine, photos, rounds, **environment):
        """Seconds of the rounds after those that warm up."""
        answers = self.rounds(task, engine, photos, rounds, **environment)
        return [each["secs"] for each in answers[self.warm_up :]]

    def dataset(self):
        """The carried photos as dataset tables."""
        folder = self.work / "dataset"
        if not folder.exists():
            self.run(self.lookbook, "convert", "--source", self.carried / "photos", "--output", folder)
        return folder

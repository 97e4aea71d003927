"""Measures lookbook on this machine's GPU and prints the tables of docs/benchmarks.md that need one: run.py [--device cpu]
[--quick] [--sections NAME,...] [--max-secs 540] [--output FOLDER] [FOLDER]

FOLDER is what pack.py wrote: its pieces are unpacked first. Each section has a time limit; what fails is shown as failed and
the rest goes on. The tables are written to results.md in the output folder as they come, what the commands said to log.txt. With
--device cpu the processors take the GPU's place, and everything takes much longer; --quick makes all sizes tiny.
"""

import argparse
import datetime
import pathlib
import sys
import time

import carried
import sections
from bench import Bench, Failed, Report

# Limits in seconds, in the order of what is most wanted.
SECTIONS = {
    "placement": (sections.placement, 60),
    "parity": (sections.parity, 60),
    "step-16": (sections.step_16, 170),
    "train": (sections.train, 170),
    "segment": (sections.segment, 60),
    "prediction-4": (sections.prediction_4, 60),
    "step-4": (sections.step_4, 150),
}
# A processor may take so many times as long.
CPU_FACTOR = 10


def measure(bench, report, names, ends):
    """Runs the sections within their time and the whole's; names of those that failed as a whole."""
    failed = []
    for name in names:
        section, limit = SECTIONS[name]
        started = time.monotonic()
        bench.deadline = min(started + limit * (CPU_FACTOR if bench.device == "cpu" else 1), ends)
        try:
            if bench.deadline <= started:
                raise Failed("no time was left")
            section(bench, report)
        except Exception as error:  # whatever it is, the other sections are still wanted
            failed.append(name)
            reason = error if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            report.line(f"\n{name} failed: {reason}")
        print(f"gpu_bench: {name} took {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="default: all")
    parser.add_argument("--max-secs", type=float, default=540, help="for all sections together, on a GPU")
    parser.add_argument("--output", type=pathlib.Path, help="default: results in FOLDER")
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=carried.FOLDER)
    given = parser.parse_args()
    names = given.sections.split(",")
    unknown = set(names) - set(SECTIONS)
    if unknown:
        parser.error(f"there is no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    started = time.monotonic()
    unpacked = carried.unpack(given.folder.resolve())
    output = (given.output or given.folder / "results").resolve()
    output.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.device, given.quick, unpacked, output, sys.executable)
    report = Report(output / "results.md")
    report.line(f"{datetime.date.today()}: {sections.conditions(bench)}")
    limit = given.max_secs * (CPU_FACTOR if given.device == "cpu" else 1)
    failed = measure(bench, report, names, started + limit)
    if failed:
        sys.exit(f"gpu_bench: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

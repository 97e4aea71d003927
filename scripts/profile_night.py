"""Where the time of a night goes: runs its stages one by one and prints each one's seconds, processor time and start-up.

`python3 scripts/profile_night.py --lookbook PROGRAM --config FILE [--source FOLDER] --output FOLDER`, OUTPUT an empty
folder. The parts of training are those of its `run.json`; what is left of it is the evaluation, the export of the graphs
and the start.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import time

STAGES = ["sample", "convert", "train", "segment", "similarity", "report"]


def timed(command):
    """Wall-clock and processor seconds of a command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lookbook", required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--source")
    parser.add_argument("--output", required=True, type=pathlib.Path)
    given = parser.parse_args()
    common = [given.lookbook, "run", "--config", given.config, "--output", str(given.output)]
    if given.source:
        common += ["--source", given.source]
    cores, total = os.cpu_count(), 0.0
    print(f"| stage | seconds | share of {cores} processors |\n| --- | ---: | ---: |")
    for stage in STAGES[1:] if given.source else STAGES:
        wall, cpu = timed([*common, "--only", stage])
        total += wall
        print(f"| `{stage}` | {wall:.2f} | {cpu / wall / cores:.0%} |")
        if stage == "train":
            run = json.loads((given.output / "model" / "run.json").read_text())
            parts = run["counts"]["seconds"]
            parts["evaluation and the rest"] = wall - sum(parts.values())
            for part, seconds in parts.items():
                print(f"| - {part} | {seconds:.2f} | |")
    print(f"| all | {total:.2f} | |\n")
    print("Start-up, medians of 9:", end=" ")
    starts = [["--version"], ["--help"], ["settings"], ["status", str(given.output)], ["doctor"]]
    found = [(statistics.median(timed([given.lookbook, *start])[0] for _ in range(9)), start[0]) for start in starts]
    print(", ".join(f"`{name}` {seconds * 1e3:.0f} ms" for seconds, name in found))


if __name__ == "__main__":
    main()

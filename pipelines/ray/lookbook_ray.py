"""Stages of lookbook in shards on a Ray cluster: one task a shard, tried again where its machine died or another run was in the
way, then one task that merges.

    python lookbook_ray.py --settings lookbook.toml --output s3://shop/night --catalogue s3://shop/photos --shards 64

Every machine needs the program (LOOKBOOK_PROGRAM, else `lookbook` of the PATH) and the settings file at the same path, and the
rights to the store; there is no shared disk. `--address` is that of ray.init: none starts a cluster on this machine. A shard
that was done is not done again: a second call goes on where the first one ended. docs/scaling.md has the rest.
"""

import argparse
import os
import subprocess
import sys
import time

import ray

# Held by another run, told to stop: another time it works. What a bad input, setting, gate or disk ended (1, 2, 3) is for
# people.
CAN_MEND = {75, 130, 143}
NOTHING_TO_DO = 99
SECONDS_BETWEEN_REPORTS = 10


class TryAgain(Exception):
    """A later attempt may succeed."""


def lookbook(arguments):
    """Runs `lookbook run` with these arguments on the machine of the task; whether there was something to do."""
    program = os.environ.get("LOOKBOOK_PROGRAM", "lookbook")
    command = [program, "run", *arguments, "--if-changed", "--skip-exit-code", str(NOTHING_TO_DO)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode in (0, NOTHING_TO_DO):
        return done.returncode == 0
    last = "\n".join(done.stdout.splitlines()[-20:])
    problem = f"{' '.join(command)}: exit code {done.returncode}\n{last}"
    raise TryAgain(problem) if done.returncode in CAN_MEND or done.returncode < 0 else RuntimeError(problem)


def places(options):
    """The arguments that all tasks have."""
    named = [("config", options.settings), ("output", options.output), ("source", options.source)]
    named += [("catalogue", options.catalogue), ("run-name", options.run_name), ("threads", options.threads)]
    return [part for name, value in named if value is not None for part in (f"--{name}", str(value))]


def progress(stage, done, total, started):
    elapsed = time.monotonic() - started
    left = f", about {elapsed / done * (total - done):.0f} s left" if 0 < done < total else ""
    print(f"{stage}: {done} of {total} shards, {elapsed:.0f} s{left}", file=sys.stderr, flush=True)


def run_stage(stage, options):
    """All shards of a stage, then their merge."""
    # max_retries counts machines that died as well as TryAgain.
    task = ray.remote(lookbook).options(
        num_cpus=options.threads or 1, max_retries=options.retries, retry_exceptions=[TryAgain], name=stage
    )
    common = [*places(options), "--only", stage]
    waiting = [task.remote([*common, "--shard", f"{number}/{options.shards}"]) for number in range(1, options.shards + 1)]
    started, total = time.monotonic(), len(waiting)
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=SECONDS_BETWEEN_REPORTS)
        # What can not be mended ends the night here, with the message of the program.
        ray.get(done)
        progress(stage, total - len(waiting), total, started)
    ray.get(task.remote([*common, "--merge"]))
    print(f"{stage}: merged", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="of the cluster, as for ray.init")
    parser.add_argument("--settings", required=True, metavar="FILE")
    parser.add_argument("--output", metavar="URL", help="default: that of the settings")
    parser.add_argument("--source", metavar="URL", help="default: that of the settings")
    parser.add_argument("--catalogue", metavar="URL", help="default: that of the settings")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--stages", nargs="+", default=["segment", "similarity"], choices=["segment", "similarity"])
    parser.add_argument("--threads", type=int, help="of each task, which reserves as many processors; default: 1 reserved, all used")
    parser.add_argument("--retries", type=int, default=3, help="of each task")
    options = parser.parse_args()
    options.run_name = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    ray.init(address=options.address, log_to_driver=False)
    try:
        for stage in options.stages:
            run_stage(stage, options)
    except (TryAgain, RuntimeError, ray.exceptions.RayError) as problem:
        sys.exit(f"lookbook_ray: {problem}")


if __name__ == "__main__":
    main()

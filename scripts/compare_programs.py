"""Two builds of the program, stage by stage: prints the median seconds of each and their ratio, the programs taking turns.

`python3 scripts/compare_programs.py --lookbook PROGRAM --other PROGRAM --source FOLDER --night FOLDER [--features FOLDER]
[--rounds N] [STAGE ...]`: SOURCE is a data set that is also segmented as a catalogue, NIGHT the output of a night over it by
`pipelines/real.toml`, FEATURES a larger table for `similarity` (`scripts/replicate_features.py`). ONNX Runtime is found as by the
program itself.
"""

import argparse
import pathlib
import statistics
import tempfile

from profile_night import timed


def stages(source, night, features):
    """The arguments of each stage, without its output."""
    segment = ["segment", "--catalogue", source, "--model", night / "model"]
    dataset = ["--dataset", night / "dataset"]
    return {
        "convert": ["convert", "--source", source],
        "train, one epoch": ["train", "--config", "real", *dataset, "--epochs", "1"],
        "evaluate": ["evaluate", *dataset, "--model", night / "model", "--split", "validation"],
        "segment": segment,
        "segment, int8": [*segment, "--precision", "int8"],
        "similarity": ["similarity", "--features", features, "--matrix", "none"],
        "similarity, co_rated": ["similarity", "--features", features, "--matrix", "none", "--measure", "co_rated"],
        "duplicates": ["duplicates", "--features", night / "features"],
        "report": ["report", "--run", night],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lookbook", required=True)
    parser.add_argument("--other", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--night", required=True, type=pathlib.Path)
    parser.add_argument("--features", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("stages", nargs="*")
    given = parser.parse_args()
    commands = stages(given.source, given.night, given.features or given.night / "features")
    print("| stage | seconds | of the other | ratio |\n| --- | ---: | ---: | ---: |")
    for stage in given.stages or commands:
        programs = [given.lookbook, given.other]
        seconds = {program: [] for program in programs}
        for number in range(given.rounds):
            for program in programs[:: -1 if number % 2 else 1]:
                with tempfile.TemporaryDirectory() as place:
                    wall, _ = timed([program, *map(str, commands[stage]), "--output", f"{place}/output"])
                seconds[program].append(wall)
        first, second = (statistics.median(seconds[program]) for program in programs)
        print(f"| `{stage}` | {first:.2f} | {second:.2f} | {first / second:.3f} |", flush=True)


if __name__ == "__main__":
    main()

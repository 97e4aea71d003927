"""What each choice of the recipe `best` brings: ablation.py --lookbook PROGRAM --dataset DIR [--epochs 5] [--recipe best]
[--size 200x300] [--with SETTING=VALUE ...] [--model DIR] [--photos DIR] [--other-encoder FILE] [NAME ...]

Trains once with the recipe as it is (and the settings of --with) and once for each choice left out or made otherwise, on photos
of that size, half of CFPD's by default, and prints the metrics of the validation part after the last epoch as the tables of
docs/training.md. Without names all choices of the recipe are tried, but those that need --model (a model folder), --photos (a
catalogue without labels) or --other-encoder only with them.
Needs pyarrow: `PYTHONPATH=.python` after scripts/install_python_packages.sh.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import pyarrow.parquet

# What is changed, by what the table calls it: of every recipe, and of one alone.
CHOICES = {
    "as it is": {},
    "`batch_size` 16": {"batch_size": 16},
    "`category_balance` 0": {"category_balance": 0.0},
    "`category_balance` 0.6": {"category_balance": 0.6},
    "no `dice`": {"dice": 0.0},
    "no average of the weights": {"average_epochs": 0.0},
    "no `augment_flip`": {"augment_flip": False},
    "`augment_light` 0.2": {"augment_light": 0.2},
    "`augment_scale` 0.25, `augment_shift` 0.1": {"augment_scale": 0.25, "augment_shift": 0.1},
    "`augment_erase` 0.3": {"augment_erase": 0.3},
    "`label_smoothing` 0.1": {"label_smoothing": 0.1},
    "`rare_sampling` 0.5": {"rare_sampling": 0.5},
    "`small_epochs` 4": {"small_epochs": 4},
    "`start_from` --model": {"start_from": "{model}"},
    "`unlabelled` --photos, by --model": {"unlabelled": "{photos}", "unlabelled_model": "{model}"},
}
PRETRAINED = {
    "no `presence`": {"presence": 0.0},
    "`encoder_rate` 0.1": {"encoder_rate": 0.1},
    "`channels` 32, 96, 128, 192": {"channels": [32, 96, 128, 192]},
    "`encoder` --other-encoder": {"encoder": "{other_encoder}"},
}
BEST = {
    "the seed's network: `channels` from 8, `stride` 1": {"channels": [8, 16, 32, 64, 128], "stride": 1},
    "a sixth level of 512 `channels`": {"channels": [16, 32, 64, 128, 256, 512]},
    "`loss` bce": {"loss": "bce", "category_balance": 0.0, "dice": 0.0},
    "no `batch_norm`, `learning_rate` 1e-3": {"batch_norm": False, "average_epochs": 0.0, "learning_rate": 1e-3},
    "`schedule` constant": {"schedule": "constant"},
    "`learning_rate` 1e-2": {"learning_rate": 1e-2},
}
OF_RECIPE = {"best": BEST, "pretrained": PRETRAINED}
METRICS = ("validation_pixel_accuracy", "validation_foreground_accuracy", "validation_mean_iou")


def toml(value):
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def last_epoch(arguments, settings, place):
    """Trains; the last row of the history."""
    config = place / "train.toml"
    config.write_text("[train]\n" + "".join(f"{name} = {toml(value)}\n" for name, value in settings.items()))
    paths = ["--config", config, "--dataset", arguments.dataset, "--output", place / "model"]
    subprocess.run([arguments.lookbook, "train", *paths], check=True, stdout=subprocess.DEVNULL)
    return pyarrow.parquet.read_table(place / "model" / "history.parquet").to_pylist()[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lookbook", type=pathlib.Path, required=True)
    parser.add_argument("--dataset", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--recipe", default="best", choices=OF_RECIPE)
    parser.add_argument("--size", default="200x300", metavar="WIDTHxHEIGHT")
    parser.add_argument("--with", dest="settings", action="append", default=[], metavar="SETTING=VALUE")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--photos", type=pathlib.Path)
    parser.add_argument("--other-encoder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    choices = CHOICES | OF_RECIPE[arguments.recipe]
    if unknown := set(arguments.names) - set(choices):
        sys.exit(f"there is no choice {', '.join(sorted(unknown))}; there are: {'; '.join(choices)}")
    given = {name: getattr(arguments, name) for name in ("model", "photos", "other_encoder")}

    def lacks(name):
        return [option for option, path in given.items() if path is None and f"{{{option}}}" in choices[name].values()]

    if options := sorted({option for name in arguments.names for option in lacks(name)}):
        sys.exit(f"these choices need {' and '.join('--' + option.replace('_', '-') for option in options)}")
    width, height = map(int, arguments.size.split("x"))
    common = {"recipe": arguments.recipe, "epochs": arguments.epochs, "photo_width_px": width, "photo_height_px": height}
    common |= {name: tomllib.loads(f"value = {value}")["value"] for name, value in (it.split("=", 1) for it in arguments.settings)}
    print("| validation part | pixel accuracy | foreground accuracy | mean IoU |\n| --- | ---: | ---: | ---: |")
    for name in arguments.names or [name for name in choices if not lacks(name)]:
        with tempfile.TemporaryDirectory() as place:
            settings = common | choices[name]
            settings = {name: it.format(**given) if isinstance(it, str) else it for name, it in settings.items()}
            row = last_epoch(arguments, settings, pathlib.Path(place))
        print(f"| {name} | {' | '.join(f'{row[metric]:.3f}' for metric in METRICS)} |", flush=True)


if __name__ == "__main__":
    main()

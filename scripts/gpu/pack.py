"""Builds the folder that is carried to a machine with a GPU: pack.py [--device cpu] [--quick] [--photos FOLDER]
[--architecture 90] [FOLDER]

Packs the program, ONNX Runtime (its build with CUDA, code of one GPU architecture kept), the photos, and these scripts with
their peers into pieces. `tar` is not needed there: `gpu_bench.sh run` unpacks them.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

import carried
from carried import PROJECT
from one_architecture import keep_one

BINARIES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target")) / "release"
REQUIREMENTS = PROJECT / "scripts" / "onnxruntime-gpu.txt"
SCRIPTS = ("gpu_bench.sh", "gpu", "peers")
LIBRARY, PROVIDER = "libonnxruntime.so", "libonnxruntime_providers_cuda.so"
SAMPLE_PHOTOS, QUICK_PHOTOS = 804, 24


def run(*command):
    code = subprocess.run([str(it) for it in command], cwd=PROJECT, stdout=sys.stderr).returncode
    if code:
        sys.exit(f"gpu_bench: {command[0]} ended with {code}; its message is above")


def program(to):
    """The program and the benchmarks' worker, stripped."""
    build = ["build", "--release", "--locked", "--bin", "lookbook", "--example", "bench_worker"]
    run(os.environ.get("CARGO", "cargo"), *build)
    (to / "examples").mkdir(parents=True)
    for name in ("lookbook", "examples/bench_worker"):
        run("strip", "-o", to / name, BINARIES / name)


def library(name, content, to):
    """Writes ONNX Runtime's library, whose version is in its name, and the link by which it is found."""
    to.mkdir(exist_ok=True)
    (to / name).write_bytes(content)
    if not name.startswith("libonnxruntime_") and name != LIBRARY:
        (to / LIBRARY).symlink_to(name)


def plain_runtime(to):
    named = os.environ.get("ORT_DYLIB_PATH")
    if not named:
        run("scripts/install_onnxruntime.sh")
    source = pathlib.Path(named or PROJECT / ".runtime" / LIBRARY)
    library(source.resolve().name, source.read_bytes(), to)


def pinned(name):
    """The requirement of this name with its checksums, without the others of the file."""
    lines = iter(REQUIREMENTS.read_text().splitlines())
    found = next(line for line in lines if line.startswith(f"{name}=="))
    while found.endswith("\\"):
        found = f"{found[:-1]} {next(lines).strip()}"
    return found


def cuda_runtime(to, architecture):
    """The library and its CUDA provider out of the pinned wheel. NVIDIA's own libraries are on the machine, with its PyTorch."""
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        (place / "requirements.txt").write_text(pinned("onnxruntime-gpu"))
        download = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        run(sys.executable, "-m", "pip", *download, "--requirement", place / "requirements.txt", "--dest", place)
        (wheel,) = place.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                name = pathlib.PurePosixPath(member).name
                if name.startswith("libonnxruntime") and "tensorrt" not in name:
                    library(name, archive.read(member), to)
    provider = bytearray((to / PROVIDER).read_bytes())
    sizes = keep_one(provider, architecture)
    if not sizes[architecture]:
        there = ", ".join(str(it) for it in sorted(sizes))
        sys.exit(f"gpu_bench: ONNX Runtime has no code for architecture {architecture}; it has {there}")
    (to / PROVIDER).write_bytes(provider)


def photos(to, source, count):
    """A data set that `lookbook convert` reads: a copy of the source, or a drawn one."""
    if source:
        shutil.copytree(source, to)
    else:
        run(BINARIES / "lookbook", "sample", "--photos", count, "--output", to)


def scripts(to):
    to.mkdir()
    for name in SCRIPTS:
        source = PROJECT / "scripts" / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__", "rust"))
        else:
            shutil.copy(source, to)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few drawn photos, to try the scripts")
    parser.add_argument("--photos", type=pathlib.Path, help="a data set such as CFPD; default: 804 drawn photos")
    parser.add_argument("--architecture", type=int, default=90, help="of the GPU; 90 is Hopper: H100, H200")
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=carried.FOLDER)
    given = parser.parse_args()
    if given.photos and not given.photos.is_dir():
        parser.error(f"there is no folder {given.photos}")
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        place = pathlib.Path(place)
        program(place / "program")
        if given.device == "cuda":
            cuda_runtime(place / "runtime", given.architecture)
        else:
            plain_runtime(place / "runtime")
        photos(place / "photos", given.photos, QUICK_PHOTOS if given.quick else SAMPLE_PHOTOS)
        scripts(place / "scripts")
        pieces = carried.write(place, given.folder)
    print(f"gpu_bench: carry {given.folder / carried.CHECKSUMS} and:", file=sys.stderr)
    for path in pieces:
        print(f"{path.stat().st_size:>10} {path}")


if __name__ == "__main__":
    main()

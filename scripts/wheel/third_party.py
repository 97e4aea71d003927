"""The licences of what is linked into the program: third_party.py TARGET > THIRD-PARTY-LICENSES.txt

For each crate that `cargo metadata` lists for the target, without what only builds or tests it: name, version, licence, and the
texts in its source, each text once. libjpeg-turbo and the fonts lie in crates.
"""

import collections
import json
import os
import pathlib
import re
import subprocess
import sys

# Files that hold terms or notices, by the start of their names. Source code may have such names too.
NAMES = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense|ofl|readme\.ijg)", re.IGNORECASE)
NO_TEXT = {".rs", ".c", ".h", ".py", ".in", ".html", ".rtf", ".toml"}
LARGEST_TEXT = 200_000


def metadata(target):
    command = [os.environ.get("CARGO", "cargo"), "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def linked(graph):
    """The packages that the program is linked from, by name and version."""
    packages = {it["id"]: it for it in graph["packages"]}
    nodes = {it["id"]: it for it in graph["resolve"]["nodes"]}
    found, waiting = set(), [it for it in graph["workspace_members"] if packages[it]["name"] == "lookbook"]
    while waiting:
        at = waiting.pop()
        if at in found or any("proc-macro" in target["kind"] for target in packages[at]["targets"]):
            continue
        found.add(at)
        waiting += [it["pkg"] for it in nodes[at]["deps"] if any(kind["kind"] is None for kind in it["dep_kinds"])]
    theirs = [packages[it] for it in found if packages[it]["source"]]
    return sorted(theirs, key=lambda it: (it["name"], it["version"]))


def texts(folder):
    """The texts of licences below a crate's folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and NAMES.match(path.name) and path.suffix.lower() not in NO_TEXT:
            if path.stat().st_size <= LARGEST_TEXT:
                yield path.relative_to(folder), path.read_text(encoding="utf-8", errors="replace").strip()


def main(target):
    packages = linked(metadata(target))
    if len(packages) < 50:
        sys.exit(f"third_party: only {len(packages)} crates are linked; is this the lookbook of the checkout?")
    print("lookbook is linked from these crates, each under the licence that stands beside it.\n")
    # By words: the same text is wrapped and indented in many ways.
    users, as_written = collections.defaultdict(list), {}
    for package in packages:
        name = f"{package['name']} {package['version']}"
        print(f"{name}: {package['license'] or 'see its text'} ({package['repository'] or 'crates.io'})")
        for path, text in texts(pathlib.Path(package["manifest_path"]).parent):
            words = " ".join(text.split())
            as_written.setdefault(words, text)
            users[words].append(f"{name}: {path}")
    print("Rust's standard library: MIT OR Apache-2.0 (https://github.com/rust-lang/rust)")
    print("LLVM's libunwind and compiler-rt, from Zig: Apache-2.0 WITH LLVM-exception (https://github.com/llvm/llvm-project)")
    for words, those in users.items():
        print("\n" + "=" * 100)
        print("\n".join(those))
        print("-" * 100)
        print(as_written[words])


if __name__ == "__main__":
    main(sys.argv[1])

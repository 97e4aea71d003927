"""Compares the platform tag of a wheel with what auditwheel finds that its program needs: check_tag.py WHEEL TAG"""

import pathlib
import re
import subprocess
import sys


def main(wheel, tag):
    if not wheel.endswith(f"-{tag}.whl"):
        sys.exit(f"check_tag: {wheel} is not tagged {tag}")
    auditwheel = pathlib.Path(sys.executable).with_name("auditwheel")
    shown = subprocess.run([auditwheel, "show", wheel], check=True, stdout=subprocess.PIPE, text=True).stdout
    words = " ".join(shown.split())
    print(words, file=sys.stderr)
    found = re.search(r'consistent with the following platform tag: "(manylinux_(\d+)_(\d+)_\w+)"', words)
    if not found:
        sys.exit(f"check_tag: auditwheel finds no manylinux tag for {wheel}")
    allowed = tuple(map(int, tag.split("_")[1:3]))
    if tuple(map(int, found.group(2, 3))) > allowed:
        sys.exit(f"check_tag: {wheel} needs {found.group(1)}, which is newer than its tag")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

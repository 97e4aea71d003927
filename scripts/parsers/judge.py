"""Prints what `lookbook parser check` found of an exported parser, and fails if too few pixels are equal.

    judge.py FOLDER
"""

import json
import sys
from pathlib import Path

# An untrained network is unsure of every pixel: what differs by the last bit of a byte may have another label.
LEAST = {"yolo-modanet": 0.999}

folder = Path(sys.argv[1])
report = json.loads((folder / "report.json").read_text())
equal = report["photo"]["equal_share"]
labels = len({label for label, _ in report["photo"]["shares"]})
print(f"{report['name']}: {equal:.5f} of the pixels are equal, {labels} categories, network {report['network_secs']:.3f} s")
sys.exit(equal < LEAST.get(folder.name, 0.985) or labels < 3)

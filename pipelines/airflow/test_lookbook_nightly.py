"""The DAG run for real, by `airflow dags test`, over a small sample: a first night, a night with nothing to do, one that
waits for another run, one that a gate keeps back. Called by `make test-airflow`."""

import collections
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.append(str(pathlib.Path(__file__).parents[2] / "scripts" / "store"))
from moto_store import Store

DAG_FILE = pathlib.Path(__file__).with_name("lookbook_nightly.py")
PROGRAM = os.environ["LOOKBOOK_PROGRAM"]
AIRFLOW = pathlib.Path(sys.executable).with_name("airflow")
SHARDS = 2
STAGES = ["convert", "train", "segment_shards", "segment", "similarity_shards", "similarity", "report"]

SETTINGS = """
[convert]
split = [6, 1, 1]
[train]
epochs = 1
batch_size = 4
loss = "softmax"
photo_width_px = 32
photo_height_px = 48
device = "cpu"
[segment]
from = "labels"
"""


class Nights(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.environment = {
            **os.environ,
            "AIRFLOW_HOME": str(cls.place / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FILE.parent),
            "LOOKBOOK_RETRY_SECS": "1",
        }
        cls.airflow("db", "migrate")
        cls.airflow("pools", "set", "gpu", "1", "the network")
        sample = ["sample", "--photos", "8", "--output", str(cls.place / "2026-01-01")]
        subprocess.run([PROGRAM, *sample], check=True, capture_output=True)
        cls.settings(SETTINGS)

    @classmethod
    def airflow(cls, *arguments):
        done = subprocess.run([AIRFLOW, *arguments], env=cls.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"airflow {' '.join(arguments)}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
        return done.stdout

    @classmethod
    def settings(cls, text):
        (cls.place / "settings.toml").write_text(text)

    def night(self, date, source="2026-01-01", output="output"):
        """Runs the DAG; the states that each task ended in."""
        parameters = {"settings": f"{self.place}/settings.toml", "shards": SHARDS}
        places = {"source": source, "output": output}
        whole = lambda place: place if "://" in place else f"{self.place}/{place}"
        parameters |= {name: whole(place) for name, place in places.items() if place}
        conf = json.dumps(parameters)
        arguments = ["dags", "test", "lookbook_nightly", date, "--dagfile-path", str(DAG_FILE), "--conf", conf]
        done = subprocess.run([AIRFLOW, *arguments], env=self.environment, capture_output=True, text=True)
        self.log = done.stdout + done.stderr
        listed = self.airflow("tasks", "states-for-dag-run", "lookbook_nightly", date, "--output", "json")
        states = collections.defaultdict(list)
        for row in json.loads(listed[listed.index("[") :]):
            states[row["task_id"]].append(row["state"])
        return {name: sorted(states[name]) for name in STAGES}

    def all_in(self, state):
        return {name: [state] * (SHARDS if name.endswith("_shards") else 1) for name in STAGES}

    def published(self, name):
        return json.loads((self.place / "output" / name / "run.json").read_text())

    def test_1_a_first_night_publishes_everything(self):
        self.assertEqual(self.night("2026-01-01"), self.all_in("success"), self.log[-6000:])
        self.assertEqual(self.published("features")["counts"]["photos"], 8)
        self.assertTrue((self.place / "output/report/index.html").is_file())
        runs = json.loads((self.place / "output/runs/run.json").read_text())
        self.assertTrue(runs["good"] and len(runs["stages"]) == len(STAGES) - 2 + 2 * SHARDS, runs)

    def test_2_a_night_with_nothing_to_do_is_skipped(self):
        before = self.published("report")
        self.assertEqual(self.night("2026-01-02"), self.all_in("skipped"), self.log[-6000:])
        self.assertEqual(self.published("report"), before)

    def test_3_a_held_folder_is_tried_again(self):
        self.settings(SETTINGS.replace("[6, 1, 1]", "[5, 2, 1]"))
        with open(self.place / "output/.dataset.lock", "r+") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            refused = threading.Thread(target=self.let_go_when_refused, args=[lock])
            refused.start()
            states = self.night("2026-01-03")
            refused.join()
        self.assertEqual(states["convert"], ["success"], self.log[-6000:])
        self.assertEqual(states["train"], ["success"], self.log[-6000:])
        codes = [attempt["exit_code"] for attempt in self.history() if attempt["state"] != "running"]
        self.assertIn(75, codes)

    def let_go_when_refused(self, lock):
        while not any(attempt["exit_code"] == 75 for attempt in self.history()):
            threading.Event().wait(0.1)
        fcntl.lockf(lock, fcntl.LOCK_UN)

    def history(self):
        lines = (self.place / "output/runs/history.ndjson").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def test_4_a_gate_fails_the_night_at_once_and_keeps_what_is_published(self):
        self.settings(SETTINGS + "[gates]\nmin_photos = 1000\n[similarity]\ntop = 3\n")
        # Another split: there is something to do.
        before, attempts = self.published("dataset"), len(self.history())
        states = self.night("2026-01-04")
        self.assertEqual(states["convert"], ["failed"], self.log[-6000:])
        self.assertEqual(states["report"], ["upstream_failed"], self.log[-6000:])
        self.assertEqual(self.published("dataset"), before)
        self.assertEqual(len(self.history()) - attempts, 2, "begun and ended once: no retry can mend it")
        self.assertTrue((self.place / "output/.dataset.rejected/run.json").is_file())

    def test_5_a_back_fill_reads_and_writes_what_belongs_to_its_date(self):
        self.settings(SETTINGS)
        states = self.night("2026-01-01", source="{date}", output="of-{date}")
        self.assertEqual(states, self.all_in("success"), self.log[-6000:])
        self.assertTrue((self.place / "of-2026-01-01/report/index.html").is_file())

    def test_6_places_that_are_not_named_come_from_the_settings(self):
        source = f"{self.place}/2026-01-01"
        settings = SETTINGS.replace("[convert]", f"[run]\noutput = '{self.place}/named'\n[convert]\nsource = '{source}'")
        self.settings(settings.replace('from = "labels"', f"catalogue = '{source}/image'"))
        states = self.night("2026-01-06", source=None, output=None)
        self.assertEqual(states, self.all_in("success"), self.log[-6000:])
        features = json.loads((self.place / "named/features/run.json").read_text())
        self.assertEqual(features["config"]["stage"]["catalogue"], f"{source}/image")

    def test_7_shards_that_share_no_disk_meet_in_a_store(self):
        self.settings(SETTINGS)
        store = Store()
        self.addCleanup(store.stop)
        # Each task is on a machine of its own, which has nothing.
        program = self.place / "on-a-machine-of-its-own"
        program.write_text(f'#!/bin/sh\nexport XDG_CACHE_HOME="$(mktemp -d -p {self.place})"\nexec {PROGRAM} "$@"\n')
        program.chmod(0o755)
        before = self.environment
        self.environment = {**before, **store.environment(), "LOOKBOOK_PROGRAM": str(program)}
        self.addCleanup(setattr, self, "environment", before)
        states = self.night("2026-01-07", output="s3://lookbook/night")
        self.assertEqual(states, self.all_in("success"), self.log[-6000:])
        version = json.loads(store.request("GET", "night/features/current.json"))["version"]
        features = json.loads(store.request("GET", f"night/features/_versions/{version}/run.json"))
        self.assertEqual(features["counts"]["photos"], 8)


if __name__ == "__main__":
    unittest.main(verbosity=2)

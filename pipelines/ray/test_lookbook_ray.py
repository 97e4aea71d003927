"""Stages in shards on a real Ray cluster of three nodes, over moto's S3 server, while one node is killed: the tables are those of
an undisturbed run. Called by `make test-ray`."""

import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.append(str(pathlib.Path(__file__).parents[2] / "scripts" / "store"))
from moto_store import Store, free_port, wait_for

SCRIPT = pathlib.Path(__file__).with_name("lookbook_ray.py")
PROGRAM = os.environ["LOOKBOOK_PROGRAM"]
RAY = pathlib.Path(sys.executable).with_name("ray")
SHARDS = 12
PHOTOS = 96


class Cluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        cls.store = Store()
        cls.addClassCleanup(cls.store.stop)
        cls.environment = {
            **os.environ,
            **cls.store.environment(),
            # The copies of a machine are its own.
            "XDG_CACHE_HOME": str(cls.place / "here"),
        }
        cls.settings = cls.place / "settings.toml"
        cls.settings.write_text('[segment]\nfrom = "labels"\n')
        cls.lookbook("sample", "--photos", str(PHOTOS), "--output", str(cls.place / "source"))
        cls.lookbook("convert", "--source", str(cls.place / "source"), "--output", "s3://lookbook/plain/dataset")
        cls.lookbook("convert", "--source", str(cls.place / "source"), "--output", "s3://lookbook/spread/dataset")

    @classmethod
    def lookbook(cls, *arguments):
        command = [PROGRAM, *arguments, "--config", cls.settings]
        done = subprocess.run(command, env=cls.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{command}\n{done.stderr}")

    def tables(self, folder):
        """The checksums of the published parts."""
        version = json.loads(self.store.request("GET", f"{folder}/current.json"))["version"]
        record = json.loads(self.store.request("GET", f"{folder}/_versions/{version}/run.json"))
        parts = [it for it in record["files"] if it["name"].endswith(".parquet") and not it["name"].startswith("_")]
        for it in parts:
            content = self.store.request("GET", f"{folder}/_versions/{version}/{it['name']}")
            self.assertEqual(hashlib.sha256(content).hexdigest(), it["sha256"])
        return {it["name"]: it["sha256"] for it in parts}

    def node(self, name, *arguments):
        """Starts a node in a session of its own, with copies of its own."""
        # Slow enough that a shard is in the middle when its node is killed.
        program = self.place / "slow-lookbook"
        program.write_text(f'#!/bin/sh\nsleep 0.5\nexec {PROGRAM} "$@"\n')
        program.chmod(0o755)
        own = {"LOOKBOOK_PROGRAM": str(program), "XDG_CACHE_HOME": str(self.place / name)}
        environment = {**self.environment, **own, "RAY_health_check_period_ms": "1000"}
        command = [RAY, "start", *arguments, "--num-cpus", "2", "--temp-dir", f"/tmp/lookbook-ray-{os.getpid()}", "--block"]
        node = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.addCleanup(node.wait)
        self.addCleanup(lambda: node.poll() is None and os.killpg(node.pid, signal.SIGKILL))
        return node

    def test_a_node_that_dies_changes_nothing(self):
        self.lookbook("run", "--only", "segment..similarity", "--output", "s3://lookbook/plain")
        port = free_port()
        address = f"127.0.0.1:{port}"
        self.node("head", "--head", "--port", str(port), "--include-dashboard", "false")
        wait_for(lambda: socket.create_connection(("127.0.0.1", port)).close())
        nodes = [self.node(name, "--address", address) for name in ("second", "third")]
        time.sleep(10)
        output = ["--output", "s3://lookbook/spread", "--settings", str(self.settings)]
        command = [sys.executable, SCRIPT, "--address", address, "--shards", str(SHARDS), "--threads", "1", *output]
        run = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(4)
        self.assertIsNone(run.poll(), "it is in the middle")
        os.killpg(nodes[0].pid, signal.SIGKILL)
        said, _ = run.communicate(timeout=300)
        self.assertEqual(run.returncode, 0, said)
        self.assertIn(f"segment: {SHARDS} of {SHARDS} shards", said)
        for folder in ("features", "similarity"):
            tables = self.tables(f"spread/{folder}")
            self.assertGreater(len(tables), 0)
            self.assertEqual(tables, self.tables(f"plain/{folder}"))


if __name__ == "__main__":
    unittest.main()

"""Installs a wheel as somebody does who has no Rust, and uses it: test_wheel.py WHEEL [unittest's arguments]

Each test begins with an empty environment: a folder of its own with blanks and letters that are not ASCII, a home of its own, and a
PATH without cargo and rustc. Packages come from the index that pip is set up for.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

WHEEL = pathlib.Path(sys.argv.pop(1)).resolve()
# Where uv, which is not part of what is tested, lies.
UV = pathlib.Path(sys.executable).with_name("uv")
COMPILERS = ("cargo", "rustc", "rustup", "cc", "gcc", "cmake")


class Wheel(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory(prefix="lookbook wheel é ")
        self.addCleanup(place.cleanup)
        self.place = pathlib.Path(place.name)
        self.home = self.place / "home"
        self.home.mkdir()
        self.tools = self.place / "tools"
        self.tools.mkdir()
        for tool in ("sh", "env", "uname"):
            (self.tools / tool).symlink_to(shutil.which(tool))
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_", "TMP"))}
        self.environ = {**kept, "HOME": str(self.home), "PATH": str(self.tools), "LC_ALL": "C.UTF-8"}
        for compiler in COMPILERS:
            self.assertIsNone(shutil.which(compiler, path=self.environ["PATH"]))

    def run_in(self, folder, *command, expect=0, **environ):
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            [str(it) for it in command],
            cwd=folder,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.assertEqual(done.returncode, expect, f"{command}\n{done.stdout}")
        return done.stdout

    def installed(self, name="venv"):
        """The program in a new virtual environment."""
        venv = self.place / name
        self.run_in(self.place, sys.executable, "-m", "venv", venv)
        self.run_in(self.place, venv / "bin/pip", "install", "--quiet", WHEEL)
        return venv / "bin/lookbook"

    def test_three_commands_to_a_report(self):
        lookbook = self.installed()
        work = self.place / "mes photos"
        self.run_in(work, lookbook, "sample")
        text = self.run_in(work, lookbook, "run")
        self.assertIn("the report is output/report/index.html", text)
        self.assertIn("<html", (work / "output/report/index.html").read_text(encoding="utf-8"))
        record = json.loads((work / "output/model/run.json").read_text(encoding="utf-8"))
        self.assertEqual(record["config"]["stage"]["epochs"], 36, "the settings of the sample")
        self.assertIn("nothing to do", self.run_in(work, lookbook, "run"))
        self.assertNotIn("stale", self.run_in(work, lookbook, "status"))
        self.assertIn("every stage could begin", self.run_in(work, lookbook, "doctor"))
        photo = next((work / "output/sample/image").iterdir())
        self.assertIn("correlation", self.run_in(work, lookbook, "recommend", photo, "--format", "json"))

    def test_the_environment_has_what_belongs_to_the_program(self):
        lookbook = self.installed()
        share = lookbook.parent.parent / "share"
        self.assertIn(".TH lookbook-train", (share / "man/man1/lookbook-train.1").read_text(encoding="utf-8"))
        for completions in ("bash-completion/completions/lookbook", "zsh/site-functions/_lookbook", "fish/vendor_completions.d/lookbook.fish"):
            self.assertIn("duplicates", (share / completions).read_text(encoding="utf-8"), completions)
        notices = (share / "doc/lookbook/THIRD-PARTY-LICENSES.txt").read_text(encoding="utf-8")
        for name in ("polars-core ", "libjpeg-turbo/LICENSE.md", "Apache License", "OFL"):
            self.assertIn(name, notices)
        licences = {it.name for it in (lookbook.parent.parent / "lib").glob("python3*/site-packages/lookbook-*.dist-info/licenses/*")}
        self.assertLessEqual({"LICENSE-MIT", "LICENSE-APACHE"}, licences)
        # Settings that need a pretrained encoder have it.
        for config, encoder in (("real", "efficientnet-lite0"), ("best", "efficientnet-lite2")):
            found = json.loads(self.run_in(self.place, lookbook, "settings", "train", "--config", config))
            self.assertEqual(found["train"]["encoder"], str(share / f"lookbook/encoder/{encoder}.safetensors"))
            self.assertIn("ok    encoder", self.run_in(self.place, lookbook, "doctor", "--config", config))

    def test_the_library_is_missing_or_another(self):
        lookbook = self.installed()
        pip = lookbook.with_name("pip")
        self.run_in(self.place, pip, "uninstall", "--quiet", "--yes", "onnxruntime")
        advice = f"`pip install 'onnxruntime~=1.31.0'` in the Python environment {lookbook.parent.parent}"
        for command in ("doctor", "run"):
            text = self.run_in(self.place / "work", lookbook, command, expect=1)
            self.assertIn("site-packages/onnxruntime/capi/libonnxruntime.so", text)
            self.assertIn(advice, text)
        self.assertFalse((self.place / "work/output/sample").exists(), "that is known before the first stage")
        # A library that is older than those that are tested, but not too old.
        self.run_in(self.place, pip, "install", "--quiet", "--no-deps", "onnxruntime==1.24.*")
        text = self.run_in(self.place, lookbook, "doctor")
        self.assertRegex(text, r"warn  ONNX Runtime   1\.24")
        self.assertIn(advice, text)
        text = self.run_in(self.place, lookbook, "doctor", expect=1, ORT_DYLIB_PATH="/nowhere/lib.so")
        self.assertIn("/nowhere/lib.so: ORT_DYLIB_PATH points to it, but there is no such file", text)

    def test_other_ways_to_install(self):
        # Into a folder.
        target = self.place / "target"
        pip = [sys.executable, "-m", "pip", "install", "--quiet"]
        self.run_in(self.place, *pip, "--target", target, WHEEL)
        self.assertIn(str(target / "onnxruntime/capi"), self.run_in(self.place, target / "bin/lookbook", "doctor"))
        # For one user; the Python of a virtual environment has no such place.
        python = pathlib.Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
        user = self.place / "user"
        self.run_in(
            self.place, python, "-m", "pip", "install", "--quiet", "--user", WHEEL, PYTHONUSERBASE=str(user), PIP_BREAK_SYSTEM_PACKAGES="1"
        )
        link = self.place / "lookbook"
        link.symlink_to(user / "bin/lookbook")
        # As pipx does, by a link to the program.
        self.assertIn(str(user / "lib"), self.run_in(self.place, link, "doctor"))

    def test_uvx(self):
        uv = {"UV_CACHE_DIR": str(self.place / "cache"), "UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
        text = self.run_in(self.place, UV, "tool", "run", "--from", WHEEL, "lookbook", "doctor", **uv)
        self.assertIn("ok    ONNX Runtime   1.31.", text)
        tools = {"UV_TOOL_DIR": str(self.place / "uv tools"), "UV_TOOL_BIN_DIR": str(self.place / "uv bin")}
        self.run_in(self.place, UV, "tool", "install", "--quiet", WHEEL, **uv, **tools)
        self.assertIn("ok    ONNX Runtime   1.31.", self.run_in(self.place, self.place / "uv bin/lookbook", "doctor"))


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""Builds the image of Containerfile and runs lookbook in it, or does its steps without a builder of images: container.py

With podman or docker: builds the image and runs `doctor` and `run`. Without one of these, as root on a Debian with
debootstrap: does each instruction by itself, in folders for roots that begin as Debian's minimal system, and runs the two commands
by chroot as the image's user. What is done is printed, and which of the two it was.
"""

import json
import pathlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile

PROJECT = pathlib.Path(__file__).resolve().parents[2]
IMAGE = "localhost/lookbook-test"
# The base that the Containerfile names, and the Debian that debootstrap takes for it.
BASE, SUITE = "docker.io/library/debian:bookworm-slim", "bookworm"
# What is tried of the finished image, and what it has to say.
TRIALS = [(["doctor"], "every stage could begin"), (["run"], "the report is output/report/index.html")]


def say(text):
    print(f"container: {text}", file=sys.stderr, flush=True)


def call(*command, **more):
    return subprocess.run([str(it) for it in command], check=True, text=True, **more)


def builder():
    """A program that builds images and runs them here; None without one."""
    for program in ("podman", "docker"):
        # docker is there without a daemon, too.
        if shutil.which(program) and subprocess.run([program, "info"], capture_output=True).returncode == 0:
            return program
    return None


def by_builder(program):
    say(f"{program} build")
    call(program, "build", "--file", "Containerfile", "--tag", IMAGE, ".", cwd=PROJECT)
    container = call(program, "create", "--entrypoint", "sleep", IMAGE, "3600", stdout=subprocess.PIPE).stdout.strip()
    try:
        call(program, "start", container)
        for arguments, expected in TRIALS:
            check(arguments, expected, [program, "exec", container, "lookbook", *arguments])
    finally:
        call(program, "rm", "--force", container)


def check(arguments, expected, command):
    say(f"in the image: lookbook {shlex.join(arguments)}")
    done = subprocess.run([str(it) for it in command], stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    if done.returncode != 0 or expected not in done.stdout:
        sys.exit(f"container: lookbook {shlex.join(arguments)} ended with {done.returncode}, and without '{expected}'")


class Steps:
    """The stages of a Containerfile, done in folders."""

    def __init__(self, place):
        self.place = place
        self.base = place / "base"
        self.roots = {}
        self.root = None

    def do(self, instruction, rest):
        say(f"{instruction} {rest}")
        getattr(self, f"do_{instruction.lower()}")(rest)

    def do_from(self, rest):
        base, *named = rest.split(" AS ")
        if base != BASE:
            sys.exit(f"container: the steps can begin with {BASE} alone")
        if not self.base.exists():
            say(f"  (in its place: debootstrap --variant=minbase {SUITE})")
            call("debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, self.base, stdout=subprocess.DEVNULL)
            # So that the packages come from where this machine gets them.
            for file in (pathlib.Path("/etc/resolv.conf"), self.certificates()):
                shutil.copyfile(file, self.base / "etc" / file.name)
        name = named[0] if named else "final"
        self.root = self.roots[name] = self.place / name
        call("cp", "--archive", self.base, self.root)
        self.user, self.folder, self.env, self.entry = "root", "/", {"PATH": os.defpath}, []

    @staticmethod
    def certificates():
        return pathlib.Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))

    def inside(self, command, **env):
        """The command that runs `command` in the root, with a /proc that ends with it."""
        variables = [f"{name}={value}" for name, value in {**self.env, **env}.items()]
        script = """mount -t proc proc "$1/proc"; cd "$1"; user=$2 folder=$3; shift 3
            exec chroot --userspec="$user" . env -i -C "$folder" "$@\""""
        return ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", script, "sh", self.root, self.user, self.folder, *variables, *command]

    def do_run(self, rest):
        pip = {"PIP_CERT": f"/etc/{self.certificates().name}", "DEBIAN_FRONTEND": "noninteractive"}
        call(*self.inside(["/bin/sh", "-c", rest], PATH=f"{self.env['PATH']}:/usr/sbin:/sbin", **pip), stdout=subprocess.DEVNULL)

    def do_copy(self, rest):
        *sources, target = shlex.split(rest)
        context = self.roots[sources.pop(0).removeprefix("--from=")] if sources[0].startswith("--from=") else PROJECT
        target_path = self.root / target.lstrip("/")
        for source in sources:
            found = sorted(context.glob(source.lstrip("/")))
            if not found:
                sys.exit(f"container: there is no {source} to copy")
            for path in found:
                if path.is_dir():
                    shutil.copytree(path, target_path, symlinks=True, dirs_exist_ok=True)
                else:
                    target_path.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, target_path)

    def do_env(self, rest):
        self.env.update(it.split("=", 1) for it in shlex.split(rest))

    def do_user(self, rest):
        self.user = rest

    def do_workdir(self, rest):
        self.folder = rest

    def do_entrypoint(self, rest):
        self.entry = json.loads(rest)

    def do_cmd(self, rest):
        json.loads(rest)


def by_steps():
    missing = [it for it in ("debootstrap", "unshare", "chroot") if not shutil.which(it)]
    if os.geteuid() != 0 or missing:
        say(f"nothing was run: no image can be built here, and the steps need root and {' '.join(missing) or 'debootstrap'}")
        sys.exit(1)
    say("nothing here builds images; the steps are done one by one")
    with tempfile.TemporaryDirectory(prefix="lookbook-container-") as place:
        # The image's user has to reach the folder.
        os.chmod(place, 0o755)
        steps = Steps(pathlib.Path(place))
        for line in (PROJECT / "Containerfile").read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                steps.do(*line.split(" ", 1))
        for arguments, expected in TRIALS:
            check(arguments, expected, steps.inside([*steps.entry, *arguments], HOME=f"/home/{steps.user}"))
        call("du", "--summarize", "--human-readable", steps.root / "opt/lookbook")
    say("the steps were done and the commands run by chroot; no image was built")


if __name__ == "__main__":
    found = builder()
    by_builder(found) if found else by_steps()

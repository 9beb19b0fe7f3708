"""Fixtures: logs of several sizes, and two kinds of places to publish them to."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkrein.log.destinations import WebRoot
from oracles.golang import GoVerifier
from oracles.golang import Missing as NoGo
from oracles.logs import Grown, grow
from publishing.proxy import Faults, served
from publishing.seaweed import BUCKET, KEYS, Missing, Seaweed

S3 = pytest.param("s3", marks=pytest.mark.service("s3"))


def missing(reason: str, required: str = "CHECKREIN_REQUIRE_S3") -> None:
    """Skip, or fail where it is required."""
    if os.environ.get(required):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def seaweed() -> Iterator[Seaweed]:
    """The server, started once."""
    try:
        import boto3  # noqa: F401

        running = Seaweed()
    except (ImportError, Missing) as error:
        missing(str(error))
        raise AssertionError from error
    yield running
    running.stop()


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> GoVerifier:
    """The verifier in Go, built once."""
    try:
        return GoVerifier(tmp_path_factory.mktemp("go"))
    except NoGo as error:
        missing(str(error), "CHECKREIN_REQUIRE_ORACLES")
        raise AssertionError from error


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """The AWS environment of somebody who has nothing set but this test's credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["accessKey"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["secretKey"])
    return monkeypatch


class Web:
    """A web root, and what somebody else can do in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.text = str(root)

    def open(self, **_):
        return WebRoot(self.root, patience=60)

    def get(self, name):
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def put(self, name, data):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def remove(self, name):
        (self.root / name).unlink()

    def names(self):
        files = (path for path in self.root.rglob("*") if path.is_file())
        return sorted({path.relative_to(self.root).as_posix() for path in files} - {".publishing"})


class Objects:
    """A prefix in a bucket, and what somebody else can do there; `fault` makes requests fail."""

    def __init__(self, client, url, prefix):
        self.client, self.url, self.prefix = client, url, prefix
        self.text = f"s3://{BUCKET}/{prefix}"

    def open(self, url="", **options):
        from checkrein.log.s3 import Bucket

        return Bucket.open(self.text, endpoint=url or self.url, **{"pause": 0.01, **options})

    def get(self, name):
        try:
            with self.client.get_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}")["Body"] as body:
                return body.read()
        except self.client.exceptions.NoSuchKey:
            return None

    def put(self, name, data):
        self.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}", Body=data)

    def remove(self, name):
        self.client.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}")

    def names(self):
        pages = self.client.get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        return sorted(
            one["Key"].removeprefix(f"{self.prefix}/")
            for page in found
            for one in page.get("Contents", ())
        )


def _objects(seaweed, request):
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")
    return Objects(seaweed.client(), seaweed.url, f"{name}-{os.urandom(4).hex()}")


@pytest.fixture
def objects(aws, request):
    """A place in a bucket of a real server."""
    one = _objects(request.getfixturevalue("seaweed"), request)
    yield one
    one.client.close()


@pytest.fixture(params=["web", S3])
def place(request, tmp_path):
    """An empty place of each kind."""
    if request.param == "web":
        return Web(tmp_path / "web")
    return request.getfixturevalue("objects")


@pytest.fixture
def proxy(seaweed):
    """A proxy before the server; its `fault` decides what goes wrong."""
    done = threading.Event()
    settings = {"fault": lambda method, path: None, "carried_out": done}
    with served(Faults, target=seaweed.url, **settings) as running:
        yield running


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """One log, as published at several sizes; nobody may change it."""
    return grow(tmp_path_factory.mktemp("grown"), (3, 5, 256, 300, 600, 1000, 66_000))


@pytest.fixture
def copy(grown, tmp_path):
    """Return a function that copies the log of a size, for somebody to change it."""

    def copy(size, name="copy"):
        shutil.copytree(grown.published[size], tmp_path / name)
        return tmp_path / name

    return copy

"""What the tests of the log share: keys in a temporary place, small logs, a disk that fails."""

from __future__ import annotations

import errno
import shutil

import pytest

from checkrein.log.audit import AuditLog
from checkrein.log.directory import DirectoryLedger
from checkrein.log.disk import Disk


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Keep the user's own keys out of the tests."""
    place = tmp_path / "data"
    monkeypatch.setenv("CHECKREIN_DATA", str(place))
    return place


def event(number, **more):
    return {"type": "test", "n": number, **more}


class QuickDisk(Disk):
    """Writes for real and does not wait for the disk; for tests that need many commits."""

    def sync(self, fd):
        pass

    def sync_directory(self, path):
        pass


class BrokenDisk(QuickDisk):
    """Fails to sync, or gets full after so many bytes, once told so."""

    def __init__(self):
        self.sync_fails = False
        self.room = None

    def sync(self, fd):
        if self.sync_fails:
            raise OSError(errno.EIO, "Input/output error")

    def write_at(self, fd, data, offset):
        if self.room is not None and len(data) > self.room:
            super().write_at(fd, data[: self.room], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write_at(fd, data, offset)


@pytest.fixture
def forget(data):
    """Return what makes this user forget which heads were signed, as an attacker would."""

    def forget():
        shutil.rmtree(data / "heads", ignore_errors=True)

    return forget


@pytest.fixture
def make(tmp_path):
    """Return a maker of logs that do not wait for the disk."""

    def make(name="log", disk=None, signer=None, origin=None):
        return AuditLog(DirectoryLedger(tmp_path / name, signer, origin, disk or QuickDisk()))

    return make


@pytest.fixture
def small(make, tmp_path):
    """Return (directory, vkey, crashed): three entries published, two commits in the journal."""
    log = make("small")
    log.append_many([event(0), event(1), event(2)])
    log.publish()
    log.append(event(3))
    log.append_many([event(4), event(5)])
    crashed = tmp_path / "crashed"
    shutil.copytree(log.directory, crashed)
    log.close()
    return log.directory, log.vkey, crashed


@pytest.fixture
def tools():
    """Return the helpers above, which importlib mode does not let tests import."""
    return event, QuickDisk, BrokenDisk

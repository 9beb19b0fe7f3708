"""Publishing without the client for buckets, and the command line."""

from __future__ import annotations

import json
import sys

import pytest

from checkrein.errors import ConfigurationError
from checkrein.log import AuditLog, verify_log
from checkrein.log.destinations import open_destination
from checkrein.log.keys import new_key


def test_without_boto3(monkeypatch):
    """One line says what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {"boto3", "botocore"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'checkrein\[s3\]'"):
        open_destination("s3://logs/x")


@pytest.fixture
def invoke():
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from checkrein.cli.app import app

    return lambda *words: CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)


@pytest.fixture
def log(tmp_path):
    """Return a published log of one entry and its key."""
    signer = new_key("example.com/log", tmp_path / "keys" / "log.skey")
    with AuditLog.open(tmp_path / "log", signer=signer) as opened:
        opened.append({"type": "test"})
    return tmp_path / "log", signer.vkey


def test_the_command(invoke, log, tmp_path):
    """It says what was done, and the web root verifies; a second time there is nothing to do."""
    directory, vkey = log
    done = invoke("log", "publish", directory, tmp_path / "web", "--key", vkey)
    assert done.exit_code == 0
    assert "published   1 entries at" in done.stdout
    assert "checkpoint  replaced" in done.stdout
    assert verify_log(tmp_path / "web", vkey=vkey).good
    more = ["--all", "--prune-partials", "--json"]
    again = invoke("log", "publish", directory, tmp_path / "web", "--key", vkey, *more)
    assert json.loads(again.stdout) == {
        "origin": "example.com/log",
        "size": 1,
        "files": 0,
        "octets": 0,
        "found": 2,
        "removed": 0,
        "changed": False,
    }


def test_exit_codes(invoke, log, tmp_path):
    """1 is for what was tampered with, 2 for what is not there or set up wrongly."""
    directory, vkey = log
    words = ["log", "publish", directory, tmp_path / "web"]
    assert invoke(*words, "--key", vkey, "--cosigned").exit_code == 2
    assert invoke(*words).exit_code == 2  # nobody vouches for the key
    assert invoke("log", "publish", tmp_path / "none", tmp_path / "web").exit_code == 2
    assert invoke(*words, "--key", vkey, "--endpoint", "https://x.example").exit_code == 2
    (tmp_path / "web" / "checkpoint").write_text("mine")
    refused = invoke(*words, "--key", vkey)
    assert refused.exit_code == 1
    assert "is not of this log" in refused.stderr

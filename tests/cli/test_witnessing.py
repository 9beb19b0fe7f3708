"""``keys witness``, ``log witness`` and ``log cosign``, as programs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from checkrein.cli.app import app
from checkrein.log import AuditLog, verify_log
from checkrein.log.keys import load_cosigning_key, new_key

NAME = "witness.example/one"
ORIGIN = "example.com/log"


def invoke(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture
def log(tmp_path):
    """Return a published log of one entry and its key."""
    signer = new_key(ORIGIN, tmp_path / "keys" / "log.skey")
    with AuditLog.open(tmp_path / "log", signer=signer) as opened:
        opened.append({"type": "test"})
    return tmp_path / "log", signer.vkey


@pytest.mark.parametrize("options", [(), ("--ml-dsa",)], ids=["ed25519", "ml-dsa-44"])
def test_a_key_for_a_witness(tmp_path, options):
    """The pair is made once; the public half is printed, the private one is not."""
    if options:
        pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    out = tmp_path / "witness.skey"
    result = invoke("keys", "witness", NAME, "--out", out, *options)
    assert result.exit_code == 0
    assert load_cosigning_key(out).vkey in result.stdout
    assert out.read_text().strip() not in result.output
    before = out.read_bytes()
    assert invoke("keys", "witness", NAME, "--out", out).exit_code == 2
    assert out.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_a_witness_and_a_log_that_asks_it(tmp_path, log):
    """Started, asked, ended: the head is cosigned, kept, and good as a pin."""
    directory, vkey = log
    key = tmp_path / "witness.skey"
    invoke("keys", "witness", NAME, "--out", key)
    logs = tmp_path / "logs"
    logs.write_text(f"log {vkey}\nquorum none\n")
    command = [sys.executable, "-W", "error", "-m", "checkrein", "log", "witness"]
    options = ["--key", key, "--logs", logs, "--state", tmp_path / "state"]
    running = subprocess.Popen(
        [*command, *options, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        public = running.stdout.readline().removeprefix("witness ").strip()
        url = re.search(r"http://\S+", running.stdout.readline())[0]
        policy = tmp_path / "policy"
        policy.write_text(f"log {vkey}\nwitness one {public} {url}\nquorum one\n")
        result = invoke("log", "cosign", directory, "--policy", policy)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "example.com/log, 1 entries" in result.stdout
        assert re.search(r"cosigned +20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ  one\n", result.stdout)
        kept = (directory / ".state" / "witnessed").read_text()
        assert verify_log(directory, vkey=vkey, pin=kept).good
        signer = new_key("example.com/other", tmp_path / "keys" / "other.skey")
        with AuditLog.open(tmp_path / "other", signer=signer) as other:
            other.append({"type": "test"})
        assert invoke("log", "cosign", tmp_path / "other", "--policy", policy).exit_code == 2
    finally:
        running.send_signal(signal.SIGINT)
        said = running.communicate(timeout=30)
    assert (running.returncode, *said) == (0, "", "")


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("8474", "HOST:PORT"),
        (":8474", "HOST:PORT"),
        ("127.0.0.1:x", "HOST:PORT"),
        ("127.0.0.1:99999", "cannot listen"),
        ("[::1:8474", "HOST:PORT"),
    ],
    ids=["port", "no-host", "no-number", "large", "bracket"],
)
def test_where_it_cannot_listen(tmp_path, log, listen, says):
    """An address that is none is told in one line."""
    key = tmp_path / "witness.skey"
    invoke("keys", "witness", NAME, "--out", key)
    (tmp_path / "logs").write_text(f"log {log[1]}\nquorum none\n")
    options = ("--key", key, "--logs", tmp_path / "logs", "--state", tmp_path / "state")
    result = invoke("log", "witness", *options, "--listen", listen)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr


@pytest.mark.parametrize(
    ("key", "policy", "says"),
    [
        ("keys/log.skey", "log {}\nquorum none\n", "not 0x01"),
        ("missing", "log {}\nquorum none\n", "cannot be read"),
        ("witness.skey", "log {}\nquorum w\n", "line 2"),
        ("witness.skey", "quorum none\n", "a log to watch"),
        ("witness.skey", None, "cannot be read"),
    ],
    ids=["log-key", "no-key", "wrong-policy", "no-log", "no-policy"],
)
def test_what_a_witness_needs(tmp_path, log, key, policy, says):
    """A log's key, no key, a wrong policy or none is told in one line."""
    invoke("keys", "witness", NAME, "--out", tmp_path / "witness.skey")
    if policy is not None:
        (tmp_path / "logs").write_text(policy.format(log[1]))
    options = ("--logs", tmp_path / "logs", "--state", tmp_path / "state")
    result = invoke("log", "witness", "--key", tmp_path / key, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr

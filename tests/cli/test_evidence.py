"""``log prove``, ``check`` and ``export``: what they write holds elsewhere."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from checkrein import AuditLog
from checkrein.cli.app import app
from checkrein.forgetting import Erasable
from checkrein.log import read_entries
from checkrein.log.bundle import verify_bundle
from checkrein.log.checkpoint import Checkpoint
from checkrein.log.keys import key_path
from checkrein.log.merkle import EMPTY_ROOT
from checkrein.log.note import Ed25519Signer, sign_note

ORIGIN = "example.com/tests"


def cli(*arguments: object):
    return CliRunner().invoke(app, ["log", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def audit(tmp_path):
    directory = tmp_path / "audit"
    with AuditLog.open(directory, origin=ORIGIN) as log:
        log.append_many([{"type": "test", "n": i} for i in range(5)])
    return directory


@pytest.fixture
def pin(audit, tmp_path):
    """The head of five entries; the log then grows to seven."""
    path = tmp_path / "pin"
    path.write_bytes((audit / "checkpoint").read_bytes())
    with AuditLog.open(audit) as log:
        log.append_many([{"type": "test", "n": i} for i in range(5, 7)])
    return path


@pytest.fixture
def proof(audit, tmp_path):
    """(receipt, entry) of entry 3, as files."""
    receipt, entry = tmp_path / "3.tlog-proof", tmp_path / "3.json"
    done = cli("prove", audit, 3, "--out", receipt, "--entry", entry)
    assert (done.exit_code, done.stdout) == (0, "")
    return receipt, entry


# -- prove and check -------------------------------------------------------------------------


def test_a_receipt_is_checked_without_the_log(audit, proof, tmp_path, monkeypatch):
    """With the key as text or in a file, on a machine that knows nothing of the log."""
    public = key_path(ORIGIN).with_suffix(".vkey")
    assert cli("check", proof[0], "--entry", proof[1]).exit_code == 0
    monkeypatch.setenv("CHECKREIN_DATA", str(tmp_path / "nothing"))
    audit.rename(tmp_path / "elsewhere")
    for key in (public, public.read_text().strip()):
        done = cli("check", proof[0], "--entry", proof[1], "--key", key)
        assert done.exit_code == 0
        assert done.stdout.splitlines()[-1] == "good"
        assert re.search(r"^shown +this is entry 3 of the first 5$", done.stdout, re.MULTILINE)
        assert "verified (given key)" in done.stdout
        assert re.search(r"^freshness +unknown", done.stdout, re.MULTILINE)
    found = json.loads(cli("check", *proof[:1], "--entry", proof[1], "--key", key, "--json").stdout)
    assert found["good"] is True
    assert (found["origin"], found["index"], found["size"]) == (ORIGIN, 3, 5)


def test_a_receipt_is_printed_as_it_is(audit, proof):
    """What is printed is what is written, byte for byte."""
    done = cli("prove", audit, 3)
    assert done.stdout_bytes == proof[0].read_bytes()


def test_a_proof_that_does_not_hold_is_exit_code_1(proof, tmp_path):
    """Another entry, another key, another text: one line that says so."""
    wrong = tmp_path / "wrong"
    wrong.write_bytes(proof[1].read_bytes() + b"\n")
    stranger = Ed25519Signer.generate(ORIGIN).vkey
    (tmp_path / "text").write_text("no receipt \x1b[2J")
    for arguments in (
        (proof[0], "--entry", wrong),
        (proof[0], "--entry", proof[1], "--key", stranger),
        (tmp_path / "text", "--entry", proof[1], "--key", stranger),
        (proof[0], "--since", proof[0]),
    ):
        done = cli("check", *arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert re.fullmatch(r"checkrein: [ -~]+\n", done.stderr)


def test_what_cannot_be_looked_at_is_exit_code_2(audit, proof, tmp_path, monkeypatch):
    """No key, no file, no option: nothing is called good or bad."""
    nowhere = tmp_path / "nowhere"
    for arguments in (
        (proof[0],),
        (nowhere, "--entry", proof[1]),
        (proof[0], "--entry", nowhere),
        (proof[0], "--entry", proof[1], "--since", proof[1]),
        (proof[0], "--entry", proof[1], "--key", "no key"),
    ):
        assert cli("check", *arguments).exit_code == 2
    for arguments in (
        (audit,), (audit, 9), (audit, 1, "--since", proof[0]), (nowhere, 1), (audit, -1),
        (audit, "--since", proof[0], "--entry", nowhere), (audit, 1, "--out", nowhere / "x"),
        (audit, "--since", nowhere),
    ):  # fmt: skip
        assert cli("prove", *arguments).exit_code == 2
    monkeypatch.setenv("CHECKREIN_DATA", str(nowhere))
    done = cli("check", proof[0], "--entry", proof[1])
    assert done.exit_code == 2
    assert "--key" in done.stderr


def test_no_file_is_overwritten(audit, proof):
    """A proof that is there may be the older half of the evidence."""
    before = proof[0].read_bytes()
    done = cli("prove", audit, 1, "--out", proof[0])
    assert done.exit_code == 2
    assert "is there already" in done.stderr
    assert cli("prove", audit, 1, "--entry", proof[1]).exit_code == 2
    assert proof[0].read_bytes() == before


def test_a_log_has_only_grown_since_a_pin(audit, pin, tmp_path):
    """Shown by a proof that is made from the log, and checked without it."""
    out = tmp_path / "grown"
    assert cli("prove", audit, "--since", pin, "--out", out).exit_code == 0
    assert cli("prove", audit, "--since", pin).stdout_bytes == out.read_bytes()
    done = cli("check", out, "--since", pin)
    assert done.exit_code == 0
    assert "the first 5 of 7 entries are as they were" in done.stdout
    data = out.read_bytes()
    for wrong in (data.replace(b"old 5", b"old 4"), data.replace(b"old 5", b"old 6"), data[1:]):
        out.write_bytes(wrong)
        assert cli("check", out, "--since", pin).exit_code == 1


def test_a_log_that_was_written_anew_has_not_grown(audit, pin, tmp_path):
    """A pin of a log with other entries is refused with exit code 1; a longer one with 2."""
    signer = Ed25519Signer.generate(ORIGIN)
    pin.write_text(sign_note(Checkpoint(ORIGIN, 5, bytes(32)).text(), signer))
    assert cli("prove", audit, "--since", pin).exit_code == 1
    pin.write_text(sign_note(Checkpoint("example.com/x", 0, EMPTY_ROOT).text(), signer))
    assert cli("prove", audit, "--since", pin).exit_code == 1
    pin.write_text(sign_note(Checkpoint(ORIGIN, 8, bytes(32)).text(), signer))
    done = cli("prove", audit, "--since", pin)
    assert done.exit_code == 2
    assert "rolled back" in done.stderr


def test_a_hostile_name_is_not_printed(tmp_path):
    """A head with a name that a terminal may act on is written to a file only."""
    name = "example.com/\x9b31m\u202e"
    signer = Ed25519Signer.generate(name)
    with AuditLog.open(tmp_path / "audit", signer=signer) as log:
        log.append({"type": "test"})
    done = cli("prove", tmp_path / "audit", 0)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--out" in done.stderr
    receipt, entry = tmp_path / "receipt", tmp_path / "entry"
    assert cli("prove", log.directory, 0, "--out", receipt, "--entry", entry).exit_code == 0
    (tmp_path / "key").write_text(signer.vkey)
    done = cli("check", receipt, "--entry", entry, "--key", tmp_path / "key")
    assert done.exit_code == 0
    assert "example.com/\\x9b31m\\u202e" in done.stdout


# -- export ------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path):
    """A log with two runs, and its key."""
    with AuditLog.open(tmp_path / "runs", origin="example.com/runs") as log:
        for run in ("a1", "b2"):
            log.append({"type": "run.opened", "run": run, "seq": 0})
            log.append({"type": "call.denied", "run": run, "seq": 1, "call": f"{run}-0"})
    return log.directory, log.vkey


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_bundle_is_exported_and_checked(runs, tmp_path, monkeypatch, name):
    """With the key that this user has, or a given one; checked with a given one only."""
    directory, vkey = runs
    out = tmp_path / name
    done = cli("export", directory, out, "--run", "a", "--unrecorded")
    assert done.exit_code == 0, done.stderr
    assert "2 entries in" in done.stdout
    digest = re.search(r"SHA-256 ([0-9a-f]{64})", done.stdout)
    assert digest
    options = ("--run", "a", "--key", vkey, "--unrecorded")
    again = cli("export", directory, tmp_path / f"again-{name}", *options)
    assert digest[1] in again.stdout
    monkeypatch.setenv("CHECKREIN_DATA", str(tmp_path / "nothing"))
    done = cli("check", out, "--key", vkey)
    assert done.exit_code == 0
    assert "these are 2 of the first 4 entries" in done.stdout
    found = json.loads(cli("check", out, "--key", vkey, "--json").stdout)
    assert (found["entries"], found["good"]) == ([0, 1], True)
    assert cli("check", out).exit_code == 2
    assert (
        cli("check", out, "--key", Ed25519Signer.generate("example.com/runs").vkey).exit_code == 1
    )
    assert cli("export", directory, tmp_path / "none").exit_code == 2


@pytest.mark.parametrize(
    ("options", "count"),
    [((), 4), (("--call", "b2-0"), 2), (("--from", 1), 3), (("--from", 1, "--to", 2), 2)],
    ids=["all", "call", "from", "range"],
)
def test_what_is_exported(runs, tmp_path, options, count):
    """All of it, by call, and by number, the last one included."""
    done = cli("export", runs[0], tmp_path / "out", *options)
    assert done.exit_code == 0, done.stderr
    assert f"{count} entries in" in done.stdout


def test_what_cannot_be_exported_is_exit_code_2(runs, tmp_path):
    """No such run, two choices, no log, a place that is taken."""
    directory, _ = runs
    for arguments in (
        (directory, tmp_path / "out", "--run", "zzz"),
        (directory, tmp_path / "out", "--run", "a", "--call", "b"),
        (directory, tmp_path / "out", "--from", 9),
        (tmp_path / "nowhere", tmp_path / "out"),
        (directory, directory),
        (directory, tmp_path / "out", "--key", "nonsense"),
    ):
        assert cli("export", *arguments).exit_code == 2
    assert not (tmp_path / "out").exists()


def test_who_exported_is_written_down_if_said(runs, tmp_path):
    """With the time, in UTC."""
    assert cli("export", runs[0], tmp_path / "out", "--by", "dana").exit_code == 0
    exported = json.loads((tmp_path / "out" / "manifest.json").read_bytes())["exported"]
    assert exported["by"] == "dana"
    assert exported["at"].endswith("+00:00")


def test_a_bundle_of_a_log_that_is_not_good(runs, tmp_path):
    """The evidence that is left is exported, and the exit code says what the report says."""
    directory, _ = runs
    (bundle,) = (one for one in (directory / "tile" / "entries").rglob("*") if one.is_file())
    bundle.write_bytes(bundle.read_bytes().replace(b'"run":"b2"', b'"run":"b3"', 1))
    refused = cli("export", directory, tmp_path / "out", "--run", "a1")
    assert (refused.exit_code, "--unrecorded" in refused.stderr) == (1, True)
    done = cli("export", directory, tmp_path / "out", "--run", "a1", "--unrecorded")
    assert done.exit_code == 1
    assert "NOT good" in done.stdout
    assert (tmp_path / "out").is_dir()
    done = cli("export", directory, tmp_path / "more", "--unrecorded")
    assert (done.exit_code, done.stdout) == (1, "")


def test_the_log_says_that_it_was_exported(runs, tmp_path, monkeypatch):
    """Who exported what is an entry of the log; without its key that has to be waived."""
    directory, vkey = runs
    done = cli("export", directory, tmp_path / "out", "--run", "a1", "--by", "dana")
    digest = re.search(r"SHA-256 ([0-9a-f]{64})", done.stdout)[1]
    *_, (_, last) = read_entries(directory)
    told = {name: last[name] for name in ("type", "by", "chosen", "manifest")}
    assert told == {"type": "export", "by": "dana", "chosen": {"run": "a1"}, "manifest": digest}
    monkeypatch.setenv("CHECKREIN_DATA", str(tmp_path / "nothing"))
    arguments = ("export", directory, tmp_path / "more", "--key", vkey)
    assert cli(*arguments).exit_code == 2
    assert not (tmp_path / "more").exists()
    assert cli(*arguments, "--unrecorded").exit_code == 0


def test_fields_are_disclosed_one_by_one(tmp_path):
    """A receipt or a bundle shows the fields that were named, provably, and no other."""
    with AuditLog.open(tmp_path / "log", origin="example.com/fields") as log:
        arguments = {
            "to": Erasable("Dana Doe"),
            "card": Erasable("card-4111", subject="customer-17"),
        }
        log.append({"type": "t", "run": "r", "arguments": arguments})
    entry, openings, receipt = (tmp_path / name for name in ("entry", "openings", "receipt"))
    place = tmp_path / "log"
    done = cli("prove", place, 0, "--out", receipt, "--entry", entry, "--openings", openings,
               "--disclose", "arguments.to")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert b"card-4111" not in entry.read_bytes() + openings.read_bytes()
    shown = cli("check", receipt, "--entry", entry, "--openings", openings)
    assert 'arguments.to = "Dana Doe"' in shown.stdout
    found = json.loads(
        cli("check", receipt, "--entry", entry, "--openings", openings, "--json").stdout
    )
    assert found["disclosed"] == {"arguments.to": "Dana Doe"}
    openings.write_bytes(openings.read_bytes().replace(b"Dana", b"Dena"))
    assert cli("check", receipt, "--entry", entry, "--openings", openings).exit_code == 1
    for wrong in (["--disclose", "arguments"], ["--openings", tmp_path / "x"],
                  ["--openings", tmp_path / "x", "--disclose", "none"]):  # fmt: skip
        assert cli("prove", place, 0, *wrong).exit_code == 2
    vkey = log.vkey
    for name, paths, count in (("a", ["arguments.card"], 1), ("b", ["*"], 2), ("c", [], 0)):
        options = [word for path in paths for word in ("--disclose", path)]
        assert (
            cli("export", place, tmp_path / name, *options, "--from", 0, "--to", 0).exit_code == 0
        )
        found = verify_bundle(tmp_path / name, vkey=vkey)
        assert len(found.disclosed.get(0, {})) == count
        assert cli("check", tmp_path / name, "--key", vkey).exit_code == 0
    assert verify_bundle(tmp_path / "a", vkey=vkey).disclosed == {
        0: {"arguments.card": "card-4111"}
    }

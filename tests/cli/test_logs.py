"""``log show`` prints hostile entries harmlessly; ``log verify`` answers by its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from checkrein import AuditLog, CallbackGate, Grant, Run, Untrusted, allow, irreversible
from checkrein.cli.app import app
from checkrein.errors import Denied
from checkrein.forgetting import Erasable
from checkrein.log.keys import key_path

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]no[/] \u202eevil\r\nentry 99 \x7f\x9b31m [link=x]"
DEEP = "x"
for _ in range(60):
    DEEP = [DEEP]


@irreversible("clilogs.send", external=True)
def send(to: str, body: Untrusted[str]) -> None:
    pass


def cli(*arguments: object):
    return CliRunner().invoke(app, ["log", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def audit(tmp_path):
    directory = tmp_path / "audit"
    with AuditLog.open(directory, origin="example.com/tests") as log:
        gate = CallbackGate(lambda one: "a@example.com" in str(one.arguments[0].value), by="dana")
        grant = Grant(allow("clilogs.send"))
        with Run(agent="bot", grant=grant, gate=gate, log=log, exposed=True) as run:
            run.instruct("write to a@example.com")
            send("a@example.com", Untrusted("hello"))
            with pytest.raises(Denied):
                send("b@example.com", Untrusted("hello"))
        with Run(agent="other", grant=grant, log=log):
            pass
    return directory


def test_show_tells_who_did_what(audit):
    """Entries are lines with time, run, agent or person, tool, arguments and outcome."""
    result = cli("show", audit)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["entry", "time", "run", "who", "what", "->", "outcome"]
    assert re.search(r"the user +says: write to a@example.com", result.stdout)
    assert re.search(r'bot +send\(to="a@example.com", body=<5 letters from', result.stdout)
    assert "allowed, a person approved: effect.irreversible" in result.stdout
    assert re.search(r"dana +answer about send  ->  gate.denied", result.stdout)
    assert "a person is asked about send" in result.stdout
    assert re.search(r"bot +send  ->  done", result.stdout)
    assert "denied: gate.denied, flow.origin" in result.stdout
    assert "not verified" in lines[-1]


def test_show_can_be_limited_to_a_run(audit):
    """--run takes the first letters of an id, and nothing found is said by the exit code."""
    events = [json.loads(line) for line in cli("show", audit, "--json").stdout.splitlines()]
    run = events[-1]["event"]["run"]
    only = cli("show", audit, "--run", run[:10], "--json")
    assert [json.loads(line)["event"]["run"] for line in only.stdout.splitlines()] == [run, run]
    assert "not verified" in only.stderr
    assert cli("show", audit, "--run", "zzz").exit_code == 2


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_show_never_lets_an_entry_act_on_the_terminal(tmp_path, options):
    """Escapes, markup, line breaks and bidi controls in any field come out as visible text."""
    with AuditLog.open(tmp_path / "audit") as log:
        for event in hostile_events():
            log.append(event)
    result = cli("show", tmp_path / "audit", *options)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    head_and_foot = 0 if options else 2
    assert len(lines) == len(hostile_events()) + head_and_foot
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.stdout)
    assert "[bold red]no[/]" in result.stdout
    assert "\\x1b[2J" in result.stdout or "\\u001b[2J" in result.stdout


def hostile_events():
    fields = dict.fromkeys(
        (
            *("run", "agent", "tool", "call", "by", "reason", "answer", "rules", "permissions"),
            *("text", "sources", "status", "error", "calls", "time", "effect"),
        ),
        HOSTILE,
    )
    events = [
        {"type": kind, **fields, "arguments": {HOSTILE: HOSTILE}, "findings": [{"rule": HOSTILE}]}
        for kind in (
            *("run.opened", "run.closed", "run.exposed", "instruction", "call.allowed"),
            *("call.denied", "call.outcome", "confirmation.asked", "confirmation.answered"),
            HOSTILE,
        )
    ]
    for strange in (None, 1, 10**18, -1.5, True, [HOSTILE], {HOSTILE: HOSTILE}, [[]], DEEP):
        wrong = dict.fromkeys((*fields, "arguments", "findings"), strange)
        events += [{**wrong, "type": kind} for kind in ("call.allowed", "call.outcome", "other")]
    untrusted = {"untrusted": [HOSTILE], "size": HOSTILE}
    events.append({"type": "call.denied", "arguments": {"body": untrusted}, "findings": [1, {}]})
    events.append({"type": "nothing else"})
    return events


def test_show_without_a_log(tmp_path):
    """Where no log is, show says so and exits with 2."""
    result = cli("show", tmp_path)
    assert result.exit_code == 2
    assert "there is no log" in result.stderr


def test_show_stops_where_it_cannot_read_on(audit):
    """A bundle that cannot be read is an error, not an empty log."""
    (bundle,) = (one for one in (audit / "tile" / "entries").rglob("*") if one.is_file())
    bundle.write_bytes(bundle.read_bytes()[:-1])
    result = cli("show", audit)
    assert result.exit_code == 1
    assert "checkrein:" in result.stderr


def test_verify_a_good_log(audit):
    """With the key that this user has, a whole log is good and the exit code 0."""
    result = cli("verify", audit)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "good"
    for name in ("content", "tree", "signature", "freshness", "runs", "in doubt"):
        assert re.search(rf"^{name} ", result.stdout, re.MULTILINE)


def test_verify_with_a_key_and_a_pin(audit, tmp_path, monkeypatch):
    """The key may be text or a file; the pin is a file; both are named in the report."""
    public = key_path("example.com/tests").with_suffix(".vkey")
    pin = tmp_path / "pin"
    pin.write_bytes((audit / "checkpoint").read_bytes())
    vkey = public.read_text().strip()
    monkeypatch.setenv("CHECKREIN_DATA", str(tmp_path / "nothing"))
    for key in (vkey, public):
        result = cli("verify", audit, "--key", key, "--pin", pin, "--json")
        assert result.exit_code == 0
        report = json.loads(result.stdout)
        assert report["signature"] == "verified (given key)"
        assert report["freshness"].startswith("at least size")
        assert report["good"] is True


def test_verify_without_a_key_is_not_good(audit, tmp_path, monkeypatch):
    """A log that only asserts itself is not good, and the way out is said."""
    monkeypatch.setenv("CHECKREIN_DATA", str(tmp_path / "nothing"))
    result = cli("verify", audit)
    assert result.exit_code == 1
    assert "--key" in result.stdout


def test_verify_a_changed_log(audit):
    """One changed byte in an entry gives exit code 1 and a problem that names the entry."""
    (bundle,) = (one for one in (audit / "tile" / "entries").rglob("*") if one.is_file())
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(b"write to a@", b"write to c@", 1))
    result = cli("verify", audit)
    assert result.exit_code == 1
    assert "NOT good" in result.stdout
    assert re.search(r"^problem .*entry 1 ", result.stdout, re.MULTILINE)
    assert json.loads(cli("verify", audit, "--json").stdout)["good"] is False


def test_verify_names_calls_in_doubt_and_open_runs(tmp_path):
    """An intent without an outcome and a run without an end are listed."""
    with AuditLog.open(tmp_path / "audit") as log:
        log.append({"type": "run.opened", "run": "r\x1b1", "seq": 0})
        log.append({"type": "call.allowed", "run": "r\x1b1", "seq": 1, "call": "r\x1b1-0"})
    result = cli("verify", tmp_path / "audit")
    assert "in doubt    call r\\x1b1-0" in result.stdout
    assert "open run    r\\x1b1" in result.stdout


@pytest.mark.parametrize(
    "wrong",
    [("--key", "no key"), ("--key", "x" * 5000), ("--key", "a\0b"), ("--pin", "missing")],
)
def test_verify_with_unreadable_options(audit, wrong):
    """A key or a pin that cannot be read is a matter of usage: exit code 2."""
    result = cli("verify", audit, *wrong)
    assert result.exit_code == 2
    assert result.stderr.startswith("checkrein: ")


def test_verify_without_a_log(tmp_path):
    """Where no log is, there is nothing to call good or bad: exit code 2."""
    assert cli("verify", tmp_path / "nowhere").exit_code == 2


def test_explain_answers_ten_questions(audit):
    """For people and for programs; an unknown call is an error."""
    shown = cli("show", audit, "--json").stdout.splitlines()
    events = [json.loads(line)["event"] for line in shown]
    call = next(one["call"] for one in events if one["type"] == "call.allowed")
    result = cli("explain", audit, call)
    assert result.exit_code == 0
    assert re.search(r"^who$", result.stdout, re.MULTILINE)
    assert re.search(r"approved_by +dana", result.stdout)
    assert re.search(r"instructions +write to a@example.com", result.stdout)
    assert json.loads(cli("explain", audit, call, "--json").stdout)["outcome"]["status"] == "done"
    assert cli("explain", audit, "none").exit_code == 2


def test_explain_prints_hostile_entries_harmlessly(tmp_path):
    with AuditLog.open(tmp_path / "audit", origin="example.com/tests") as log:
        fields = dict.fromkeys(("agent", "tool", "arguments", "digest", "parent"), HOSTILE)
        log.append({"type": "run.opened", "run": "r", "seq": 0, **fields})
        log.append({"type": "call.denied", "run": "r", "call": "c", "seq": 1, **fields})
        log.append({"type": "run.locked", "run": "r", "seq": 2, "reason": DEEP, "by": {HOSTILE: 1}})
    for options in ((), ("--json",)):
        result = cli("explain", tmp_path / "audit", "c", *options)
        assert result.exit_code == 0
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.stdout)


def test_verify_strictly(tmp_path, audit):
    """A good log that tells of a call in doubt is told apart by scripts that ask."""
    assert cli("verify", audit, "--strict").exit_code == 0
    with AuditLog.open(tmp_path / "open") as log:
        log.append({"type": "call.allowed", "run": "r", "seq": 0, "call": "r-0"})
    assert cli("verify", tmp_path / "open").exit_code == 0
    result = cli("verify", tmp_path / "open", "--strict", "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert (found["good"], found["complete"]) == (True, False)


def test_verify_after_a_pin_and_with_a_policy(audit, tmp_path):
    """What is left out is said, and which witnesses have seen the log."""
    vkey = key_path("example.com/tests").with_suffix(".vkey").read_text().strip()
    (tmp_path / "policy").write_text(f"log {vkey}\nquorum none\n")
    pin = tmp_path / "pin"
    pin.write_text((audit / "checkpoint").read_text())
    result = cli(
        "verify", audit, "--policy", tmp_path / "policy", "--pin", pin, "--after-pin", "--jobs", 1
    )
    assert result.exit_code == 0, result.output
    assert "witnesses   0 of 0, a quorum" in result.stdout
    for wrong in (["--after-pin"], ["--jobs", -1], ["--policy", "missing"]):
        assert cli("verify", audit, *wrong).exit_code == 2


def test_verify_shows_how_far_it_is_at_a_terminal(audit):
    """On a terminal a bar tells how many entries were checked; elsewhere nothing is in the way."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from checkrein.cli import main; main()"]
    try:
        result = subprocess.run(
            [*command, "log", "verify", str(audit)],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm"},
            timeout=60,
            check=False,
        )
        assert result.returncode == 0
        assert b"verifying" in os.read(ours, 65_536)
        assert b"verifying" not in result.stdout
    finally:
        os.close(theirs)
        os.close(ours)


def test_follow_prints_what_is_written_and_ends_when_interrupted(audit):
    """What is there already is left out, unless one asks from where; Ctrl-C is no error."""
    command = [sys.executable, "-c", "from checkrein.cli import main; main()"]
    follow = subprocess.Popen(
        [*command, "log", "follow", str(audit), "--json", "--from", "1"], stdout=subprocess.PIPE
    )
    try:
        first = json.loads(follow.stdout.readline())
        assert (first["index"], first["event"]["type"]) == (1, "instruction")
        with AuditLog.open(audit) as log:
            position = log.append({"type": "late", "run": "r", "seq": 0})
            line = b""
            while b'"late"' not in line:
                line = follow.stdout.readline()
                assert line
            assert json.loads(line)["index"] == position.index
        follow.send_signal(signal.SIGINT)
        assert follow.wait(30) == 0
    finally:
        follow.kill()
        follow.stdout.close()
        follow.wait()


def test_erase(tmp_path):
    """A field is erased with a reason, shown as erased, and the log stays good."""
    with AuditLog.open(tmp_path / "log", origin="example.com/erase") as log:
        arguments = {"to": Erasable("Dana Doe"), "token": {"secret": True}}
        call = {"tool": "send", "call": "r-0", "arguments": arguments}
        log.append({"type": "call.allowed", "run": "r", "seq": 0, **call})
        log.append({"type": "t", "text": Erasable("x", subject="c17")})
    place = tmp_path / "log"
    assert 'to="Dana Doe", token=<a secret>' in cli("show", place).stdout
    why = ("--by", "dana", "--reason", "asked to")
    for wrong in ((), ("--entry", 0), why, ("--entry", 9, *why), ("--subject", "no", *why),
                  ("--entry", 0, "--subject", "c17", *why)):  # fmt: skip
        assert cli("erase", place, *wrong).exit_code == 2, wrong
    assert cli("erase", tmp_path / "none", "--entry", 0, *why).exit_code == 2
    assert not (tmp_path / "none").exists()
    assert cli("erase", place, "--entry", 0, "--field", "arguments.to", *why).exit_code == 0
    assert cli("erase", place, "--subject", "c17", *why).exit_code == 0
    shown = cli("show", place).stdout
    assert "Dana" not in shown
    assert "to=<10 bytes that are not here, or were erased>" in shown
    assert cli("verify", place).exit_code == 0


def test_incident(audit):
    """An incident is an entry with its reason; half a sentence is none."""
    told = ("--about", "r-1", "--by", "dana", "--reason", "a mail went to the wrong person")
    assert cli("incident", audit, *told).exit_code == 0
    last = json.loads(cli("show", audit, "--json").stdout.splitlines()[-1])["event"]
    assert (last["type"], last["about"], last["by"]) == ("incident", "r-1", "dana")
    assert cli("incident", audit, "--about", "r-1").exit_code == 2
    assert cli("incident", audit / "none", *told).exit_code == 2

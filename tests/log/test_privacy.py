"""What the log can forget: commitments, openings, keys of subjects, secrets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein import (
    CallbackGate,
    Grant,
    Run,
    Untrusted,
    allow,
    erasable,
    irreversible,
    secret,
    writes,
)
from checkrein.errors import LogError, MisuseError, TamperedError
from checkrein.forgetting import Erasable
from checkrein.log import AuditLog, read_entries, verify_log
from checkrein.log.audit import encode
from checkrein.log.openings import commitment_of, commitments_in, opened, read_openings
from checkrein.log.shelf import shelf_path, stored_openings
from checkrein.testing import permit

NAME = "Dana Doe"


def events(directory, **more):
    return [event for _, event in read_entries(directory, **more)]


def everything(directory):
    """Return all bytes of a log's directory."""
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(JSON, JSON)
def test_any_value_comes_back_by_its_opening(value, other):
    """What was committed to is what is opened, wherever it stands; nothing else is touched."""
    entry = encode({"type": "t", "a": {"b": [Erasable(value), other]}, "c": other})
    plain = json.loads(entry)
    (opening,) = entry.openings
    opening.check()
    found = dict(commitments_in(plain["a"]["b"][0]))
    assert list(found.values()) == [opening.commitment]
    known = {opening.commitment: json.loads(opening.value)}
    assert opened(plain, known) == {"type": "t", "a": {"b": [value, other]}, "c": other}
    (again,) = read_openings(opening.line().replace(b'"index":-1', b'"index":4'))
    assert (again.index, again.value, again.salt) == (4, opening.value, opening.salt)


def test_a_commitment_cannot_be_guessed():
    """Equal values have different commitments, and a value without its salt gives none."""
    one, two = (encode({"type": "t", "x": Erasable("yes")}) for _ in range(2))
    assert one != two
    assert b"yes" not in one
    assert commitment_of(b'"yes"', bytes(16)).encode() not in one


@pytest.mark.parametrize("published", [False, True])
def test_erased_is_gone_and_every_proof_still_holds(make, tools, published):
    """After erasing an entry's fields they are in no file, and the roots are what they were."""
    log = make()
    log.append({"type": "t", "arguments": {"to": Erasable(NAME), "n": 1}})
    log.append({"type": "t", "text": Erasable("kept")})
    if published:
        log.publish()
    head = log.checkpoint
    assert events(log.directory)[0]["arguments"] == {"to": NAME, "n": 1}
    assert log.erase(index=0, by="dana", reason="asked to") == 1
    assert NAME.encode() not in everything(log.directory)
    first, second, erasure = events(log.directory)
    assert set(first["arguments"]["to"]) == {"commitment", "size"}
    assert second["text"] == "kept"
    assert (erasure["type"], erasure["index"], erasure["by"]) == ("erasure", 0, "dana")
    assert verify_log(log.directory, pin=head).good
    log.close()
    assert NAME.encode() not in everything(log.directory)


def test_one_field_of_several(make):
    """A path names a field, or all below it."""
    log = make()
    log.append({"type": "t", "a": {"x": Erasable(1), "y": Erasable(2)}, "b": [Erasable(3)]})
    assert log.erase(index=0, field="a.y", by="d", reason="r") == 1
    assert log.erase(index=0, field="b", by="d", reason="r") == 1
    left = events(log.directory)[0]
    assert left["a"]["x"] == 1
    assert "commitment" in left["a"]["y"]
    for wrong in ({"index": 9}, {"index": 0, "field": "a.z"}, {"index": 0, "field": "c"}):
        with pytest.raises(LogError):
            log.erase(**wrong, by="d", reason="r")
    with pytest.raises(MisuseError):
        log.erase(by="d", reason="r")
    with pytest.raises(MisuseError):
        log.erase(index=0, subject="s", by="d", reason="r")
    log.close()


def test_a_subject_is_forgotten_in_every_copy(make, data, tmp_path):
    """With the subject's key all that was sealed with it goes, also in an old copy of the log."""
    log = make()
    log.append({"type": "t", "text": Erasable(NAME, subject="customer-17")})
    log.append({"type": "t", "text": Erasable("other", subject="c18")})
    log.publish()
    log.append({"type": "t", "text": Erasable([NAME], subject="customer-17")})
    assert NAME.encode() not in everything(log.directory)
    assert [one.get("text") for one in events(log.directory)] == [NAME, "other", [NAME]]
    shutil.copytree(log.directory, tmp_path / "copy")
    assert log.erase(subject="customer-17", by="dana", reason="asked to") == 2
    for directory in (log.directory, tmp_path / "copy"):
        texts = [one.get("text") for one in events(directory)[:3]]
        assert texts[1] == "other"
        assert [set(texts[0]), set(texts[2])] == [{"commitment", "size"}] * 2
    assert b"customer-17" not in everything(log.directory)
    with pytest.raises(LogError, match="nothing is sealed"):
        log.erase(subject="customer-17", by="dana", reason="again")
    log.append({"type": "t", "text": Erasable("new", subject="customer-17")})  # a new key
    assert events(log.directory)[-1]["text"] == "new"
    assert verify_log(log.directory).good
    log.close()


def test_openings_that_were_changed_are_noticed(make):
    """A value that is not the one committed to is neither shown nor verified."""
    log = make()
    log.append({"type": "t", "text": Erasable("pay 10")})
    log.close()
    path = shelf_path(log.directory, 0)
    good = path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    for wrong in (good.replace(b"pay 10", b"pay 99"), b"garbage\n", good.replace(b'0,"c', b'1,"c')):
        path.write_bytes(wrong)
        report = verify_log(log.directory)
        assert report.content.startswith("bad: openings"), wrong
    path.write_bytes(good.replace(b"pay 10", b"pay 99"))
    with pytest.raises(TamperedError):
        events(log.directory)
    assert "commitment" in events(log.directory, values=False)[0]["text"]
    path.unlink()
    assert verify_log(log.directory).good
    assert "commitment" in events(log.directory)[0]["text"]


def test_large_texts_are_laid_aside(make):
    """An event of any size goes in: its large texts are committed to, and come back."""
    log = make()
    text = "long " * 40_000
    log.append({"type": "t", "text": text, "deep": {"list": [text, 1]}, "short": "s"})
    log.enqueue({"type": "t", "text": text})
    log.flush()
    assert [one["text"] for one in events(log.directory)] == [text, text]
    assert events(log.directory)[0]["deep"] == {"list": [text, 1]}
    with pytest.raises(LogError, match="no large text"):
        log.append({"type": "t", "many": ["x" * 100] * 1000})
    log.close()
    assert verify_log(log.directory).good


@pytest.mark.parametrize("step", ["openings", "checkpoint", "journal"])
def test_a_crash_while_publishing_loses_no_opening_and_doubles_none(make, tools, step):
    """Whichever file cannot be written, what is opened afterwards is all of it, once."""
    _, quick, _ = tools

    class Failing(quick):
        fails = False

        def write_files(self, files):
            if self.fails and any(step in str(path) for path in files):
                raise OSError(5, "failed")
            super().write_files(files)

    disk = Failing()
    log = make(disk=disk)
    for n in range(3):
        log.append({"type": "t", "text": Erasable(f"text {n}")})
    disk.fails = True
    with pytest.raises(LogError):
        log.publish()
    log.disown()  # as if it had died here
    log = make()
    log.append({"type": "t", "text": Erasable("text 3")})
    log.close()
    assert [one["text"] for one in events(log.directory)] == [f"text {n}" for n in range(4)]
    assert len([*stored_openings(log.directory)]) == 4


def test_another_process_does_not_bring_back_what_was_erased(tmp_path):
    """A writer that was open while somebody erased publishes later, and the value stays gone."""
    with AuditLog.open(tmp_path / "log", origin="example.com/p") as log:
        log.append({"type": "t", "text": Erasable(NAME)})
        code = (
            "import sys; from checkrein.log import AuditLog\n"
            "with AuditLog.open(sys.argv[1]) as log: log.erase(index=0, by='d', reason='r')"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], check=True, timeout=60)
        log.append({"type": "t"})
    assert NAME.encode() not in everything(tmp_path / "log")
    assert verify_log(tmp_path / "log").good


# -- what tools and runs declare ------------------------------------------------------------


@irreversible("privacy.send", external=True)
def send(
    to: Annotated[str, erasable], token: Annotated[str, secret], body: Untrusted[str]
) -> None: ...


@writes("privacy.note")
def note(text: Annotated[str, secret] = "default") -> None: ...


def test_secrets_are_shown_to_nobody_and_written_nowhere(tmp_path):
    """A declared secret reaches the body, and neither the log, nor an approver, nor a proposal."""
    shown = []
    gate = CallbackGate(lambda one: shown.append(one) or True, by="dana")
    grant = Grant(allow("privacy.send"), allow("privacy.note"))
    with AuditLog.open(tmp_path / "log", origin="example.com/s") as log:
        with Run(agent="t", grant=grant, gate=gate, log=log, subject="customer-17") as run:
            run.instruct(f"write to {NAME}")
            send(NAME, "hunter22", Untrusted("hello"))
        log.publish()
        asked = next(one for one in events(tmp_path / "log") if one["type"] == "call.allowed")
        assert asked["arguments"]["token"] == {"secret": True}
        assert asked["arguments"]["to"] == NAME
        data = everything(tmp_path / "log")
        assert b"hunter22" not in data
        assert NAME.encode() not in data
        assert log.erase(subject="customer-17", by="dana", reason="asked") >= 2
    (question,) = shown
    by_name = {one.name: one for one in question.arguments}
    assert by_name["token"].value is None
    assert "hunter22" not in repr(question)
    assert by_name["to"].value == NAME
    words = [one for one in events(tmp_path / "log") if one["type"] == "instruction"]
    assert set(words[0]["text"]) == {"commitment", "size"}
    with Run.shadow(agent="t") as run:
        send(NAME, "hunter22", Untrusted("hello"))
        note("hunter22")
    assert "hunter22" not in run.proposed_grant()
    with Run(agent="t", grant=Grant(allow("x"))) as run:
        assert "hunter22" not in repr(run.explain(note, text="hunter22"))


def test_a_resumed_run_goes_on_for_its_subject(tmp_path):
    """Whoever resumes a run need not know whose it is: what is said stays sealed."""
    key = os.urandom(32)
    with AuditLog.open(tmp_path / "log", origin="example.com/r") as log:
        with Run(agent="t", grant=Grant(allow("x")), log=log, subject="customer-17") as run:
            state = run.suspend(key)
        with Run.resume(state, key, grant=Grant(allow("x")), log=log) as run:
            run.instruct(NAME)
            with Run(agent="child", grant=Grant(allow("x"))) as child:
                child.instruct(NAME)
    assert NAME.encode() not in everything(tmp_path / "log")


def test_a_log_of_another_make_gets_what_it_can_refuse():
    """An erasable argument with a log that knows nothing of it is an object without a value."""
    written = []

    class Other:
        def append(self, event):
            written.append(json.loads(json.dumps(event)))

        enqueue = append

    @writes("privacy.other")
    def other(text: Annotated[str, erasable]) -> None: ...

    with permit(), pytest.raises(Exception, match=r"log\.unavailable") as caught:
        grant = Grant(allow("privacy.other"))
        with Run(agent="t", grant=grant, log=Other()):
            other(NAME)
    assert NAME not in str(caught.value)
    assert NAME not in repr(Erasable(NAME))

"""Values that nobody has said, put together from what somebody has, and how they were found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from checkrein import (
    Directory,
    Grant,
    Run,
    Untrusted,
    allow,
    irreversible,
    preapproved,
    reads,
    refers,
    writes,
)
from checkrein.constraints import matches
from checkrein.errors import MisuseError
from checkrein.ports import Store
from checkrein.store import MemoryStore, SqliteStore
from support import MemoryLog, rule_of

DONE: list[Any] = []
ASK = "gate.unavailable"


@pytest.fixture(autouse=True)
def _clean():
    DONE.clear()
    DRIVE.clear()


@dataclass
class File:
    id: str
    name: str


DRIVE: list[File] = []


@reads("cmp.mail")
def mail() -> Untrusted[str]:
    return Untrusted("evil", source="mail")


@irreversible("cmp.pay", external=True)
def pay(to: str) -> None:
    DONE.append(to)


@irreversible("cmp.del")
def delete(file: Annotated[str, refers("file")]) -> None:
    DONE.append(file)


@reads("cmp.files", directory=Directory("file", field="id", key="name"))
def find(name: str, folder: str = "inbox", limit: int = 9) -> Untrusted[list[File]]:
    return Untrusted(list(DRIVE)[:limit])


@reads("cmp.files", directory=Directory("file", field="id"))
def search(folder: str, query: Untrusted[str]) -> Untrusted[list[File]]:
    return Untrusted([one for one in DRIVE if query.reveal() in one.name])


@writes("cmp.notes")
def save(text: str) -> None:
    DONE.append(text)


@reads("cmp.notes.mine", evidence=True)
def kept() -> str:
    return DONE[-1]


GRANT = Grant(
    *(allow(f"cmp.{name}", preapproved("always")) for name in ("mail", "pay", "del", "files")),
    allow("cmp.notes", text=matches("[a-z.@ ]+")),
    allow("cmp.notes.mine"),
)


def run(words: str, **more: Any) -> Run:
    opened = Run(agent="t", grant=GRANT, **more)
    opened.instruct(words)
    return opened


class Opened:
    """The stores that a test may meet: of this process, and in a file."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def __call__(self, kind: str) -> Store:
        return MemoryStore() if kind == "memory" else SqliteStore.open(self.path / "store.db")


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_what_an_exposed_run_has_written_is_no_evidence_for_the_next(kind: str, tmp_path: Any):
    """Text that the model chose within a constraint comes back in another run, and process."""
    opened = Opened(tmp_path)
    store = opened(kind)
    with run("hello", store=store):
        mail()
        assert rule_of(save, "eve@evil.example") == ""
    if kind == "file":  # another process would open the file anew
        store = opened(kind)
    with run("hello", store=store) as second:
        kept()
        assert second.exposed
        mail()
        assert rule_of(pay, "eve@evil.example") == ASK
    assert "tainted:cmp.notes" in store.notices()


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_who_has_looked_at_it_withdraws_the_notice(kind: str, tmp_path: Any):
    """And then it is evidence again."""
    opened = Opened(tmp_path)
    store = opened(kind)
    with run("hello", store=store):
        mail()
        save("dana@acme.com")
    store.withdraw("tainted:cmp.notes")
    if kind == "file":
        store = opened(kind)
    with run("hello", store=store) as second:
        kept()
        assert not second.exposed
        mail()
        assert rule_of(pay, "dana@acme.com") == ""


def test_what_a_run_writes_that_has_read_nothing_stays_evidence():
    with run("hello", store=MemoryStore()):
        save("dana@acme.com")
        kept()
        mail()
        assert rule_of(pay, "dana@acme.com") == ""


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_notice_that_cannot_be_posted_keeps_the_body_from_running(kind: str, tmp_path: Any):
    """Others would trust what it writes. The log says that it was not done."""
    store: Any = Opened(tmp_path)(kind)
    log = MemoryLog()
    with run("hello", store=store, log=log):
        mail()
        store.post = lambda *_, **__: (_ for _ in ()).throw(OSError("full"))
        with pytest.raises(OSError, match="full"):
            save("eve@evil.example")
    assert DONE == []
    assert log.of("call.outcome")[-1]["status"] == "raised"


def test_content_by_its_handle_chooses_no_entry():
    """The run is not exposed, and the search was the stranger's all the same."""
    DRIVE[:] = [File("13", "evil budget"), File("14", "plans")]
    with run("Look into the Work folder.", isolation="handle"):
        search("Work", str(mail()))
        mail().reveal(reason="exposes the run")
        assert rule_of(delete, "13") == ASK


@pytest.mark.parametrize("name", ["inbox", "Work", ""])
def test_only_the_key_is_the_key(name: str):
    """A stranger's file is called like the folder, or nothing at all."""
    DRIVE[:] = [File("11", "plans.docx"), File("12", "plans.xlsx"), File("66", name)]
    with run("Delete plans in Work."):
        mail()
        find("plans", *(["Work"] if name == "Work" else []))
        assert rule_of(delete, "66") == ASK


def test_a_number_makes_no_lookup_unique():
    """Of two files of one name the first is a stranger's; "1" was said, of something else."""
    DRIVE[:] = [File("66", "plans.docx"), File("11", "plans.docx")]
    with run("Delete 1 file, plans.docx."):
        mail()
        find("plans.docx", limit=1)
        assert rule_of(delete, "66") == ASK


def test_a_directory_says_which_parameter_takes_the_key():
    with pytest.raises(MisuseError, match=r"by='name'"):

        @reads("cmp.two", directory=Directory("file", field="id", key="name"))
        def two(name: str, folder: str) -> Untrusted[list[File]]: ...

    with pytest.raises(MisuseError, match="no plain text parameter"):

        @reads("cmp.two", directory=Directory("file", field="id", key="name", by="limit"))
        def three(name: str, limit: int) -> Untrusted[list[File]]: ...

    @reads("cmp.files", directory=Directory("file", field="id", key="name", by="name"))
    def four(folder: str, name: str) -> Untrusted[list[File]]:
        return Untrusted(list(DRIVE))

    DRIVE[:] = [File("11", "plans.docx"), File("66", "Work")]
    with run("Delete plans.docx in Work."):
        mail()
        four("Work", "plans.docx")
        assert rule_of(delete, "66") == ASK
        assert rule_of(delete, "11") == ""


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("Call +1 555 123 4567 10 minutes before", "+1555123456710"),
        ("Call +49 30 1234 5678 10 minutes before", "+49301234567810"),
        ("Pay to account 12345678", "0012345678"),
        ("Pay to account 0012345678", "12345678"),
        ("Write to tom&bob@gmail.com", "bob@gmail.com"),
        ("Write to /bob@gmail.com", "bob@gmail.com"),
        ("Write to x!?bob@gmail.com", "bob@gmail.com"),
        ("Pay 2500 EUR on May 19", "2500-05-19"),
        ("Pay 1200 EUR on May 19", "1200-05-19"),
        ("From Dec 30 - Jan 2 2026", "2026-12-30"),
    ],
    ids=[
        *("phone", "phone-abroad", "zeros-given", "zeros-said", "half-a-name", "path"),
        *("half-after-two", "amount", "early-amount", "new-year"),
    ],
)
def test_values_are_not_composed_that_nobody_has_said(words: str, value: str):
    with run(words):
        mail()
        assert rule_of(pay, value) == ASK


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("Call +1 555 123 4567 10 minutes before", "+15551234567"),
        ("Call +33 1 23 45 67 89.", "+33123456789"),
        ("Call +49 (30) 1234-5678", "+493012345678"),
        ("Pay to account 0012345678", "0012345678"),
        ("Pay 1,200 on May 19, 2026", "1200"),
        ("Pay 0.50 on May 19", "0.5"),
        ("to=bob@gmail.com", "bob@gmail.com"),
        ("**bob@gmail.com** and 'bob@gmail.com'", "bob@gmail.com"),
        ("From Dec 30 - Jan 2 2026", "2025-12-30"),
        ("From May 2 - May 5 2026", "2026-05-02"),
        ("In 2026: May 19", "2026-05-19"),
    ],
    ids=[
        *("phone", "phone-of-pairs", "phone-marks", "zeros", "thousands", "fraction"),
        *("assigned", "quoted", "new-year", "range", "year"),
    ],
)
def test_what_was_said_still_counts(words: str, value: str):
    with run(words):
        mail()
        assert rule_of(pay, value) == ""


@pytest.mark.parametrize(
    "text",
    [
        "<handle-" + "a" * 16 + "-1 of" + " from" * 100_000,
        "<handle-" + "a" * 16 + "-1" + " of x" * 100_000 + " ",
        " " * 1_000_000 + "<handle-",
    ],
    ids=["from", "of", "blanks"],
)
def test_an_argument_that_looks_like_a_handle_takes_little_time(text: str):
    """With a pattern that goes back, each of these took the better part of an hour."""
    with run("x"):
        assert rule_of(pay, text) == "call.malformed"


@pytest.mark.parametrize("piece", ["''a", "a&", "+1 ", "a@a-", "1,", "May 1 ", "a.", "x://"])
def test_trusted_text_takes_little_time(piece: str):
    """As above: a hostile text of 200 kB that a user pastes would stop the program."""
    text = piece * (200_000 // len(piece))
    with run("x", store=MemoryStore()) as active:
        assert active.instruct(text) == text


def test_an_operator_lifts_a_taint_from_the_command_line(tmp_path: Any):
    """After a look; it is listed until then."""
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from checkrein.cli.app import app

    store = SqliteStore.open(tmp_path / "store.db")
    with run("hello", store=store):
        mail()
        save("dana@acme.com")
    words = ["stop", "--store", str(tmp_path / "store.db")]
    assert "tainted:cmp.notes" in CliRunner().invoke(app, words).stdout
    result = CliRunner().invoke(app, [*words, "--taint", "cmp.notes", "--lift"])
    assert result.exit_code == 0
    assert "nothing is stopped" in result.stdout
    assert CliRunner().invoke(app, [*words, "--taint", "cmp.*"]).exit_code == 2

"""``checkrein inbox`` at the terminal: everything shows, and no yes is given by accident."""

from __future__ import annotations

import json
import os
import select
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from checkrein.approvers import Approvers, principal_from
from checkrein.cli.app import app
from checkrein.confirmations import Care, Confirmation, read_question
from checkrein.gates.desk import Desk
from checkrein.log.keys import new_key
from checkrein.store import SqliteStore
from checkrein.visible import visible
from web.needed import needed
from web.questions import HOSTILE, argument, hostile, question


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "questions.db")


@pytest.fixture
def desk(place: str) -> Iterator[Desk]:
    with SqliteStore.open(place) as store:
        yield Desk(store)


def inbox(*words: str, typed: str = "", **variables: str) -> Any:
    return CliRunner().invoke(
        app, ["inbox", *words], input=typed, env=variables, catch_exceptions=False
    )


def case_of(desk: Desk, one: Confirmation) -> Any:
    case = desk.find(one.id)
    assert case is not None
    return case


# -- looking -------------------------------------------------------------------------------


def test_the_list_shows_what_waits(desk: Desk, place: str):
    """The oldest first, each with why it is asked."""
    desk.put(question("later", asked=time.time() - 1, tool="second"))
    desk.put(question("sooner", asked=time.time() - 9, tool="first"))
    result = inbox("list", place)
    assert result.exit_code == 0
    assert result.stdout.index("first") < result.stdout.index("second")
    assert "cannot be taken back" in result.stdout
    assert "sooner" in result.stdout
    for words in ((place,), ()):
        variables = {} if words else {"CHECKREIN_STORE": place}
        told = inbox("list", *words, **variables).stdout
        assert told.count("wants to call") == 2
    assert inbox(place).stdout.count("wants to call") == 2


def test_an_empty_list_says_so(desk: Desk, place: str):
    assert "nothing waits" in inbox("list", place).stdout


def test_the_list_as_json_is_whole(desk: Desk, place: str):
    """One question a line, in ASCII; what is read again is what was asked."""
    one = hostile()
    desk.put(one)
    desk.put(question())
    result = inbox("list", place, "--json")
    assert result.stdout.isascii()
    assert result.stdout.replace("\n", "").isprintable()
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["id"] for line in lines} == {"evil", "q1"}
    assert {read_question(json.dumps(line)).id for line in lines} == {"evil", "q1"}


def test_a_question_is_shown_whole(desk: Desk, place: str):
    value = "lorem ipsum " * 8_500
    desk.put(
        question(
            arguments=(argument("text", value, untrusted=True, origin="mail", concern="odd"),),
            preview="first\nsecond",
            chain=("boss",),
            needed=2,
        )
    )
    told = inbox("show", place, "q1").stdout
    assert f'"{value}"' in told
    for words in (
        "UNTRUSTED, from mail",
        "! odd",
        "| first\n",
        "| second\n",
        "boss",
        "2 different",
    ):
        assert words in told


@pytest.mark.parametrize("words", ["list", "show"])
def test_hostile_words_stay_words(desk: Desk, place: str, words: str):
    """Nothing acts on the terminal, and nothing is taken for markup."""
    markup = question("evil", tool="[bold red]x[/]", reasons=("[link=x]y[/link] :bomb:", HOSTILE))
    desk.put(markup)
    result = inbox(words, place, *(["evil"] if words == "show" else []))
    assert result.exit_code == 0
    assert result.stdout.replace("\n", "").isprintable()
    for told in ("[bold red]x[/]", "[link=x]y[/link] :bomb:", visible(HOSTILE)):
        assert told in result.stdout


def test_every_field_of_a_hostile_question_shows(desk: Desk, place: str):
    desk.put(hostile())
    result = inbox("show", place, "evil")
    assert result.stdout.replace("\n", "").isprintable()
    assert result.stdout.count(visible(HOSTILE)) >= 10


def test_the_first_letters_of_an_id_will_do(desk: Desk, place: str):
    """As long as they are those of one open question."""
    desk.put(question("abc1"))
    desk.put(question("abd2"))
    assert inbox("show", place, "abc").exit_code == 0
    for id_ in ("ab", "x", ""):
        result = inbox("show", place, id_)
        assert result.exit_code == 1
        assert "no such question" in result.stderr


@pytest.mark.parametrize("words", [("list",), ("show", "q1"), ("doubt",)], ids=lambda one: one[0])
def test_a_store_must_be_there(tmp_path: Path, words: tuple[str, ...]):
    """None is made where somebody has mistyped its name."""
    missing = str(tmp_path / "no.db")
    assert inbox(words[0], missing, *words[1:]).exit_code == 2
    assert not os.path.exists(missing)
    unnamed = inbox(*words, CHECKREIN_STORE="")
    assert unnamed.exit_code == 2
    assert "CHECKREIN_STORE" in unnamed.stderr


def test_a_changed_question_is_a_warning(desk: Desk, place: str):
    """In the list and on its own; and it cannot be answered."""
    desk.put(question())
    connection = sqlite3.connect(place)
    with connection:
        connection.execute("UPDATE questions SET question = replace(question, 'clerk', 'boss')")
    connection.close()
    for words in (("list", place), ("show", place, "q1"), ("deny", place, "q1", "--by", "dana")):
        result = inbox(*words)
        assert result.exit_code == 1
        assert "tampered" in result.stderr or "not the one that was asked" in result.stderr


def test_calls_in_doubt_are_listed(desk: Desk, place: str):
    one = question()
    desk.put(one)
    assert "no call is in doubt" in inbox("doubt", place).stdout
    desk.answer(one.approve(by="dana"))
    desk.take(one.id)
    assert "r1-0" in inbox("doubt", place).stdout


# -- answering -----------------------------------------------------------------------------


def test_a_yes_is_typed_after_the_question_was_shown(desk: Desk, place: str):
    one = question()
    desk.put(one)
    result = inbox("approve", place, "q1", "--by", "dana", typed="yes\n")
    assert result.exit_code == 0
    assert result.stdout.index('"bo"') < result.stdout.index("Type 'yes'")
    case = case_of(desk, one)
    assert (case.state, case.verdict.approved, case.verdict.by) == ("answered", True, "dana")


@pytest.mark.parametrize("typed", ["", "\n", "y\n", "YES\n", "yes please\n", "no\n", " yes\n"])
def test_anything_else_is_no_yes(desk: Desk, place: str, typed: str):
    """And no answer at all: the question stays open."""
    one = question()
    desk.put(one)
    result = inbox("approve", place, "q1", "--by", "dana", typed=typed)
    assert result.exit_code == 1
    assert "nothing was answered" in result.stdout
    assert case_of(desk, one).state == "open"


def test_a_yes_can_be_bound_to_what_was_shown_before(desk: Desk, place: str):
    """By its digest: another one is refused, and a short one says too little."""
    one = question()
    desk.put(one)
    for digest, code in (("0" * 64, 1), (one.digest[:8], 2)):
        result = inbox("approve", place, "q1", "--by", "dana", "--digest", digest)
        assert result.exit_code == code
    assert case_of(desk, one).state == "open"
    result = inbox("approve", place, "q1", "--by", "dana", "--digest", one.digest[:16])
    assert result.exit_code == 0
    assert case_of(desk, one).state == "answered"


def test_what_is_to_be_typed_in_is_asked_for(desk: Desk, place: str):
    one = question(care=Care(retype="to"))
    desk.put(one)
    wrong = inbox("approve", place, "q1", "--by", "dana", typed="al\nyes\n")
    assert wrong.exit_code == 1
    assert "type in the value" in wrong.stderr
    result = inbox("approve", place, "q1", "--by", "dana", "--typed", "bo", typed="yes\n")
    assert result.exit_code == 0


@pytest.mark.parametrize("suspicious", [False, True], ids=["deny", "suspicious"])
def test_a_no_is_taken_with_its_reason(desk: Desk, place: str, suspicious: bool):
    one = question()
    desk.put(one)
    more = ["--suspicious"] if suspicious else []
    result = inbox("deny", place, "q1", "--by", "dana", "--reason", "not today", *more)
    assert result.exit_code == 0
    verdict = case_of(desk, one).verdict
    assert (verdict.approved, verdict.suspicious) == (False, suspicious)
    assert (verdict.by, verdict.reason) == ("dana", "not today")


def test_an_edit_is_what_was_set(desk: Desk, place: str):
    one = question()
    desk.put(one)
    result = inbox("edit", place, "q1", "--by", "dana", "--set", 'to="a=b"', "--set", "amount=4")
    assert result.exit_code == 0
    verdict = case_of(desk, one).verdict
    assert dict(verdict.edits) == {"to": "a=b", "amount": 4}
    assert verdict.approved is False


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ([], 2),
        (["to"], 2),
        (["cc=1"], 2),
        (["to=1", "to=2"], 2),
        (["to=bo"], 1),
        (["to=NaN"], 1),
    ],
    ids=["none", "no-value", "unknown", "twice", "no-json", "nan"],
)
def test_a_setting_that_is_none_is_refused(desk: Desk, place: str, settings: list[str], code: int):
    one = question()
    desk.put(one)
    words = [word for one in settings for word in ("--set", one)]
    assert inbox("edit", place, "q1", "--by", "dana", *words).exit_code == code
    assert case_of(desk, one).state == "open"


def test_a_second_answer_is_refused(desk: Desk, place: str):
    """And so is the one of who asks."""
    desk.put(question())
    asking = inbox("deny", place, "q1", "--by", "clerk")
    assert (asking.exit_code, "who asks" in asking.stderr) == (1, True)
    assert inbox("deny", place, "q1", "--by", "dana").exit_code == 0
    for word in ("deny", "approve"):
        second = inbox(word, place, "q1", "--by", "lee", typed="yes\n")
        assert second.exit_code == 1
        assert "not open any more" in second.stderr


def test_nobody_answers_without_a_name(desk: Desk, place: str):
    desk.put(question())
    for word in ("deny", "approve", "edit"):
        assert inbox(word, place, "q1").exit_code == 2
        assert inbox(word, place, "q1", "--by", " ", "--set", "to=1").exit_code == 2


def test_two_people_say_yes_together(desk: Desk, place: str):
    one = question(needed=2)
    desk.put(one)
    first = inbox("approve", place, "q1", "--by", "dana", typed="yes\n")
    assert "1 more must say yes" in first.stdout
    assert "dana: yes" in inbox("show", place, "q1").stdout
    inbox("approve", place, "q1", "--by", "lee", typed="yes\n")
    assert case_of(desk, one).verdict.by == "dana, lee"


def test_an_answer_is_signed_with_the_key_of_a_file(desk: Desk, place: str, tmp_path: Path):
    """The one that `checkrein keys new` has made, whose public half it has printed."""
    path = tmp_path / "dana.skey"
    new_key("dana", path)
    one = question()
    desk.put(one)
    result = inbox("approve", place, "q1", "--by", "dana", "--key", str(path), typed="yes\n")
    assert result.exit_code == 0
    people = Approvers({"dana": principal_from(path).id})
    assert people.problem(one, case_of(desk, one).verdict, ["clerk"]) == ""


def test_keys_new_prints_whom_it_makes(tmp_path: Path):
    """As `Approvers` names people."""
    path = tmp_path / "dana.skey"
    result = CliRunner().invoke(app, ["keys", "new", "dana", "--out", str(path)])
    assert principal_from(path).id in result.stdout


def test_a_key_that_is_none_answers_nothing(desk: Desk, place: str, tmp_path: Path):
    one = question()
    desk.put(one)
    words = ("deny", place, "q1", "--by", "dana", "--key", str(tmp_path / "no.skey"))
    assert inbox(*words).exit_code == 2
    assert case_of(desk, one).state == "open"


# -- watching ------------------------------------------------------------------------------


def test_commands_are_typed_while_it_is_watched(desk: Desk, place: str):
    """By the numbers of the list; what cannot be done is said, and it goes on."""
    one, other = question("q1", asked=time.time() - 9), question("q2")
    desk.put(one)
    desk.put(other)
    typed = "nonsense\nshow 1\ndeny 1 'not today'\nedit 1 amount=4\n\ndoubt\nquit\ndeny 1\n"
    result = inbox("watch", place, "--by", "dana", typed=typed)
    assert result.exit_code == 0
    assert "type one of" in result.stdout
    assert "digest" in result.stdout
    assert case_of(desk, one).verdict.reason == "not today"
    assert dict(case_of(desk, other).verdict.edits) == {"amount": 4}
    assert "nothing waits" in result.stdout


def test_who_only_watches_cannot_answer(desk: Desk, place: str):
    one = question()
    desk.put(one)
    result = inbox("watch", place, typed="suspicious 1\n")
    assert "--by NAME" in result.stdout
    assert case_of(desk, one).state == "open"


def test_a_yes_is_typed_in_full_there_too(desk: Desk, place: str):
    one = question()
    desk.put(one)
    inbox("watch", place, "--by", "dana", typed="approve 1\ny\napprove 1\nyes\n")
    assert case_of(desk, one).verdict.approved is True


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_it_is_live_at_a_terminal(desk: Desk, place: str):
    """A question appears while somebody types; letters show as they are typed."""
    import pty

    master, slave = pty.openpty()
    command = [sys.executable, "-m", "checkrein", "inbox", "watch", place, "--by", "dana"]
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=variables)
    os.close(slave)
    try:
        until(master, "nothing waits")
        one = question(tool="[bold]\x1b[2Jsend")
        desk.put(one)
        until(master, r"[bold]\x1b[2Jsend")
        os.write(master, b"deny 2\x7f1 no")
        until(master, "> deny 1 no")
        os.write(master, b"\r")
        until(master, "denied")
        until(master, "nothing waits")
        os.write(master, b"quit\r")
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert case_of(desk, one).verdict.reason == "no"


def until(file: int, words: str) -> None:
    """Read what a terminal shows until *words* are there."""
    seen = b""
    end = time.monotonic() + 30
    while words.encode() not in seen:
        ready, _, _ = select.select([file], [], [], max(0.0, end - time.monotonic()))
        assert ready, seen.decode(errors="replace")
        seen += os.read(file, 65536)


# -- the page ------------------------------------------------------------------------------


def test_a_missing_extra_is_one_line(place: str):
    """Without starlette the page, and only the page, says what to install."""
    code = "import sys; sys.modules['starlette'] = None\nfrom checkrein.cli import main; main()"
    command = [sys.executable, "-W", "error", "-c", code, "inbox", "web", place, "--by", "dana"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "checkrein needs its inbox: pip install 'checkrein[inbox]'\n"


@pytest.mark.parametrize(
    "words",
    [["web", "WHERE"], ["--web", "WHERE"], ["WHERE", "--web"]],
    ids=["web", "option-first", "option-last"],
)
def test_the_page_starts_for_somebody(desk: Desk, place: str, words: list[str]):
    """However it is spelled; without a name it does not."""
    needed("starlette", "uvicorn", "jinja2")
    result = inbox(*(place if word == "WHERE" else word for word in words))
    assert result.exit_code == 2
    assert "--by dana" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--by", "dana", "--host", "0.0.0.0"],
        ["--by", "dana", "--port", "99999999"],
        ["--by", "dana", "--url", "x"],
        ["--by", "dana, lee"],
        ["--by", "dana", "--key", "dana.skey"],
        ["--by", "dana", "--key", "dana=no.skey"],
    ],
    ids=["host", "port", "url", "name", "key", "no-key"],
)
def test_a_page_that_cannot_be_served_is_one_line(desk: Desk, place: str, options: list[str]):
    needed("starlette", "uvicorn", "jinja2")
    result = inbox("web", place, *options)
    assert result.exit_code == 2
    assert result.stderr.startswith("checkrein: ")


def test_the_page_prints_links_and_ends_on_interrupt(desk: Desk, place: str):
    """A real process: its first lines are the links."""
    needed("starlette", "uvicorn", "jinja2")
    import signal

    command = [sys.executable, "-m", "checkrein", "inbox", "web", place]
    process = subprocess.Popen(
        [*command, "--by", "dana", "--by", "lee"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert [line.partition(":")[0] for line in lines[:2]] == ["dana", "lee"]
    assert all("/enter/" in line for line in lines[:2])
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) in {0, 130, -signal.SIGINT}
    process.stdout.close()

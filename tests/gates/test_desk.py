"""The desk: every answer counts once, and only for what was asked."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein.approvers import Approvers, signed
from checkrein.confirmations import (
    Care,
    Confirmation,
    Shown,
    Verdict,
    digest_of,
    read_question,
    read_verdict,
    to_text,
    verdict_tree,
)
from checkrein.delegation import Principal
from checkrein.errors import ConfigurationError, MisuseError, TamperedError
from checkrein.gates import AnswerRefused, Desk
from checkrein.store import MemoryStore, SqliteStore
from support import asked_question as question


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(tmp_path: Any, clock: Clock) -> Iterator[Desk]:
    with SqliteStore.open(tmp_path / "questions.db") as store:
        yield Desk(store, clock=clock)


def test_an_answer_is_taken_once(desk: Desk):
    """It goes from hand to hand: put, answered, taken, done."""
    asked = question()
    desk.put(asked)
    desk.put(asked)
    assert [one.id for one in desk.pending()] == ["q1"]
    taken = desk.take("q1")
    assert taken is not None and taken.state == "open"
    assert desk.answer(asked.approve(by="dana")).state == "answered"
    assert desk.pending() == []
    first, second = desk.take("q1"), desk.take("q1")
    assert first is not None and first.state == "answered"
    assert first.verdict == asked.approve(by="dana")
    assert second is not None and second.state == "taken"
    assert [one.id for one in desk.in_doubt()] == ["q1"]
    desk.finish(asked)
    assert desk.in_doubt() == []
    third = desk.take("q1")
    assert third is not None and third.state == "done"


def test_a_no_is_in_nobodys_doubt(desk: Desk):
    """Nothing will run, so nothing has to be seen to an end."""
    asked = question()
    desk.put(asked)
    desk.answer(asked.deny(by="dana"))
    taken = desk.take("q1")
    assert taken is not None and taken.verdict.approved is False
    assert desk.in_doubt() == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda one: one.approve(by="dana")._replace(digest="0" * 64), "not for this question"),
        (lambda one: one.approve(by="dana")._replace(confirmation="other"), "no such question"),
        (lambda one: one.approve(by=" Clerk "), "who asks cannot approve"),
        (lambda one: one.approve(by="dana, clerk"), "who asks cannot approve"),
        (lambda one: one.approve(by="boss"), "who asks cannot approve"),
    ],
    ids=["digest", "id", "agent", "among-others", "around"],
)
def test_what_does_not_count_changes_nothing(desk: Desk, answer: Any, why: str):
    asked = question(chain=("boss",))
    desk.put(asked)
    with pytest.raises(AnswerRefused, match=why):
        desk.answer(answer(asked))
    assert [one.id for one in desk.pending()] == ["q1"]


def test_late_and_second_answers_are_refused(desk: Desk, clock: Clock):
    asked = question()
    desk.put(asked)
    clock.now = 2000.0
    assert desk.pending() == []
    with pytest.raises(AnswerRefused, match="lapsed"):
        desk.answer(asked.approve(by="dana"))
    clock.now = 1999.0
    desk.answer(asked.approve(by="dana"))
    with pytest.raises(AnswerRefused, match="answered"):
        desk.answer(asked.deny(by="lee"))
    clock.now = 2000.0
    taken = desk.take("q1")
    assert taken is not None and taken.state == "lapsed"


def test_of_fifty_answers_at_a_time_one_counts(desk: Desk):
    """And of fifty who want it, one gets it."""
    asked = question()
    desk.put(asked)
    counted: list[str] = []
    got: list[str] = []
    barrier = threading.Barrier(50)

    def answer(number: int) -> None:
        name = f"p{number}"
        verdict = asked.approve(by=name) if number % 2 else asked.deny(by=name)
        barrier.wait()
        try:
            desk.answer(verdict)
            counted.append(name)
        except AnswerRefused:
            pass
        case = desk.take("q1")
        if case is not None and case.state == "answered":
            got.append(case.verdict.by)

    threads = [threading.Thread(target=answer, args=(n,)) for n in range(50)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(counted) == 1
    assert got == counted


def test_several_people_say_yes_together(desk: Desk):
    """Each once; the first no decides."""
    asked = question(needed=2)
    desk.put(asked)
    assert desk.answer(asked.approve(by="dana")).state == "open"
    with pytest.raises(AnswerRefused, match="same person"):
        desk.answer(asked.approve(by="Dana "))
    with pytest.raises(AnswerRefused, match="same person"):
        desk.answer(asked.approve(by="lee, dana"))
    with pytest.raises(AnswerRefused, match="not edited"):
        desk.answer(asked.edit({"to": "al"}, by="lee"))
    assert desk.answer(asked.approve(by="lee")).state == "answered"
    case = desk.take("q1")
    assert case is not None
    assert case.verdict.by == "dana, lee"
    assert len(case.verdict.parts) == 2
    other = question("q2", needed=2)
    desk.put(other)
    desk.answer(other.approve(by="dana"))
    assert desk.answer(other.deny(by="lee")).state == "answered"
    case = desk.take("q2")
    assert case is not None and case.verdict.approved is False


def test_signatures_are_checked_where_the_answer_comes_in(tmp_path: Any, clock: Clock):
    dana, lee, eve = Principal.new(), Principal.new(), Principal.new()
    people = Approvers({"dana": dana.id, "lee": lee.id}, needed=2)
    with SqliteStore.open(tmp_path / "q.db") as store:
        desk = Desk(store, approvers=people, clock=clock)
        asked = question(needed=2)
        desk.put(asked)
        for verdict in (asked.approve(by="dana"), signed(asked.approve(by="dana"), eve)):
            with pytest.raises(AnswerRefused, match="not signed"):
                desk.answer(verdict)
        with pytest.raises(AnswerRefused, match="nobody who may"):
            desk.answer(signed(asked.approve(by="eve"), eve))
        desk.answer(signed(asked.approve(by="dana"), dana))
        desk.answer(signed(asked.approve(by="lee"), lee))
        case = desk.take("q1")
        assert case is not None
        assert people.problem(asked, case.verdict, ["clerk"]) == ""


def test_care_is_enforced_by_the_clock_of_the_desk(desk: Desk, clock: Clock):
    asked = question(care=Care(seconds=5.0, retype="to"))
    desk.put(asked)
    with pytest.raises(AnswerRefused, match="read first"):
        desk.answer(asked.approve(by="dana"), typed="bo")
    clock.now += 5
    for typed in (None, "", "Bo", '"bo "'):
        with pytest.raises(AnswerRefused, match="type in"):
            desk.answer(asked.approve(by="dana"), typed=typed)
    desk.answer(asked.approve(by="dana"), typed="bo")


@pytest.mark.parametrize(
    ("before", "after"),
    [('"needed":1', '"needed":"1"'), ('"untrusted":false', '"untrusted":0')],
    ids=["needed", "untrusted"],
)
def test_a_value_of_another_type_is_another_question(before: str, after: str):
    text = to_text(question())
    assert before in text
    with pytest.raises(TamperedError):
        read_question(text.replace(before, after))


def test_a_no_takes_no_care(desk: Desk):
    asked = question(care=Care(seconds=5.0, retype="to"))
    desk.put(asked)
    assert desk.answer(asked.deny(by="dana")).state == "answered"


def test_what_was_changed_on_the_way_is_not_shown(desk: Desk, tmp_path: Any):
    """Somebody with access to the file shows the approver another recipient."""
    asked = question()
    desk.put(asked)
    with sqlite3.connect(tmp_path / "questions.db") as connection:
        connection.execute("UPDATE questions SET question = replace(question, 'bo', 'al')")
    connection.close()
    assert desk.pending() == []
    with pytest.raises(TamperedError):
        desk.find("q1")


def test_an_unknown_state_is_none(desk: Desk, tmp_path: Any):
    desk.put(question())
    with sqlite3.connect(tmp_path / "questions.db") as connection:
        connection.execute("UPDATE questions SET state = 'approved'")
    connection.close()
    for ask in (desk.find, desk.take, desk.state):
        with pytest.raises(TamperedError):
            ask("q1")


def test_lapsed_and_old_questions_are_swept(desk: Desk, clock: Clock):
    desk.put(question())
    clock.now = 2000.0
    desk.sweep()
    clock.now += 31 * 86_400
    desk.sweep()
    assert desk.find("q1") is None


def test_a_desk_stands_in_a_store_that_lasts():
    with pytest.raises(ConfigurationError, match="open_store"):
        Desk(MemoryStore())  # type: ignore[arg-type]


def test_refused_answers_are_in_the_log(tmp_path: Any, clock: Clock):
    events: list[Any] = []

    class Log:
        def append(self, event: Any) -> None:
            events.append(event)

        enqueue = append

    with SqliteStore.open(tmp_path / "q.db") as store:
        desk = Desk(store, log=Log(), clock=clock)
        with pytest.raises(AnswerRefused):
            desk.answer(question().approve(by="dana"))
    assert [(one["type"], one["by"]) for one in events] == [("answer.refused", "dana")]


TEXTS = st.text(max_size=30)


@given(
    TEXTS,
    TEXTS,
    st.lists(TEXTS, max_size=3).map(tuple),
    st.integers(1, 3),
    st.floats(0, 1e12),
)
def test_a_question_survives_being_written_down(
    text: str, origin: str, reasons: tuple[str, ...], needed: int, expires: float
):
    """Letter by letter, lone surrogates too."""
    asked = question(
        arguments=(Shown("to", None, True, origin, "", text, text),),
        reasons=reasons,
        needed=needed,
        expires=expires,
    )
    assert read_question(to_text(asked)) == asked


CHANGES: dict[str, Any] = {
    "id": "q2",
    "tool": "send2",
    "effect": "writes",
    "resource": "mail",
    "arguments": (),
    "reasons": (),
    "rules": (),
    "agent": "other",
    "run": "r2",
    "call": "r1-1",
    "expires": 2000.5,
    "bound_to": "cd" * 32,
    "grants": ("g2",),
    "chain": ("boss",),
    "asked": 999.0,
    "preview": "x",
    "needed": 2,
    "care": Care(1.0),
}


def test_every_field_of_a_question_is_bound():
    """None may be changed between the question and the answer."""
    assert CHANGES.keys() == set(Confirmation._fields) - {"digest"}
    asked = question()
    digests = {digest_of(asked._replace(**{name: value})) for name, value in CHANGES.items()}
    assert len(digests | {asked.digest}) == len(CHANGES) + 1


SHOWN_CHANGES: dict[str, Any] = {
    "name": "cc",
    "untrusted": True,
    "origin": "x",
    "concern": "y",
    "text": '"al"',
    "plain": '"al"',
}


def test_everything_that_is_shown_of_an_argument_is_bound():
    assert SHOWN_CHANGES.keys() == set(Shown._fields) - {"value"}
    asked = question()
    for name, value in SHOWN_CHANGES.items():
        other = (asked.arguments[0]._replace(**{name: value}),)
        assert digest_of(asked._replace(arguments=other)) != asked.digest, name


def test_fields_do_not_run_into_each_other():
    assert digest_of(question(tool="ab", effect="c")) != digest_of(question(tool="a", effect="bc"))
    one, other = (
        question(reasons=("a",), rules=("b", "c")),
        question(reasons=("c", "a"), rules=("b",)),
    )
    assert one.digest != other.digest


@pytest.mark.parametrize(
    "tree",
    [None, {}, [], {"approved": 1}, "x"],
    ids=["none", "empty", "list", "odd", "text"],
)
def test_what_is_no_verdict_is_refused(tree: Any):
    with pytest.raises(TamperedError):
        read_verdict(tree)
    whole = verdict_tree(Verdict("a", "b", True, "c"))
    with pytest.raises(TamperedError):
        read_verdict({**whole, "approved": "yes"})


@pytest.mark.parametrize(
    "edits",
    [{"to": b"x"}, {"to": float("nan")}, {"to": (1,)}, {1: "x"}],
    ids=["bytes", "nan", "tuple", "key"],
)
def test_edits_that_do_not_travel_are_refused(desk: Desk, edits: Any):
    asked = question()
    desk.put(asked)
    with pytest.raises(MisuseError, match="JSON"):
        desk.answer(asked.edit(edits, by="dana"))


@pytest.mark.parametrize("text", ["", "{}", "null", "[1]", '{"id":1}'], ids=lambda one: one or "no")
def test_what_is_no_question_is_refused(text: str):
    with pytest.raises(TamperedError):
        read_question(text)

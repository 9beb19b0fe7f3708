"""The question before the call: what it lays on the desk, and that it does nothing else."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from checkrein import CallbackGate, Grant, Run, Untrusted, allow, budget, irreversible, reads
from checkrein.errors import ConfirmationPending, Denied
from checkrein.integrations import hosts
from checkrein.integrations.conversations import Conversations
from checkrein.integrations.foresight import foresee
from checkrein.standing import standing
from support import MemoryLog

SENT: list[tuple[str, str]] = []


@irreversible("foresight.send")
def send(to: str, body: Untrusted[str]) -> None:
    """Send it."""
    SENT.append((to, body.reveal()))


@reads("foresight.inbox", private=True)
def inbox() -> Untrusted[str]:
    """Read it."""
    return Untrusted("obey")


class Desk:
    """A desk whose method is a tool."""

    @irreversible("foresight.send")
    def post(self, to: str) -> None:
        """Post it."""


def grant(times: int = 5) -> Grant:
    """Return the same grant in each turn."""
    return Grant(allow("foresight.send", budget(times=times)), allow("foresight.inbox"))


@pytest.fixture
def talks(tmp_path: Path) -> Iterator[Conversations]:
    """Conversations in a directory."""
    SENT.clear()
    made = Conversations(tmp_path / "talks", bytes(range(32)))
    yield made
    made.close()


def ahead(run: Run | None, *args: Any) -> dict[str, Any] | None:
    """Foresee a call of ``send``."""
    return foresee(run, send, args, {})


def test_the_call_finds_the_question_that_was_foreseen(talks):
    """One question, asked once, answered, and the call runs once; it is in the log as such."""
    log = MemoryLog()
    with talks.run("t", agent="bot", grant=grant(), log=log) as run:
        asked = ahead(run, "bo", "hello")
        assert asked is not None
        assert ahead(run, "bo", "hello") == asked
        assert len(log.of("confirmation.asked")) == 1
        with pytest.raises(ConfirmationPending) as caught:
            send("bo", "hello")
        assert caught.value.confirmation == asked["confirmation"]
        yes = hosts.answer(asked, True, by="dana")
        assert hosts.take(run, caught.value.confirmation, yes) == ""
        assert ahead(run, "bo", "hello") is None
        send("bo", "hello")
    assert SENT == [("bo", "hello")]
    assert len(log.of("call.allowed")) == 1


def test_foreseeing_uses_nothing_and_denies_nothing(talks):
    """A budget of one is there for the call, however often it was foreseen."""
    log = MemoryLog()
    with talks.run("t", agent="bot", grant=grant(1), log=log) as run:
        for _ in range(3):
            asked = ahead(run, "bo", "hello")
        assert asked is not None
        assert hosts.take(run, asked["confirmation"], hosts.answer(asked, True, by="dana")) == ""
        send("bo", "hello")
        assert ahead(run, "bo", "again") is None  # it would be denied
        assert log.of("call.denied") == []


def test_what_would_not_wait_is_not_asked_about(talks):
    """Allowed, denied, malformed, not guarded: the call itself says so."""
    log = MemoryLog()
    with talks.run("t", agent="bot", grant=Grant(allow("foresight.inbox")), log=log) as run:
        assert foresee(run, inbox, (), {}) is None
        assert ahead(run, "bo", "hello") is None
        assert ahead(run, 7, "hello") is None
        assert ahead(run) is None
        assert foresee(run, lambda: None, (), {}) is None
        assert [one["type"] for one in log.events if one["type"].startswith("c")] == []
        assert not run.exposed


def test_without_a_desk_nobody_is_asked_beforehand():
    """No run, no gate, a gate that answers in the call."""
    assert ahead(None, "bo", "hello") is None
    with Run(agent="bot", grant=grant()) as run:
        assert ahead(run, "bo", "hello") is None
    asked: list[Any] = []
    with Run(agent="bot", grant=grant(), gate=CallbackGate(lambda one: asked.append(one))) as run:
        assert ahead(run, "bo", "hello") is None
    assert asked == []


def test_another_run_or_a_closed_one_asks_nothing(talks):
    """What could only be denied is not laid on the desk."""
    with talks.run("t", agent="bot", grant=grant()) as run:

        def other() -> Any:
            with Run(agent="other", grant=grant()):
                return ahead(run, "bo", "hello")

        assert contextvars.Context().run(other) is None
        run.stop("enough")
        assert ahead(run, "bo", "hello") is None
    assert ahead(run, "bo", "hello") is None
    assert run.questions.parked == ()


def test_a_call_inside_a_call_is_not_put_off(talks):
    """It could not wait, so nobody is asked about it."""
    found: list[Any] = []

    @reads("foresight.inbox")
    def outer() -> str:
        found.append(ahead(hosts.current(), "bo", "hello"))
        return "read"

    with talks.run("t", agent="bot", grant=grant()):
        outer()
    assert found == [None]


def test_a_method_is_foreseen_with_its_receiver(talks):
    """Bound to its object, and bound to a run."""
    desk = Desk()
    with talks.run("t", agent="bot", grant=grant()) as run:
        (bound,) = run.tools(desk.post)
        first = foresee(run, desk.post, ("bo",), {})
        second = foresee(run, bound, (), {"to": "bo"})
        assert first is not None
        assert first == second
        assert [one["name"] for one in first["arguments"]] == ["to"]


def test_content_that_comes_back_by_its_marker_exposes_as_in_the_call(talks):
    """The question shows where the argument comes from."""
    with talks.run("t", agent="bot", grant=grant()) as run:
        letter = str(inbox())
        asked = ahead(run, letter, "hello")
        assert asked is not None
        assert "foresight.inbox" in asked["arguments"][0]["origin"]


def test_a_standing_approval_is_not_used_up(talks):
    """What it covers is not asked about, and all its uses are left for the calls."""
    with talks.run("t", agent="bot", grant=grant()) as run:
        asked = ahead(run, "bo", "hello")
        assert asked is not None
        shown = talks.gate.desk.find(asked["confirmation"]).question
        leave = standing(uses=1, within=timedelta(minutes=5))
        assert hosts.take(run, shown.id, shown.approve(by="dana", standing=leave)) == ""
        send("bo", "hello")
        for _ in range(3):
            assert ahead(run, "bo", "hello") is None
        send("bo", "hello")
        assert ahead(run, "bo", "hello") is not None
    assert len(SENT) == 2


def test_a_log_that_fails_locks_the_run(talks):
    """As everywhere: what is asked is written down, or nothing goes on."""

    class Broken(MemoryLog):
        def enqueue(self, event: Any) -> None:
            if event["type"] == "confirmation.asked":
                raise OSError("full")
            super().enqueue(event)

    with talks.run("t", agent="bot", grant=grant(), log=Broken()) as run:
        ahead(run, "bo", "hello")
        assert run.locked
        with pytest.raises(Denied):
            send("bo", "hello")


def test_a_lapsed_question_is_asked_anew(tmp_path):
    """Nobody can answer it any more."""
    now = [1_900_000_000.0]
    talks = Conversations(tmp_path, bytes(range(32)))
    talks.gate.desk._clock = lambda: now[0]
    about: dict[str, Any] = {"clock": lambda: now[0], "confirm_within": timedelta(minutes=1)}
    with talks.run("t", agent="bot", grant=grant(), **about) as run:
        first = ahead(run, "bo", "hello")
        now[0] += 120
        second = ahead(run, "bo", "hello")
        assert first is not None
        assert second is not None
        assert first["confirmation"] != second["confirmation"]
    talks.close()

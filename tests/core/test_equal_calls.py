"""Equal calls that wait at the same time wait for one answer, as they do one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from checkrein import Grant, Run, allow, irreversible
from checkrein.errors import ConfirmationPending
from checkrein.gates.desk import Desk
from checkrein.gates.queue import QueueGate
from checkrein.integrations.foresight import foresee
from checkrein.integrations.hosts import question, take
from support import MemoryLog

PAID: list[str] = []


@irreversible("equal.pay")
async def pay(to: str) -> str:
    """Pay."""
    PAID.append(to)
    return "paid"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A desk whose gate does not wait."""
    PAID.clear()
    gate = QueueGate(str(tmp_path / "questions.db"), wait=timedelta(0))
    yield gate.desk
    gate.close()


def run_at(desk: Desk, log: MemoryLog) -> Run:
    """Return a run whose questions lie on the desk."""
    gate = QueueGate(desk.store, wait=timedelta(0))
    return Run(agent="bot", grant=Grant(allow("equal.pay")), gate=gate, log=log)


async def pending(to: str) -> ConfirmationPending:
    """Make a call that waits."""
    with pytest.raises(ConfirmationPending) as caught:
        await pay(to)
    return caught.value


def yes(run: Run, error: ConfirmationPending) -> None:
    """Answer what a call waits for."""
    shown = question(run, error)
    given = {"confirmation": shown["confirmation"], "digest": shown["digest"]}
    assert take(run, error.confirmation, {**given, "approved": True, "by": "dana"}) == ""


def test_equal_calls_at_once_are_one_question(desk: Desk) -> None:
    """One lies on the desk, all of them name it, and its yes lets one of them run."""
    log = MemoryLog()

    async def go() -> None:
        errors = await asyncio.gather(*(pending("dana") for _ in range(5)))
        (asked,) = desk.pending()
        assert {one.confirmation for one in errors} == {asked.id}
        yes(run, errors[3])
        told = await asyncio.gather(*(pay("dana") for _ in range(5)), return_exceptions=True)
        assert told.count("paid") == 1
        assert PAID == ["dana"]
        (again,) = desk.pending()
        assert again.id != asked.id

    with run_at(desk, log) as run:
        asyncio.run(go())
    assert [one["answer"] for one in log.of("confirmation.answered")] == ["approved"]


def test_other_calls_at_once_are_other_questions(desk: Desk) -> None:
    """What differs in an argument is asked about apart."""

    async def go() -> None:
        errors = await asyncio.gather(pending("dana"), pending("bob"))
        assert len({one.confirmation for one in errors}) == len(desk.pending()) == 2
        for one in errors:
            yes(run, one)
        await asyncio.gather(pay("dana"), pay("bob"))
        assert sorted(PAID) == ["bob", "dana"]

    with run_at(desk, MemoryLog()) as run:
        asyncio.run(go())


def test_what_is_foreseen_twice_is_one_question(desk: Desk) -> None:
    """Frameworks that ask before the call ask for all calls of a turn."""
    with run_at(desk, MemoryLog()) as run:
        first, second = (foresee(run, pay, (), {"to": "dana"}) for _ in range(2))
        assert first is not None
        assert second is not None
        assert first["confirmation"] == second["confirmation"]
        assert len(desk.pending()) == 1

"""Questions that wait in a store: in place, across processes, and through kills."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from checkrein import Grant, Run, Untrusted, allow, irreversible
from checkrein.confirmations import Care
from checkrein.constraints import at_most, one_of
from checkrein.errors import ConfigurationError, ConfirmationPending, Denied
from checkrein.gates import Desk, QueueGate, Quorum
from checkrein.log.completeness import Story
from support import Clock, MemoryLog, rule_of

KEY = bytes(range(32))
DONE: list[Any] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    DONE.clear()


@irreversible("que.pay", external=True)
def pay(to: str, text: Untrusted[str] = Untrusted("")) -> None:
    DONE.append((to, text.reveal()))


@irreversible("que.apay", external=True)
async def apay(to: str) -> None:
    DONE.append(to)


@irreversible(
    "que.care", care=Care(retype="to"), preview=lambda to, amount: f"{amount} EUR\x1b to {to}"
)
def careful(to: str, amount: int) -> None:
    DONE.append((to, amount))


@irreversible("que.fail")
def failing(to: str) -> None:
    raise ValueError(to)


GRANT = Grant(*(allow(f"que.{name}") for name in ("pay", "apay", "care", "fail")), id="g")


@pytest.fixture
def where(shared: Any, opened: Any) -> Any:
    return opened(shared)


@pytest.fixture
def desk(shared: Any, opened: Any) -> Desk:
    """The desk as another process sees it, over a connection of its own."""
    return Desk(opened(shared))


def answering(desk: Desk, how: Any) -> threading.Thread:
    """Answer the first question that comes up, in a thread."""

    def work() -> None:
        end = time.monotonic() + 20  # a test that fails does not wait for ever
        while not (pending := desk.pending()) and time.monotonic() < end:
            threading.Event().wait(0.002)
        desk.answer(how(pending[0]))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def gate(where: Any) -> Iterator[QueueGate]:
    made = QueueGate(where)
    yield made
    made.close()


def test_a_plain_call_waits_in_place(gate: QueueGate, desk: Desk):
    with Run(agent="t", grant=GRANT, gate=gate):
        thread = answering(desk, lambda one: one.approve(by="dana"))
        pay("bo", "x")
        thread.join()
        assert desk.in_doubt() == []
        thread = answering(desk, lambda one: one.deny(by="dana"))
        assert rule_of(pay, "al") == "gate.denied"
        thread.join()
    assert DONE == [("bo", "x")]


def test_an_answer_through_the_same_desk_wakes_at_once(gate: QueueGate):
    with Run(agent="t", grant=GRANT, gate=gate):
        thread = answering(gate.desk, lambda one: one.approve(by="dana"))
        pay("bo")
        thread.join()
    assert DONE == [("bo", "")]


def test_many_tasks_wait_without_holding_up_the_loop(gate: QueueGate, desk: Desk):
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async def answer() -> None:
        left = 20
        while left:
            for one in await asyncio.to_thread(desk.pending):
                await asyncio.to_thread(desk.answer, one.approve(by="dana"))
                left -= 1

    async def main() -> None:
        async with Run(agent="t", grant=GRANT, gate=gate):
            ticking = asyncio.ensure_future(tick())
            await asyncio.gather(answer(), *(apay(f"p{number}") for number in range(20)))
            ticking.cancel()

    asyncio.run(main())
    assert sorted(DONE) == sorted(f"p{number}" for number in range(20))
    assert ticks > 5
    assert desk.in_doubt() == []


def test_a_call_edited_at_the_desk_is_decided_anew(gate: QueueGate, desk: Desk):
    narrow = Grant(allow("que.care", to=one_of(["bo", "al"]), amount=at_most(5)), id="g")
    with Run(agent="t", grant=narrow, gate=gate):
        thread = answering(desk, lambda one: one.edit({"to": "eve"}, by="dana"))
        assert rule_of(careful, "bo", 1) == "permission.argument"
        thread.join()
    assert DONE == []


def test_what_is_shown_and_how_carefully_it_is_answered(where: Any, desk: Desk):
    clock = Clock()
    gate = QueueGate(where, wait=timedelta(0), clock=clock)
    desk = Desk(desk.store, clock=clock)
    with Run(agent="t", grant=GRANT, gate=gate, clock=clock):
        with pytest.raises(ConfirmationPending):
            careful("bo", 5)
        (question,) = desk.pending()
        assert question.preview == "5 EUR\\x1b to bo"
        assert question.care == Care(0.0, "to")
        desk.answer(question.approve(by="dana"), typed="bo")
        careful("bo", 5)
    assert DONE == [("bo", 5)]
    assert question.letters >= len("5 EUR to bo")


def test_a_question_is_put_off_and_found_again(where: Any, desk: Desk):
    """In the same run: one question, one body, one id of the call."""
    log = MemoryLog()
    gate = QueueGate(where, wait=timedelta(0))
    with Run(agent="t", grant=GRANT, gate=gate, log=log):
        for _ in range(3):
            with pytest.raises(ConfirmationPending) as caught:
                pay("bo", "x")
        (question,) = desk.pending()
        assert caught.value.confirmation == question.id
        desk.answer(question.approve(by="dana"))
        pay("bo", "x")
        with pytest.raises(ConfirmationPending):
            pay("bo", "x")
    assert DONE == [("bo", "x")]
    assert {one["call"] for one in log.of("call.allowed")} == {question.call}
    story = Story()
    for event in log.events:
        story.tell(event)
    assert story.in_doubt() == ()
    gate.close()


def test_waiting_in_place_ends_in_pending(where: Any):
    gate = QueueGate(where, wait=timedelta(milliseconds=30))
    with Run(agent="t", grant=GRANT, gate=gate), pytest.raises(ConfirmationPending):
        pay("bo")

    async def main() -> None:
        async with Run(agent="t", grant=GRANT, gate=gate):
            await apay("bo")

    with pytest.raises(ConfirmationPending):
        asyncio.run(main())
    gate.close()


def test_nobody_answers(where: Any, desk: Desk):
    gate = QueueGate(where)
    soon = timedelta(milliseconds=30)
    with Run(agent="t", grant=GRANT, gate=gate, confirm_within=soon):
        assert rule_of(pay, "bo") == "gate.expired"
    assert desk.pending() == []
    assert DONE == []
    gate.close()


def test_a_parked_question_lapses(where: Any, desk: Desk):
    """The call asks a new one, since nobody answered the old one in time."""
    clock = Clock()
    gate = QueueGate(where, wait=timedelta(0), clock=clock)
    desk = Desk(desk.store, clock=clock)
    with Run(agent="t", grant=GRANT, gate=gate, clock=clock):
        with pytest.raises(ConfirmationPending) as first:
            pay("bo")
        clock.now += 601
        with pytest.raises(ConfirmationPending) as second:
            pay("bo")
        assert first.value.confirmation != second.value.confirmation
        assert [one.id for one in desk.pending()] == [second.value.confirmation]
    gate.close()


def test_two_processes_go_on_with_one_run(where: Any, desk: Desk):
    """Both resume it; one gets the answer, the other is told that it was used."""
    gate = QueueGate(where, wait=timedelta(0))
    with Run(agent="t", grant=GRANT, gate=gate, store=where) as run:
        with pytest.raises(ConfirmationPending):
            pay("bo", "x")
        state = run.suspend(KEY)
    desk.answer(desk.pending()[0].approve(by="dana"))
    outcomes: list[str] = []
    for _ in range(2):
        with Run.resume(state, KEY, grant=GRANT, gate=gate, store=where):
            outcomes.append(rule_of(pay, "bo", "x"))
    assert outcomes == ["", "gate.mismatch"]
    assert DONE == [("bo", "x")]
    gate.close()


def test_an_answer_for_another_run_is_no_answer(where: Any, desk: Desk):
    """The same call, of another conversation."""
    gate = QueueGate(where, wait=timedelta(0))
    with Run(agent="t", grant=GRANT, gate=gate), pytest.raises(ConfirmationPending):
        pay("bo")
    desk.answer(desk.pending()[0].approve(by="dana"))
    with Run(agent="t", grant=GRANT, gate=gate), pytest.raises(ConfirmationPending):
        pay("bo")
    assert DONE == []
    gate.close()


def test_what_raises_is_over_and_not_in_doubt(gate: QueueGate, desk: Desk):
    with Run(agent="t", grant=GRANT, gate=gate):
        thread = answering(desk, lambda one: one.approve(by="dana"))
        with pytest.raises(ValueError, match="bo"):
            failing("bo")
        thread.join()
    assert desk.in_doubt() == []


def test_a_call_that_is_denied_after_its_answer_is_not_in_doubt(gate: QueueGate, desk: Desk):
    """Somebody stops the run while the approver reads."""
    with Run(agent="t", grant=GRANT, gate=gate) as run:

        def how(one: Any) -> Any:
            run.stop("enough")
            return one.approve(by="dana")

        thread = answering(desk, how)
        assert rule_of(pay, "bo") == "run.stopped"
        thread.join()
    assert desk.in_doubt() == []
    assert DONE == []


def test_a_plain_tool_in_a_loop_is_told_to_be_async(gate: QueueGate):
    async def main() -> None:
        async with Run(agent="t", grant=GRANT, gate=gate):
            pay("bo")

    with pytest.raises(Denied):
        asyncio.run(main())


def test_a_quorum_of_queues_finishes_its_questions(gate: QueueGate, desk: Desk):
    with Run(agent="t", grant=GRANT, gate=Quorum([gate])):
        thread = answering(desk, lambda one: one.approve(by="dana"))
        pay("bo")
        thread.join()
    assert desk.in_doubt() == []


def test_a_store_that_is_closed_ends_the_waiting(where: Any):
    gate = QueueGate(where)
    outcome: list[str] = []

    def work() -> None:
        with Run(agent="t", grant=GRANT, gate=gate):
            outcome.append(rule_of(pay, "bo"))

    thread = threading.Thread(target=work)
    thread.start()
    while not gate.desk.pending():
        threading.Event().wait(0.002)
    gate.close()
    thread.join(20)
    assert outcome == ["gate.unavailable"]


@pytest.mark.parametrize("wait", [5, timedelta(seconds=-1)], ids=["number", "negative"])
def test_odd_waits_are_refused(where: Any, wait: Any):
    with pytest.raises(ConfigurationError, match="timedelta"):
        QueueGate(where, wait=wait)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills as POSIX has them")
def test_kills_lose_nothing_and_repeat_nothing(shared: Any, tmp_path: Any):
    """A hundred conversations, each killed at random steps until it is over; see `kills`.

    Fewer where the servers that this needs are optional: it takes half a minute.
    """
    from stores import kills

    rounds = 100 if os.environ.get("CHECKREIN_REQUIRE_SERVICES") else 15
    done = subprocess.run(
        [
            sys.executable,
            kills.__file__,
            shared.kind,
            shared.where,
            shared.schema,
            str(tmp_path),
            str(rounds),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(kills.__file__))},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rounds"] == rounds
    assert told["twice"] == told["lost"] == told["forgotten"] == 0
    assert told["killed"] > rounds
    assert told["ran"] + told["in_doubt"] >= rounds

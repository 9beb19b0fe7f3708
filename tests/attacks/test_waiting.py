"""Attacks on a call while it waits: for a store, for a person, for a disk, for a file."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from checkrein import (
    CallbackGate,
    Grant,
    Run,
    allow,
    budget,
    irreversible,
    orders,
    preapproved,
    reads,
    writes,
)
from checkrein.constraints import opened_under
from checkrein.delegation import revoke
from checkrein.errors import Denied
from checkrein.ports import Use
from checkrein.store import MemoryStore
from support import Clock, MemoryLog, rule_of, used

DONE: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@reads("wait.look")
async def look(x: int) -> int:
    DONE.append(x)
    return x


@writes("wait.put")
async def put(x: int) -> None:
    DONE.append(x)


@irreversible("wait.burn")
async def burn(x: int) -> None:
    DONE.append(x)


@irreversible("wait.burn")
def burn_now(x: int) -> None:
    DONE.append(x)


class Slow(MemoryStore):
    """A store that reserves when it is told to."""

    waits = True

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.go = threading.Event()

    def reserve(self, uses: Sequence[Use], now: float, /) -> str | None:
        self.asked.set()
        assert self.go.wait(10)
        return super().reserve(uses, now)


def run(store: MemoryStore, *permissions: Any, **more: Any) -> Run:
    return Run(**{"agent": "t", "grant": Grant(*permissions, id="g"), "store": store, **more})


async def until(event: threading.Event) -> None:
    while not event.is_set():
        await asyncio.sleep(0.001)


# -- for a store -----------------------------------------------------------------------------


def _stopped(active: Run, _: Slow) -> None:
    active.stop("enough")


def _closed(active: Run, _: Slow) -> None:
    active._close()


def _locked(active: Run, _: Slow) -> None:
    active.lock("suspicion")


def _revoked(_: Run, store: Slow) -> None:
    revoke(store, "g")


def _stopped_from_outside(_: Run, store: Slow) -> None:
    store.post(orders.STOP_ALL)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("tool", [look, put], ids=["read", "write"])
@pytest.mark.parametrize(
    ("happens", "rule"),
    [
        (_stopped, "run.stopped"),
        (_closed, "run.closed"),
        (_locked, "run.locked"),
        (_revoked, "permission.chain"),
        (_stopped_from_outside, "run.stopped"),
    ],
)
def test_what_happens_while_a_budget_is_reserved_counts(
    monkeypatch: pytest.MonkeyPatch, happens: Callable[..., None], rule: str, tool: Any, log: bool
):
    """The use is reserved in a thread; what happens meanwhile holds, and the use comes back."""
    if tool is look and happens is _locked:
        pytest.skip("a locked run reads on")
    monkeypatch.setattr(orders, "FRESH_FOR", 0.0)
    store = Slow()

    async def main() -> None:
        async with run(
            store,
            allow("wait.look", budget(times=5)),
            allow("wait.put", budget(times=5)),
            log=MemoryLog() if log else None,
        ) as active:
            task = asyncio.create_task(tool(1))
            await until(store.asked)
            happens(active, store)
            store.go.set()
            with pytest.raises(Denied) as denied:
                await task
            assert denied.value.rule == rule

    asyncio.run(main())
    assert DONE == []
    assert used(store, "g/0") == used(store, "g/1") == 0


def test_a_use_comes_back_when_a_call_is_cancelled_twice():
    """The second cancellation finds the thread that would give back not yet started."""
    store = Slow()
    store.go.set()

    async def main() -> None:
        pool = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(pool)
        asked, free = asyncio.Event(), threading.Event()

        async def ask(_: Any) -> bool:
            asked.set()
            await asyncio.Event().wait()
            return True

        log = MemoryLog()
        async with run(store, allow("wait.burn", budget(times=1)), gate=CallbackGate(ask), log=log):
            task = asyncio.create_task(burn(1))
            await asked.wait()
            assert used(store, "g/0") == 1
            pool.submit(free.wait)
            for _ in range(2):
                task.cancel()
                for _ in range(5):
                    await asyncio.sleep(0)
            free.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert used(store, "g/0") == 0
        (outcome,) = log.of("call.outcome")
        assert outcome["status"] == "cancelled"

    asyncio.run(main())


# -- for a person ----------------------------------------------------------------------------


def test_a_slow_answer_does_not_carry_a_use_into_the_next_window():
    """One per minute: asked in two windows, answered together; one of them runs."""
    clock, store = Clock(), MemoryStore()

    async def main() -> list[Any]:
        answer = asyncio.Event()
        asked: list[Any] = []

        async def ask(confirmation: Any) -> bool:
            asked.append(confirmation)
            await answer.wait()
            return True

        permission = allow("wait.burn", budget(times=1, per=timedelta(seconds=60)))
        async with run(store, permission, gate=CallbackGate(ask), clock=clock):
            first = asyncio.create_task(burn(1))
            while len(asked) < 1:
                await asyncio.sleep(0)
            clock.now += 61
            second = asyncio.create_task(burn(2))
            while len(asked) < 2:
                await asyncio.sleep(0)
            answer.set()
            return await asyncio.gather(first, second, return_exceptions=True)

    results = asyncio.run(main())
    denied = [one for one in results if isinstance(one, Denied)]
    assert [one.rule for one in denied] == ["permission.budget"]
    assert len(DONE) == 1


def test_a_call_within_a_question_takes_the_use_of_its_window():
    """The gate itself calls the tool; whoever runs first leaves no use to the other."""
    clock, store = Clock(), MemoryStore()
    inner: list[str] = []

    def ask(_: Any) -> bool:
        clock.now += 61
        if not inner:
            inner.append("")
            inner[0] = rule_of(burn_now, 2)
        return True

    permission = allow("wait.burn", budget(times=1, per=timedelta(seconds=60)))
    with run(store, permission, gate=CallbackGate(ask), clock=clock):
        assert rule_of(burn_now, 1) == "permission.budget"
    assert inner == [""]
    assert DONE == [2]


def test_an_answer_in_time_keeps_its_use():
    """The use that was held while a person was asked is used once, at the time of the answer."""
    clock, store = Clock(), MemoryStore()
    use = Use("g/0", 5, 1, 60.0)

    def ask(_: Any) -> bool:
        assert store.taken(use, clock.now) == 1
        clock.now += 50
        return True

    permission = allow("wait.burn", budget(times=5, per=timedelta(seconds=60)))
    with run(store, permission, gate=CallbackGate(ask), clock=clock):
        burn_now(1)
        assert store.taken(use, clock.now) == 1
        assert store.taken(use, clock.now + 59) == 1
        assert store.taken(use, clock.now + 61) == 0


# -- for a disk ------------------------------------------------------------------------------


class SlowLog(MemoryLog):
    """Posts a stop while the intent is made durable."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__()
        self.store = store

    def append(self, event: Mapping[str, Any]) -> None:
        super().append(event)
        if event["type"] == "call.allowed":
            self.store.post(orders.STOP_ALL)


def test_a_stop_that_comes_while_the_intent_is_written_is_read(monkeypatch: pytest.MonkeyPatch):
    """Before the body of what changes the world, a waiting store is read anew."""
    store = Slow()
    monkeypatch.setattr(orders, "FRESH_FOR", 0.0)
    permission = allow("wait.burn", preapproved("always"))
    with run(store, permission, log=SlowLog(store)):
        assert rule_of(burn_now, 1) == "run.stopped"
    assert DONE == []


# -- for a file ------------------------------------------------------------------------------


@reads("wait.file")
def size(file: BinaryIO, other: BinaryIO) -> int:
    DONE.extend([file, other])
    return len(file.read()) + len(other.read())


def test_a_file_that_cannot_be_opened_costs_nothing(tmp_path: Path):
    """It is opened before the use is spent; the error is that of open(), and in the log."""
    (tmp_path / "a").write_bytes(b"abc")
    store, log = MemoryStore(), MemoryLog()
    opened = opened_under(tmp_path)
    permission = allow("wait.file", budget(times=1), file=opened, other=opened)
    with run(store, permission, log=log):
        with pytest.raises(FileNotFoundError):
            size("a", "missing")
        assert log.of("call.outcome")[-1]["error"] == "FileNotFoundError"
        assert used(store, "g/0") == 0
        assert size("a", "a") == 6
    assert all(one.closed for one in DONE)
    assert [one["status"] for one in log.of("call.outcome")] == ["raised", "done"]

"""The stop switch, revocation, and clocks that go back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from checkrein import CallbackGate, Grant, Run, allow, irreversible, reads, writes
from checkrein import orders as notices
from checkrein.errors import Denied
from checkrein.store import MemoryStore
from support import Clock, MemoryLog, rule_of

DONE: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@reads("ord.look")
def look() -> int:
    return 1


@writes("ord.put")
def put(text: str) -> None:
    DONE.append(text)


@writes("ord.put")
async def aput(text: str) -> None:
    DONE.append(text)


@irreversible("ord.burn")
def burn(text: str) -> None:
    DONE.append(text)


@reads("ord.feed")
def feed() -> Iterator[int]:
    yield from range(100)


ALL = (allow("ord.look"), allow("ord.put"), allow("ord.burn"), allow("ord.feed"))


class Waiting(MemoryStore):
    """A store like one on a disk: it is read now and then, and counts how often."""

    waits = True

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def notices(self) -> frozenset[str]:
        self.reads += 1
        return super().notices()


def run(**more: Any) -> Run:
    return Run(**{"agent": "bot", "grant": Grant(*ALL, id="g"), "store": MemoryStore(), **more})


@pytest.fixture
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "FRESH_FOR", 0.0)


@pytest.mark.parametrize("kind", [MemoryStore, Waiting])
@pytest.mark.usefixtures("_always_fresh")
def test_each_notice_stops_what_it_names_until_it_is_withdrawn(kind: Any):
    """All, a tool, a resource, an agent, a run: and nothing beside it."""
    store = kind()
    with run(store=store) as active:
        for notice, stopped in (
            (notices.STOP_ALL, {"look", "put"}),
            (notices.stop_tool("put"), {"put"}),
            (notices.stop_resource("ord.look"), {"look"}),
            (notices.stop_agent("bot"), {"look", "put"}),
            (notices.stop_run(active.id), {"look", "put"}),
            (notices.stop_agent("other"), set()),
            (notices.stop_run("other"), set()),
            (notices.stop_tool("Put"), set()),
        ):
            store.post(notice, reason="test")
            seen = {"look": rule_of(look), "put": rule_of(put, "x")}
            assert seen == {name: "run.stopped" if name in stopped else "" for name in seen}, notice
            store.withdraw(notice)
            assert rule_of(look) == rule_of(put, "x") == ""


@pytest.mark.usefixtures("_always_fresh")
def test_a_child_run_obeys_what_stops_its_parent():
    """A run opened inside another is no way around a stop of the outer one."""
    store = MemoryStore()
    with run(store=store) as outer, run(agent="inner", store=MemoryStore()):
        assert rule_of(look) == ""
        store.post(notices.stop_run(outer.id))
        assert rule_of(look) == "run.stopped"
        store.withdraw(notices.stop_run(outer.id))
        store.post(notices.stop_agent("bot"))
        assert rule_of(look) == "run.stopped"


def test_what_is_read_of_a_store_is_relied_on_for_a_while_only():
    """The store is not asked at every call; after its time it is asked again."""
    store = Waiting()
    with run(store=store) as active:
        for _ in range(50):
            look()
        assert store.reads == 1
        active.orders._read_at -= notices.FRESH_FOR
        store.post(notices.STOP_ALL)
        assert rule_of(look) == "run.stopped"
        assert store.reads == 2
    assert notices.FRESH_FOR < 1


def test_two_runs_share_what_was_read():
    """A hundred runs on one store do not ask it a hundred times."""
    store = Waiting()
    for _ in range(5):
        with run(store=store):
            look()
    assert store.reads == 1


@pytest.mark.usefixtures("_always_fresh")
def test_a_store_that_cannot_be_read_stops_everything():
    """Whether somebody said stop is unknown: no."""

    class Broken(Waiting):
        def notices(self) -> frozenset[str]:
            raise OSError("gone")

    with run(store=Broken()):
        assert rule_of(look) == "run.stopped"


@pytest.mark.usefixtures("_always_fresh")
def test_a_stop_while_a_person_is_asked_wins_over_their_yes():
    """The second decision looks again."""
    store = Waiting()

    def ask(_: Any) -> bool:
        store.post(notices.STOP_ALL)
        return True

    with run(store=store, gate=CallbackGate(ask)):
        assert rule_of(burn, "x") == "run.stopped"
    assert DONE == []


@pytest.mark.usefixtures("_always_fresh")
def test_a_stream_ends_at_its_next_item():
    """A generator that is being read is not above the switch."""
    store = Waiting()
    with run(store=store):
        items = feed()
        assert [next(items), next(items)] == [0, 1]
        store.post(notices.stop_tool("feed"))
        with pytest.raises(Denied) as caught:
            next(items)
        assert caught.value.rule == "run.stopped"


@pytest.mark.usefixtures("_always_fresh")
def test_a_stop_reaches_async_tools_and_blocks_no_loop():
    """The store is read in a thread, never on the loop's."""
    store = Waiting()
    threads: set[int] = set()
    original = store.notices

    def spy() -> frozenset[str]:
        threads.add(threading.get_ident())
        return original()

    store.notices = spy  # type: ignore[method-assign]

    async def main() -> None:
        async with run(store=store):
            await aput("a")
            store.post(notices.STOP_ALL)
            with pytest.raises(Denied):
                await aput("b")
        assert threading.get_ident() not in threads

    asyncio.run(main())
    assert DONE == ["a"]
    assert threads


def test_a_stop_is_in_the_log():
    """Who reads the log sees which calls a stop has ended."""
    log, store = MemoryLog(), MemoryStore()
    with run(store=store, log=log):
        store.post(notices.stop_tool("put"))
        assert rule_of(put, "x") == "run.stopped"
    (denied,) = log.of("call.denied")
    assert denied["findings"] == [{"rule": "run.stopped", "argument": ""}]


# -- time ------------------------------------------------------------------------------------


def expiring(clock: Clock) -> Grant:
    return Grant(*ALL, expires_in=timedelta(seconds=60), clock=clock)


def test_a_clock_set_back_does_not_revive_a_grant():
    """Seen expired once, it stays so: in the run, and in every later one."""
    clock = Clock()
    grant = expiring(clock)
    with run(grant=grant, clock=clock):
        assert rule_of(look) == ""
        clock.now += 61
        assert rule_of(look) == "permission.expired"
        clock.now -= 3600
        assert rule_of(look) == "permission.expired"
    with run(grant=grant, clock=clock):
        assert rule_of(look) == "permission.expired"


def test_time_that_a_run_has_seen_counts_even_if_nothing_expired_then():
    """The latest time is what counts, not the last one that the clock told."""
    clock = Clock()
    with run(grant=expiring(clock), clock=clock):
        clock.now += 59
        assert rule_of(look) == ""
        clock.now -= 59
        clock.now += 1.5
        assert rule_of(look) == ""
        clock.now += 60
        assert rule_of(look) == "permission.expired"


def test_a_clock_that_stands_still_does_not_hold_a_grant(monkeypatch: pytest.MonkeyPatch):
    """Turning the clock back before the end is no way to stretch a run."""
    passed = [0.0]
    monkeypatch.setattr("checkrein.runs.time.monotonic", lambda: passed[0])
    clock = Clock()
    with run(grant=expiring(clock), clock=clock):
        clock.now -= 10_000
        assert rule_of(look) == ""
        passed[0] += 61
        assert rule_of(look) == "permission.expired"


def test_expiry_is_checked_again_after_the_answer():
    """A grant that ends while a person thinks is not good for their yes."""
    clock = Clock()

    def ask(_: Any) -> bool:
        clock.now += 61
        return True

    with run(grant=expiring(clock), clock=clock, gate=CallbackGate(ask)):
        assert rule_of(burn, "x") == "permission.expired"
    assert DONE == []

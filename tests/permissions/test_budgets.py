"""Budgets: counted in uses or in a cost, for ever or within a window, under any interleaving."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein import CallbackGate, Grant, Run, Untrusted, allow, budget, irreversible, writes
from checkrein.constraints import at_most, one_of
from checkrein.errors import ConfigurationError, Denied
from checkrein.store import MemoryStore
from support import Clock, rule_of, used

DONE: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@writes("bud.pay")
def pay(amount: float | Decimal, to: str = "shop") -> None:
    DONE.append(amount)


@writes("bud.pay")
async def apay(amount: int) -> None:
    await asyncio.sleep(0)
    DONE.append(amount)


@irreversible("bud.burn")
def burn(amount: int) -> None:
    DONE.append(amount)


@writes("bud.note")
def note(text: Untrusted[str]) -> None:
    DONE.append(text.reveal())


def run(*permissions: Any, **more: Any) -> Run:
    return Run(
        **{"agent": "t", "grant": Grant(*permissions, id="g"), "store": MemoryStore(), **more}
    )


# -- what a use costs ------------------------------------------------------------------------


def test_a_cost_is_taken_from_the_argument():
    """The sum of what calls cost stays within the budget, to the last unit."""
    with run(allow("bud.pay", budget(times=100, cost="amount"))):
        assert [rule_of(pay, one) for one in (60, 41, 40, 0, 1)] == [
            "",
            "permission.budget",
            "",
            "",
            "permission.budget",
        ]
    assert DONE == [60, 40, 0]


@pytest.mark.parametrize(
    "amount",
    [-1, -0.01, Decimal(-1), float("nan"), float("inf"), float("-inf"), Decimal("NaN")]
    + [Decimal("sNaN"), Decimal("Infinity"), 10**400, 1e308, Decimal("1e999999"), -(10**30)],
    ids=map(str, range(13)),
)
def test_what_is_no_cost_is_denied(amount: Any):
    """A negative amount must not refill a budget, nor may a strange number pass unseen."""
    with run(allow("bud.pay", budget(times=100, cost="amount"))) as active:
        assert rule_of(pay, amount) in {"permission.budget", "call.malformed"}
        assert used(active.store, "g/0") == 0
    assert DONE == []


def test_tenths_add_up_exactly():
    """Ten times a tenth is one: a budget is no sum of binary fractions."""
    with run(allow("bud.pay", budget(times=1, cost="amount"))):
        assert [rule_of(pay, 0.1) for _ in range(11)] == [""] * 10 + ["permission.budget"]


def test_what_is_too_small_to_count_costs_the_smallest_unit():
    """A cost below a millionth is rounded up, so that no number of calls is free."""
    with run(allow("bud.pay", budget(times=0.000002, cost="amount"))):
        tiny = Decimal("1e-30")
        assert [rule_of(pay, tiny) for _ in range(3)] == ["", "", "permission.budget"]


def test_several_budgets_must_all_have_room():
    """At most three payments, and at most 100 in all: whichever is reached first."""
    both = allow("bud.pay", budget(times=3), budget(times=100, cost="amount"))
    with run(both) as active:
        assert [rule_of(pay, one) for one in (90, 20, 5, 5, 0)] == [
            "",
            "permission.budget",
            "",
            "",
            "permission.budget",
        ]
        assert (used(active.store, "g/0"), used(active.store, "g/0.1")) == (3, 100_000_000)


def test_a_cost_that_the_tool_does_not_take_is_denied():
    """A budget over an argument that is not there must not count nothing."""
    with run(allow("bud.pay", budget(times=100, cost="amout"))):
        assert rule_of(pay, 1) == "permission.argument"


def test_a_cost_argument_is_mentioned_by_its_budget():
    """A closed permission need not constrain what its budget already bounds."""
    with run(allow("bud.pay", budget(times=100, cost="amount"), to=one_of(["shop"]))):
        assert rule_of(pay, 5) == ""
        assert rule_of(pay, 5, to="eve") == "permission.argument"


def test_a_text_is_no_cost_even_as_payload():
    """A number in untrusted text is not read as one."""
    with run(allow("bud.note", budget(times=100, cost="text"))):
        assert rule_of(note, "5") == "permission.budget"


@pytest.mark.parametrize(
    "make",
    [
        lambda: budget(times=-1),
        lambda: budget(times=True),
        lambda: budget(times=1.5),
        lambda: budget(times="5"),
        lambda: budget(times=float("nan"), cost="x"),
        lambda: budget(times=-0.5, cost="x"),
        lambda: budget(times=5, cost="not a name"),
        lambda: budget(times=5, cost=3),
        lambda: budget(times=5, per=0),
        lambda: budget(times=5, per=timedelta(0)),
        lambda: budget(times=5, per=timedelta(seconds=-1)),
        lambda: budget(times=1 << 63),
        lambda: budget(times=1e300, cost="x"),
    ],
    ids=map(str, range(13)),
)
def test_an_impossible_budget_is_an_error_where_it_is_written(make: Any):
    """A mistake surfaces in the grant, not in the middle of the night."""
    with pytest.raises(ConfigurationError):
        make()


# -- windows ---------------------------------------------------------------------------------


def test_a_window_slides():
    """Two uses within any ten seconds; at the border of two windows there are not four."""
    clock = Clock()
    with run(allow("bud.pay", budget(times=2, per=timedelta(seconds=10))), clock=clock):
        seen = []
        for second in (0, 9, 9.5, 10.5, 11, 19.1, 20.6):
            clock.now = 1_800_000_000.0 + second
            seen.append(rule_of(pay, 1))
    assert seen == ["", "", "permission.budget", "", "permission.budget", "", ""]


def test_a_clock_set_back_frees_no_window():
    """Who turns the clock back gets no second helping."""
    clock = Clock()
    with run(allow("bud.pay", budget(times=1, per=timedelta(hours=1))), clock=clock) as active:
        assert rule_of(pay, 1) == ""
        clock.now -= 86_400
        assert rule_of(pay, 1) == "permission.budget"
        store, grant = active.store, active.grant
    with Run(agent="t", grant=grant, store=store, clock=clock):
        assert rule_of(pay, 1) == "permission.budget"


@given(
    moves=st.lists(st.tuples(st.floats(-50, 50), st.integers(0, 5)), max_size=30),
    limit=st.integers(0, 12),
)
def test_no_window_ever_holds_more_than_its_limit(moves: list[tuple[float, int]], limit: int):
    """Whatever the clock does, the uses within a window cost no more than the budget."""
    DONE.clear()
    clock = Clock()
    times: list[tuple[float, int]] = []
    window = budget(times=limit, per=timedelta(seconds=60), cost="amount")
    latest = clock.now
    with run(allow("bud.pay", window), clock=clock):
        for step, cost in moves:
            clock.now += step
            if cost:  # who takes nothing has shown the run no time
                latest = max(latest, clock.now)
            if rule_of(pay, cost) == "":
                times.append((latest, cost))
    for moment, _ in times:
        assert sum(cost for at, cost in times if moment - 59.9 < at <= moment) <= limit


# -- interleavings ---------------------------------------------------------------------------


def test_32_threads_use_exactly_what_there_is():
    """However threads race, as many calls run as the budget has uses."""
    barrier = threading.Barrier(32)
    with run(allow("bud.pay", budget(times=100, cost="amount"))) as active:
        contexts = [copy_context() for _ in range(32)]

        def work(context: Any) -> int:
            barrier.wait()
            return sum(context.run(rule_of, pay, 3) == "" for _ in range(5))

        with ThreadPoolExecutor(32) as pool:
            ran = sum(pool.map(work, contexts))
        assert used(active.store, "g/0") == 99_000_000
    assert ran == len(DONE) == 33


async def _many(tool: Any, amount: int, count: int) -> list[str]:
    async def one() -> str:
        try:
            await tool(amount)
        except Denied as denied:
            return denied.rule
        return ""

    return await asyncio.gather(*(one() for _ in range(count)))


class SlowStore(MemoryStore):
    """A store that has to be waited for, so that drivers serve it in threads."""

    waits = True


@pytest.mark.parametrize("store", [MemoryStore, SlowStore])
def test_200_tasks_use_exactly_what_there_is(store: Any):
    """Tasks that all decide before any has run still share one budget."""

    async def main() -> list[str]:
        async with run(allow("bud.pay", budget(times=50)), store=store()):
            return await _many(apay, 1, 200)

    outcomes = asyncio.run(main())
    assert outcomes.count("") == len(DONE) == 50
    assert outcomes.count("permission.budget") == 150


def test_a_task_cancelled_while_the_store_is_waited_for_gives_back():
    """Whichever comes last, the cancellation or the reservation, the use is not lost."""
    started, go = threading.Event(), threading.Event()

    class Held(SlowStore):
        def reserve(self, uses: Any, now: float) -> str | None:
            started.set()
            assert go.wait(10)
            return super().reserve(uses, now)

    store = Held()

    async def main() -> None:
        async with run(allow("bud.pay", budget(times=1)), store=store):
            task = asyncio.create_task(apay(1))
            assert await asyncio.to_thread(started.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            for _ in range(1000):  # the thread of the reservation ends on its own
                if used(store, "g/0") == 0:
                    break
                await asyncio.sleep(0.01)
            await apay(1)

    asyncio.run(main())
    assert DONE == [1]


@pytest.mark.parametrize("answer", [False, True])
def test_a_cost_is_held_while_a_person_thinks(answer: bool):
    """While one call waits, another cannot use the same units; a no gives them back."""
    inner: list[str] = []

    def ask(confirmation: Any) -> bool:
        if not inner:
            inner.append("asked")
            inner.append(rule_of(burn, 60))
        return answer

    limit = allow("bud.burn", budget(times=100, cost="amount"), amount=at_most(90))
    with run(limit, gate=CallbackGate(ask)) as active:
        first = rule_of(burn, 50)
        assert inner == ["asked", "permission.budget"]
        assert first == ("" if answer else "gate.denied")
        assert used(active.store, "g/0") == (50_000_000 if answer else 0)


def test_an_alternative_with_room_is_taken_before_one_without():
    """Two permissions for one resource: the second serves when the first is used up."""
    first = allow("bud.pay", budget(times=1), to=one_of(["shop", "bank"]), amount=at_most(100))
    second = allow("bud.pay", budget(times=1), to=one_of(["shop"]), amount=at_most(10))
    with run(first, second):
        assert [rule_of(pay, 5) for _ in range(3)] == ["", "", "permission.budget"]

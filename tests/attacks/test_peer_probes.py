"""What gets past other libraries' permissions, each tried here; the letters are the probes' ids."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from checkrein import CallbackGate, Grant, Run, allow, budget, irreversible, others, reads, writes
from checkrein.constraints import (
    anything,
    at_most,
    between,
    exactly,
    host,
    keys,
    matches,
    one_of,
    under,
    where,
)
from checkrein.errors import CheckreinError, ConfigurationError, Denied, MisuseError
from checkrein.store import MemoryStore
from support import Clock, MemoryLog, rule_of

DONE: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@writes("peer.pay")
def pay(to: str, amount: int = 5000) -> None:
    DONE.append((to, amount))


@writes("peer.pay")
async def apay(to: str, amount: int) -> None:
    DONE.append((to, amount))


@reads("peer.any")
def anyone(arg: Any) -> int:
    DONE.append(arg)
    return 1


@writes("peer.more")
def more(to: str, **extra: Any) -> None:
    DONE.append((to, extra))


@reads("peer.rows")
def rows(count: int) -> Iterator[int]:
    DONE.append("begun")
    yield from range(count)


def run(*permissions: Any, **other: Any) -> Run:
    return Run(**{"agent": "t", "grant": Grant(*permissions), "store": MemoryStore(), **other})


SMALL = allow("peer.pay", to=exactly("shop"), amount=at_most(100))


def test_b02_b14_without_a_run_or_in_a_bare_thread_nothing_runs():
    """No active run, no call, wherever the code runs."""
    seen = [rule_of(pay, "shop", 1)]
    with run(SMALL):
        thread = threading.Thread(target=lambda: seen.append(rule_of(pay, "shop", 1)))
        thread.start()
        thread.join()
    assert seen == ["run.none", "run.none"]
    assert DONE == []


def test_b33b_a_bare_thread_that_opens_a_run_has_only_its_own_grant():
    """Opening a run in a new thread gives what its grant says, not what another thread has."""
    seen: list[str] = []

    def work() -> None:
        with run():
            seen.append(rule_of(pay, "shop", 1))

    with run(SMALL):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert seen == ["permission.missing"]


def test_b03_b04_b07_every_way_to_pass_an_argument_is_seen():
    """Positional, by name, left at a default that is too much, and left out."""
    with run(SMALL):
        assert rule_of(pay, "shop", 9999) == "permission.argument"
        assert rule_of(pay, to="shop", amount=9999) == "permission.argument"
        assert rule_of(pay, amount=9999, to="shop") == "permission.argument"
        assert rule_of(pay, "shop") == "permission.argument"
        with pytest.raises(MisuseError):
            pay(amount=1)
        with pytest.raises(MisuseError):
            pay("shop", 1, amount=2)
        with pytest.raises(MisuseError):
            pay("shop", 1, note="x")
    assert DONE == []


def test_b05_an_argument_that_is_not_listed_is_denied():
    """Extra keywords are arguments like any other."""
    with run(allow("peer.more", to=exactly("shop"))):
        assert rule_of(more, "shop", admin=True) == "permission.argument"
        assert rule_of(more, "shop") == ""
    with run(allow("peer.more", others(anything), to=exactly("shop"))):
        assert rule_of(more, "shop", admin=True) == ""


class Inner(BaseModel):
    path: str


class Outer(BaseModel):
    inner: Inner
    name: str = "x"


@dataclass
class Box:
    path: str


@reads("peer.model")
def model(arg: Outer) -> str:
    return arg.inner.path


@reads("peer.box")
def box(arg: Box) -> str:
    return arg.path


def test_b06_x05_what_is_nested_is_judged(tmp_path: Path):
    """A path in a model in a model, in a dataclass, in a dict: all of it meets its constraint."""
    inside = keys({"path": under(tmp_path)})
    with run(
        allow("peer.model", arg=keys({"inner": inside, "name": exactly("x")})),
        allow("peer.box", arg=inside),
        allow("peer.any", arg=inside),
    ):
        assert model(Outer(inner=Inner(path="a"))) == os.path.join(os.path.realpath(tmp_path), "a")
        assert rule_of(model, Outer(inner=Inner(path="/etc/passwd"))) == "permission.argument"
        assert rule_of(model, Outer(inner=Inner(path="a"), name="y")) == "permission.argument"
        assert box(Box("a")).startswith("/")
        assert rule_of(box, Box("../../etc/passwd")) == "permission.argument"
        assert rule_of(anyone, {"path": "a"}) == ""
        assert rule_of(anyone, {"path": "/etc/passwd"}) == "permission.argument"
        assert rule_of(anyone, {"path": "a", "mode": "w"}) == "permission.argument"
        assert rule_of(anyone, {}) == "permission.argument"


def test_b08_there_is_no_wrapped_function_to_reach():
    """Frameworks that unwrap a function find the guard."""
    import inspect

    assert not hasattr(pay, "__wrapped__")
    assert inspect.unwrap(pay) is pay


def test_b10b_what_was_checked_is_what_is_opened(tmp_path: Path, monkeypatch: Any):
    """A relative path is checked and used against one and the same root."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "x").write_text("inside")
    (tmp_path / "x").write_text("outside")
    monkeypatch.chdir(tmp_path)

    @reads("peer.read")
    def read(path: str) -> str:
        with open(path, encoding="utf-8") as file:
            return file.read()

    with run(allow("peer.read", path=under("root"))):
        assert read("x") == "inside"


def test_b11_what_changes_after_the_question_does_not_run():
    """An approver's, or the agent's, later change of a list reaches no body."""
    items = ["a"]

    @irreversible("peer.burn")
    def burn(what: list[str]) -> None:
        DONE.append(what)

    def ask(_: Any) -> bool:
        items.append("everything")
        return True

    with run(allow("peer.burn"), gate=CallbackGate(ask)):
        burn(items)
    assert DONE == [["a"]]


def test_b12_b13_a_cap_holds_under_tasks_and_threads():
    """Twenty tasks and one use; 32 threads and fifty uses."""

    async def main() -> int:
        async with run(allow("peer.pay", budget(times=1))):
            tasks = [apay("shop", n) for n in range(20)]
            results = await asyncio.gather(*tasks, return_exceptions=True)
        return sum(one is None for one in results)

    assert asyncio.run(main()) == 1
    with run(allow("peer.pay", budget(times=50))):
        contexts = [copy_context() for _ in range(32)]
        with ThreadPoolExecutor(32) as pool:
            ran = pool.map(
                lambda one: sum(one.run(rule_of, pay, "shop", 1) == "" for _ in range(5)), contexts
            )
            assert sum(ran) == 50


def test_b15_policies_of_two_runs_do_not_mix():
    """Two threads, two runs, two grants: neither changes the other's."""
    barrier = threading.Barrier(2)

    def work(permission: Any) -> str:
        with run(permission):
            barrier.wait(10)
            return rule_of(pay, "shop", 50)

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(work, [SMALL, allow("peer.pay", amount=at_most(1))]))
    assert outcomes == ["", "permission.argument"]


def test_b17_an_async_tool_is_denied_before_its_body():
    """Awaiting the coroutine is what decides."""

    async def main() -> None:
        async with run(SMALL):
            with pytest.raises(Denied):
                await apay("eve", 1)

    asyncio.run(main())
    assert DONE == []


def test_b18_x09_a_generator_does_not_outlive_its_run():
    """The body begins with the first item, and the run must be open then and later."""
    with run(allow("peer.rows")):
        before = rows(3)
        begun = rows(3)
        assert next(begun) == 0
    for stream, rule in ((before, "run.none"), (begun, "run.closed")):
        with pytest.raises(Denied) as caught:
            next(stream)
        assert caught.value.rule == rule
    assert DONE == ["begun"]


def test_x09_a_body_cannot_hand_its_work_out():
    """A plain tool that returns a generator or a coroutine would act after its call is over."""

    @reads("peer.late")
    def late() -> Any:
        return (DONE.append(one) for one in "abc")

    with run(allow("peer.late")), pytest.raises(MisuseError):
        late()
    assert DONE == []


def test_b19_a_denial_holds_no_value():
    """Neither message nor attributes quote an argument."""
    log = MemoryLog()
    with run(SMALL, log=log):
        for call in (lambda: pay("hunter2-secret", 1), lambda: pay("shop", 987654321)):
            with pytest.raises(Denied) as caught:
                call()
            shown = f"{caught.value!r} {caught.value} {vars(caught.value)}"
            assert "hunter2" not in shown
            assert "987654321" not in shown


def test_b28_a_denied_call_burns_no_budget():
    """A model that tries wrong arguments cannot use up the right ones."""
    with run(allow("peer.pay", budget(times=1), to=exactly("shop"), amount=at_most(100))):
        for _ in range(10):
            assert rule_of(pay, "eve", 1) == "permission.argument"
        assert rule_of(pay, "shop", 1) == ""


def test_b33_b33c_no_grant_is_no_permission_and_a_run_inside_cannot_widen():
    """An empty grant denies, and a child of a small one stays small."""
    with run():
        assert rule_of(pay, "shop", 1) == "permission.missing"
        with run(allow("peer.**"), allow("peer.pay")):
            assert rule_of(pay, "shop", 1) == "permission.missing"
    with run(SMALL), run(allow("peer.pay")):
        assert rule_of(pay, "shop", 101) == "permission.argument"
        assert rule_of(pay, "shop", 100) == ""


@pytest.mark.parametrize("resource", ["Peer.pay", "peer.Pay", "peer.pa", "peer.payx", "peer"])
def test_e01_e16_names_are_compared_letter_by_letter(resource: str):
    """No case folding, no prefixes."""
    with run(allow(resource)):
        assert rule_of(pay, "shop", 1) == "permission.missing"


def test_e17_a_caller_cannot_say_what_the_call_is():
    """Effect and resource are the decorator's; an argument that claims otherwise is an argument."""

    @writes("peer.act")
    def act(action: Any) -> None:
        DONE.append(action)

    with run(allow("peer.*")):
        assert rule_of(act, {"type": "reads", "resource": "peer.any"}) == "permission.missing"


def test_e19_a_check_that_fails_has_not_said_yes():
    """An error in a constraint, of any kind, is a no."""

    def overflow(value: Any) -> bool:
        return float(value) < 100

    for bad in (lambda value: 1 / 0, overflow, lambda value: "yes", lambda value: 1):
        with run(allow("peer.any", arg=where(bad, name="bad"))):
            assert rule_of(anyone, 10**400) == "permission.argument"


class Sly(str):
    """A text that says yes to everything."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("read")

    def startswith(self, *_: Any) -> bool:
        return True

    def __fspath__(self) -> str:
        return "/etc/passwd"


@pytest.mark.parametrize(
    "constraint",
    [one_of(["read"]), exactly("read"), matches("[a-z]{3}"), under("/srv"), host("good.com")],
    ids=["one_of", "exactly", "matches", "under", "host"],
)
def test_x07_a_text_with_its_own_mind_is_refused(constraint: Any):
    """A subclass of str never meets a constraint as such."""
    with run(allow("peer.any", arg=constraint)):
        assert rule_of(anyone, Sly("evil")) != ""
    assert DONE == []


def test_x11_an_interrupted_body_has_an_outcome_in_the_log():
    """KeyboardInterrupt in the middle leaves the call in doubt, and says so."""
    log = MemoryLog()

    @writes("peer.stuck")
    def stuck() -> None:
        raise KeyboardInterrupt

    with run(allow("peer.stuck"), log=log), pytest.raises(KeyboardInterrupt):
        stuck()
    assert [one["status"] for one in log.of("call.outcome")] == ["in doubt"]


def test_x13_a_denied_inner_call_does_not_leak_the_outer_grant():
    """What is allowed outside is no leave for what a body calls."""

    @writes("peer.outer")
    def outer(to: str) -> None:
        pay(to, 1)

    with run(allow("peer.outer"), SMALL):
        assert rule_of(outer, "eve") == "permission.argument"
        assert rule_of(pay, "eve", 1) == "permission.argument"
        outer("shop")
    assert DONE == [("shop", 1)]


@pytest.mark.parametrize("when", [float("nan"), "2030-01-01", 1.5, True], ids=str)
def test_x17_an_expiry_that_is_no_time_is_refused(when: Any):
    """A grant must not be good for ever because its end was misspelt."""
    with pytest.raises(ConfigurationError):
        Grant(SMALL, expires_at=when)
    with pytest.raises(ConfigurationError):
        Grant(SMALL, expires_in=when)


def test_b29_an_expired_grant_is_denied():
    """At its end, not a moment later."""
    clock = Clock()
    grant = Grant(SMALL, expires_in=timedelta(seconds=10), clock=clock)
    with run(grant=grant, clock=clock):
        assert rule_of(pay, "shop", 1) == ""
        clock.now += 10
        assert rule_of(pay, "shop", 1) == "permission.expired"


def test_x25_what_a_constraint_makes_of_a_value_is_of_the_tools_type():
    """A constraint of one's own cannot smuggle another type past the annotation."""

    class Doubling:
        pins = False

        def normalise(self, value: Any) -> Any:
            return value if isinstance(value, str) else str(value)

    with run(allow("peer.pay", to=exactly("shop"), amount=Doubling())):
        assert rule_of(pay, "shop", 5) == "permission.argument"
    assert DONE == []


PROBES: dict[str, tuple[Any, dict[Any, bool]]] = {
    "between": (
        between(1, 100),
        {
            50: True,
            float("nan"): False,
            True: False,
            "1e9": False,
            float("-inf"): False,
            None: False,
            10**400: False,
            100.0000001: False,
            "50": False,
            -5: False,
        },
    ),
    "matches": (
        matches("[a-z]{3}"),
        {"abc": True, "abc\n": False, "abc\nDROP": False, "\u0430bc": False, ("abc",): False}
        | {"ABC": False, "abcd": False, "": False, "ab\u200b": False, b"abc": False},
    ),
    "one_of": (
        one_of(["read", "list"]),
        {"read": True, "list": True, "read ": False, ("read",): False, "READ": False}
        | {"re\u200bad": False, "\uff52ead": False, None: False, b"read": False},
    ),
    "host": (
        host("good.com"),
        {
            "https://good.com/x": True,
            "https://good.com:pw@evil.com/": False,
            "https://good.com@evil.com/": False,
            "https://good.com.evil.com/": False,
            "https://good.com\\@evil.com/": False,
            "https://evil.com#https://good.com/": False,
            "https://evil.com/?https://good.com/": False,
            "https://g\u043e\u043ed.com/": False,
            "https://good.com\n.evil.com/": False,
            "https://evil.com/https://good.com/": False,
            "https://[::ffff:169.254.169.254]/": False,
            "https://2130706433/": False,
            "https://0x7f.1/": False,
            "not a url at all": False,
            "http://good.com/": False,
            "https:good.com": False,
            "https:///good.com": False,
            "https://good.com:22/": False,
            "https://good.com%2eevil.com/": False,
            "https://xn--good-com.evil.com/": False,
            "javascript://good.com/%0aalert(1)": False,
            "https://\tgood.com/": False,
        },
    ),
}


@pytest.mark.parametrize("name", PROBES)
def test_4a_the_value_probes_hold(name: str):
    """Numbers, patterns, enumerations and URLs that got past at least one peer."""
    constraint, values = PROBES[name]
    with run(allow("peer.any", arg=constraint)):
        for value, wanted in values.items():
            allowed = False
            try:
                allowed = anyone(value) == 1
            except CheckreinError:
                pass
            assert allowed == wanted, repr(value)


def test_4a_the_path_probes_hold(tmp_path: Path):
    """Paths that got past at least one peer, and those that must pass."""
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "data-evil").mkdir()
    (root / "a.txt").write_text("a")
    (tmp_path / "secret.txt").write_text("s")
    (root / "uplink").symlink_to(tmp_path)
    (root / "filelink").symlink_to(tmp_path / "secret.txt")
    (root / "loop").symlink_to(root / "loop")
    base = str(root)
    good = [f"{base}/a.txt", "a.txt", "./a.txt", "sub/../a.txt", f"{base}/new.txt"]
    bad: list[Any] = [
        f"{base}/sub/../../secret.txt",
        f"{base}/uplink/secret.txt",
        f"{base}/filelink",
        f"{base}/./../data-evil/x",
        f"{base}-evil/x",
        f"{base}/a.txt\x00.png",
        f"{base}/%2e%2e/secret.txt",
        f"{base}/%252e%252e/secret.txt",
        "~/../etc/passwd",
        "~root/x",
        base.upper() + "/a.txt",
        f"file://{base}/../secret.txt",
        f"file:{base}/a.txt",
        [f"{base}/a.txt", "/etc/passwd"],
        None,
        "",
        "/etc/passwd",
        "..",
        "../secret.txt",
        f"{base}/\uff0e\uff0e/secret.txt",
        f"{base}/a.txt\n",
        f"{base}\\..\\secret.txt",
        "..\\secret.txt",
        base,
        f"{base}/",
        "/proc/self/root/etc/passwd",
        "/dev/fd/0",
        0,
        b"a.txt",
    ]
    with run(allow("peer.any", arg=under(root))):
        assert [rule_of(anyone, path) for path in good] == [""] * len(good)
        real = os.path.realpath(root)
        assert all(path.startswith(f"{real}/") for path in DONE)
        for path in bad:
            assert rule_of(anyone, path) != "", repr(path)

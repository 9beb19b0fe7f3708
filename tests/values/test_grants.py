"""Attacks on grants: what wildcards, chains, budgets and times let through."""

from __future__ import annotations

import contextvars
import threading
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from checkrein import (
    CallbackGate,
    Grant,
    Run,
    Untrusted,
    allow,
    budget,
    effects,
    injected,
    irreversible,
    others,
    preapproved,
    reads,
    writes,
)
from checkrein.constraints import (
    anything,
    between,
    email,
    email_domain,
    exactly,
    host,
    matches,
    one_of,
    under,
)
from checkrein.errors import ConfigurationError, Denied
from checkrein.store import MemoryStore
from support import Asked, Clock, MemoryLog, used
from values.leaks import each

GOT: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_got() -> None:
    GOT.clear()


def run(*permissions: Any, **more: Any) -> Run:
    grant = more.pop("grant", None) or Grant(*permissions)
    return Run(**{"agent": "tester", "grant": grant, **more})


def rule_of(active: Run, tool: Any, **arguments: Any) -> str:
    """Return the id of the strongest finding about a call, ``""`` if it is allowed."""
    decision = active.explain(tool, **arguments)
    return decision.findings[0].rule if decision.findings else ""


# -- wildcards -------------------------------------------------------------------------------


def tools_at(resource: str) -> dict[str, Any]:
    """One tool of each kind at *resource*."""

    def act(x: str = "") -> int:
        GOT.append(x)
        return 1

    return {
        "reads": reads(resource)(act),
        "private": reads(resource, private=True)(act),
        "external reads": reads(resource, external=True)(act),
        "writes": writes(resource)(act),
        "external writes": writes(resource, external=True)(act),
        "irreversible": irreversible(resource)(act),
        "external irreversible": irreversible(resource, external=True)(act),
    }


SEGMENTS = st.sampled_from(["a", "b", "c"])
RESOURCES = st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.builds(
    lambda parts, end: ".".join([*parts, end] if end else parts),
    st.lists(SEGMENTS | st.just("*"), min_size=1, max_size=4),
    st.sampled_from(["", "*", "**"]),
).filter(lambda one: "*" in one)


def fits(pattern: list[str], name: list[str]) -> bool:
    """The meaning of * and **, written once more, another way."""
    if pattern == ["**"]:
        return len(name) >= 1
    if not pattern or not name:
        return not pattern and not name
    return pattern[0] in {"*", name[0]} and fits(pattern[1:], name[1:])


@given(pattern=PATTERNS | st.just("**") | st.just("*"), resource=RESOURCES)
def test_a_wildcard_covers_inside_reads_that_fit_and_nothing_else(pattern: str, resource: str):
    """* is one segment, ** at the end one or more; no effect but reading, nothing from outside."""
    expected = fits(pattern.split("."), resource.split("."))
    with run(allow(pattern)) as active:
        for kind, tool in tools_at(resource).items():
            covered = rule_of(active, tool) != "permission.missing"
            assert covered == (expected and kind in {"reads", "private"})


@given(
    pattern=PATTERNS | st.just("**"),
    resource=RESOURCES,
    named=st.sets(st.sampled_from(["reads", "writes", "irreversible"]), min_size=1),
)
def test_effects_opens_a_wildcard_for_what_it_names(pattern: str, resource: str, named: set[str]):
    """A wildcard with effects() covers those effects; reads from outside never."""
    expected = fits(pattern.split("."), resource.split("."))
    with run(allow(pattern, effects(*named))) as active:
        for kind, tool in tools_at(resource).items():
            covered = rule_of(active, tool) != "permission.missing"
            effect = {"private": "reads"}.get(kind, kind.removeprefix("external "))
            assert covered == (expected and effect in named and kind != "external reads")


@given(name=RESOURCES, resource=RESOURCES)
def test_a_full_name_covers_just_that_resource(name: str, resource: str):
    """No prefix, no child, no parent."""
    with run(allow(name)) as active:
        for tool in tools_at(resource).values():
            assert (rule_of(active, tool) == "permission.missing") == (name != resource)


@pytest.mark.parametrize(
    "resource",
    each(
        [
            "",
            ".",
            "..",
            "a.",
            ".a",
            "a..b",
            "a b",
            " a",
            "a ",
            "a\n",
            "a.b\n",
            "a/b",
            "a.**.b",
            "**.a",
            "a*",
            "*a",
            "a.b*",
            "***",
            "a.***",
            "* ",
            "*.",
            "**.",
            "a.*b.c",
            "a.{b}",
            "a.[bc]",
            "a.?",
            "a|b",
            "a.#",
            "\u00e4",
            "a.\u0430",
            "-a",
            "a.-b",
            "a,b",
            "a:b",
            "a\x00",
            "a.\u200bb",
            "*\u200b",
            "\uff0a",
            None,
            7,
            b"a",
            ["a"],
            ("a", "b"),
        ]
    ),
)
def test_impossible_resources_are_refused(resource: Any):
    """What can name nothing, or could be read in two ways, is a configuration error."""
    with pytest.raises(ConfigurationError):
        allow(resource)


def test_case_and_look_alikes_are_other_resources():
    """Resources are compared letter by letter."""
    with run(allow("vgrant.Mail")) as active:
        assert rule_of(active, tools_at("vgrant.mail")["reads"]) == "permission.missing"
        assert rule_of(active, tools_at("vgrant.Mail")["reads"]) == ""


@pytest.mark.parametrize(
    "make",
    each(
        [
            lambda: allow("a", 5),
            lambda: allow("a", "b"),
            lambda: allow("a", one_of(["x"])),
            lambda: allow("a", effects("reads"), effects("writes")),
            lambda: allow("a", others("x")),
            lambda: budget(times=-1),
            lambda: budget(times=True),
            lambda: budget(times=1.0),
            lambda: budget(times="1"),
            effects,
            lambda: effects("read"),
            lambda: effects("reads", "all"),
            lambda: effects("*"),
            lambda: preapproved("never"),
            lambda: preapproved(True),
            lambda: Grant("a"),
            lambda: Grant(allow),
            lambda: Grant(allow("a"), expires_in=timedelta(0)),
            lambda: Grant(allow("a"), expires_in=60),
            lambda: Grant(allow("a"), expires_in=timedelta(seconds=-1)),
            lambda: Grant(allow("a"), expires_at=datetime(2030, 1, 1)),
            lambda: Grant(allow("a"), expires_at=1.0),
            lambda: Grant(allow("a"), expires_at="2030-01-01"),
            lambda: Grant(allow("a"), not_before=float("nan")),
            lambda: Grant(
                allow("a"), expires_at=datetime(2030, 1, 1, tzinfo=UTC), expires_in=timedelta(1)
            ),
        ]
    ),
)
def test_a_grant_set_up_wrongly_says_so(make: Any):
    """Mistakes surface where the grant is written, not when a call goes through."""
    with pytest.raises(ConfigurationError):
        make()


# -- constraints in a permission -------------------------------------------------------------


@reads("vgrant.closed")
def closed(a: str, b: str = "b", *rest: str, c: int = 3, **more: str) -> int:
    GOT.append((a, b, rest, c, more))
    return 1


@pytest.mark.parametrize(
    ("permission", "args", "kwargs", "allowed"),
    [
        (allow("vgrant.closed"), ("x", "y", "z"), {"c": 9, "k": "v"}, True),
        (allow("vgrant.closed", a=one_of(["x"])), ("x",), {}, True),
        (allow("vgrant.closed", a=one_of(["x"])), ("x", "b"), {"c": 3}, True),
        (allow("vgrant.closed", a=one_of(["x"])), ("x", "y"), {}, False),
        (allow("vgrant.closed", a=one_of(["x"])), ("x",), {"c": 4}, False),
        (allow("vgrant.closed", a=one_of(["x"])), ("x", "b", "z"), {}, False),
        (allow("vgrant.closed", a=one_of(["x"])), ("x",), {"k": "v"}, False),
        (
            allow("vgrant.closed", others(anything), a=one_of(["x"])),
            ("x", "y", "z"),
            {"k": "v"},
            True,
        ),
        (allow("vgrant.closed", others(one_of(["x"])), a=one_of(["x"])), ("x",), {}, False),
        (allow("vgrant.closed", others(anything)), ("x", "y"), {"c": 9}, True),
        (allow("vgrant.closed", c=between(1, 2)), ("x",), {"c": 1}, False),
        (allow("vgrant.closed", a=anything, c=between(1, 2)), ("x",), {}, False),
        (allow("vgrant.closed", a=anything, c=between(1, 3)), ("x",), {}, True),
        (allow("vgrant.closed", a=anything, b=exactly("q")), ("x",), {}, False),
        (allow("vgrant.closed", a=anything, nosuch=anything), ("x",), {}, False),
        (allow("vgrant.closed", nosuch=one_of(["x"])), ("x",), {}, False),
    ],
)
def test_a_permission_is_a_closed_world(permission: Any, args: Any, kwargs: Any, allowed: bool):
    """Once one argument is constrained, every other that is no default has to be mentioned."""
    with run(permission):
        if allowed:
            closed(*args, **kwargs)
        else:
            with pytest.raises(Denied) as caught:
                closed(*args, **kwargs)
            assert caught.value.rule == "permission.argument"
    assert bool(GOT) is allowed


def test_payload_needs_no_mention_but_a_constraint_on_it_counts():
    """Untrusted parameters are outside the closed world, and may be constrained all the same."""

    @writes("vgrant.payload")
    def keep(path: str, body: Untrusted[str]) -> None:
        GOT.append(path)

    with run(allow("vgrant.payload", path=one_of(["p"]))):
        keep("p", "anything at all")
    with run(allow("vgrant.payload", path=one_of(["p"]), body=matches("[a-z]+"))):
        keep("p", "abc")
        with pytest.raises(Denied):
            keep("p", "not this")
    assert GOT == ["p", "p"]


def test_a_constraint_on_an_injected_parameter_is_not_ignored():
    """What the guard cannot check it must not appear to check: refused, or enforced."""

    @reads("vgrant.injected")
    def query(user: Annotated[str, injected], text: str) -> int:
        GOT.append(user)
        return 1

    try:
        with run(allow("vgrant.injected", user=exactly("u1"), text=anything)):
            query("u2", "x")
    except (Denied, ConfigurationError):
        pass
    assert GOT == []


def test_a_constraint_written_for_one_tool_of_a_resource_does_not_open_another():
    """A tool at the same resource without that parameter is denied, not let through unseen."""

    @reads("vgrant.closed")
    def other(everything: str) -> int:
        GOT.append(everything)
        return 1

    with run(allow("vgrant.closed", a=one_of(["x"]))), pytest.raises(Denied) as caught:
        other("all")
    assert caught.value.rule == "permission.argument"


def test_alternatives_do_not_mix():
    """Two permissions for one resource allow what either allows, not the product of both."""

    @reads("vgrant.mix")
    def move(source: str, target: str) -> int:
        GOT.append((source, target))
        return 1

    with run(
        allow("vgrant.mix", source=exactly("a"), target=exactly("b")),
        allow("vgrant.mix", source=exactly("c"), target=exactly("d")),
    ):
        move("a", "b")
        move("c", "d")
        for pair in (("a", "d"), ("c", "b")):
            with pytest.raises(Denied):
                move(*pair)
    assert GOT == [("a", "b"), ("c", "d")]


def test_an_alternative_with_uses_left_admits_the_call():
    """Permissions are alternatives: one whose budget is used up does not block another."""
    with run(allow("vgrant.closed", budget(times=1)), allow("vgrant.closed", a=exactly("x"))):
        closed("x")
        closed("x")
    assert len(GOT) == 2


# -- stacked decorators ----------------------------------------------------------------------


@reads("vgrant.stack.one")
@writes("vgrant.stack.two")
@irreversible("vgrant.stack.three", external=True)
def stacked(x: str) -> None:
    GOT.append(x)


NAMES = ("vgrant.stack.one", "vgrant.stack.two", "vgrant.stack.three")


@pytest.mark.parametrize("held", each([(), NAMES[:1], NAMES[1:], NAMES[::2], NAMES[:2], NAMES]))
def test_every_claim_needs_its_permission(held: tuple[str, ...]):
    """Two of three resources are not enough, in whatever order."""
    asked = Asked()
    with run(*(allow(name) for name in held), gate=asked.gate):
        if held == NAMES:
            stacked("x")
        else:
            with pytest.raises(Denied) as caught:
                stacked("x")
            assert caught.value.rule == "permission.missing"
    assert len(GOT) == (held == NAMES)


def test_every_claims_constraints_hold_for_the_value_that_runs():
    """What the permission of one claim makes of a value, that of the other has to allow as well."""

    @reads("vgrant.pair.a")
    @reads("vgrant.pair.b")
    def fetch(name: str) -> int:
        GOT.append(name)
        return 1

    for first, second in (("a", "b"), ("b", "a")):
        with run(
            allow(f"vgrant.pair.{first}", name=matches("[a-z]+")),
            allow(f"vgrant.pair.{second}", name=under("/etc")),
        ):
            try:
                fetch("passwd")
            except Denied:
                continue
    assert [one for one in GOT if not one.isalpha()] == []


def test_one_call_uses_one_permission_once():
    """A permission that covers two claims of one tool is used once by one call."""

    @reads("vgrant.twice.a")
    @reads("vgrant.twice.b")
    def fetch() -> int:
        GOT.append(1)
        return 1

    with run(allow("vgrant.twice.*", budget(times=1))):
        fetch()
        with pytest.raises(Denied):
            fetch()
    assert GOT == [1]


# -- chains ----------------------------------------------------------------------------------


@reads("vgrant.chain.a")
def chain_a(value: Any) -> int:
    GOT.append(value)
    return 1


@reads("vgrant.chain.b")
def chain_b(value: Any) -> int:
    GOT.append(value)
    return 1


CONSTRAINTS = st.sampled_from(
    [
        anything,
        one_of(["a", "x", 1]),
        exactly("a"),
        between(0, 5),
        matches("[a-z]+"),
        matches("[a-z/]+"),
        under("/a"),
        under("/"),
        under("/a/b"),
        email("Dana@acme.com"),
        email("dana@ACME.com"),
        email_domain("acme.com"),
        one_of(["Dana@acme.com", "DANA@acme.com"]),
        host("acme.com"),
        matches("[A-Z:/.a-z]+"),
        matches("[A-Za-z]+@[A-Z.]+"),
    ]
)
PERMISSIONS = st.builds(
    lambda resource, constraint, limit: allow(
        resource,
        *([budget(times=limit)] if limit else []),
        **({"value": constraint} if constraint else {}),
    ),
    st.sampled_from(["vgrant.chain.a", "vgrant.chain.*", "vgrant.**", "vgrant.chain.b"]),
    st.none() | CONSTRAINTS | CONSTRAINTS | CONSTRAINTS,
    st.sampled_from([0, 0, 0, 1]),
)
GRANTS = st.lists(PERMISSIONS, min_size=1, max_size=3).map(lambda several: Grant(*several))
VALUES = st.sampled_from(
    [
        "a",
        "b",
        "x",
        "",
        1,
        3,
        9,
        "/a/b",
        "/a/b/c",
        "b/c",
        "/etc",
        "dana@acme.com",
        "DANA@ACME.COM",
        "https://acme.com/",
        "HTTPS://ACME.COM/x",
        "../a",
    ]
)


@example(
    parents=[Grant(allow("vgrant.chain.a", value=matches("[a-z]+")))],
    child=Grant(allow("vgrant.chain.a", value=under("/a"))),
    value="b",
)
@given(parents=st.lists(GRANTS, min_size=1, max_size=2), child=GRANTS, value=VALUES)
def test_a_child_run_never_does_what_a_grant_above_it_denies(
    parents: list[Grant], child: Grant, value: Any
):
    """What reaches a body in a run inside runs, each grant above allows for itself, as it is."""
    for tool in (chain_a, chain_b):
        GOT.clear()
        opened = [run(grant=one, store=MemoryStore()) for one in [*parents, child]]
        for one in opened:
            one.__enter__()
        try:
            tool(value)
        except Denied:
            pass
        finally:
            for one in reversed(opened):
                one.__exit__(None, None, None)
        for got in list(GOT):
            for grant in [*parents, child]:
                with run(grant=grant, store=MemoryStore()) as alone:
                    assert rule_of(alone, tool, value=got) == ""


def test_a_child_cannot_rewrite_what_its_parent_allowed():
    """The parent allows a bare name; a child that resolves it against /etc gets nothing."""
    with run(allow("vgrant.chain.a", value=matches("[a-z]+"))):
        with run(allow("vgrant.chain.a", value=under("/etc"))):
            try:
                chain_a("passwd")
            except Denied:
                pass
    assert GOT in ([], ["passwd"])


def test_a_child_does_not_outlive_extend_or_preapprove_beyond_its_parent():
    """Expiry, budget and questions of every link count."""
    clock = Clock()
    short = Grant(allow("vgrant.chain.a"), expires_in=timedelta(seconds=10), clock=clock)
    with run(grant=short, clock=clock), run(allow("vgrant.chain.a"), clock=clock):
        chain_a(1)
        clock.now += 11
        with pytest.raises(Denied) as caught:
            chain_a(2)
        assert caught.value.rule == "permission.expired"
    with run(allow("vgrant.chain.a", budget(times=1))):
        for _ in range(3):
            with run(allow("vgrant.chain.a", budget(times=5))):
                try:
                    chain_a(3)
                except Denied as error:
                    assert error.rule == "permission.budget"  # noqa: PT017
    with run(allow("vgrant.stack.one"), allow("vgrant.stack.two"), allow("vgrant.stack.three")):
        with run(*(allow(name, preapproved("always")) for name in NAMES)) as child:
            assert rule_of(child, stacked, x="x") == "effect.irreversible"
    assert GOT == [1, 3]


# -- budgets ---------------------------------------------------------------------------------


@irreversible("vgrant.pay")
def pay(amount: int) -> None:
    GOT.append(amount)


@reads("vgrant.count")
def count(n: int) -> int:
    GOT.append(n)
    if n < 0:
        raise ValueError("body")
    return n


def at_once(threads: int, work: Any) -> list[str]:
    """Run *work* in threads that start together; return the rule of each denial, or ``""``."""
    outcomes: list[str] = []
    barrier = threading.Barrier(threads)

    def one(n: int) -> None:
        barrier.wait()
        try:
            work(n)
        except Denied as error:
            outcomes.append(error.rule)
        else:
            outcomes.append("")

    several = [
        threading.Thread(target=contextvars.copy_context().run, args=(one, n))
        for n in range(threads)
    ]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    return outcomes


def test_a_budget_holds_under_32_threads():
    """Of 32 calls at once exactly as many run as the budget has uses."""
    store = MemoryStore()
    with run(allow("vgrant.count", budget(times=7)), store=store):
        outcomes = at_once(32, count)
    assert len(GOT) == outcomes.count("") == 7
    assert outcomes.count("permission.budget") == 25


def test_a_budget_holds_across_runs_and_threads_of_one_grant():
    """The budget is the grant's: 32 threads with a run each share it."""
    grant, store = Grant(allow("vgrant.count", budget(times=5))), MemoryStore()

    def work(n: int) -> None:
        with run(grant=grant, store=store):
            count(n)

    outcomes = at_once(32, work)
    assert len(GOT) == outcomes.count("") == 5


def test_a_denial_gives_each_use_back_exactly_once():
    """32 questions at once, every other one denied: what was denied can be used again, no more."""
    grant, store = Grant(allow("vgrant.pay", budget(times=32))), MemoryStore()

    def answer(confirmation: Any) -> bool:
        amount = confirmation.arguments[0].value
        return amount % 2 == 0

    def work(n: int) -> None:
        with run(grant=grant, store=store, gate=CallbackGate(answer)):
            pay(n)

    outcomes = at_once(32, work)
    assert outcomes.count("") == 16
    assert outcomes.count("gate.denied") == 16
    assert used(store, f"{grant.id}/0") == 16
    assert len(GOT) == 16


@pytest.mark.parametrize("failure", each(["gate", "log", "argument", "none", "expired"]))
def test_what_never_ran_uses_nothing(failure: str):
    """No gate, no log, a wrong argument, a late answer: the use is there afterwards."""
    clock, store = Clock(), MemoryStore()
    grant = Grant(allow("vgrant.pay", budget(times=1), amount=between(1, 9)))
    more: dict[str, Any] = {"gate": Asked().gate}
    if failure == "gate":
        more = {"gate": None}
    elif failure == "log":
        more["log"] = MemoryLog(fail_on="call.allowed")
    elif failure == "expired":
        more["gate"] = CallbackGate(lambda _: setattr(clock, "now", clock.now + 9999) or True)
    with run(grant=grant, store=store, clock=clock, **more):
        if failure == "none":
            pay(5)
        else:
            with pytest.raises(Denied):
                pay(50 if failure == "argument" else 5)
    assert used(store, f"{grant.id}/0") == (failure == "none")
    assert GOT == ([5] if failure == "none" else [])


def test_a_body_that_raises_has_used_its_turn():
    """Spent is spent: a failure of the body is no refund."""
    with run(allow("vgrant.count", budget(times=1))):
        with pytest.raises(ValueError):
            count(-1)
        with pytest.raises(Denied) as caught:
            count(1)
    assert caught.value.rule == "permission.budget"


def test_a_gate_that_never_returns_normally_gives_back():
    """KeyboardInterrupt at the prompt leaves no use taken."""
    grant, store = Grant(allow("vgrant.pay", budget(times=1))), MemoryStore()

    def interrupt(_: Any) -> bool:
        raise KeyboardInterrupt

    with run(grant=grant, store=store, gate=CallbackGate(interrupt)):
        with pytest.raises(KeyboardInterrupt):
            pay(1)
    assert used(store, f"{grant.id}/0") == 0


def test_a_budget_of_none_allows_nothing_and_explaining_uses_nothing():
    """times=0 is a no; explain() looks and takes nothing."""
    with run(allow("vgrant.count", budget(times=0))), pytest.raises(Denied):
        count(1)
    grant, store = Grant(allow("vgrant.count", budget(times=1))), MemoryStore()
    with run(grant=grant, store=store) as active:
        for _ in range(5):
            active.explain(count, n=1)
        assert used(store, f"{grant.id}/0") == 0
        count(1)


def test_several_budgets_are_taken_all_or_none():
    """Of two links' budgets, the one that was taken comes back when the other is empty."""
    store = MemoryStore()
    outer, inner = (
        Grant(allow("vgrant.count", budget(times=3))),
        Grant(allow("vgrant.count", budget(times=1))),
    )
    with run(grant=outer, store=store), run(grant=inner, store=store):
        count(1)
        for _ in range(5):
            with pytest.raises(Denied):
                count(2)
    assert (used(store, f"{outer.id}/0"), used(store, f"{inner.id}/0")) == (1, 1)


# -- time ------------------------------------------------------------------------------------


@given(
    start=st.none() | st.integers(-100, 100),
    end=st.none() | st.integers(-100, 100),
    now=st.integers(-150, 150),
)
def test_a_grant_is_good_from_its_start_until_before_its_end(
    start: int | None, end: int | None, now: int
):
    """not_before is included, expires is not; either may be missing."""
    base = 1_800_000_000

    def moment(seconds: int | None) -> datetime | None:
        return None if seconds is None else datetime.fromtimestamp(base + seconds, UTC)

    grant = Grant(allow("vgrant.count"), not_before=moment(start), expires_at=moment(end))
    good = (start is None or start <= now) and (end is None or now < end)
    with run(grant=grant, clock=Clock(base + now)) as active:
        assert rule_of(active, count, n=1) == ("" if good else "permission.expired")


def test_a_grant_that_expires_while_a_person_thinks_is_expired():
    """A yes that comes after the grant's end, within the question's time, runs nothing."""
    clock = Clock()
    grant = Grant(
        allow("vgrant.pay", budget(times=1)), expires_in=timedelta(seconds=60), clock=clock
    )
    store = MemoryStore()

    def slow(_: Any) -> bool:
        clock.now += 61
        return True

    with run(grant=grant, clock=clock, store=store, gate=CallbackGate(slow)):
        with pytest.raises(Denied) as caught:
            pay(1)
    assert caught.value.rule == "permission.expired"
    assert GOT == []
    assert used(store, f"{grant.id}/0") == 0


@pytest.mark.parametrize("change", each(["stop", "lock", "close"]))
def test_what_happens_to_the_run_while_a_person_thinks_counts(change: str):
    """A run that is stopped, locked or closed during the question runs nothing after the yes."""
    opened: list[Run] = []

    def meanwhile(_: Any) -> bool:
        if change == "close":
            opened[0].__exit__(None, None, None)
        else:
            getattr(opened[0], change)("test")
        return True

    with run(allow("vgrant.pay"), gate=CallbackGate(meanwhile)) as active:
        opened.append(active)
        with pytest.raises(Denied) as caught:
            pay(1)
    assert caught.value.rule in {"run.stopped", "run.locked", "run.closed"}
    assert GOT == []


def test_a_clock_that_tells_no_time_allows_nothing():
    """NaN is neither before nor after anything: a grant with an end is not good then."""
    clock = Clock()
    grant = Grant(allow("vgrant.count"), expires_in=timedelta(seconds=60), clock=clock)
    clock.now = float("nan")
    with run(grant=grant, clock=clock) as active:
        assert rule_of(active, count, n=1) == "permission.expired"


def test_preapproval_ends_with_the_first_exposure():
    """preapproved("unexposed") asks again as soon as anything untrusted was seen."""
    with run(allow("vgrant.pay", preapproved("unexposed"))) as active:
        pay(1)
        active.expose("test")
        with pytest.raises(Denied):
            pay(2)
    with run(allow("vgrant.pay", preapproved("always"), amount=exactly(3)), exposed=True):
        pay(3)
    assert GOT == [1, 3]

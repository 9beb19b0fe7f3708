"""What explain(), a shadow run and the inventory tell the people who write grants."""

from __future__ import annotations

import functools
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

import checkrein
from checkrein import (
    Grant,
    Run,
    Untrusted,
    allow,
    budget,
    effects,
    inventory,
    irreversible,
    others,
    preapproved,
    reads,
    writes,
)
from checkrein import constraints as constraint_names
from checkrein.constraints import anything, between, email_domain, exactly, one_of, opened_under
from checkrein.errors import Denied, MisuseError
from checkrein.orders import stop_tool
from checkrein.store import MemoryStore
from support import Clock, MemoryLog, rule_of

DONE: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@reads("exp.orders")
def find(customer: str, status: str = "open") -> list[int]:
    return [1]


@writes("exp.files.reports")
def save(path: str, text: Untrusted[str]) -> None:
    DONE.append(path)


@irreversible("exp.mail", external=True)
def send(to: str, copies: int = 0) -> None:
    DONE.append((to, copies))


@reads("exp.web", external=True)
def fetch(url: str) -> Untrusted[str]:
    return Untrusted("page")


@writes("exp.note")
def note(*lines: str, **more: int) -> None:
    DONE.append((lines, more))


@reads("exp.ping")
def ping() -> bool:
    return True


def run(*permissions: Any, **more: Any) -> Run:
    return Run(**{"agent": "t", "grant": Grant(*permissions), "store": MemoryStore(), **more})


NAMES = {**vars(checkrein), **vars(constraint_names), "timedelta": timedelta}


def made(text: str) -> Any:
    return eval(text, {name: getattr(checkrein, name) for name in checkrein.__all__} | NAMES)


# -- explain ---------------------------------------------------------------------------------


def test_what_matched_is_named():
    """Of an allowed call, the permission that let it through."""
    with run(allow("exp.web"), allow("exp.orders", customer=exactly("dana"))) as active:
        decision = active.explain(find, customer="dana")
    assert decision.allowed
    assert decision.permissions == ("allow('exp.orders', customer=exactly('dana'))",)
    assert (decision.nearest, decision.changes) == ((), ())


def test_the_change_for_a_refused_argument_allows_the_call():
    """The advice is the new constraint, as Python, and it works."""
    before = allow("exp.mail", preapproved("always"), to=email_domain("acme.com"))
    with run(before) as active:
        decision = active.explain(send, to="bo@other.example")
    assert decision.nearest == (str(before),)
    (change,) = decision.changes
    wider = made(change.rpartition(": to=")[2])
    with run(allow("exp.mail", preapproved("always"), to=wider)) as active:
        assert active.explain(send, to="bo@other.example").allowed
        assert active.explain(send, to="dana@acme.com").allowed
        assert not active.explain(send, to="eve@other.example").allowed


def test_the_change_for_a_missing_permission_allows_the_call_and_no_other():
    """Nothing covers the resource: the advice is a permission for just this call."""
    with run(allow("exp.files.drafts")) as active:
        decision = active.explain(save, path="a", text="x")
    assert decision.nearest == ("allow('exp.files.drafts')",)
    (change,) = decision.changes
    with run(made(change.removeprefix("add "))) as active:
        assert active.explain(save, path="a", text="anything").allowed
        assert not active.explain(save, path="b", text="x").allowed


def test_a_wildcard_that_only_reads_is_told_so():
    """allow("exp.**") does not write: the advice names effects()."""
    with run(allow("exp.**")) as active:
        (change,) = active.explain(save, path="a", text="x").changes
        assert change == "in allow('exp.**'): effects('reads', 'writes')"
        (change,) = active.explain(fetch, url="https://a.example/").changes
        assert change.startswith("add allow('exp.web'")
    with run(allow("exp.**", effects("reads", "writes"))) as active:
        assert active.explain(save, path="a", text="x").allowed
        (change,) = active.explain(send, to="dana").changes
        every = "effects('reads', 'writes', 'irreversible')"
        assert change == f"in allow('exp.**', effects('reads', 'writes')): {every}"
    with run(allow("exp.orders", effects("writes"))) as active:
        (change,) = active.explain(find, customer="dana").changes
        assert change == "in allow('exp.orders', effects('writes')): effects('reads', 'writes')"


def test_of_several_permissions_the_one_with_the_fewest_problems_is_nearest():
    """One wrong argument is nearer than two."""
    far = allow("exp.orders", customer=exactly("a"), status=exactly("b"))
    near = allow("exp.orders", customer=exactly("dana"), status=exactly("b"))
    with run(far, near) as active:
        decision = active.explain(find, customer="dana", status="open")
    assert decision.nearest == (str(near),)
    assert decision.changes == (f"in {near}: status=either(exactly('b'), exactly('open'))",)


def test_an_argument_that_is_not_mentioned_is_to_be_named():
    """Closed world: the advice names the argument."""
    with run(allow("exp.orders", customer=exactly("dana"))) as active:
        (change,) = active.explain(find, customer="dana", status="closed").changes
    assert change.endswith("status=exactly('closed')")


def test_every_grant_of_a_chain_has_its_say():
    """In a run inside a run, each of the two grants may need a change."""
    with run(allow("exp.orders", customer=exactly("a"))):
        with run(allow("exp.web")) as inner:
            decision = inner.explain(find, customer="dana")
    assert len(decision.changes) == 2
    assert decision.nearest[0] == "allow('exp.orders', customer=exactly('a'))"


@pytest.mark.parametrize(
    ("permission", "more", "word"),
    [
        (allow("exp.orders", budget(times=0)), {}, "raise the budget of allow('exp.orders'"),
        (allow("exp.orders"), {"pins": {"find": b"x" * 32}}, "definition_of"),
    ],
    ids=["budget", "pin"],
)
def test_other_rules_say_what_to_change(permission: Any, more: Any, word: str):
    """Budgets and pins have their own advice."""
    with run(permission, **more) as active:
        decision = active.explain(find, customer="dana")
    assert not decision.allowed
    assert word in decision.changes[0]


def test_origin_expiry_and_stop_say_what_to_change():
    """Each finding of a decision comes with a change."""
    clock, store = Clock(), MemoryStore()
    grant = Grant(allow("exp.mail"), expires_in=timedelta(seconds=5), clock=clock)
    with run(grant=grant, clock=clock, store=store, exposed=True) as active:
        decision = active.explain(send, to="dana@acme.com")
        assert {one.rule for one in decision.findings} == {"flow.origin", "effect.irreversible"}
        assert len(decision.changes) == 2
        assert "to=exactly('dana@acme.com')" in "".join(decision.changes)
        store.post(stop_tool("send"))
        clock.now += 10
        decision = active.explain(send, to="dana@acme.com")
    assert any("checkrein stop --lift" in one for one in decision.changes)
    assert any("issue a grant" in one for one in decision.changes)


def test_explaining_uses_nothing_and_writes_nothing():
    """A thousand explanations leave budget and log as they were."""
    log = MemoryLog()
    with run(allow("exp.orders", budget(times=1)), log=log) as active:
        for _ in range(10):
            assert active.explain(find, customer="dana").allowed
        assert log.kinds == ["run.opened"]
        find("dana")
        assert not active.explain(find, customer="dana").allowed


def test_hostile_values_in_advice_are_escaped():
    """Advice is read by people: no control or look-alike letter reaches their screen."""
    with run(allow("exp.orders", customer=exactly("a"))) as active:
        decision = active.explain(find, customer="\x1b[2J\u202eevil\n#")
    assert all(one.isascii() and one.isprintable() for one in decision.changes)


# -- shadow ----------------------------------------------------------------------------------


def test_a_shadow_run_lets_pass_and_notes_what_would_not_have():
    """Nothing is blocked, everything is in the log, and the findings are kept."""
    log = MemoryLog()
    with Run.shadow(agent="t", grant=Grant(allow("exp.orders")), log=log) as active:
        find("dana")
        send("dana@acme.com")
        send("bo@acme.com", 2)
    assert DONE == [("dana@acme.com", 0), ("bo@acme.com", 2)]
    assert [one.tool for one in active.overlooked] == ["send", "send"]
    assert {f.rule for f in active.overlooked[0].findings} >= {"permission.missing"}
    allowed = log.of("call.allowed")
    assert [bool(one["findings"]) for one in allowed] == [False, True, True]
    assert all(one["shadow"] for one in allowed)


def test_the_proposed_grant_covers_what_was_done_and_nothing_else():
    """The text is Python; under its grant the same calls pass, once, and others do not."""
    calls = [
        (find, ("dana",), {}),
        (find, ("bo",), {}),
        (save, ("a.txt", "x"), {}),
        (send, ("dana@acme.com",), {}),
        (note, ("a", "b"), {"x": 1}),
        (note, (), {}),
        (ping, (), {}),
    ]
    with Run.shadow(agent="t") as active:
        for tool, args, kwargs in calls:
            tool(*args, **kwargs)
    done, DONE[:] = list(DONE), []
    grant = made(active.proposed_grant())
    gate = checkrein.CallbackGate(lambda _: True)
    with Run(agent="t", grant=grant, gate=gate, store=MemoryStore()):
        for tool, args, kwargs in calls:
            tool(*args, **kwargs)
        assert DONE == done
        for tool, args, kwargs in calls:
            with pytest.raises(Denied):
                tool(*args, **kwargs)
    with Run(agent="t", grant=grant, gate=gate, store=MemoryStore()):
        for tool, args in (
            (find, ("eve",)),
            (find, ("dana", "closed")),
            (save, ("b.txt", "x")),
            (send, ("dana@acme.com", 1)),
            (note, ("a",)),
        ):
            with pytest.raises(Denied):
                tool(*args)


@given(
    seen=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=12),
    other=st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz")),
)
def test_a_proposal_is_never_wider_than_what_was_seen(
    seen: list[tuple[str, str]], other: tuple[str, str]
):
    """Merging permissions must not cover a combination that nobody used."""
    with Run.shadow(agent="t") as active:
        for customer, status in seen:
            find(customer, status)
    with Run(agent="t", grant=made(active.proposed_grant()), store=MemoryStore()) as strict:
        for pair in seen:
            assert strict.explain(find, customer=pair[0], status=pair[1]).allowed
        decision = strict.explain(find, customer=other[0], status=other[1])
        assert decision.allowed == (other in seen)


def test_a_shadow_run_still_obeys_a_stop_and_its_end():
    """The emergency switch is no policy to be tried out."""
    store = MemoryStore()
    with Run.shadow(agent="t", store=store):
        store.post(stop_tool("ping"))
        with pytest.raises(Denied) as caught:
            ping()
        assert caught.value.rule == "run.stopped"
    with pytest.raises(Denied):
        ping()


def test_a_shadow_run_inside_a_run_is_refused():
    """Nobody gets around a run by opening one that overlooks what it denies."""
    with run():
        shadow = Run.shadow(agent="t")
        with pytest.raises(MisuseError):
            shadow.__enter__()
        with pytest.raises(Denied):
            ping()


def test_runs_inside_a_shadow_run_are_in_its_shadow():
    """What a sub-agent needs is part of the proposal."""
    with Run.shadow(agent="t") as outer:
        with run():
            find("dana")
    assert "exp.orders" in outer.proposed_grant()
    assert [one.tool for one in outer.overlooked] == ["find"]


def test_values_without_a_literal_are_not_guessed_at():
    """A list of lists has a literal; an object has none, and the proposal says so."""

    @writes("exp.odd")
    def odd(value: Any) -> None:
        DONE.append(value)

    from dataclasses import make_dataclass

    with Run.shadow(agent="t") as active:
        odd([1, {"a": (2.5, None)}, b"x"])
        odd(make_dataclass("Point", ["x"])(1))
    text = active.proposed_grant()
    assert "exactly([1, {'a': (2.5, None)}, b'x'])" in text
    assert "value=anything" in text
    assert "confine it by hand" in text


# -- inventory -------------------------------------------------------------------------------


class Desk:
    @reads("exp.desk")
    def read(self) -> int:
        return 1

    def bare(self) -> int:
        return 2

    def __call__(self) -> int:
        return 3


def bare(text: str) -> str:
    return text


guarded_twin = writes("exp.twin")(bare)


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def outer(*args: Any, **kwargs: Any) -> Any:
        DONE.append("unguarded work")
        return function(*args, **kwargs)

    return outer


UNGUARDED = {
    "function": lambda: print,
    "lambda": lambda: lambda: 1,
    "partial": lambda: functools.partial(find, "dana"),
    "method": lambda: Desk().bare,
    "callable object": lambda: Desk(),
    "class": lambda: Desk,
    "staticmethod": lambda: staticmethod(find),
    "classmethod": lambda: classmethod(find),
    "wrong order": lambda: wrapped(find),
    "bare twin": lambda: bare,
    "string": lambda: "find",
    "none": lambda: None,
    "cached": lambda: functools.lru_cache(find),
    "mapping": lambda: {"name": "find"},
}


@pytest.mark.parametrize("kind", UNGUARDED)
def test_what_is_not_guarded_is_refused_and_listed(kind: str):
    """Whatever is not known to be guarded is not: run.tools refuses, inventory lists."""
    tool = UNGUARDED[kind]()
    with run() as active, pytest.raises(MisuseError):
        active.tools(find, tool)
    listed = inventory(find, tool)
    assert [one.guarded for one in listed] == [True, False]
    assert listed.unguarded[0].problem
    with pytest.raises(MisuseError):
        listed.require_guarded()


def test_a_guarded_list_passes():
    """Functions, bound methods and tools bound to a run are guarded."""
    with run(allow("exp.desk")) as active:
        bound = active.tools(find, Desk().read)
        listed = inventory(*bound, find, Desk().read)
    listed.require_guarded()
    assert [one.name for one in listed] == ["find", "Desk.read"] * 2


def test_the_inventory_of_all_knows_every_decorated_tool():
    """Without arguments, everything that was decorated in this process, once."""
    names = [one.name for one in inventory()]
    assert {"find", "save", "send", "Desk.read", "bare"} <= set(names)
    item = next(one for one in inventory() if one.resources == ("exp.mail",))
    assert (item.effect, item.resources, item.external) == ("irreversible", ("exp.mail",), True)


def test_work_above_a_guard_is_not_mistaken_for_guarded():
    """functools.wraps copies what the guard left; the copy is no guard."""
    outer = wrapped(find)
    assert outer.__dict__.get("__checkrein__") is not None
    with run(allow("exp.orders")) as active, pytest.raises(MisuseError) as caught:
        active.tools(outer)
    assert "above its guard" in str(caught.value)


def test_a_guard_on_top_of_such_work_guards_it():
    """Decorated again, the whole of it is a tool, and the inner tool is a call inside it."""
    top = writes("exp.top")(wrapped(find))
    with run(allow("exp.orders")), pytest.raises(Denied):
        top("dana")
    assert DONE == []
    with run(allow("exp.top"), allow("exp.orders")):
        assert top("dana") == [1]
    assert DONE == ["unguarded work"]


def test_the_text_of_a_permission_makes_it_again():
    """What the log and explanations show is the Python that was meant."""
    permission = allow(
        "exp.*",
        budget(times=5),
        budget(times=500, cost="amount", per=timedelta(days=1)),
        effects("writes", "reads"),
        preapproved("unexposed"),
        others(anything),
        amount=between(1, 100),
        status=one_of(["a", "b"]),
    )
    assert made(str(permission)) == permission


# -- files -----------------------------------------------------------------------------------


@reads("exp.file")
def size(file: BinaryIO, limit: int = 9) -> int:
    return len(file.read(limit))


def grant_of(text: str) -> Grant:
    grant = eval(text, dict(NAMES))
    assert isinstance(grant, Grant)
    return grant


def test_the_advice_for_a_file_opens_it(tmp_path: Path):
    """What it says to add is a permission with which the call runs."""
    (tmp_path / "a").write_bytes(b"abc")
    path = str(tmp_path / "a")
    for permissions in ((), (allow("exp.file"),), (allow("exp.file", file=opened_under("/srv")),)):
        with run(*permissions) as active:
            (change,) = active.explain(size, file=path).changes
        assert f"file=opened_under({str(tmp_path)!r})" in change
    with run(*permissions[:0]) as active:
        (change,) = active.explain(size, file=path, limit=2).changes
    with run(grant=grant_of(f"Grant({change.removeprefix('add ')})")):
        assert size(path, limit=2) == 2
    with run() as active:
        (change,) = active.explain(size, file="a").changes
    assert "<directory>" in change


def test_a_shadow_run_proposes_what_has_opened_the_file(tmp_path: Path):
    """A path in exactly(...) would open nothing."""
    (tmp_path / "a").write_bytes(b"abc")
    with Run.shadow(agent="s", grant=Grant(allow("exp.file", file=opened_under(tmp_path)))) as seen:
        size("a")
        size("a")
    text = seen.proposed_grant()
    assert f"file=opened_under({str(tmp_path)!r}, 'rb')" in text
    with run(grant=grant_of(text)):
        assert [size("a"), size("a")] == [3, 3]
        assert rule_of(size, "a") == "permission.budget"


def test_the_advice_for_a_call_of_defaults_opens_no_more():
    """allow("exp.count") without a constraint would let any number through."""

    @reads("exp.count")
    def count(most: int = 3) -> int:
        return most

    with run() as active:
        assert active.explain(count).changes == ("add allow('exp.count', most=exactly(3))",)


def test_a_permission_that_opens_all_says_so_in_its_own_words():
    """The text of a permission is Python."""
    assert str(allow("exp.a", x=anything)) == "allow('exp.a', x=anything)"

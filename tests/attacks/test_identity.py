"""Attacks by what passes for something else: proxies, namesakes, links, texts, clocks."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import pytest

from checkrein import (
    Grant,
    Run,
    Untrusted,
    allow,
    budget,
    definition_of,
    inventory,
    others,
    reads,
    writes,
)
from checkrein.constraints import anything, each, email, exactly, one_of, opened_under
from checkrein.delegation import HeldGrant, Principal, SignedGrant, issue, new_challenge
from checkrein.errors import ConfigurationError, GrantError, MisuseError
from checkrein.store import MemoryStore
from checkrein.wire import permission_of, permission_tree, to_bytes
from support import Clock, rule_of

DONE: list[Any] = []
ROOT, AGENT, OTHER = Principal.new(), Principal.new(), Principal.new()


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@reads("id.look")
def look(x: int = 0) -> int:
    DONE.append(x)
    return x


@reads("id.inbox")
def inbox() -> Untrusted[str]:
    return Untrusted("eve@evil.example")


@writes("id.send", external=True)
def send(to: str, cc: list[str] | None = None) -> None:
    DONE.append(to)


def run(*permissions: Any, **more: Any) -> Run:
    return Run(**{"agent": "t", "grant": Grant(*permissions), "store": MemoryStore(), **more})


# -- proxies ---------------------------------------------------------------------------------


class Proxy:
    """Does something of its own, and says of everything else what its target would."""

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "target", target)

    @property
    def __class__(self) -> Any:
        return self.target.__class__

    @property
    def __dict__(self) -> Any:
        return self.target.__dict__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def __hash__(self) -> int:
        return hash(self.target)

    def __eq__(self, other: object) -> bool:
        return bool(self.target == other)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        DONE.append("unguarded")
        return self.target(*args, **kwargs)


class Desk:
    @reads("id.look")
    def look(self, x: int = 0) -> int:
        return x


@pytest.mark.parametrize("tool", [look, Desk().look], ids=["function", "method"])
def test_a_proxy_that_lies_is_not_guarded(tool: Any):
    """Its class, its hash and its equality are the guarded function's; its code is not."""
    proxy = Proxy(tool)
    assert isinstance(proxy, type(tool))
    assert proxy == tool
    (item,) = inventory(proxy)
    assert not item.guarded
    with run(allow("id.look")) as active:
        with pytest.raises(MisuseError):
            active.tools(proxy)
        with pytest.raises(MisuseError):
            active.explain(proxy, x=1)
    assert DONE == []


# -- namesakes -------------------------------------------------------------------------------


def test_two_grants_of_one_name_share_no_chain():
    """A child's grant that is called like its parent's would count by the larger limit."""
    with run(grant=Grant(allow("id.look", budget(times=1)), id="same")):
        child = run(grant=Grant(allow("id.look", budget(times=100)), id="same"))
        with pytest.raises(ConfigurationError, match="'same'"), child:
            look()
        assert rule_of(look) == ""
        assert rule_of(look) == "permission.budget"


def test_the_same_grant_twice_in_a_chain_counts_once():
    """A grant made again with the same permissions is the same, whatever its expiry."""
    permission = allow("id.look", budget(times=2))
    with (
        run(grant=Grant(permission, id="same")),
        run(grant=Grant(permission, id="same", expires_in=timedelta(hours=1))),
    ):
        assert [rule_of(look) for _ in range(3)] == ["", "", "permission.budget"]


def test_a_namesake_made_of_content_does_not_vouch():
    """Opened in a body that has read the mail, it cannot pin what the mail says."""

    @reads("id.sub")
    def sub() -> int:
        to = inbox().reveal(reason="test")
        with Run(agent="sub", grant=Grant(allow("id.send", to=exactly(to)), id="mail")):
            send(to)
        return 1

    grant = Grant(allow("id.inbox"), allow("id.send"), allow("id.sub"), id="mail")
    with run(grant=grant), pytest.raises(ConfigurationError):
        sub()
    assert DONE == []


# -- signed grants ---------------------------------------------------------------------------


def test_a_link_of_a_signed_grant_is_no_grant():
    """The last link alone would be free of those that it only narrows."""
    signed = issue(Grant(allow("id.look")), by=ROOT, to=AGENT.id, depth=1).delegate(
        Grant(allow("id.*")), by=AGENT, to=OTHER.id
    )
    with pytest.raises(ConfigurationError, match="held_by"):
        run(grant=signed.chain[-1])
    with pytest.raises(ConfigurationError):
        run(grant=SimpleNamespace(links=(signed.chain[-1],), holders=()))
    with run(grant=signed.held_by(OTHER)):
        assert rule_of(look) == ""


def test_who_holds_a_grant_has_proven_it():
    """There is no way to make a held grant that does not check the proof."""
    signed = issue(Grant(allow("id.look")), by=ROOT, to=AGENT.id)
    challenge = new_challenge()
    with pytest.raises(TypeError):
        HeldGrant(signed)  # type: ignore[call-arg]
    for proof in (b"", bytes(64), OTHER.sign(signed.to_prove(challenge)), "text"):
        with pytest.raises(GrantError):
            HeldGrant(signed, proof, challenge)  # type: ignore[arg-type]
    assert HeldGrant(signed, signed.prove(AGENT, challenge), challenge).holders[-1] == AGENT.id


_ODD = [
    {"set": [{"float": "inf"}]},
    {"set": [{"int": "0x" + "f" * 3000}]},
    {"dict": [["a", {"decimal": "NaN"}]]},
    {"set": [{"is": {"anything": {}}}]},
    {"frozenset": [{"decimal": "sNaN"}]},
    {"dict": [[{"decimal": "sNaN"}, 1]]},
    {"dict": [["a", {"is": {"anything": {}}}]]},
    {"set": [1, {"set": [{"list": [{"float": "nan"}]}]}]},
]


@pytest.mark.parametrize("value", _ODD, ids=str)
def test_an_odd_value_in_a_set_is_a_grant_error(value: Any):
    """Whatever is wrong with it, one error comes out of the parser."""
    tree = {"resource": "a.b", "arguments": {"x": {"one_of": {"options": [value]}}}}
    with pytest.raises(GrantError):
        permission_of(tree)


def test_nothing_is_made_of_a_text_that_nobody_signed(monkeypatch: pytest.MonkeyPatch):
    """The signature is checked before a permission, a pattern or a path is looked at."""
    tree = {
        "v": 1,
        "issuer": ROOT.id,
        "holder": AGENT.id,
        "parent": "",
        "depth": 0,
        "nonce": "0" * 32,
        "expires": None,
        "not_before": None,
        "permissions": [permission_tree(allow("id.look"))],
    }
    made: list[Any] = []
    monkeypatch.setattr("checkrein.delegation.permission_of", made.append)
    parts = (to_bytes(tree), bytes(64))
    text = ".".join(
        ["cg1", *(base64.urlsafe_b64encode(one).rstrip(b"=").decode() for one in parts)]
    )
    with pytest.raises(GrantError, match="signature"):
        SignedGrant.read(text, roots=[ROOT.id])
    assert made == []


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 10, 25, 2, 30, fold=1),
        datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
    ],
    ids=["fold", "zone"],
)
def test_what_a_text_cannot_say_is_not_signed(value: Any):
    """Read back it would be another value: refused when the grant is signed."""
    with pytest.raises(GrantError, match="datetime"):
        permission_tree(allow("id.look", x=exactly(value)))


@pytest.mark.parametrize(
    "value", [frozenset({1}), {1}, frozenset(), datetime(2026, 10, 25, tzinfo=UTC)], ids=repr
)
def test_a_value_keeps_its_type_in_a_text(value: Any):
    """A set and a frozenset differ; what is read back is what was written."""
    permission = allow("id.look", x=exactly(value))
    again = permission_of(permission_tree(permission))
    assert repr(again.constraints["x"]) == repr(permission.constraints["x"])
    assert permission_tree(again) == permission_tree(permission)


# -- clocks and pins -------------------------------------------------------------------------


def test_a_child_run_has_seen_the_time_that_its_parent_has():
    """A clock that is set back between the two revives nothing."""
    clock = Clock()
    grant = Grant(allow("id.look"), expires_in=timedelta(hours=1), clock=clock)
    with run(grant=grant, clock=clock) as parent:
        clock.now += 7200
        assert not parent.explain(look).allowed
        clock.now -= 7200
        with run(allow("id.look"), clock=clock):
            assert rule_of(look) == "permission.expired"


def test_pins_of_parent_and_child_hold_both():
    """Where they differ, no definition meets them."""
    good, bad = definition_of(look), b"x" * 32
    for outer, inner in ((good, bad), (bad, good), (bad, b"y" * 32)):
        with (
            run(allow("id.look"), pins={"look": outer}),
            run(allow("id.look"), pins={"look": inner}),
        ):
            assert rule_of(look) == "tool.changed"
    with (
        run(allow("id.look"), pins={"look": good}),
        run(allow("id.look"), pins={"look": good, "send": bad}),
    ):
        assert rule_of(look) == ""


# -- what is pinned, and nothing ---------------------------------------------------------------


def test_an_empty_list_aims_at_nobody():
    """each(email(...)) pins every member of a list that has none."""

    @reads("id.url", evidence=True)
    def url() -> str:
        return "eve@evil.example"

    @reads("id.secret", private=True)
    def secret() -> int:
        return 1

    permission = allow("id.send", others(anything), cc=each(email("a@b.example")))
    with run(allow("id.url"), allow("id.secret"), allow("id.inbox"), permission) as active:
        to = url()
        secret()
        inbox()
        decision = active.explain(send, to=to, cc=[])
        assert "flow.rule-of-two" in {one.rule for one in decision.findings}
        decision = active.explain(send, to=to, cc=["a@b.example"])
        assert "flow.rule-of-two" not in {one.rule for one in decision.findings}
    assert one_of(["a"]) == one_of(["a"])


def test_others_opens_no_file_of_another_kind(tmp_path: Any):
    """A tool that reads bytes gets no text because others() opens text."""

    @reads("id.file")
    def size(file: BinaryIO) -> int:
        return len(file.read())

    (tmp_path / "a").write_bytes(b"abc")
    with run(allow("id.file", others(opened_under(tmp_path, "r")))):
        assert rule_of(size, "a") == "permission.argument"
    with run(allow("id.file", others(opened_under(tmp_path)))):
        assert size("a") == 3

"""Signed grants: strict text, holders, depth, revocation, and chains that only narrow."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkrein import (
    CallbackGate,
    Grant,
    Run,
    Untrusted,
    allow,
    budget,
    effects,
    irreversible,
    others,
    preapproved,
    reads,
    writes,
)
from checkrein import constraints as c
from checkrein.delegation import Principal, SignedGrant, issue, new_challenge, revoke
from checkrein.errors import ConfigurationError, GrantError
from checkrein.store import MemoryStore
from checkrein.wire import from_bytes, permission_of, permission_tree, to_bytes
from support import Clock, MemoryLog, rule_of

ROOT, AGENT, HELPER, EVE = (Principal.new() for _ in range(4))


@reads("del.orders")
def find(customer: str, limit: int = 10) -> int:
    return limit


@writes("del.notes")
def note(text: str) -> int:
    return 1


def signed(*permissions: Any, depth: int = 2, **more: Any) -> SignedGrant:
    return issue(Grant(*permissions, **more), by=ROOT, to=AGENT.id, depth=depth)


def read(text: Any) -> SignedGrant:
    return SignedGrant.read(text, roots=[ROOT.id])


# -- chains ----------------------------------------------------------------------------------


def test_a_delegate_does_what_every_link_allows():
    """The root allows customers a and b, the agent passes on b and c: b it is."""
    top = signed(allow("del.orders", customer=c.one_of(["a", "b"])))
    part = top.delegate(
        Grant(allow("del.orders", customer=c.one_of(["b", "c"])), allow("del.notes")),
        by=AGENT,
        to=HELPER.id,
    )
    held = read(str(part)).held_by(HELPER)
    with Run(agent="helper", grant=held, store=MemoryStore()):
        assert [rule_of(find, one) for one in "abc"] == [
            "permission.argument",
            "",
            "permission.argument",
        ]
        assert rule_of(note, "x") == "permission.missing"


def test_a_signed_grant_without_its_holder_opens_no_run():
    """The text alone, or the object read from it, is worth nothing."""
    with pytest.raises(ConfigurationError, match="held_by"):
        Run(agent="x", grant=signed(allow("del.orders")))  # type: ignore[arg-type]


@pytest.mark.parametrize("thief", [ROOT, HELPER, EVE], ids=["root", "helper", "eve"])
def test_only_the_holder_holds(thief: Principal):
    """Not a thief of the text, and not even the root that signed it."""
    one = signed(allow("del.orders"))
    with pytest.raises(GrantError):
        one.held_by(thief)
    with pytest.raises(GrantError):
        one.delegate(Grant(allow("del.orders")), by=thief, to=EVE.id)
    assert one.held_by(AGENT).links == one.chain


def test_a_proof_is_for_one_challenge_and_one_grant():
    """A proof that somebody overheard is no proof elsewhere."""
    one, other = signed(allow("del.orders")), signed(allow("del.orders"))
    challenge = new_challenge()
    proof = one.prove(AGENT, challenge)
    assert one.proven(proof, challenge).signed is one
    for grant, asked, answer in (
        (one, new_challenge(), proof),
        (other, challenge, proof),
        (one, challenge, proof[:-1]),
        (one, challenge, b""),
        (one, challenge, one.prove(EVE, challenge)),
        (one, b"", proof),
        (one, "x" * 32, proof),
        (one, challenge, "proof"),
    ):
        with pytest.raises(GrantError):
            grant.proven(answer, asked)


def test_depth_is_a_limit():
    """What may be passed on once is not passed on twice, nor by a text that says so."""
    one = signed(allow("del.orders"), depth=1)
    two = one.delegate(Grant(allow("del.orders")), by=AGENT, to=HELPER.id)
    with pytest.raises(GrantError):
        two.delegate(Grant(allow("del.orders")), by=HELPER, to=EVE.id)
    with pytest.raises(GrantError):
        one.delegate(Grant(allow("del.orders")), by=AGENT, to=HELPER.id, depth=1)
    deep = one._links[0], _forged(one, by=AGENT, depth=1)
    with pytest.raises(GrantError, match="more often"):
        read(_text(*deep))


def _forged(after: SignedGrant | None, /, *, by: Principal, **changes: Any) -> Any:
    """Return a link that says what it likes, signed by *by*."""
    from checkrein import delegation

    link = delegation._signed(Grant(allow("del.orders")), by, HELPER.id, 0, "")
    tree = json.loads(link.data)
    if after is not None:
        tree["parent"] = after._links[-1].digest
    tree.update(changes)
    data = to_bytes(tree)

    class Raw:
        pass

    raw = Raw()
    raw.data, raw.signature = data, by.sign(b"checkrein/grant/v1\n" + data)  # type: ignore[attr-defined]
    return raw


def _text(*links: Any) -> str:
    parts = [part for one in links for part in (one.data, one.signature)]
    return ".".join(
        ["cg1", *(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)]
    )


def test_links_that_do_not_follow_are_refused():
    """Spliced, reordered, cut at the front, signed by somebody else."""
    one, other = signed(allow("del.orders")), signed(allow("del.notes"))
    mine = one.delegate(Grant(allow("del.orders")), by=AGENT, to=HELPER.id)
    first, second = mine._links
    for links in (
        (other._links[0], second),
        (second, first),
        (second,),
        (first, first),
        (first, second, second),
        (first, _forged(one, by=EVE)),
        (first, _forged(one, by=EVE, issuer=AGENT.id)),
        (first, _forged(None, by=AGENT)),
        (first, _forged(one, by=AGENT, parent="00" * 32)),
        (_forged(None, by=ROOT, parent="00" * 32),),
        (),
    ):
        with pytest.raises(GrantError):
            read(_text(*links))
    assert read(_text(first, second)).ids == mine.ids


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": True},
        {"v": "1"},
        {"depth": -1},
        {"depth": 16},
        {"depth": True},
        {"depth": 1.0},
        {"expires": "tomorrow"},
        {"expires": 1.5},
        {"expires": True},
        {"expires": -1},
        {"expires": 1 << 60},
        {"not_before": "x"},
        {"nonce": ""},
        {"nonce": "A" * 32},
        {"nonce": 5},
        {"holder": "eve"},
        {"holder": "ed25519:AAAA"},
        {"holder": None},
        {"issuer": "ed25519:" + "A" * 42},
        {"permissions": {}},
        {"permissions": [{}]},
        {"permissions": [{"resource": "*x"}]},
        {"permissions": [{"resource": 5}]},
        {"permissions": [{"resource": "a", "unlimited": True}]},
        {"permissions": [{"resource": "a", "effects": []}]},
        {"permissions": [{"resource": "a", "effects": ["writes", "reads"]}]},
        {"permissions": [{"resource": "a", "effects": ["reads", "reads"]}]},
        {"permissions": [{"resource": "a", "preapproved": "never"}]},
        {"permissions": [{"resource": "a", "preapproved": ["always"]}]},
        {"permissions": [{"resource": "a", "budgets": []}]},
        {"permissions": [{"resource": "a", "budgets": [{"times": 1}]}]},
        {"permissions": [{"resource": "a", "arguments": {"x": {"where": {}}}}]},
        {"permissions": [{"resource": "a", "arguments": {"x": {"between": {"low": 1}}}}]},
        {
            "permissions": [
                {"resource": "a", "arguments": {"x": {"between": {"low": 5, "high": 1}}}}
            ]
        },
        {"permissions": [{"resource": "a", "arguments": {"x": {"one_of": {"options": []}}}}]},
        {"permissions": [{"resource": "a", "arguments": {"x": {"one_of": {"options": "ab"}}}}]},
        {"permissions": [{"resource": "a", "arguments": {"x": {"matches": {"pattern": "("}}}}]},
        {"permissions": [{"resource": "a", "arguments": {"x": {"anything": {"y": 1}}}}]},
        {"permissions": [{"resource": "a", "arguments": {"x": {}}}]},
        {"permissions": [{"resource": "a", "arguments": {}}]},
        {"more": 1},
    ],
    ids=str,
)
def test_impossible_links_are_refused_even_if_signed(changes: dict[str, Any]):
    """A root's signature does not make nonsense a grant."""
    with pytest.raises(GrantError):
        read(_text(_forged(None, by=ROOT, **changes)))


def test_a_grant_of_another_root_is_refused():
    """Whose grants are honoured is the verifier's choice."""
    text = str(signed(allow("del.orders")))
    with pytest.raises(GrantError):
        SignedGrant.read(text, roots=[EVE.id])
    with pytest.raises(GrantError):
        SignedGrant.read(text, roots=[])
    with pytest.raises(ConfigurationError):
        SignedGrant.read(text, roots=ROOT.id)


# -- text ------------------------------------------------------------------------------------


def test_every_changed_letter_is_refused():
    """Each letter of the text, changed to another, is no grant or no other grant."""
    text = str(signed(allow("del.orders"), depth=0))
    for place in range(len(text)):
        for letter in "Aa0-_. =":
            if letter == text[place]:
                continue
            with pytest.raises(GrantError):
                read(text[:place] + letter + text[place + 1 :])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + ".",
        lambda text: text + "=",
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.upper(),
        lambda text: text.replace("cg1.", "cg2."),
        lambda text: text.replace("cg1.", ""),
        lambda text: text.rpartition(".")[0],
        lambda text: text * 40,
        lambda text: text.encode(),
        lambda text: None,
        lambda text: "",
        lambda text: "cg1",
        lambda text: "cg1..",
        lambda text: "cg1." + "." * 1000,
        lambda text: "x" * (1 << 19),
        lambda text: text.replace("a", "\u0430"),
    ],
    ids=map(str, range(17)),
)
def test_other_spellings_are_refused(change: Any):
    """One grant has one text."""
    with pytest.raises(GrantError):
        read(change(str(signed(allow("del.orders"), allow("del.notes")))))


@settings(max_examples=300)
@given(data=st.binary(max_size=200))
def test_random_bytes_only_ever_raise_a_grant_error(data: bytes):
    """The parser meets anything with one error."""
    for text in (
        data.decode("latin-1"),
        "cg1." + data.decode("latin-1"),
        _text_of(data, b"x" * 64),
    ):
        with pytest.raises(GrantError):
            read(text)
    with pytest.raises(GrantError):
        tree = from_bytes(data)
        if type(tree) is not dict:
            raise GrantError
        permission_of(tree)


def _text_of(*parts: bytes) -> str:
    return ".".join(
        ["cg1", *(base64.urlsafe_b64encode(one).rstrip(b"=").decode() for one in parts)]
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*"abx", "resource", "is", "list", "int", "one_of"]), inner
        )
    ),
    max_leaves=12,
)


@given(tree=JSON)
def test_random_trees_only_ever_raise_a_grant_error(tree: Any):
    """Well-formed JSON of any shape is a permission, or a GrantError."""
    for one in (
        tree,
        {"resource": "a", "arguments": {"x": tree}},
        {"resource": "a", "others": tree},
    ):
        try:
            permission_of(one)
        except GrantError:
            continue
        assert permission_tree(permission_of(one)) == one


# -- the wire --------------------------------------------------------------------------------

VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
    | st.binary(max_size=8)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.dates()
    | st.lists(st.integers() | st.text(st.characters(exclude_categories=("Cs",))), max_size=3)
    | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",)), max_size=3), st.integers())
)
NUMBERS = st.integers(-(10**20), 10**20) | st.floats(-1e9, 1e9)
CONSTRAINTS = st.recursive(
    st.one_of(
        st.builds(c.one_of, st.lists(VALUES, min_size=1, max_size=4)),
        st.builds(c.exactly, VALUES),
        st.builds(lambda a, b: c.between(min(a, b), max(a, b)), NUMBERS, NUMBERS),
        st.builds(c.at_most, NUMBERS),
        st.builds(c.at_least, NUMBERS),
        st.builds(c.matches, st.sampled_from(["[a-z]{3}", r"\d+", "(?:a|b)*"])),
        st.builds(c.under, st.sampled_from(["/srv", "/tmp/x"]), itself=st.booleans()),
        st.builds(c.host, st.sampled_from(["good.com", "*.good.com"]), ports=st.just((8443,))),
        st.builds(c.email_domain, st.sampled_from(["acme.com", "*.acme.com"])),
        st.builds(c.email, st.just("dana@acme.com")),
        st.builds(c.length, st.integers(1, 50)),
        st.just(c.anything),
    ),
    lambda inner: st.one_of(
        st.builds(c.each, inner),
        st.builds(c.both, inner, inner),
        st.builds(c.either, inner, inner),
        st.builds(lambda one: c.keys({"a": one}), inner),
    ),
    max_leaves=4,
)
PERMISSIONS = st.builds(
    allow,
    st.sampled_from(["del.orders", "del.*", "**", "del.notes"]),
    *[],
    customer=CONSTRAINTS,
    limit=CONSTRAINTS,
) | st.builds(
    lambda times, per, cost, one: allow(
        "del.orders",
        budget(times=times, per=per, cost=cost),
        others(one),
        effects("reads"),
        preapproved("always"),
    ),
    st.integers(0, 1000),
    st.none() | st.timedeltas(timedelta(microseconds=1), timedelta(days=4000)),
    st.sampled_from(["", "limit"]),
    CONSTRAINTS,
)


@given(permission=PERMISSIONS)
def test_written_read_and_written_again_is_the_same(permission: Any):
    """Serialise, parse, serialise is the identity, and so is the permission."""
    data = to_bytes(permission_tree(permission))
    again = permission_of(from_bytes(data))
    assert again == permission
    assert to_bytes(permission_tree(again)) == data


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(permissions=st.lists(PERMISSIONS, max_size=3), depth=st.integers(1, 5))
def test_the_text_of_a_chain_is_the_same_after_reading(permissions: list[Any], depth: int):
    """str(read(text)) is text, letter for letter, for whole chains."""
    one = issue(Grant(*permissions), by=ROOT, to=AGENT.id, depth=depth)
    two = one.delegate(Grant(*permissions[:1]), by=AGENT, to=HELPER.id)
    for grant in (one, two):
        again = read(str(grant))
        assert str(again) == str(grant)
        assert again.ids == grant.ids
        assert [link.permissions for link in again.chain] == [
            link.permissions for link in grant.chain
        ]


@pytest.mark.parametrize(
    "constraint",
    [
        c.where(lambda value: True, name="odd"),
        c.exactly(datetime(2030, 1, 1, tzinfo=UTC)).__class__,
        type("Own", (), {"pins": False, "normalise": lambda self, value: value})(),
        c.each(c.where(lambda value: True, name="odd")),
        c.exactly("\ud800"),
    ],
    ids=["where", "class", "own", "nested where", "surrogate"],
)
def test_what_holds_code_cannot_be_signed(constraint: Any):
    """A constraint that is code has no text, and says so before anything is signed."""
    try:
        permission = allow("del.orders", customer=constraint)
    except ConfigurationError:
        return
    with pytest.raises(GrantError):
        signed(permission)


@pytest.mark.parametrize(
    "value",
    [1, 1.0, True, "1", b"1", Decimal(1), Decimal("1.0"), date(2030, 1, 1), None, 10**30, -0.0]
    + [[1], {"a": 1}, (1,), datetime(2030, 1, 1, tzinfo=UTC), float.fromhex("0x1p-1074")],
    ids=repr,
)
def test_values_keep_their_types(value: Any):
    """1, 1.0, True and "1" are four values before and after."""
    again = permission_of(permission_tree(allow("a", x=c.exactly(value))))
    (option,) = again.constraints["x"].options  # type: ignore[attr-defined]
    before = c.exactly(value).options[0]
    assert (type(option), repr(option)) == (type(before), repr(before))


# -- narrowing -------------------------------------------------------------------------------

RESOURCES = st.sampled_from(["del.orders", "del.notes", "del.*", "**", "other"])
GRANTS = st.lists(
    st.builds(
        lambda resource, low, high, effect: allow(
            resource,
            *([effects("reads", "writes")] if effect else []),
            others(c.anything),
            **(
                {"limit": c.between(min(low, high), max(low, high))} if "orders" in resource else {}
            ),
        ),
        RESOURCES,
        st.integers(0, 20),
        st.integers(0, 20),
        st.booleans(),
    ),
    max_size=3,
).map(lambda permissions: Grant(*permissions))


@settings(max_examples=60)
@given(
    grants=st.lists(GRANTS, min_size=1, max_size=4),
    inner=st.none() | GRANTS,
    limit=st.integers(0, 20),
    tool=st.sampled_from(["find", "note"]),
)
def test_nothing_is_allowed_that_an_ancestor_would_deny(
    grants: list[Grant], inner: Grant | None, limit: int, tool: str
):
    """For random chains, child runs and calls: allowed by all together means by each alone."""
    people = [Principal.new() for _ in grants]
    chain = issue(grants[0], by=ROOT, to=people[0].id, depth=8)
    for place, grant in enumerate(grants[1:], 1):
        chain = chain.delegate(grant, by=people[place - 1], to=people[place].id, depth=8 - place)
    held = read(str(chain)).held_by(people[-1])

    def allowed(grant: Any, child: Grant | None = None) -> bool:
        with Run(agent="t", grant=grant, store=MemoryStore()):
            if child is None:
                return call() == ""
            with Run(agent="u", grant=child):
                return call() == ""

    def call() -> str:
        return rule_of(find, "x", limit=limit) if tool == "find" else rule_of(note, "x")

    alone = [allowed(grant) for grant in [*grants, *([inner] if inner else [])]]
    assert allowed(held, inner) == all(alone)


# -- time, revocation, the log ---------------------------------------------------------------


def test_revoking_any_link_ends_what_follows_it():
    """In every run that shares the store, for this link and those after it, and no others."""
    store = MemoryStore()
    one = signed(allow("del.orders"))
    two = one.delegate(Grant(allow("del.orders")), by=AGENT, to=HELPER.id)
    held_one, held_two = one.held_by(AGENT), two.held_by(HELPER)
    with Run(agent="a", grant=held_two, store=store):
        assert rule_of(find, "x") == ""
        revoke(store, two.id, reason="test")
        assert rule_of(find, "x") == "permission.chain"
    with Run(agent="a", grant=held_one, store=store):
        assert rule_of(find, "x") == ""
        revoke(store, one.id)
        assert rule_of(find, "x") == "permission.chain"
    with Run(agent="a", grant=signed(allow("del.orders")).held_by(AGENT), store=store):
        assert rule_of(find, "x") == ""


def test_a_shadow_run_does_not_overlook_a_revocation():
    """Nor does a run inside it."""
    store = MemoryStore()
    one = signed(allow("del.orders"))
    revoke(store, one.id)
    with Run.shadow(agent="a", grant=one.held_by(AGENT), store=store):
        assert rule_of(find, "x") == "permission.chain"


def test_every_link_has_its_time():
    """A delegate cannot outlive the root's grant by a later date of its own."""
    clock = Clock()
    one = signed(allow("del.orders"), expires_in=timedelta(seconds=10), clock=clock)
    two = one.delegate(
        Grant(allow("del.orders"), expires_in=timedelta(days=9), clock=clock),
        by=AGENT,
        to=HELPER.id,
    )
    store = MemoryStore()
    with Run(agent="a", grant=two.held_by(HELPER), clock=clock, store=store):
        assert rule_of(find, "x") == ""
        clock.now += 10
        assert rule_of(find, "x") == "permission.expired"
    clock.now -= 10
    again = read(str(two)).held_by(HELPER)
    with Run(agent="a", grant=again, clock=clock, store=store):
        assert rule_of(find, "x") == "permission.expired"


def test_times_are_rounded_inwards():
    """The text never allows a moment that the grant did not."""
    grant = Grant(
        allow("del.orders"),
        not_before=datetime(2030, 1, 1, 0, 0, 0, 1, UTC),
        expires_at=datetime(2031, 1, 1, 0, 0, 0, 999999, UTC),
    )
    (link,) = issue(grant, by=ROOT, to=AGENT.id).chain
    assert grant.not_before is not None and link.not_before is not None
    assert grant.expires is not None and link.expires is not None
    assert grant.not_before <= link.not_before < link.expires <= grant.expires


def test_budgets_belong_to_the_link_and_are_shared_by_all_who_use_it():
    """Two delegates of one grant use up its budget together."""
    store = MemoryStore()
    one = signed(allow("del.orders", budget(times=3)))
    outcomes = []
    for _ in range(2):
        person = Principal.new()
        part = one.delegate(Grant(allow("del.orders")), by=AGENT, to=person.id)
        with Run(agent="a", grant=read(str(part)).held_by(person), store=store):
            outcomes += [rule_of(find, "x") for _ in range(2)]
    assert outcomes == ["", "", "", "permission.budget"]


def test_the_id_of_a_link_is_not_the_issuers_choice():
    """Nobody can issue a grant whose budget is somebody else's."""
    one = signed(allow("del.orders"), id="mine")
    other = signed(allow("del.orders"), id="mine")
    assert len({one.id, other.id, "mine"}) == 3


def test_who_acts_on_whose_behalf_is_in_the_log():
    """The opening of a run names the chain, from the root to the holder."""
    log = MemoryLog()
    two = signed(allow("del.orders")).delegate(Grant(allow("del.orders")), by=AGENT, to=HELPER.id)
    with Run(agent="a", grant=two.held_by(HELPER), log=log, store=MemoryStore()):
        find("x")
    (opened,) = log.of("run.opened")
    assert opened["holders"] == [ROOT.id, AGENT.id, HELPER.id]
    assert opened["grants"] == list(two.ids)
    assert log.of("call.allowed")[0]["grants"] == list(two.ids)


def test_a_private_key_does_not_travel():
    """Not by pickle, not by copy, not by repr."""
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(ConfigurationError):
            act(AGENT)
    secret = AGENT._key.private_bytes_raw()
    assert secret.hex() not in repr(AGENT)
    with pytest.raises(ConfigurationError):
        Principal("secret")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: issue(allow("a"), by=ROOT, to=AGENT.id),  # type: ignore[arg-type]
        lambda: issue(Grant(), by=AGENT.id, to=AGENT.id),  # type: ignore[arg-type]
        lambda: issue(Grant(), by=ROOT, to=AGENT),  # type: ignore[arg-type]
        lambda: issue(Grant(), by=ROOT, to="eve"),
        lambda: issue(Grant(), by=ROOT, to=AGENT.id, depth=99),
        lambda: issue(Grant(), by=ROOT, to=AGENT.id, depth=True),
        lambda: issue(Grant(), by=ROOT, to=AGENT.id, depth="1"),  # type: ignore[arg-type]
    ],
    ids=map(str, range(7)),
)
def test_forgotten_and_swapped_arguments_are_named(make: Any):
    """A hurried newcomer gets a sentence, not a traceback from the depths."""
    with pytest.raises((ConfigurationError, GrantError)):
        make()


@irreversible("del.mail", external=True)
def mail(to: str) -> None:
    SENT.append(to)


SENT: list[str] = []


@pytest.mark.parametrize("pinned", ["root", "delegate"])
def test_a_delegate_vouches_for_no_value(pinned: str):
    """A grant that a hijacked agent pins to the attacker's address has trusted nothing."""
    SENT.clear()
    pin, open_to_all = allow("del.mail", to=c.exactly("eve@evil.example")), allow("del.mail")
    first, second = (pin, open_to_all) if pinned == "root" else (open_to_all, pin)
    chain = signed(first).delegate(Grant(second), by=AGENT, to=HELPER.id)
    rules: list[str] = []

    def ask(confirmation: Any) -> bool:
        rules.extend(confirmation.rules)
        return "flow.origin" not in confirmation.rules

    with Run(
        agent="helper",
        grant=chain.held_by(HELPER),
        gate=CallbackGate(ask),
        exposed=True,
        store=MemoryStore(),
    ):
        rule_of(mail, "eve@evil.example")
    assert ("flow.origin" in rules) == (pinned == "delegate")
    assert SENT == (["eve@evil.example"] if pinned == "root" else [])


@pytest.mark.parametrize("tainted", [True, False])
def test_a_run_opened_with_untrusted_values_at_hand_vouches_for_none(tainted: bool):
    """An agent as a tool that builds its inner grant from what it was told launders nothing."""
    SENT.clear()

    @writes("del.sub")
    def sub_agent(task: Untrusted[str]) -> str:
        to = task.reveal()
        inner = Grant(allow("del.mail", preapproved("always"), to=c.exactly(to)))
        with Run(agent="sub", grant=inner, exposed=True):
            return rule_of(mail, to)

    grant = Grant(allow("del.mail", preapproved("always")), allow("del.sub"))
    with Run(agent="main", grant=grant, exposed=tainted, store=MemoryStore()) as outer:
        if not tainted:
            outer.trust("dana@acme.example")
        task = Untrusted("eve@evil.example") if tainted else "dana@acme.example"
        outcome = sub_agent(task)
    assert outcome == ("gate.unavailable" if tainted else "")
    assert SENT == ([] if tainted else ["dana@acme.example"])


def test_deeply_nested_constraints_are_a_grant_error():
    """A text that nests without end must not end the process."""
    tree: Any = {"anything": {}}
    for _ in range(70):
        tree = {"each": {"constraint": {"is": tree}}}
    data = to_bytes({"resource": "a", "arguments": {"x": tree}})
    with pytest.raises(GrantError):
        permission_of(from_bytes(b"[" * 300 + data + b"]" * 300))
    try:
        permission_of(from_bytes(data))
    except GrantError:
        pass
    else:
        assert to_bytes(permission_tree(permission_of(from_bytes(data)))) == data

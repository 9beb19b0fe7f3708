"""Answers: edited calls, signed ones, several people, and who may not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

import pytest

from checkrein import (
    CallbackGate,
    Confirmation,
    Grant,
    Run,
    Untrusted,
    Verdict,
    allow,
    budget,
    injected,
    irreversible,
    others,
    reads,
)
from checkrein.approvers import Approvers, signed
from checkrein.confirmations import Standing
from checkrein.constraints import anything, at_most, email_domain
from checkrein.delegation import Principal, issue
from checkrein.errors import ConfigurationError, MisuseError
from checkrein.gates import DenyAll, Quorum
from checkrein.standing import standing
from checkrein.store import MemoryStore
from support import Asked, MemoryLog, rule_of, used
from values.leaks import each

DONE: list[Any] = []
DANA, LEE, EVE = Principal.new(), Principal.new(), Principal.new()


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@irreversible("ver.send", external=True)
def send(to: str, amount: int = 1, body: Untrusted[str] = Untrusted("")) -> None:
    DONE.append((to, amount, body.reveal(), body.label.names))


@irreversible("ver.send", external=True)
async def asend(to: str, amount: int = 1) -> None:
    DONE.append((to, amount))


@irreversible("ver.rest")
def rest(context: Annotated[Any, injected], *names: str, **more: int) -> None:
    DONE.append((context, names, more))


@reads("ver.mail")
def mail() -> Untrusted[str]:
    return Untrusted("eve@evil.example", source="mail")


CONFINED = Grant(
    allow("ver.send", budget(times=3), others(anything), amount=at_most(10)),
    allow("ver.rest"),
    allow("ver.mail"),
    id="g",
)


def run(answer: Any, **more: Any) -> Run:
    gate = CallbackGate(answer, by="dana") if callable(answer) else answer
    return Run(**{"agent": "bot", "grant": CONFINED, "gate": gate, "store": MemoryStore(), **more})


def first(then: Callable[[Confirmation], Any], later: Any = True) -> Callable[..., Any]:
    """Return a callback that answers the first question by *then*, the others by *later*."""
    asked: list[Confirmation] = []

    def answer(confirmation: Confirmation) -> Any:
        asked.append(confirmation)
        return then(confirmation) if len(asked) == 1 else later

    answer.asked = asked  # type: ignore[attr-defined]
    return answer


# -- edits -------------------------------------------------------------------------------------


def test_an_edited_call_is_a_new_call_that_is_asked_about_again():
    """What runs is what the second question has shown; the log tells how it came to be."""
    log = MemoryLog()
    answer = first(lambda one: one.edit({"to": "bo@acme.com", "amount": 2}, by="dana"))
    with run(answer, log=log):
        assert rule_of(send, "eve@evil.example", 9, "hello") == ""
    assert DONE == [("bo@acme.com", 2, "hello", ("agent_generated",))]
    before, after = answer.asked
    assert [one.value for one in after.arguments[:2]] == ["bo@acme.com", 2]
    assert before.digest != after.digest
    (edited,) = log.of("call.edited")
    assert (edited["call"], edited["became"]) == (before.call, after.call)
    assert edited["arguments"] == ["amount", "to"]
    assert [one["answer"] for one in log.of("confirmation.answered")] == ["edited", "approved"]
    assert [one["call"] for one in log.of("call.allowed")] == [after.call]


def test_an_edit_alone_runs_nothing():
    """Who edits is asked again, and may say no then."""
    with run(first(lambda one: one.edit({"to": "bo@acme.com"}, by="dana"), later=False)) as active:
        assert rule_of(send, "a@acme.com") == "gate.denied"
        assert used(active.store, "g/0") == 0
    assert DONE == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"amount": 11}, "permission.argument"),
        ({"amount": "2"}, "call.malformed"),
        ({"amount": True}, "call.malformed"),
        ({"tool": "other"}, "call.malformed"),
        ({"self": 1}, "call.malformed"),
        ({"to": ["a"]}, "call.malformed"),
        ({"to": object()}, "call.malformed"),
    ],
)
def test_an_edit_outside_the_grant_or_the_tool_is_denied(changes: dict[str, Any], rule: str):
    """Of the same tool, of its types, within what the grant allows."""
    with run(first(lambda one: one.edit(changes, by="dana"))) as active:
        assert rule_of(send, "a@acme.com") == rule
        assert used(active.store, "g/0") == 0
    assert DONE == []


def test_an_edit_does_not_reach_what_the_framework_gives():
    """And rest arguments are edited whole."""
    with run(first(lambda one: one.edit({"context": "mine"}, by="dana"))):
        assert rule_of(rest, "theirs", "a") == "call.malformed"
    with run(first(lambda one: one.edit({"names": ("b", "c"), "more": {"d": 1}}, by="dana"))):
        assert rule_of(rest, "theirs", "a", x=2) == ""
    assert DONE == [("theirs", ("b", "c"), {"d": 1})]


def test_edited_payload_is_a_persons_word_and_keeps_its_label():
    """It may hold their link; and who changes a letter of it has not vouched for the others."""
    keep = first(lambda one: one.edit({"to": "bo@acme.com"}, by="dana"))
    with run(keep):
        assert rule_of(send, "a@acme.com", 1, mail()) == ""
    new = first(lambda one: one.edit({"body": "see acme.com/help"}, by="dana"))
    with run(new):
        assert rule_of(send, "a@acme.com", 1, mail()) == ""
    assert "external:mail" in DONE[0][3]
    labels = ("external:mail", "tool_output:ver.mail", "user_input:approver")
    assert DONE[1][2:] == ("see acme.com/help", labels)


def test_a_value_of_content_that_is_kept_is_content_still():
    """It came back by its marker, and the second question says so."""
    answer = first(lambda one: one.edit({"amount": 2}, by="dana"))
    with run(answer):
        assert rule_of(send, str(mail())) == ""
    assert "external:mail" in answer.asked[1].arguments[0].origin


def test_editing_for_ever_is_a_no():
    """A gate that edits each time ends in a denial."""
    with run(lambda one: one.edit({"amount": 2}, by="dana")):
        assert rule_of(send, "a@acme.com") == "gate.denied"
    assert DONE == []


def test_an_edit_is_for_one_question_and_in_time():
    """Replayed, or for another call, it changes nothing."""
    asked = Asked(answer=False)
    with run(None, gate=asked.gate):
        rule_of(send, "a@acme.com")
    old = asked.confirmations[0].edit({"to": "eve@evil.example"}, by="dana")
    with run(lambda _: old):
        assert rule_of(send, "a@acme.com") == "gate.mismatch"
    with pytest.raises(MisuseError):
        asked.confirmations[0].edit({}, by="dana")
    assert DONE == []


def test_async_tools_are_edited_like_any():
    """By the same generator."""

    async def main() -> None:
        async with run(first(lambda one: one.edit({"to": "bo@acme.com"}, by="dana"))):
            await asend("a@acme.com")

    asyncio.run(main())
    assert DONE == [("bo@acme.com", 1)]


# -- who answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("by", each(["bot", "BOT", " bot ", "dana, bot", "outer"]))
def test_who_asks_cannot_approve(by: str):
    """Neither the agent nor one whose run it runs in, under whatever case of its name."""
    with (
        run(None, agent="outer", gate=DenyAll()),
        run(lambda one: one.approve(by=by)),
    ):
        assert rule_of(send, "a@acme.com") == "gate.mismatch"
    assert DONE == []


PEOPLE = {"dana": DANA.id, "lee": LEE.id}


def test_a_signed_answer_counts_and_no_other():
    """Unsigned, of another key, of a name that nobody knows, changed after it was signed."""
    answers: list[tuple[Callable[[Confirmation], Verdict], str]] = [
        (lambda one: signed(one.approve(by="dana"), DANA), ""),
        (lambda one: one.approve(by="dana"), "gate.mismatch"),
        (lambda one: signed(one.approve(by="dana"), LEE), "gate.mismatch"),
        (lambda one: signed(one.approve(by="eve"), EVE), "gate.mismatch"),
        (lambda one: signed(one.approve(by="eve"), DANA), "gate.mismatch"),
        (lambda one: signed(one.deny(by="dana"), DANA)._replace(approved=True), "gate.mismatch"),
        (lambda one: signed(one.approve(by="lee"), DANA)._replace(by="dana"), "gate.mismatch"),
        (lambda one: signed(one.deny(by="dana"), DANA), "gate.denied"),
        (lambda one: signed(one.approve(by="dana"), DANA)._replace(signature=b""), "gate.mismatch"),
        (
            lambda one: signed(one.approve(by="dana"), DANA)._replace(edits={"to": "eve"}),
            "gate.mismatch",
        ),
        (lambda one: one.approve(by="dana")._replace(signature="x"), "gate.mismatch"),  # type: ignore[arg-type]
    ]
    for answer, rule in answers:
        with run(answer, approvers=Approvers(PEOPLE)):
            assert rule_of(send, "a@acme.com") == rule
    assert len(DONE) == 1


def test_a_signature_is_for_one_question():
    """A signed yes of yesterday is none for today's call."""
    kept: list[Verdict] = []

    def answer(one: Confirmation) -> Verdict:
        kept.append(signed(one.approve(by="dana"), DANA))
        return kept[0]

    with run(answer, approvers=Approvers(PEOPLE)):
        assert rule_of(send, "a@acme.com") == ""
        assert rule_of(send, "a@acme.com") == "gate.mismatch"
        assert rule_of(send, "b@acme.com") == "gate.mismatch"
    moved = kept[1]
    forged = moved._replace(digest=kept[0].digest, confirmation=kept[0].confirmation)
    assert forged != kept[0]


def test_a_signed_edit_counts_as_it_was_signed():
    """What was put into it later makes it nobody's."""

    def answer(one: Confirmation) -> Verdict:
        return signed(one.edit({"to": "bo@acme.com"}, by="dana"), DANA)

    later: Any = lambda one: signed(one.approve(by="dana"), DANA)
    asked: list[Confirmation] = []

    def both(one: Confirmation) -> Verdict:
        asked.append(one)
        return answer(one) if len(asked) == 1 else later(one)

    with run(both, approvers=Approvers(PEOPLE)):
        assert rule_of(send, "a@acme.com") == ""
    assert DONE[0][0] == "bo@acme.com"
    odd = Principal.new()
    with pytest.raises(MisuseError):
        signed(asked[0].edit({"to": object()}, by="dana"), odd)
    with pytest.raises(MisuseError):
        signed(asked[0].approve(by="dana"), "dana")  # type: ignore[arg-type]


def test_who_holds_the_grant_cannot_approve():
    """The agent's own key is no approver's, whatever name it is given."""
    root, agent = Principal.new(), Principal.new()
    held = issue(Grant(allow("ver.send")), by=root, to=agent.id).held_by(agent)
    people = Approvers({"dana": DANA.id, "helper": agent.id})
    with run(lambda one: signed(one.approve(by="helper"), agent), grant=held, approvers=people):
        assert rule_of(send, "a@acme.com") == "gate.mismatch"
    with run(lambda one: signed(one.approve(by="dana"), DANA), grant=held, approvers=people):
        assert rule_of(send, "a@acme.com") == ""


def test_a_child_run_has_its_parents_approvers():
    """Opening a run inside a run is no way to choose who approves."""
    outer = run(lambda one: one.approve(by="eve"), agent="outer", approvers=Approvers(PEOPLE))
    with (
        outer,
        run(lambda one: signed(one.approve(by="eve"), EVE), approvers=Approvers({"eve": EVE.id})),
    ):
        assert rule_of(send, "a@acme.com") == "gate.mismatch"


@pytest.mark.parametrize(
    ("keys", "needed"),
    [
        ({}, 1),
        ([], 1),
        ({"dana": "key"}, 1),
        ({"dana": DANA.id, "lee": DANA.id}, 1),
        ({"dana": DANA.id}, 2),
        ({"dana": DANA.id}, 0),
        ({"dana": DANA.id}, True),
    ],
    ids=range(7),
)
def test_impossible_approvers_are_refused(keys: Any, needed: Any):
    """When they are set up."""
    if needed is True:
        needed = 1.0
    with pytest.raises(ConfigurationError):
        Approvers(keys, needed=needed)


# -- several people ----------------------------------------------------------------------------


def gates(*answers: Any) -> list[CallbackGate]:
    return [CallbackGate(answer, by=by) for by, answer in answers]


def yes(_: Any) -> bool:
    return True


def no(_: Any) -> bool:
    return False


def broken(_: Any) -> bool:
    raise RuntimeError("no terminal")


@pytest.mark.parametrize(
    ("answers", "needed", "rule"),
    [
        ([("dana", yes), ("lee", yes)], 0, ""),
        ([("dana", yes), ("lee", no)], 0, "gate.denied"),
        ([("dana", no), ("lee", yes)], 1, "gate.denied"),
        ([("dana", yes), ("lee", no)], 1, ""),
        ([("dana", yes), ("dana", yes)], 2, "gate.unavailable"),
        ([("dana", yes), ("lee", broken)], 2, "gate.unavailable"),
        ([("dana", yes), ("lee", broken), ("kim", yes)], 2, ""),
        ([("dana", yes), ("bot", yes)], 2, "gate.mismatch"),
    ],
)
def test_a_quorum_needs_different_names(answers: list[Any], needed: int, rule: str):
    """The first no decides; who cannot be asked has not said yes."""
    log = MemoryLog()
    with run(None, gate=Quorum(gates(*answers), needed=needed), log=log):
        assert rule_of(send, "a@acme.com") == rule
    assert len(DONE) == (rule == "")
    if not rule and len(answers) == 2 and needed == 0:
        assert log.of("confirmation.answered")[0]["by"] == "dana, lee"


def test_a_quorum_counts_yeses_to_this_very_question():
    """An old yes of one of them, to another call, is none; alone it would be a mismatch."""
    kept: list[Verdict] = []

    def stale(question: Confirmation) -> Verdict:
        kept.append(question.approve(by="lee"))
        return kept[0]

    gate = Quorum([CallbackGate(yes, by="dana"), CallbackGate(stale)])
    with run(None, gate=gate):
        assert rule_of(send, "a@acme.com") == ""
        assert rule_of(send, "b@acme.com") == "gate.unavailable"
    assert len(DONE) == 1


def test_one_name_in_two_spellings_is_one_person():
    """Capitals and spaces around a name make nobody a second person."""
    gate = Quorum([CallbackGate(yes, by="dana"), CallbackGate(yes, by="Dana ")], needed=2)
    with run(None, gate=gate):
        assert rule_of(send, "a@acme.com") == "gate.unavailable"


@pytest.mark.parametrize("added", ["standing", "suspicion"])
def test_nothing_counts_that_is_around_signed_answers(added: str):
    """A gate that carries a signed answer cannot make it stand, nor make it a suspicion."""

    def gate(question: Confirmation) -> Verdict:
        if added == "standing":
            part = signed(question.approve(by="dana"), DANA)
            more = standing(uses=1000, within=timedelta(days=1), amount=at_most(9))
            return question.approve(by="dana", standing=more)._replace(parts=(part,))
        part = signed(question.deny(by="dana"), DANA)
        return part._replace(suspicious=True, parts=(part,), signature=b"")

    with run(None, gate=CallbackGate(gate), approvers=Approvers(PEOPLE)) as active:
        assert rule_of(send, "a@acme.com") == "gate.mismatch"
        assert not active.locked
    assert DONE == []


def test_a_standing_approval_without_end_is_a_denial():
    """A number of seconds that no clock can hold is no crash, and allows nothing."""

    def gate(question: Confirmation) -> Verdict:
        return question.approve(by="dana", standing=Standing(1, float("inf"), "{}"))

    with run(None, gate=CallbackGate(gate)):
        assert rule_of(send, "a@acme.com") == "gate.mismatch"
    assert DONE == []


def test_approvers_are_looked_at_when_the_run_is_made():
    """A dict of keys is not taken for approvers, to fail at the first question."""
    with pytest.raises(ConfigurationError, match="Approvers"):
        Run(agent="bot", grant=CONFINED, approvers=PEOPLE)  # type: ignore[arg-type]


def test_two_keys_are_two_people():
    """Where approvers are named, names alone do not make a quorum."""

    def by(name: str, principal: Principal) -> CallbackGate:
        return CallbackGate(lambda one: signed(one.approve(by=name), principal))

    people = Approvers(PEOPLE, needed=2)
    with run(None, gate=Quorum([by("dana", DANA), by("lee", LEE)]), approvers=people):
        assert rule_of(send, "a@acme.com") == ""
    for gate in (
        by("dana", DANA),
        Quorum([by("dana", DANA), by("lee", DANA)]),
        Quorum([by("dana", DANA), by("eve", EVE)]),
        Quorum([by("dana", DANA), CallbackGate(yes, by="lee")]),
    ):
        with run(None, gate=gate, approvers=people):
            assert rule_of(send, "a@acme.com") == "gate.mismatch"
    forged = CallbackGate(
        lambda one: one.approve(by="x")._replace(parts=(signed(one.approve(by="dana"), DANA),) * 2)
    )
    with run(None, gate=forged, approvers=people):
        assert rule_of(send, "a@acme.com") == "gate.mismatch"
    renamed = CallbackGate(
        lambda one: one.approve(by="the boss")._replace(
            parts=(signed(one.approve(by="dana"), DANA), signed(one.approve(by="lee"), LEE))
        )
    )
    with run(None, gate=renamed, approvers=people):
        assert rule_of(send, "a@acme.com") == "gate.mismatch"
    assert len(DONE) == 1


def test_people_who_are_awaited_are_asked_together():
    """The second does not wait for the first; a no ends the waiting."""

    async def main() -> list[str]:
        together = asyncio.Barrier(2)
        cancelled: list[str] = []

        async def agrees(_: Any) -> bool:
            await together.wait()
            return True

        async def refuses(_: Any) -> bool:
            return False

        async def never(_: Any) -> bool:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append("never")
                raise
            return True

        both = Quorum(gates(("dana", agrees), ("lee", agrees)))
        assert both.asynchronous
        async with run(None, gate=both):
            await asend("a@acme.com")
        async with run(None, gate=Quorum(gates(("dana", never), ("lee", refuses)))):
            with pytest.raises(Exception, match=r"gate\.denied"):
                await asend("a@acme.com")
        await asyncio.sleep(0)
        return cancelled

    assert asyncio.run(main()) == ["never"]
    assert DONE == [("a@acme.com", 1)]


def test_nobody_is_asked_by_a_gate_that_denies_all():
    """For runs that nobody watches; the denial is in the log."""
    log = MemoryLog()
    with run(
        None, gate=DenyAll(), log=log, grant=Grant(allow("ver.send", to=email_domain("acme.com")))
    ):
        assert rule_of(send, "a@acme.com") != ""
    assert log.of("call.denied")


@pytest.mark.parametrize(
    ("odd", "needed"), [([], 0), (["x"], 0), ([DenyAll()], 2), ([DenyAll()], -1)]
)
def test_an_impossible_quorum_is_refused(odd: Any, needed: int):
    """When it is set up."""
    with pytest.raises(ConfigurationError):
        Quorum(odd, needed=needed)


def test_an_agent_whose_name_holds_a_comma_does_not_approve_itself():
    """The desk and the run take names apart in the same way."""
    asked = Asked(lambda one: one.approve(by="clerk, night"))
    with Run(agent="clerk, night", grant=Grant(allow("ver.solo")), gate=asked.gate):

        @irreversible("ver.solo")
        def solo(to: str) -> None: ...

        assert rule_of(solo, "bo") == "gate.mismatch"

"""Standing approvals: a yes to a few more calls, and to no other."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from checkrein import Care, Grant, Run, Untrusted, allow, irreversible, preapproved, reads
from checkrein.approvers import Approvers, signed
from checkrein.confirmations import Standing, read_verdict, verdict_tree
from checkrein.constraints import anything, at_most, matches, one_of, where
from checkrein.delegation import Principal
from checkrein.errors import ConfigurationError, MisuseError
from checkrein.gates import CallbackGate
from checkrein.standing import standing
from support import Clock, MemoryLog, rule_of

DONE: list[Any] = []
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _clean() -> None:
    DONE.clear()


@reads("std.mail")
def mail() -> Untrusted[str]:
    return Untrusted("x")


@irreversible("std.pay")
def pay(to: str, amount: int, note: Untrusted[str] = Untrusted("")) -> None:
    DONE.append((to, amount))


@irreversible("std.other")
def other(to: str, amount: int) -> None:
    DONE.append((to, amount))


GRANT = Grant(allow("std.pay"), allow("std.other"), allow("std.mail"), id="g")


class Person:
    """Says yes with a standing approval to the first question; keeps what was asked."""

    def __init__(self, stands: Standing | None, then: Any = False) -> None:
        self.stands, self.then = stands, then
        self.asked: list[Any] = []
        self.gate = CallbackGate(self.ask, by="dana")

    def ask(self, confirmation: Any) -> Any:
        self.asked.append(confirmation)
        if len(self.asked) == 1:
            return confirmation.approve(by="dana", standing=self.stands)
        return self.then


def test_a_no_in_a_run_inside_ends_what_stands_in_the_run_around_it():
    """Whoever says no has changed their mind, in whichever run they were asked."""
    person = Person(standing(uses=5, within=HOUR, amount=at_most(50)))
    with Run(agent="t", grant=GRANT, gate=person.gate):
        assert rule_of(pay, "bo", 10) == ""
        with Run(agent="helper", grant=GRANT):
            assert rule_of(pay, "bo", 60) == "gate.denied"
        assert rule_of(pay, "bo", 11) == "gate.denied"
    assert len(person.asked) == 3
    assert DONE == [("bo", 10)]


def test_a_few_more_like_it_and_no_other():
    person = Person(standing(uses=2, within=HOUR, amount=at_most(50)))
    log = MemoryLog()
    with Run(agent="t", grant=GRANT, gate=person.gate, log=log):
        assert rule_of(pay, "bo", 10) == ""
        for _ in range(2):
            assert rule_of(pay, "bo", 50) == ""
        assert len(person.asked) == 1
        assert rule_of(pay, "bo", 20) == "gate.denied"  # the third
    assert DONE == [("bo", 10), ("bo", 50), ("bo", 50)]
    first = person.asked[0].id
    assert [one.get("standing") for one in log.of("call.allowed")] == [None, first, first]
    answered = log.of("confirmation.answered")
    assert [(one["answer"], one["by"]) for one in answered[:3]] == [
        ("approved", "dana"),
        ("standing", "dana"),
        ("standing", "dana"),
    ]
    assert answered[0]["standing"] == [2, 3600.0, '{"amount":{"between":{"high":50,"low":null}}}']


@pytest.mark.parametrize(
    "call",
    [
        lambda: rule_of(pay, "al", 10),
        lambda: rule_of(pay, "bo", 51),
        lambda: rule_of(pay, "bo", 10, "another"),
        lambda: rule_of(other, "bo", 10),
    ],
    ids=["recipient", "beyond", "payload", "tool"],
)
def test_what_it_does_not_cover_is_asked_about(call: Any):
    person = Person(standing(uses=9, within=HOUR, amount=at_most(50)))
    with Run(agent="t", grant=GRANT, gate=person.gate):
        assert rule_of(pay, "bo", 10, "x") == ""
        assert call() == "gate.denied"
    assert len(person.asked) == 2
    assert len(DONE) == 1


def test_payload_may_be_named():
    person = Person(standing(uses=9, within=HOUR, note=anything))
    with Run(agent="t", grant=GRANT, gate=person.gate):
        assert rule_of(pay, "bo", 10, "x") == ""
        assert rule_of(pay, "bo", 10, "y") == ""


def test_there_is_another_reason_to_ask():
    """The run has read a stranger's mail since: nobody has approved that."""
    person = Person(standing(uses=9, within=HOUR, amount=at_most(50)))
    with Run(agent="t", grant=GRANT, gate=person.gate):
        assert rule_of(pay, "bo", 10) == ""
        mail()
        assert rule_of(pay, "bo", 11) == "gate.denied"


def test_it_ends_in_time_and_with_a_no():
    clock = Clock()
    person = Person(standing(uses=9, within=HOUR, amount=at_most(50)), then=True)
    with Run(agent="t", grant=GRANT, gate=person.gate, clock=clock):
        pay("bo", 10)
        clock.now += 3601
        pay("bo", 11)
        assert len(person.asked) == 2
    person = Person(standing(uses=9, within=HOUR, amount=at_most(50)))
    with Run(agent="t", grant=GRANT, gate=person.gate, clock=clock):
        pay("bo", 10)
        assert rule_of(pay, "al", 1) == "gate.denied"
        assert rule_of(pay, "bo", 11) == "gate.denied"  # whoever says no has changed their mind


def test_it_holds_in_one_run_alone():
    person = Person(standing(uses=9, within=HOUR, amount=at_most(50)))
    with Run(agent="t", grant=GRANT, gate=person.gate):
        pay("bo", 10)
        with Run(agent="u", grant=GRANT):
            assert rule_of(pay, "bo", 10) == "gate.denied"
    with Run(agent="t", grant=GRANT, gate=person.gate):
        assert rule_of(pay, "bo", 10) == "gate.denied"


def test_it_widens_nothing():
    """What the grant denies stays denied, and a stop stops."""
    narrow = Grant(allow("std.pay", to=one_of(["bo", "al"]), amount=at_most(20)))
    person = Person(standing(uses=9, within=HOUR, amount=at_most(50), to=anything))
    with Run(agent="t", grant=narrow, gate=person.gate) as run:
        pay("bo", 10)
        pay("al", 20)
        assert rule_of(pay, "bo", 30) == "permission.argument"
        assert rule_of(pay, "cy", 10) == "permission.argument"
        run.stop("enough")
        assert rule_of(pay, "bo", 10) == "run.stopped"


def test_it_goes_along_when_a_run_is_suspended():
    key = bytes(32)
    person = Person(standing(uses=2, within=HOUR, amount=at_most(50)))
    with Run(agent="t", grant=GRANT, gate=person.gate) as run:
        pay("bo", 10)
        pay("bo", 20)
        state = run.suspend(key)
    with Run.resume(state, key, grant=GRANT, gate=person.gate):
        assert rule_of(pay, "bo", 30) == ""
        assert rule_of(pay, "bo", 40) == "gate.denied"


def test_a_signature_covers_it():
    dana = Principal.new()
    people = Approvers({"dana": dana.id})
    stands = standing(uses=1, within=HOUR, amount=at_most(50))

    def widened(confirmation: Any) -> Any:
        verdict = signed(confirmation.approve(by="dana", standing=stands), dana)
        return verdict._replace(standing=stands._replace(uses=100))

    def honest(confirmation: Any) -> Any:
        return signed(confirmation.approve(by="dana", standing=stands), dana)

    for ask, rule in ((widened, "gate.mismatch"), (honest, "")):
        with Run(agent="t", grant=GRANT, gate=CallbackGate(ask), approvers=people):
            assert rule_of(pay, "bo", 10) == rule


def test_several_people_allow_one_call():
    dana, lee = Principal.new(), Principal.new()
    people = Approvers({"dana": dana.id, "lee": lee.id}, needed=2)
    stands = standing(uses=1, within=HOUR)

    def both(confirmation: Any) -> Any:
        parts = tuple(
            signed(confirmation.approve(by=name, standing=stands), key)
            for name, key in (("dana", dana), ("lee", lee))
        )
        return confirmation.approve(by="dana, lee", standing=stands)._replace(parts=parts)

    with Run(agent="t", grant=GRANT, gate=CallbackGate(both), approvers=people):
        assert rule_of(pay, "bo", 10) == "gate.mismatch"


@pytest.mark.parametrize(
    "stands",
    [
        Standing(10**9, 60.0),
        Standing(1, 1e12),
        Standing(1, float("nan")),
        Standing(1, 60.0, '{"amount": {"at_most": {"limit": 50}}}'),
        Standing(1, 60.0, '{"nothing":{"anything":{}}}'),
        Standing(1, 60.0, "x"),
        Standing("1", 60.0),  # type: ignore[arg-type]
        (1, 60.0, "{}"),
    ],
    ids=["uses", "time", "nan", "spelling", "unknown", "text", "type", "tuple"],
)
def test_one_that_was_not_made_here_is_checked(stands: Standing):
    """It may have come over a wire."""
    gate = CallbackGate(lambda one: one.approve(by="dana")._replace(standing=stands))
    with Run(agent="t", grant=GRANT, gate=gate):
        assert rule_of(pay, "bo", 10) == "gate.mismatch"
    assert DONE == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: standing(uses=0, within=HOUR),
        lambda: standing(uses=1, within=timedelta(days=8)),
        lambda: standing(uses=1, within=60),  # type: ignore[arg-type]
        lambda: standing(uses=1, within=HOUR, to="bo"),  # type: ignore[arg-type]
        lambda: standing(uses=1, within=HOUR, to=where(bool, name="says something")),
    ],
    ids=["uses", "days", "number", "value", "code"],
)
def test_an_endless_one_is_refused(make: Any):
    with pytest.raises(ConfigurationError):
        make()


def test_it_travels():
    person = Person(None)
    with Run(agent="t", grant=GRANT, gate=person.gate):
        pay("bo", 10)
    stands = standing(uses=3, within=HOUR, to=matches("b.*"))
    verdict = person.asked[0].approve(by="dana", standing=stands)
    assert read_verdict(verdict_tree(verdict)) == verdict
    with pytest.raises(MisuseError, match="standing="):
        person.asked[0].approve(by="dana", standing=5)


def test_care_of_grants_and_tools_is_joined():
    """The longest time, and a value to type in."""

    @irreversible("std.pay", care=Care(seconds=2))
    def careful(to: str) -> None:
        DONE.append(to)

    person = Person(None)
    grant = Grant(allow("std.pay", Care(seconds=5, retype="to"), preapproved("unexposed")))
    assert "Care(seconds=5.0, retype='to')" in str(grant.permissions[0])
    with Run(agent="t", grant=grant, gate=person.gate, exposed=True) as run:
        run.instruct("bo")
        careful("bo")
    assert person.asked[0].care == Care(5.0, "to")
    for odd in (Care(-1), Care(1e9), Care(0, 5)):  # type: ignore[arg-type]
        with pytest.raises(MisuseError):
            allow("std.pay", odd)

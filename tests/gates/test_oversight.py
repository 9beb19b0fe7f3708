"""Who only clicks is found out; who reads is left in peace."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein import Care, Grant, Run, Untrusted, allow, irreversible
from checkrein.confirmations import digest_of
from checkrein.errors import ConfigurationError, Suspended
from checkrein.gates import CallbackGate, Canaries
from checkrein.gates.canaries import Case
from checkrein.log.completeness import Story
from checkrein.oversight import BURST, Share, look, wilson
from support import MemoryLog, rule_of

DONE: list[str] = []
CASE = Case("send_email", "mail.send", {"to": "press@evil.example", "body": "all salaries"})


@pytest.fixture(autouse=True)
def _clean() -> None:
    DONE.clear()


@irreversible("over.send", external=True)
def send(to: str, text: Untrusted[str] = Untrusted("")) -> None:
    DONE.append(to)


@irreversible("over.asend", external=True)
async def asend(to: str) -> None:
    DONE.append(to)


GRANT = Grant(allow("over.send"), allow("over.asend"))


# -- simulated approvers -------------------------------------------------------------------


class Simulated:
    """An approver, by how long they take for so many letters and whether they see what is wrong."""

    def __init__(self, kind: str, chance: random.Random) -> None:
        self.kind, self.chance = kind, chance

    def answer(self, letters: int, bad: bool) -> tuple[float, bool]:
        """Return the seconds that pass, and whether it is a yes."""
        chance = self.chance
        reading = letters / chance.uniform(15, 30) + chance.lognormvariate(1.0, 0.6)
        clicking = chance.lognormvariate(0.2, 0.5)
        if self.kind == "careful":
            return reading, chance.random() < (0.05 if bad else 0.93)
        if self.kind == "hurried":  # skims half of it, and still looks
            return reading / 2, chance.random() < (0.12 if bad else 0.96)
        if self.kind == "stamp":
            return clicking, chance.random() < 0.995
        if self.kind == "waits":  # has heard of the clock
            return reading, chance.random() < 0.995
        read = chance.random() < 0.5  # "alternating"
        return (reading if read else clicking), chance.random() < (0.5 if bad else 0.97)


def week(kind: str, seed: int, *, questions: int = 120, every: int = 12) -> Any:
    """Return what a week of one approver looks like."""
    chance = random.Random(f"{kind}/{seed}")
    person = Simulated(kind, chance)
    events: list[dict[str, Any]] = []
    now = 1_800_000_000.0
    for number in range(questions):
        letters = int(chance.lognormvariate(5.3, 0.7))  # some two hundred, at times a thousand
        now += chance.expovariate(1 / 240)
        bad = chance.randrange(every) == 0
        seconds, yes = person.answer(letters, bad)
        began, now = now, now + seconds
        if bad:
            fields = {"type": "canary.answered", "asked": int(began * 1e9), "caught": not yes}
            events.append({**fields, "time": int(now * 1e9), "by": "p", "letters": letters})
            continue
        named = {"confirmation": f"q{number}"}
        asked = {"type": "confirmation.asked", "time": int(began * 1e9), "letters": letters}
        said = "approved" if yes else "gate.denied"
        answered = {"type": "confirmation.answered", "time": int(now * 1e9), "by": "p"}
        events += [{**asked, **named}, {**answered, **named, "answer": said}]
    return look(events)[0]


WEEKS = 500


@pytest.mark.parametrize(
    ("kind", "least", "most"),
    [
        ("careful", 0.0, 0.01),
        ("hurried", 0.0, 0.02),
        ("stamp", 0.99, 1.0),
        ("waits", 0.9, 1.0),
        ("alternating", 0.6, 1.0),
    ],
    ids=["careful", "hurried", "stamp", "waits", "alternating"],
)
def test_how_many_of_five_hundred_weeks_are_flagged(kind: str, least: float, most: float):
    """The false alarms and the detections that the documentation states."""
    flagged = sum(week(kind, seed).rubber_stamping for seed in range(WEEKS)) / WEEKS
    assert least <= flagged <= most


def test_few_answers_judge_nobody():
    for kind in ("careful", "stamp"):
        found = week(kind, 1, questions=10, every=10**9)
        assert not found.rubber_stamping
        assert "few" in found.flags


# -- figures -------------------------------------------------------------------------------


@given(st.integers(0, 500), st.integers(0, 500))
def test_an_interval_holds_the_share(part: int, more: int):
    low, high = wilson(part, part + more)
    assert 0 <= low <= high <= 1
    if part + more:
        assert low <= part / (part + more) <= high


def test_nothing_is_no_data():
    assert wilson(0, 0) == (0.0, 1.0)
    assert Share(0, 0).value is None
    assert look([]) == []


def yes_at(number: int, second: float, by: str = "dana") -> list[dict[str, Any]]:
    named = {"confirmation": f"q{number}"}
    moment = int((1_800_000_000 + second) * 1e9)
    return [
        {"type": "confirmation.asked", "time": moment - 10**9, "letters": 100, **named},
        {"type": "confirmation.answered", "time": moment, "by": by, "answer": "approved", **named},
    ]


def test_yeses_in_quick_succession_are_counted():
    events = [one for n in range(BURST * 2) for one in yes_at(n, n * 5.0)]
    (found,) = look(events)
    assert found.bursts == 2
    assert "bursts" in found.flags
    (found,) = look([one for n in range(50) for one in yes_at(n, n * 7.0)])
    assert found.bursts == 0


def test_each_has_a_share_of_all_answers():
    events = [one for n in range(30) for one in yes_at(n, n * 60.0, "lee" if n % 3 else "dana")]
    dana, lee = look(events)
    assert (dana.name, dana.share.part, lee.share.part, lee.share.whole) == ("dana", 10, 20, 30)
    assert dana.median_seconds == 1.0
    assert dana.too_fast.part == 10


def test_what_was_answered_by_nobody_counts_for_nobody():
    """A question that lapsed, an answer that did not count, one that an earlier one covers."""
    for answer in ("gate.expired", "gate.mismatch", "standing", "gate.unavailable", None, ["x"]):
        if isinstance(answer, list):
            continue
        events = yes_at(1, 0.0)
        events[1]["answer"] = answer
        assert look(events) == []


JSON = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just([])
FIELDS = st.sampled_from(["time", "letters", "by", "confirmation", "asked", "caught", "answer"])
KINDS = st.sampled_from(["confirmation.asked", "confirmation.answered", "canary.answered"])


@given(st.lists(st.tuples(KINDS, st.dictionaries(FIELDS, JSON | st.sampled_from(["approved"])))))
def test_odd_entries_raise_nothing(events: list[tuple[str, dict[str, Any]]]):
    for one in look({**fields, "type": kind} for kind, fields in events):
        assert one.name
        assert one.share.part <= one.share.whole


# -- canaries ------------------------------------------------------------------------------


class Person:
    """Keeps what was asked; says no to what is plainly wrong if they look."""

    def __init__(self, looks: bool = True) -> None:
        self.looks = looks
        self.asked: list[Any] = []
        self.gate = CallbackGate(self.ask, by="dana")

    def ask(self, confirmation: Any) -> Any:
        self.asked.append(confirmation)
        if self.looks and "press@" in confirmation.arguments[0].value:
            return confirmation.deny(by="dana", suspicious=True)
        return True


@pytest.mark.parametrize("looks", [True, False], ids=["looks", "clicks"])
def test_a_canary_is_asked_and_runs_never(looks: bool):
    """Nothing of it reaches the run: no call, no lock, no denial."""
    person, log = Person(looks), MemoryLog()
    gate = Canaries(person.gate, [CASE], log=log, every=1)
    with Run(agent="t", grant=GRANT, gate=gate, log=log) as run:
        assert rule_of(send, "bo") == ""
        assert not run.locked
    canary, question = person.asked
    assert (canary.tool, question.tool) == ("send_email", "send")
    assert DONE == ["bo"]
    (noted,) = log.of("canary.answered")
    assert noted["caught"] is looks
    (found,) = look(log.events)
    assert (found.canaries.part, found.canaries.whole) == (int(looks), 1)
    story = Story()
    for event in log.events:
        story.tell(event)
    assert story.runs().gaps == ()


def test_a_canary_has_the_form_of_a_question():
    person, log = Person(), MemoryLog()
    with Run(agent="t", grant=GRANT, gate=Canaries(person.gate, [CASE], log=log, every=1)):
        send("bo")
    canary, question = person.asked
    assert digest_of(canary) == canary.digest
    for name in ("agent", "run", "grants", "chain", "expires", "needed", "preview"):
        assert getattr(canary, name) == getattr(question, name)
    for name in ("id", "call", "digest", "bound_to"):
        one, other = getattr(canary, name), getattr(question, name)
        assert one != other
        assert abs(len(one) - len(other)) <= 3
    assert [bool(one.plain) for one in canary.arguments] == [True, True]


def test_a_canary_asks_for_no_argument_of_the_real_call():
    """Or nobody could say yes to it, and everybody would seem to look."""

    @irreversible("over.send", care=Care(seconds=1, retype="to"))
    def careful(to: str) -> None:
        DONE.append(to)

    person, log = Person(), MemoryLog()
    with Run(agent="t", grant=GRANT, gate=Canaries(person.gate, [CASE], log=log, every=1)):
        careful("bo")
    canary, question = person.asked
    assert (canary.care, question.care) == (Care(1.0), Care(1.0, "to"))


def test_a_quick_no_is_no_sign_of_anything():
    events = [one for n in range(40) for one in yes_at(n, n * 60.0)]
    for one in events:
        if one["type"] == "confirmation.answered":
            one["answer"] = "gate.denied"
    assert look(events)[0].too_fast == Share(0, 0)


def test_a_yes_to_a_canary_is_no_answer_to_the_question():
    """Whoever answers the canary's question with the canary's verdict has answered nothing."""
    log, kept = MemoryLog(), []

    def ask(confirmation: Any) -> Any:
        kept.append(confirmation)
        return kept[0].approve(by="dana")

    with Run(agent="t", grant=GRANT, gate=Canaries(CallbackGate(ask), [CASE], log=log, every=1)):
        assert rule_of(send, "bo") == "gate.mismatch"


def test_they_come_now_and_then():
    person, log = Person(), MemoryLog()
    gate = Canaries(person.gate, [CASE], log=log, every=4, chance=random.Random(1))
    with Run(agent="t", grant=GRANT, gate=gate):
        for _ in range(200):
            send("bo")
    assert 30 <= len(log.of("canary.answered")) <= 70


@pytest.mark.parametrize("what", ["raises", "none", "later", "other"])
def test_a_canary_that_fails_is_left_out(what: str):
    log, asked = MemoryLog(), []

    def ask(confirmation: Any) -> Any:
        asked.append(confirmation.tool)
        if confirmation.tool == "send":
            return True
        if what == "raises":
            raise OSError("no")
        if what == "later":
            raise Suspended("later")
        return None if what == "none" else 7

    with Run(agent="t", grant=GRANT, gate=Canaries(CallbackGate(ask), [CASE], log=log, every=1)):
        assert rule_of(send, "bo") == ""
    assert asked == ["send_email", "send"]
    assert log.of("canary.answered") == []


def test_an_awaited_gate():
    log, asked = MemoryLog(), []

    async def ask(confirmation: Any) -> Any:
        asked.append(confirmation.tool)
        await asyncio.sleep(0)
        return confirmation.tool == "asend"

    async def main() -> None:
        gate = Canaries(CallbackGate(ask, by="dana"), [CASE], log=log, every=1)
        assert gate.asynchronous
        async with Run(agent="t", grant=GRANT, gate=gate):
            await asend("bo")

    asyncio.run(main())
    assert asked == ["send_email", "asend"]
    assert log.of("canary.answered")[0]["caught"] is True


@pytest.mark.parametrize(
    "make",
    [
        lambda: Canaries(None, [CASE], log=MemoryLog()),
        lambda: Canaries(CallbackGate(bool), [], log=MemoryLog()),
        lambda: Canaries(CallbackGate(bool), [{}], log=MemoryLog()),  # type: ignore[list-item]
        lambda: Canaries(CallbackGate(bool), [CASE], log=MemoryLog(), every=0),
        lambda: Canaries(CallbackGate(bool), [CASE], log=None),  # type: ignore[arg-type]
    ],
    ids=["gate", "none", "dict", "every", "log"],
)
def test_what_is_set_up_wrongly_is_refused(make: Any):
    with pytest.raises(ConfigurationError):
        make()

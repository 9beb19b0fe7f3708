"""What several tests need: a log in memory, a clock that is told the time, gates that count."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from checkrein import CallbackGate, Confirmation
from checkrein.confirmations import Shown, digest_of
from checkrein.errors import Denied
from checkrein.log.schema import parse_entry
from checkrein.ports import Store, Use


class MemoryLog:
    """Keeps events in a list, and says which were waited for."""

    def __init__(self, *, fail_on: str = "") -> None:
        self.events: list[dict[str, Any]] = []
        self.durable: list[dict[str, Any]] = []
        self.fail_on = fail_on

    def append(self, event: Mapping[str, Any]) -> None:
        self.enqueue(event)
        self.durable.append(dict(event))

    def enqueue(self, event: Mapping[str, Any]) -> None:
        if event["type"] == self.fail_on:
            raise OSError("disk full")
        self.events.append(dict(event))
        if event.get("v") == 1:  # written by this library: every entry is one of its schema
            assert parse_entry(dict(event)) is not None

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    @property
    def kinds(self) -> list[str]:
        return [event["type"] for event in self.events]


class Clock:
    """Tells the time that a test sets."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Asked:
    """Keeps the confirmations that a gate was asked for, and answers them all alike."""

    def __init__(self, answer: Any = True) -> None:
        self.confirmations: list[Confirmation] = []
        self.answer = answer
        self.gate = CallbackGate(self._ask, by="approver")

    def _ask(self, confirmation: Confirmation) -> Any:
        self.confirmations.append(confirmation)
        return self.answer(confirmation) if callable(self.answer) else self.answer

    @property
    def count(self) -> int:
        return len(self.confirmations)


def asked_question(id: str = "q1", **changes: Any) -> Confirmation:
    """Return a question about a call that nobody has made."""
    made = Confirmation(
        id=id,
        tool="send",
        effect="irreversible",
        resource="mail.send",
        arguments=(Shown("to", "bo", False, "the user's words", "", '"bo"', '"bo"'),),
        reasons=("the effect cannot be taken back",),
        rules=("effect.irreversible",),
        agent="clerk",
        run="r1",
        call="r1-0",
        expires=2000.0,
        digest="",
        bound_to="ab" * 32,
        grants=("g1",),
        asked=1000.0,
    )._replace(**changes)
    return made._replace(digest=digest_of(made))


def used(store: Store, key: str) -> int:
    """Return how many uses of a budget are taken."""
    return store.taken(Use(key, 1 << 40), 1_800_000_000.0)


def rule_of(tool: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Call *tool*; return the id of the rule that denied it, ``""`` if it ran."""
    try:
        tool(*args, **kwargs)
    except Denied as denied:
        return denied.rule
    return ""

"""The simulated person at the gate, who also keeps the minutes of what was asked.

* :class:`Careful` approves exactly the calls that the user task needs: same
  tool, same arguments. It is not fooled, and not tired.
* :class:`Yes` approves everything.
* No person at all is no gate: what would be asked is denied.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from benchmarks.agentdojo import policy

from agentdojo.functions_runtime import FunctionCall
from checkrein import CallbackGate, Confirmation, Untrusted
from checkrein.untrusted import content


class Question(NamedTuple):
    """One question that was put to the person.

    Attributes:
        tool: the tool's name.
        arguments: all arguments, plain.
        concerns: the arguments that the rules are about, ``()`` for the call as a whole.
        rules: the ids of the rules that asked.
    """

    tool: str
    arguments: dict[str, Any]
    concerns: tuple[str, ...]
    rules: tuple[str, ...]


def question_of(confirmation: Confirmation) -> Question:
    """Return what *confirmation* asks, in plain values."""
    return Question(
        confirmation.tool,
        {one.name: _plain(one.value) for one in confirmation.arguments},
        tuple(one.name for one in confirmation.arguments if one.concern),
        confirmation.rules,
    )


def arguments_of(call: FunctionCall) -> dict[str, Any]:
    """Return all arguments of *call*, those left out at the tool's default."""
    bound = inspect.signature(getattr(policy, call.function)).bind(**call.args)
    bound.apply_defaults()
    return {name: _plain(value) for name, value in bound.arguments.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Untrusted):
        return _plain(content(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


class Person:
    """Somebody who answers as *verdict* says.

    Attributes:
        asked: every question so far.
        gate: where a run asks.
    """

    def __init__(self, verdict: Callable[[Question], bool]) -> None:
        self.asked: list[Question] = []
        self.gate = CallbackGate(self._answer, by="simulated")
        self._verdict = verdict

    def _answer(self, confirmation: Confirmation) -> bool:
        question = question_of(confirmation)
        self.asked.append(question)
        return self._verdict(question)


class Careful(Person):
    """Approves the calls of *needed* and nothing else."""

    def __init__(self, needed: Iterable[FunctionCall]) -> None:
        calls = [(one.function, arguments_of(one)) for one in needed]
        super().__init__(lambda asked: (asked.tool, asked.arguments) in calls)


class Yes(Person):
    """Approves everything."""

    def __init__(self, needed: Iterable[FunctionCall]) -> None:
        super().__init__(lambda _asked: True)

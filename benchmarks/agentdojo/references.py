"""Other guards on the same axes, and the price of one wrong label.

* :class:`Nothing`: every call is executed.
* :class:`Block`: nothing that changes state or reaches outside is executed.
* :class:`Substring`: the usual taint check, asked the usual way round: such a
  call is denied if a text in its plain arguments occurs in what untrusted tools
  returned, and not in the user's words.
* :class:`Known`: asked the right way round, and simply: such a call is denied
  unless every text in its plain arguments occurs in the user's words or in what
  evidence tools return, whenever and whatever they return it for.

They share the policy's facts with the guard under test, and have no person.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self

from benchmarks.agentdojo import policy
from benchmarks.agentdojo.harness import Scene, execute
from benchmarks.agentdojo.humans import Question

from agentdojo.agent_pipeline.tool_execution import tool_result_to_str
from checkrein import Untrusted, irreversible, reads, writes
from checkrein.errors import Denied
from checkrein.facts import Effect, Returns

_SHORTEST = 4
"""Texts shorter than this occur everywhere by chance."""


class Nothing:
    """Executes every call."""

    def __init__(self, scene: Scene) -> None:
        self.asked: list[Question] = []
        self._scene = scene

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exit_: object) -> None:
        return

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call the suite's own tool."""
        scene = self._scene
        return tool_result_to_str(execute(scene.pair.suite, scene.environment, name, arguments))


class Block(Nothing):
    """Executes reads that stay inside, and nothing else."""

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call the suite's own tool if it only reads."""
        if policy.facts_of(name).wary:
            raise Denied("everything but reading is blocked")
        return super().call(name, arguments)


class Substring(Nothing):
    """Denies what carries a text that only untrusted tools have said."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._untrusted = ""

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call the suite's own tool unless an argument looks tainted."""
        facts = policy.facts_of(name)
        if facts.wary:
            given = [arguments[one] for one in facts.plain if one in arguments]
            if any(self._is_tainted(text) for text in policy.texts_in(given)):
                raise Denied("an argument occurs in untrusted text")
        result = super().call(name, arguments)
        if facts.returns is Returns.UNTRUSTED:
            self._untrusted += result
        return result

    def _is_tainted(self, text: str) -> bool:
        return len(text) >= _SHORTEST and text in self._untrusted and text not in self._scene.prompt


class Known(Nothing):
    """Denies what carries a text that nobody trusted has said; evidence is never frozen."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._trusted = scene.prompt

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call the suite's own tool if every argument is known."""
        facts = policy.facts_of(name)
        if facts.wary:
            given = [arguments[one] for one in facts.plain if one in arguments]
            if any(text not in self._trusted for text in policy.texts_in(given)):
                raise Denied("an argument occurs in no trusted text")
        result = super().call(name, arguments)
        if facts.evidence:
            self._trusted += result
        return result


# -- wrong labels --------------------------------------------------------------------------

_DECORATORS: dict[Effect, Callable[..., Any]] = {
    Effect.READS: reads,
    Effect.WRITES: writes,
    Effect.IRREVERSIBLE: irreversible,
}


def untrusted_tools() -> list[str]:
    """Return the tools whose results the policy labels untrusted."""
    guarded = [name for name, value in vars(policy).items() if hasattr(value, "__checkrein__")]
    return [name for name in guarded if policy.facts_of(name).returns is Returns.UNTRUSTED]


def mislabelled(name: str) -> policy.Tool:
    """Return a tool of the policy whose untrusted result is declared trusted evidence."""
    facts = policy.facts_of(name)

    def shape() -> None: ...

    hints = {
        one.name: Untrusted[one.shown] if one.untrusted else one.shown for one in facts.parameters
    }
    shape.__name__ = shape.__qualname__ = name
    shape.__annotations__ = hints
    vars(shape)["__signature__"] = facts.signature.replace(
        parameters=[
            one.replace(annotation=hints[one.name]) for one in facts.signature.parameters.values()
        ],
        return_annotation=inspect.Signature.empty,
    )
    tool = policy.real(shape)
    for claim in facts.claims:
        tool = _DECORATORS[claim.effect](
            claim.resource,
            private=claim.private,
            external=claim.external,
            evidence=True,
            returns="trusted",
        )(tool)
    return tool

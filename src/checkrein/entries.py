"""The entries that a run writes; :mod:`checkrein.events` says what is in them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from checkrein.events import (
    discreet,
    loggable,
    loggable_arguments,
    loggable_field,
    loggable_sources,
)
from checkrein.lazy import sha256
from checkrein.untrusted import Untrusted, content
from checkrein.visible import visible

if TYPE_CHECKING:
    from checkrein.calls import Call
    from checkrein.rules import Finding
    from checkrein.runs import Run
    from checkrein.standing import Leave


_LONGEST_ID: Final = 200


def _short(one: object) -> str:
    """Return an id as its framework gives it: a text or a number, or else the name of its type."""
    return visible(str(one)[:_LONGEST_ID]) if isinstance(one, str | int) else type(one).__name__


class Entries:
    """Makes and numbers the entries of one run.

    Args:
        run: the run.
    """

    __slots__ = ("_allowed", "_numbers", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._numbers = itertools.count()
        self._allowed = itertools.count()

    @property
    def allowed(self) -> int:
        """How many calls were allowed; asked once, when the run closes."""
        return next(self._allowed)

    def plain(self, kind: str, /, **fields: Any) -> dict[str, Any]:
        """Return a log entry of this run, with its number and time."""
        return {
            "v": 1,
            "type": kind,
            "time": int(self._run.clock() * 1e9),
            "run": self._run.id,
            "seq": next(self._numbers),
            **{name: loggable_field(value) for name, value in fields.items()},
        }

    def said(self, text: str, *, keep: bool) -> dict[str, Any]:
        """Return fields about a prompt or a model's output."""
        return {
            "digest": self._digest(b"checkrein/said/v1\n", text),
            "letters": len(text),
            **({"text": loggable(text)} if keep else {}),
        }

    def _digest(self, what: bytes, text: str) -> str:
        raw = text.encode("utf-8", "surrogatepass")
        return sha256(what + self._run._salt + raw).hex()

    def of_host(self, framework: str, version: str, ids: Mapping[str, object]) -> dict[str, Any]:
        """Return fields about a framework; what it says is cut, and made visible."""
        told = [[_short(name), _short(one)] for name, one in sorted(ids.items()) if one is not None]
        return {"framework": _short(framework), "version": _short(version), "ids": told}

    def of_unknown(self, tool: str) -> dict[str, Any]:
        """Return fields about a tool that is not there; its name is whatever a model has said."""
        return {"tool": _short(tool)}

    def of_call(self, kind: str, call: Call, findings: Iterable[Finding]) -> dict[str, Any]:
        """Return the entry about the decision on *call*."""
        if kind == "call.allowed":
            next(self._allowed)
        run, facts = self._run, call.facts
        arguments = loggable_arguments(call.arguments)
        if facts.secrets or facts.erasable:
            arguments = discreet(arguments, call, run.subject)
        return {
            "v": 1,
            "type": kind,
            "time": int(run.clock() * 1e9),
            "run": run.id,
            "seq": next(self._numbers),
            "call": call.id,
            "agent": run.agent,
            "tool": facts.name,
            "effect": facts.effect_name,
            "resource": facts.source,
            "arguments": arguments,
            "digest": call.digest.hex(),
            "definition": facts.definition_text,
            "grants": run.grant_ids,
            "parent": call.parent,
            "findings": [{"rule": one.rule, "argument": one.argument} for one in findings],
            "exposed": run.exposed,
            **({} if run._shadow is None else {"shadow": True}),
            **({"standing": call.standing} if call.standing else {}),
        }

    def of_standing(self, call: Call, leave: Leave) -> dict[str, Any]:
        """Return the entry about a call that an earlier answer covers."""
        return self.plain(
            "confirmation.answered",
            call=call.id,
            confirmation=leave.id,
            answer="standing",
            by=leave.by,
            reason="",
            suspicious=False,
        )

    def of_outcome(
        self, call: Call, status: str, error: BaseException | None, result: Any, started: float
    ) -> dict[str, Any]:
        """Return the entry about what became of *call*."""
        more: dict[str, Any] = {}
        if type(result) is Untrusted:
            more["sources"] = loggable_sources(result.label)
        text = content(result) if type(result) is Untrusted else result
        if type(text) is str:
            more["digest"] = self._digest(b"checkrein/result/v1\n", text)
        return {
            "v": 1,
            "type": "call.outcome",
            "time": int(self._run.clock() * 1e9),
            "run": self._run.id,
            "seq": next(self._numbers),
            "call": call.id,
            "status": status,
            "error": "" if error is None or status == "closed" else type(error).__name__,
            "result": "" if result is None else type(result).__name__,
            **more,
            "ms": round((time.perf_counter() - started) * 1000, 3),
        }

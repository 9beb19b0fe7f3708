"""Shadow runs: decide and log, never block, and propose the grant that would have sufficed.

For the day on which a team does not know yet what its agent needs. A shadow run
protects nothing. What it does not overlook: a run that has ended or was
stopped, a revoked grant, a call that is no call, a file that nothing opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from checkrein.admission import HIDDEN, mentioned, to_mention
from checkrein.freezing import encode
from checkrein.spelling import spelled, spelled_permission

if TYPE_CHECKING:
    from checkrein.calls import Call
    from checkrein.facts import Claim
    from checkrein.rules import Decision, Finding

_NEVER_OVERLOOKED: Final = frozenset(
    {"run.none", "run.closed", "run.stopped", "run.locked", "permission.chain"}
)


class Overlooked(NamedTuple):
    """A call that ran in a shadow run and would not have run elsewhere.

    Attributes:
        call: its id in the log.
        tool: the name of the tool.
        findings: what spoke against it.
    """

    call: str
    tool: str
    findings: tuple[Finding, ...]


class _Use(NamedTuple):
    """Calls of one claim that differ in the value of one argument at most."""

    claim: Claim
    values: dict[str, dict[bytes, Any]]
    times: int


class Shadow:
    """What the calls of a shadow run, and of the runs inside it, have needed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._overlooked: list[Overlooked] = []
        self._uses: dict[tuple[Any, ...], _Use] = {}

    @property
    def overlooked(self) -> tuple[Overlooked, ...]:
        """The calls that would not have been allowed, in order."""
        return tuple(self._overlooked)

    def overlooks(self, call: Call, decision: Decision) -> bool:
        """Say whether *call* may run although *decision* is not to allow it."""
        if call.facts.files and not call.openers:
            return False
        return not any(one.rule in _NEVER_OVERLOOKED for one in decision.findings)

    def note(self, call: Call, findings: Sequence[Finding]) -> None:
        """Take in a call whose body is about to start."""
        values = _needed(call)
        names = tuple((name, tuple(found)) for name, found in values.items())
        with self._lock:
            if findings:
                seen = Overlooked(call.id, call.facts.name, tuple(findings))
                self._overlooked.append(seen)
            for claim in call.facts.claims:
                key = (claim, names)
                before = self._uses.get(key)
                times = 1 if before is None else before.times + 1
                self._uses[key] = _Use(claim, values, times)

    def proposal(self) -> str:
        """Return the least grant that covers every call that ran, as Python."""
        with self._lock:
            uses = list(self._uses.values())
        lines = [_line(one) for one in _merged(uses)]
        return "\n".join(["Grant(", *lines, ")"])


def _needed(call: Call) -> dict[str, dict[bytes, Any]]:
    """Return what a permission must say of the call's arguments, by the bytes of each value."""
    values = {name: call.openers.get(name, mentioned(call, name)) for name in to_mention(call)}
    return {
        name: {repr(one).encode() if name in call.openers or one is HIDDEN else encode(one): one}
        for name, one in values.items()
    }


def _merged(uses: list[_Use]) -> list[_Use]:
    """Join uses that differ in one argument only; what that covers is what was seen."""
    merged: list[_Use] = []
    for use in uses:
        for place, one in enumerate(merged):
            joined = _joined(one, use)
            if joined is not None:
                merged[place] = joined
                break
        else:
            merged.append(use)
    return merged if len(merged) == len(uses) else _merged(merged)


def _joined(one: _Use, other: _Use) -> _Use | None:
    if one.claim != other.claim or list(one.values) != list(other.values):
        return None
    differ = [name for name in one.values if one.values[name].keys() != other.values[name].keys()]
    if len(differ) > 1:
        return None
    values = [it for name in differ for use in (one, other) for it in use.values[name].values()]
    if any(spelled(value) is None for value in values):
        return None  # what has no literal must not widen what has one
    joined = {name: {**found, **other.values[name]} for name, found in one.values.items()}
    return _Use(one.claim, joined, one.times + other.times)


def _line(use: _Use) -> str:
    constraints = {name: list(found.values()) for name, found in use.values.items()}
    text, remarks = spelled_permission(use.claim, constraints, [f"budget(times={use.times})"])
    return f"    {text}," + (f"  # {'; '.join(remarks)}" if remarks else "")

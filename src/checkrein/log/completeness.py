"""What the entries say about themselves: calls in doubt, runs left open, gaps.

A tree shows that no entry was changed; it cannot show that one was never
written. For that the entries of a run carry ``run`` and ``seq``, which counts
from 0 within the run, and an intent (``call.allowed``) is followed by an outcome
(``call.outcome``) with the same ``call``. An intent without an outcome is *in
doubt*: the process may have died while the tool ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Runs:
    """How many runs there were, and which are not complete.

    Attributes:
        opened: how many ``run.opened``.
        closed: how many ``run.closed``.
        open: ids of runs with entries and neither ``run.closed`` nor ``run.suspended``.
        gaps: one line per run with missing or repeated sequence numbers.
    """

    opened: int = 0
    closed: int = 0
    open: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()


_ENDS: Final = ("run.closed", "run.suspended")
_ABOUT_CALLS: Final = ("call.allowed", "call.outcome", "call.denied")


class Story:
    """Reads events in order and keeps count."""

    def __init__(self) -> None:
        self._allowed: dict[str, None] = {}
        self._open: dict[str, None] = {}
        self._next: dict[str, int] = {}
        self._early: dict[str, set[int]] = {}
        self._repeated: dict[str, int] = {}
        self._opened = self._closed = 0

    def tell(self, event: dict[str, Any]) -> None:
        """Take in the next event."""
        kind, run, seq = event.get("type"), event.get("run"), event.get("seq")
        if type(run) is str and type(seq) is int:
            if seq and self._next.get(run) == seq and run not in self._early:
                self._next[run] = seq + 1  # the usual case: the next one of its run
            else:
                self._count(run, seq)
            if kind in _ENDS:
                self._closed += kind == "run.closed"
                self._open.pop(run, None)
            elif kind == "run.opened":
                self._opened += 1
        if kind not in _ABOUT_CALLS:
            return
        call = event.get("call")
        if type(call) is not str:
            return
        if kind == "call.allowed":
            self._allowed[call] = None
        else:  # denied: after the intent, too late to run
            self._allowed.pop(call, None)

    def in_doubt(self) -> tuple[str, ...]:
        """Return the ids of calls with an intent and no outcome."""
        return tuple(self._allowed)

    def runs(self) -> Runs:
        """Return what is known of the runs."""
        gaps = [f"{run}: {self._missing(run)} missing" for run in self._early if self._early[run]]
        gaps += [f"{run}: {seq} repeated" for run, seq in self._repeated.items()]
        return Runs(self._opened, self._closed, tuple(self._open), tuple(gaps))

    def _count(self, run: str, seq: int) -> None:
        expected = self._next.get(run)
        if expected is None:
            self._open[run] = None
            expected = 0
        if seq == expected:
            expected += 1
            early = self._early.get(run)
            while early and expected in early:
                early.remove(expected)
                expected += 1
        elif seq < expected or seq in self._early.get(run, ()):
            self._repeated.setdefault(run, seq)
        else:
            self._early.setdefault(run, set()).add(seq)
        self._next[run] = expected

    def _missing(self, run: str) -> str:
        """Return the missing numbers of *run* as ranges; cheap however large a number is."""
        ranges: list[str] = []
        start = self._next[run]
        for seq in sorted(self._early[run]):
            if seq > start:
                ranges.append(str(start) if seq == start + 1 else f"{start} to {seq - 1}")
            start = seq + 1
        return ", ".join(ranges)

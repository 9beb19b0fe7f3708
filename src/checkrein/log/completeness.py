"""What the entries say about themselves: calls in doubt, runs left open, gaps.

A tree shows that no entry was changed; it cannot show that one was never
written. For that the entries of a run carry ``run`` and ``seq``, which counts
from 0 within the run; ``run.closed`` says how many ``calls`` were allowed; and an
intent (``call.allowed``) is followed by an outcome (``call.outcome``) with the same
``call``. An intent without an outcome is *in doubt*: the process may have died
while the tool ran. An outcome of a body without an intent is an *orphan*.

A log may be read in parts, by several processes. Each part is a `Story`, told in
order, and stories are joined in order. Only a whole story knows whether a run's
first numbers are missing; one that begins in the middle (``whole=False``) takes the
first number that it sees for the run's next one, and an outcome for that of an
earlier intent.

A run that has closed, and whose numbers are complete, is forgotten, but for the
last `REMEMBERED` of them: so a log of any length is read in the memory that its open
runs take. Entries of a run that come later than that are named as what they may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from checkrein.errors import TamperedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REMEMBERED: Final = 1 << 16
"""How many runs that are over are kept in mind, for entries that come late."""


@dataclass(frozen=True, slots=True)
class Runs:
    """How many runs there were, and which are not complete.

    Attributes:
        opened: how many ``run.opened``.
        closed: how many ``run.closed``.
        open: ids of runs with entries and neither ``run.closed`` nor ``run.suspended``.
        gaps: one line per run with missing or repeated sequence numbers, or whose
            closing count is not that of its calls.
        orphans: ids of calls with an outcome of their body and no intent.
    """

    opened: int = 0
    closed: int = 0
    open: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()


_RAN: Final = frozenset({"done", "raised", "closed"})
_LIFE: Final = frozenset({"run.opened", "run.closed", "run.suspended"})
_KEYS: Final = frozenset({"log.key", "log.key.revoked"})


class _Run:
    """The numbers of one run: all from *start* up to *stop*, and *others* that came early."""

    __slots__ = ("allowed", "claimed", "ended", "others", "repeated", "start", "stop")

    def __init__(self, start: int) -> None:
        self.start = self.stop = start
        self.others: Sequence[tuple[int, int]] = ()
        self.allowed = 0
        self.claimed: int | None = None
        self.repeated: int | None = None
        self.ended = False

    def add(self, start: int, stop: int) -> None:
        """Take in the numbers from *start* up to *stop*."""
        spans = sorted([*self._spans(), (start, stop)])
        joined = [spans[0]]
        for first, last in spans[1:]:
            before = joined[-1]
            if first > before[1]:
                joined.append((first, last))
                continue
            if first < before[1] and self.repeated is None:
                self.repeated = first
            joined[-1] = (before[0], max(before[1], last))
        (self.start, self.stop), *self.others = joined

    def take(self, other: _Run) -> None:
        """Take in what a later part of the log says of the same run."""
        for start, stop in other._spans():
            self.add(start, stop)
        self.repeated = other.repeated if self.repeated is None else self.repeated
        self.claimed = other.claimed if self.claimed is None else self.claimed
        self.allowed += other.allowed
        self.ended = self.ended or other.ended

    def is_complete(self) -> bool:
        """Tell whether the run is over, and nothing is wrong with it."""
        return (
            self.ended
            and self.start == 0
            and not self.others
            and self.repeated is None
            and self.claimed in {None, self.allowed}
        )

    def problems(self, *, whole: bool) -> Iterable[str]:
        """Yield what is wrong with the numbers."""
        spans = self._spans()
        missing = [(0, self.start)] if whole and self.start else []
        missing += [(one[1], two[0]) for one, two in pairwise(spans)]
        if missing:
            parts = (str(a) if b == a + 1 else f"{a} to {b - 1}" for a, b in missing)
            yield f"{', '.join(parts)} missing"
        if self.repeated is not None:
            yield f"{self.repeated} repeated"
        if whole and not missing and self.claimed not in {None, self.allowed}:
            yield f"closed with {self.claimed} calls, {self.allowed} are here"

    def _spans(self) -> list[tuple[int, int]]:
        return [(self.start, self.stop), *self.others]


class Story:
    """Reads events in order and keeps count.

    Args:
        whole: the events begin with the first of the log.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self._whole = whole
        self._runs: dict[str, _Run] = {}
        self._over: dict[str, _Run] = {}
        self._allowed: dict[str, None] = {}
        # Outcomes without an intent in this part, in order: whether a body ran.
        self._ended: dict[str, tuple[bool, ...]] = {}
        self._opened = self._closed = 0
        self.keys: list[dict[str, Any]] = []
        """The entries about keys of the log; see `checkrein.log.succession`."""

    def tell(self, event: dict[str, Any]) -> None:
        """Take in the next event."""
        self.tell_all((event,))

    def tell_all(self, events: Iterable[Any]) -> None:  # noqa: C901, PLR0912 (one loop, for speed)
        """Take in the next events.

        Raises:
            TamperedError: one is not an object with a text as its ``type``; those before it
                were taken in.
        """
        runs, allowed = self._runs, self._allowed
        for event in events:
            if type(event) is not dict or type(kind := event.get("type")) is not str:
                raise TamperedError("this is not an event", where="entry")
            run, seq = event.get("run"), event.get("seq")
            known = None
            if type(run) is str and type(seq) is int:
                known = runs.get(run)
                if known is not None and known.stop == seq and not known.others:
                    known.stop = seq + 1  # the usual case: the next one of its run
                else:
                    known = self._number(run, seq)
            if kind == "call.allowed":
                call = event.get("call")
                if type(call) is str:
                    allowed[call] = None
                if known is not None:
                    known.allowed += 1
            elif kind == "call.outcome" or kind == "call.denied":  # noqa: PLR1714 (for speed)
                call = event.get("call")
                if type(call) is str:
                    if call in allowed:  # denied: after the intent, too late to run
                        del allowed[call]
                    else:
                        self._end(call, ran=kind == "call.outcome" and _is_ran(event))
            elif kind in _KEYS:
                self.keys.append(event)
            elif known is not None and kind in _LIFE:
                self._note(known, str(run), kind, event)

    def join(self, later: Story) -> None:
        """Take in the story of the part that follows."""
        for run, told in {**later._runs, **later._over}.items():
            known = self._runs.get(run) or self._over.pop(run, None)
            if known is None:
                self._runs[run] = told
            else:
                known.take(told)
                self._runs[run] = known
            self._forget(run)
        for call, endings in later._ended.items():
            for ran in endings:
                self._end(call, ran=ran)
        self._allowed |= later._allowed
        self.keys += later.keys
        self._opened += later._opened
        self._closed += later._closed

    def in_doubt(self) -> tuple[str, ...]:
        """Return the ids of calls with an intent and no outcome."""
        return tuple(self._allowed)

    def runs(self) -> Runs:
        """Return what is known of the runs."""
        gaps = [
            f"{run}: {problem}"
            for run, known in (*self._over.items(), *self._runs.items())
            for problem in known.problems(whole=self._whole)
        ]
        orphans = [call for call, ran in self._ended.items() if any(ran) and self._whole]
        still_open = [run for run, known in self._runs.items() if not known.ended]
        return Runs(self._opened, self._closed, tuple(still_open), tuple(gaps), tuple(orphans))

    def _number(self, run: str, seq: int) -> _Run:
        """Take in a number that is not simply the next one."""
        known = self._runs.get(run)
        if known is None:
            known = self._over.pop(run, None)
            if known is None:
                known = _Run(seq)
                known.stop = seq + 1
                self._runs[run] = known
                return known
            self._runs[run] = known
        known.add(seq, seq + 1)
        self._forget(run)
        return known

    def _note(self, known: _Run, run: str, kind: str, event: dict[str, Any]) -> None:
        """Take in that a run begins or ends."""
        if kind == "run.opened":
            self._opened += 1
            return
        known.ended = True
        if kind == "run.closed":
            self._closed += 1
            count = event.get("calls")
            known.claimed = count if type(count) is int else known.claimed
        self._forget(run)

    def _end(self, call: str, *, ran: bool) -> None:
        if call in self._allowed:
            del self._allowed[call]
        elif ran or not self._whole:
            self._ended[call] = (*self._ended.get(call, ()), ran)

    def _forget(self, run: str) -> None:
        """Put a run that is over and complete aside; the oldest of these is forgotten."""
        known = self._runs.get(run)
        if self._whole and known is not None and known.is_complete():
            self._over[run] = self._runs.pop(run)
            if len(self._over) > REMEMBERED:
                del self._over[next(iter(self._over))]


def _is_ran(event: dict[str, Any]) -> bool:
    status = event.get("status")
    return type(status) is str and status in _RAN

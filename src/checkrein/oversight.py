"""Do the people who confirm still look? What their answers in the log say about it.

For each approver: how many questions they answered and how often with yes, how long they
took and how much there was to read, how many answers came faster than anybody reads, how
often they said yes in quick succession, their share of all answers, and how many of the
canaries they caught: questions about calls that are plainly wrong, asked now and then by
:class:`checkrein.gates.canaries.Canaries`, that are never made whatever is answered.

An approver is *rubber-stamping* if one of these is certain enough, by the bound of a 95 %
Wilson interval (E. B. Wilson, 1927):

* ``too-fast``: more than a fifth of their yeses were faster than ``letters / SPEED``
  seconds, where :data:`SPEED` is twice what a fast reader reads;
* ``missed-canaries``: they catch fewer than four in five.

Nobody is judged by fewer than :data:`FEWEST` answers, or :data:`FEWEST_CANARIES` canaries.
Further flags tell what to look at, and judge nobody: ``bursts``, ``never-no``, ``alone``.

Who waits and then says yes unread is found out by canaries alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

SPEED: Final = 50.0
"""Letters a second that nobody reads."""

FEWEST: Final = 20
"""Answers below which nobody is judged by their speed."""

FEWEST_CANARIES: Final = 5
"""Canaries below which nobody is judged by them."""

BURST: Final = 10
"""Yeses within a minute that make a burst."""

_MANY: Final = 100
_Z: Final = 1.959963984540054  # of 95 %
_TOO_FAST: Final = 0.2
_CAUGHT: Final = 0.8
_NANOSECONDS: Final = 1e9
_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many, with a 95 % Wilson interval.

    Attributes:
        part, whole: the numbers.
        low, high: the interval; 0 to 1 where there is nothing.
    """

    part: int
    whole: int
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        low, high = wilson(self.part, self.whole)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def value(self) -> float | None:
        """The share, ``None`` where there is nothing."""
        return self.part / self.whole if self.whole else None


def wilson(part: int, whole: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of *part* out of *whole*.

    Example:
        >>> [round(bound, 3) for bound in wilson(8, 10)]
        [0.49, 0.943]
    """
    if whole <= 0:
        return 0.0, 1.0
    share, square = part / whole, _Z * _Z
    centre = (share + square / (2 * whole)) / (1 + square / whole)
    half = math.sqrt(share * (1 - share) / whole + square / (4 * whole * whole))
    half *= _Z / (1 + square / whole)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


@dataclass(frozen=True, slots=True)
class Approver:
    """What the log says about one approver.

    Attributes:
        name: as in the verdicts.
        yeses: of all their answers.
        too_fast: of those yeses of which it is known how much there was to read.
        median_seconds: that they took, ``None`` if it is not known of any answer.
        bursts: how often they said yes ten times within a minute.
        share: of the answers of all.
        canaries: how many they caught.
        flags: what stands out, as short ids.
    """

    name: str
    yeses: Share
    too_fast: Share
    median_seconds: float | None
    bursts: int
    share: Share
    canaries: Share
    flags: tuple[str, ...]

    @property
    def rubber_stamping(self) -> bool:
        """Whether this is what it looks like."""
        return bool({"too-fast", "missed-canaries"} & set(self.flags))


class _Seen:
    """What was seen of one approver."""

    def __init__(self) -> None:
        self.answers = self.yeses = self.fast = self.timed = 0
        self.canaries = self.caught = 0
        self.seconds: list[float] = []
        self.moments: list[float] = []


def look(events: Iterable[dict[str, Any]]) -> list[Approver]:
    """Return what the entries of a log say about each approver, by name.

    Args:
        events: the entries, in order; see :func:`checkrein.log.read_entries`.

    Example:
        >>> look([])
        []
    """
    asked: dict[str, tuple[float | None, int | None]] = {}
    seen: dict[str, _Seen] = {}
    for event in events:
        kind, id_ = event.get("type"), event.get("confirmation")
        if kind == "confirmation.asked" and type(id_) is str:
            asked[id_] = _moment(event, "time"), _count(event, "letters")
        elif kind == "confirmation.answered" and event.get("answer") in _ANSWERS:
            began, letters = asked.get(str(id_), (None, None))
            _answered(seen, event, event["answer"] == "approved", began, letters)
        elif kind == "canary.answered":
            _answered(seen, event, None, _moment(event, "asked"), _count(event, "letters"))
    total = sum(one.answers for one in seen.values())
    return [_judged(name, one, total) for name, one in sorted(seen.items())]


_ANSWERS: Final = ("approved", "gate.denied", "edited")


def _answered(
    seen: dict[str, _Seen],
    event: dict[str, Any],
    yes: bool | None,
    began: float | None,
    letters: int | None,
) -> None:
    """Take in one answer; of a canary, *yes* is ``None``."""
    by, ended = event.get("by"), _moment(event, "time")
    if type(by) is not str or not by:
        return
    one = seen.setdefault(by, _Seen())
    one.answers += 1
    if yes is None:
        one.canaries += 1
        one.caught += event.get("caught") is True
        yes = event.get("caught") is not True
    one.yeses += yes
    if yes and ended is not None:
        one.moments.append(ended)
    if ended is None or began is None or ended < began:
        return
    one.seconds.append(ended - began)
    if yes and letters is not None:  # a quick no may be right after the first line
        one.timed += 1
        one.fast += ended - began < letters / SPEED


def _judged(name: str, one: _Seen, total: int) -> Approver:
    yeses, share = Share(one.yeses, one.answers), Share(one.answers, total)
    fast, canaries = Share(one.fast, one.timed), Share(one.caught, one.canaries)
    bursts = _bursts(one.moments)
    flags = (
        ("too-fast", one.timed >= FEWEST and fast.low > _TOO_FAST),
        ("missed-canaries", one.canaries >= FEWEST_CANARIES and canaries.high < _CAUGHT),
        ("bursts", bursts > 0),
        ("never-no", one.answers >= _MANY and one.yeses == one.answers),
        ("alone", total >= _MANY and one.answers == total),
        ("few", one.timed < FEWEST and one.canaries < FEWEST_CANARIES),
    )
    return Approver(
        name,
        yeses,
        fast,
        statistics.median(one.seconds) if one.seconds else None,
        bursts,
        share,
        canaries,
        tuple(flag for flag, raised in flags if raised),
    )


def _bursts(moments: list[float]) -> int:
    """Return how many separate minutes hold as many yeses as make a burst."""
    moments = sorted(moments)
    found = start = 0
    while start + BURST <= len(moments):
        if moments[start + BURST - 1] - moments[start] < _MINUTE:
            found += 1
            start += BURST
        else:
            start += 1
    return found


def _moment(event: dict[str, Any], name: str) -> float | None:
    value = event.get(name)
    return value / _NANOSECONDS if type(value) is int and 0 <= value < 1 << 63 else None


def _count(event: dict[str, Any], name: str) -> int | None:
    value = event.get(name)
    return value if type(value) is int and 0 <= value < 1 << 53 else None

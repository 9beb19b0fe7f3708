"""The store of one process: its threads and tasks share it, nothing outlives it.

A reservation is remembered until it is given back, or until no window can
count it; so a budget without a window keeps at most as many as its limit.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from threading import RLock
from typing import Final

from checkrein.ports import Clock, Use, entropy
from checkrein.store.checks import (
    REASON_LENGTH,
    Posting,
    check_number,
    check_text,
    check_use,
    check_uses,
    horizon,
    moment,
)
from checkrein.store.faults import WITHIN, StoreError
from checkrein.store.forks import watch


class _Window:
    """The uses of one key that counted for a time.

    Attributes:
        entries: when and how much was taken, by token, in the order of time.
        latest: the latest time that the key has seen.
        span: the longest window that was asked for, in seconds.
        total: the sum of what *entries* hold.
    """

    __slots__ = ("entries", "latest", "span", "total")

    def __init__(self) -> None:
        self.entries: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self.latest: float | None = None
        self.span = 0.0
        self.total = 0

    def taken(self, now: float, window: float) -> int:
        """Return how much counts at *now*."""
        since = horizon(moment(now, self.latest), window)
        taken = self.total
        for at, amount in self.entries.values():
            if at > since:
                break
            taken -= amount
        return taken

    def take(self, token: str, amount: int, now: float, window: float) -> None:
        """Record a use; forget those that no window counts any more."""
        self.latest = now = moment(now, self.latest)
        self.span = max(self.span, float(window))
        since = horizon(now, self.span)
        while self.entries:
            old, (at, freed) = next(iter(self.entries.items()))
            if at > since:
                break
            del self.entries[old]
            self.total -= freed
        self.entries[token] = (now, amount)
        self.total += amount

    def give_back(self, token: str) -> None:
        """Forget a use."""
        self.total -= self.entries.pop(token, (0.0, 0))[1]


class MemoryStore:
    """Counts in this process; its threads and tasks may share it.

    A forked child goes on with a copy of what was counted at the fork.

    Args:
        clock: tells when a notice is posted.

    Example:
        >>> store = MemoryStore()
        >>> uses = [Use("mail", limit=1)]
        >>> token = store.reserve(uses, 0.0)
        >>> store.reserve(uses, 1.0) is None
        True
        >>> store.release(token, uses)
        >>> store.taken(uses[0], 2.0)
        0
    """

    waits = False

    def __init__(self, *, clock: Clock = time.time) -> None:
        self._clock = clock
        self._lock = RLock()
        self._inside = False
        self._totals: dict[str, int] = {}
        self._held: dict[str, Sequence[Use]] = {}
        self._windows: dict[str, _Window] = {}
        self._returned: deque[tuple[str, Sequence[Use]]] = deque()
        self._postings: dict[str, Posting] = {}
        self._standing: frozenset[str] = frozenset()
        self._prefix = f"{entropy(8).hex()}-"
        self._numbers = itertools.count(1)
        watch(self)

    def reserve(self, uses: Sequence[Use], now: float, /) -> str | None:
        """Take all of *uses*, or none; return a token for them, ``None`` if one does not fit.

        Args:
            uses: at least one, of different keys.
            now: seconds since the epoch.

        Raises:
            ConfigurationError: something is out of bounds; see :mod:`checkrein.store.checks`.
            StoreError: a finalizer reserves within a call of the same thread.
        """
        check_uses(uses, now)
        with self._lock:
            if self._inside:
                raise StoreError(WITHIN)
            try:
                self._inside = True
                if self._returned:
                    self._settle()
                key, limit, amount, window = uses[0]
                if len(uses) == 1 and window == 0.0 and amount:  # the usual one, made quick
                    total = self._totals.get(key, 0) + amount
                    if total > limit:
                        return None
                    token = f"{self._prefix}{next(self._numbers)}"
                    self._held[token] = (uses[0],)
                    self._totals[key] = total
                    return token
                for use in uses:
                    if self._taken(use, now) + use.amount > use.limit:
                        return None
                token = f"{self._prefix}{next(self._numbers)}"
                self._take(token, uses, now)
                return token
            finally:
                self._inside = False

    def release(self, token: str, uses: Sequence[Use], /) -> None:
        """Give back what :meth:`reserve` has taken of *uses* under *token*.

        A second time changes nothing, and so does a token of another store.

        Raises:
            ConfigurationError: something is out of bounds.
        """
        for use in uses:
            check_use(use)
        self._returned.append((token, uses))
        with self._lock:
            if not self._inside:  # else a finalizer gives back; who is inside or comes next settles
                try:
                    self._inside = True
                    self._settle()
                finally:
                    self._inside = False

    def taken(self, use: Use, now: float, /) -> int:
        """Return how many units of the budget of *use* are reserved or spent, as of *now*.

        Raises:
            ConfigurationError: something is out of bounds.
        """
        check_use(use)
        check_number(now, "the time")
        with self._lock:
            if self._returned and not self._inside:
                try:
                    self._inside = True
                    self._settle()
                finally:
                    self._inside = False
            return self._taken(use, now)

    def notices(self) -> frozenset[str]:
        """Return all notices that stand."""
        return self._standing

    def post(self, notice: str, /, *, reason: str = "") -> None:
        """Put up *notice*; it stands until it is withdrawn. Posting it again changes nothing.

        Args:
            notice: what it says.
            reason: why, for people to read.

        Raises:
            ConfigurationError: a text is too long, or is none.
        """
        check_text(notice, "a notice")
        check_text(reason, "a reason", 0, REASON_LENGTH)
        posting = Posting(notice, reason, self._clock())
        with self._lock:
            self._postings.setdefault(notice, posting)
            self._standing = frozenset(self._postings)

    def withdraw(self, notice: str, /) -> None:
        """Take *notice* down, if it stands."""
        check_text(notice, "a notice")
        with self._lock:
            self._postings.pop(notice, None)
            self._standing = frozenset(self._postings)

    def postings(self) -> list[Posting]:
        """Return what stands, with reasons and times, the oldest first."""
        with self._lock:
            return sorted(self._postings.values(), key=lambda one: (one.at, one.notice))

    def _taken(self, use: Use, now: float) -> int:
        if use.window == 0.0:
            return self._totals.get(use.key, 0)
        window = self._windows.get(use.key)
        return 0 if window is None else window.taken(now, use.window)

    def _take(self, token: str, uses: Sequence[Use], now: float) -> None:
        lasting = [use for use in uses if use.window == 0.0 and use.amount]
        if lasting:
            self._held[token] = lasting
        for use in lasting:
            self._totals[use.key] = self._totals.get(use.key, 0) + use.amount
        if len(lasting) < len(uses):
            for key, _, amount, seconds in uses:
                if seconds != 0.0 and amount:
                    window = self._windows.get(key)
                    if window is None:
                        window = self._windows[key] = _Window()
                    window.take(token, amount, now, seconds)

    def _settle(self) -> None:
        while self._returned:
            token, uses = self._returned.popleft()
            keys = {use.key for use in uses}
            held = self._held.pop(token, ())
            rest: list[Use] = []
            for use in held:
                if use.key in keys:
                    self._totals[use.key] -= use.amount
                else:
                    rest.append(use)
            if rest:
                self._held[token] = rest
            if rest or len(held) < len(keys):
                for key in keys:
                    if key in self._windows:
                        self._windows[key].give_back(token)

    def before_fork(self) -> None:
        """Wait for what other threads are doing here."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Go on with a copy."""
        self._lock = RLock()


PROCESS_STORE: Final = MemoryStore()
"""Where the budgets of this process are counted unless a run is given another store."""

"""What the stores in databases have in common: their tables, and what is done with them.

::

    about         version                     of this layout: 2
    budgets       key, total, latest, span    one row for each key
    reservations  token, key, amount, at      one row for each use that can be given back
    notices       notice, reason, at          what stands
    questions     id, state, ...              see :mod:`checkrein.gates.desk`

``total`` is what was taken without a window and not given back; such a
reservation has no ``at``. What was taken with a window is the sum of its
reservations. ``latest`` is the latest time that the key has seen, ``span`` the
longest window that was asked for: what is older is deleted at the next use.
Times and windows are in seconds.

A transaction that changes what was taken locks the rows in ``budgets`` first,
in the order of the keys, so that no two wait for each other.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from threading import RLock
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

from checkrein.lazy import logger
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

VERSION: Final = 2
"""Of the layout of the tables. The first had no questions; it is brought up to date."""

NAMES: Final = ("about", "budgets", "reservations", "notices", "questions")
"""The tables."""

NEWS: Final = "checkrein_questions"
"""The channel on which a database that has channels tells that a question was answered."""

T = TypeVar("T")

_FIND = "SELECT total, latest, span FROM {budgets} WHERE key = ?"
_ADD = "INSERT INTO {budgets} (key) VALUES (?) ON CONFLICT (key) DO NOTHING"
_CHANGE = "UPDATE {budgets} SET total = ?, latest = ?, span = ? WHERE key = ?"
_KEEP = "INSERT INTO {reservations} (token, key, amount, at) VALUES (?, ?, ?, ?)"
_PRUNE = "DELETE FROM {reservations} WHERE key = ? AND at <= ?"
_HELD = "SELECT amount, at FROM {reservations} WHERE token = ? AND key = ?"
_DROP = "DELETE FROM {reservations} WHERE token = ? AND key = ?"
_NOTICES = "SELECT notice FROM {notices}"
_POSTINGS = "SELECT notice, reason, at FROM {notices}"
_POST = (
    "INSERT INTO {notices} (notice, reason, at) VALUES (?, ?, ?) ON CONFLICT (notice) DO NOTHING"
)
_WITHDRAW = "DELETE FROM {notices} WHERE notice = ?"
# The halves of the amounts are added apart: the sum may be larger than 2**63.
_SUM = (
    "SELECT CAST(COALESCE(SUM(amount >> 32), 0) AS BIGINT),"
    " CAST(COALESCE(SUM(amount & 4294967295), 0) AS BIGINT)"
    " FROM {reservations} WHERE key = ? AND at > ?"
)


class Session(Protocol):
    """A connection on which a piece of work is done."""

    def ask(self, statement: str, *values: str | float | None) -> list[tuple[Any, ...]]:
        """Run a statement in which ``?`` stands for a value; return the rows that it yields."""
        ...

    def lock(self, statement: str, *values: str | float | None) -> list[tuple[Any, ...]]:
        """Do the same, and lock the rows."""
        ...

    def tell(self, news: str) -> None:
        """Wake those who wait for *news*, once the work is committed."""
        ...


class NoRoom(Exception):
    """A use does not fit: undo everything."""


class TableStore(ABC):
    """A store in a database. Several processes may share it; so may the threads of each.

    A process has one connection. It is closed before a fork, because neither SQLite's
    locks nor a socket can be shared: parent and child open their own when they need it.

    Args:
        clock: tells when a notice is posted.
    """

    waits = True

    def __init__(self, *, clock: Clock = time.time) -> None:
        self._clock = clock
        self._lock = RLock()
        self._inside = False
        self._closed = False
        self._returned: deque[tuple[str, Sequence[Use]]] = deque()
        watch(self)

    # -- the protocol --------------------------------------------------------------------------

    def reserve(self, uses: Sequence[Use], now: float, /) -> str | None:
        """Take all of *uses*, or none; return a token for them, ``None`` if one does not fit.

        Args:
            uses: at least one, of different keys.
            now: seconds since the epoch.

        Raises:
            ConfigurationError: something is out of bounds; see :mod:`checkrein.store.checks`.
            StoreError: the database did not do it, or it is not known whether it did.
        """
        check_uses(uses, now)
        token = entropy(16).hex()
        in_order = sorted(uses)
        try:
            self._do(lambda session: _reserve(session, token, in_order, now), changes=True)
        except NoRoom:
            return None
        return token

    def release(self, token: str, uses: Sequence[Use], /) -> None:
        """Give back what :meth:`reserve` has taken of *uses* under *token*.

        A second time changes nothing, and so does a token of another store.

        Raises:
            ConfigurationError: something is out of bounds.
            StoreError: the database did not do it; it may be tried again.
        """
        for use in uses:
            check_use(use)
        if not _is_token(token) or not uses:
            return
        with self._lock:
            if self._inside:  # a finalizer gives back within a call of its own thread
                self._returned.append((token, tuple(uses)))
            else:
                self._release(token, uses)

    def taken(self, use: Use, now: float, /) -> int:
        """Return how many units of the budget of *use* are reserved or spent, as of *now*.

        Raises:
            ConfigurationError: something is out of bounds.
            StoreError: the database did not answer.
        """
        check_use(use)
        check_number(now, "the time")
        return self._do(lambda session: _taken(session, use, now, _find(session.ask, use.key)))

    def notices(self) -> frozenset[str]:
        """Return all notices that stand.

        Raises:
            StoreError: the database did not answer.
        """
        return frozenset(_text(row[0]) for row in self._do(lambda session: session.ask(_NOTICES)))

    def post(self, notice: str, /, *, reason: str = "") -> None:
        """Put up *notice*; it stands until it is withdrawn. Posting it again changes nothing.

        Args:
            notice: what it says.
            reason: why, for people to read.

        Raises:
            ConfigurationError: a text is too long, or is none.
            StoreError: the database did not do it, or it is not known whether it did.
        """
        check_text(notice, "a notice")
        check_text(reason, "a reason", 0, REASON_LENGTH)
        at = float(self._clock())
        check_number(at, "the time")
        self._do(
            lambda session: session.ask(_POST, notice, reason, at), changes=True, repeatable=True
        )

    def withdraw(self, notice: str, /) -> None:
        """Take *notice* down, if it stands.

        Raises:
            ConfigurationError: the text is too long, or is none.
            StoreError: the database did not do it, or it is not known whether it did.
        """
        check_text(notice, "a notice")
        self._do(lambda session: session.ask(_WITHDRAW, notice), changes=True, repeatable=True)

    def postings(self) -> list[Posting]:
        """Return what stands, with reasons and times, the oldest first.

        Raises:
            StoreError: the database did not answer.
        """
        rows = self._do(lambda session: session.ask(_POSTINGS))
        found = [Posting(_text(row[0]), _text(row[1]), _time(row[2]) or 0.0) for row in rows]
        return sorted(found, key=lambda one: (one.at, one.notice))

    # -- for the rooms above -------------------------------------------------------------------

    def transact(
        self, work: Callable[[Session], T], *, changes: bool = False, repeatable: bool = False
    ) -> T:
        """Do *work* on a connection; everything of it or nothing, if it *changes* anything.

        Args:
            work: asks the session.
            changes: whether it writes.
            repeatable: whether it does no harm to do it twice.

        Raises:
            StoreError: the database did not do it, or it is not known whether it did.
        """
        return self._do(work, changes=changes, repeatable=repeatable)

    @property
    def closed(self) -> bool:
        """Whether the store was closed."""
        return self._closed

    @abstractmethod
    def await_news(self, seconds: float) -> bool:
        """Wait until somebody tells news, or for *seconds*; say whether there may be some.

        For one thread of a process. It never raises: who cannot hear must look.

        Args:
            seconds: at most; a database without channels waits for less, and says yes.
        """

    # -- a life --------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection. Any later use is a `StoreError`; closing again is none."""
        with self._lock:
            if self._inside:
                raise StoreError(WITHIN)
            self._closed = True
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.close()

    def before_fork(self) -> None:
        """Wait for what other threads are doing here, and close the connection."""
        self._lock.acquire()
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on; the next use opens a connection."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Go on; the next use opens a connection."""
        self._lock = RLock()

    def _do(
        self, work: Callable[[Session], T], *, changes: bool = False, repeatable: bool = False
    ) -> T:
        with self._lock:
            if self._inside:
                raise StoreError(WITHIN)
            if self._closed:
                raise StoreError("the store is closed")
            try:
                self._inside = True
                return self._attempt(work, changes=changes, repeatable=repeatable)
            finally:
                self._inside = False
                if self._returned:
                    self._settle()

    def _release(self, token: str, uses: Sequence[Use]) -> None:
        keys = sorted({use.key for use in uses})
        self._do(
            lambda session: _give_back(session, token, keys),
            changes=True,
            repeatable=True,
        )

    def _settle(self) -> None:
        """Give back what finalizers gave back meanwhile."""
        while self._returned:
            token, uses = self._returned.popleft()
            try:
                self._release(token, uses)
            except StoreError as error:
                logger().error("a use of a budget is lost (%s)", error)

    @abstractmethod
    def _attempt(self, work: Callable[[Session], T], *, changes: bool, repeatable: bool) -> T:
        """Do *work* on a connection; everything of it or nothing, if it *changes* anything.

        Args:
            work: asks the session; may raise `NoRoom`.
            changes: whether it writes.
            repeatable: whether it does no harm to do it twice.

        Raises:
            NoRoom: *work* did.
            StoreError: whatever went wrong with the database.
        """

    @abstractmethod
    def _disconnect(self) -> None:
        """Close the connection if this process has one; must not raise."""


# -- the work ----------------------------------------------------------------------------------

_Row = tuple[int, float | None, float]


def _reserve(session: Session, token: str, uses: Sequence[Use], now: float) -> None:
    rows = [_locked(session, use.key) for use in uses]
    for use, row in zip(uses, rows, strict=True):
        if _taken(session, use, now, row) + use.amount > use.limit:
            raise NoRoom
    for (key, _, amount, window), (total, latest, span) in zip(uses, rows, strict=True):
        if not amount:
            continue
        if window == 0.0:
            session.ask(_KEEP, token, key, amount, None)
            session.ask(_CHANGE, total + amount, latest, span, key)
        else:
            at, longest = moment(now, latest), max(span, float(window))
            session.ask(_PRUNE, key, horizon(at, longest))
            session.ask(_KEEP, token, key, amount, at)
            session.ask(_CHANGE, total, at, longest, key)


def _give_back(session: Session, token: str, keys: Sequence[str]) -> None:
    for key in keys:
        row = _find(session.lock, key)
        for amount, at in session.ask(_HELD, token, key):
            session.ask(_DROP, token, key)
            if at is None and row is not None:
                total, latest, span = row
                session.ask(_CHANGE, max(0, total - _whole(amount)), latest, span, key)


def _taken(session: Session, use: Use, now: float, row: _Row | None) -> int:
    if row is None:
        return 0
    total, latest, _ = row
    if use.window == 0.0:
        return total
    since = horizon(moment(now, latest), use.window)
    high, low = session.ask(_SUM, use.key, since)[0]
    return (_whole(high) << 32) + _whole(low)


def _locked(session: Session, key: str) -> _Row:
    row = _find(session.lock, key)
    if row is None:
        session.ask(_ADD, key)
        row = _find(session.lock, key)
    if row is None:
        raise StoreError("a budget vanished while it was locked")
    return row


def _find(ask: Callable[..., list[tuple[Any, ...]]], key: str) -> _Row | None:
    for total, latest, span in ask(_FIND, key):
        return _whole(total), _time(latest), _time(span) or 0.0
    return None


# -- what a database holds may have been changed by others ---------------------------------------


def _whole(value: object) -> int:
    if type(value) is int and value >= 0:
        return value
    raise StoreError("the store is damaged: an amount is no whole number")


def _time(value: object) -> float | None:
    if value is None or (type(value) is float and math.isfinite(value)):
        return value
    raise StoreError("the store is damaged: a time is no number")


def _text(value: object) -> str:
    if type(value) is str:
        return value
    raise StoreError("the store is damaged: a notice is no text")


def _is_token(token: str) -> bool:
    return type(token) is str and len(token) == 32 and token.isascii() and token.isalnum()

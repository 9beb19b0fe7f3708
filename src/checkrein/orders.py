"""What stands against tools, agents, runs and grants: the stop switch and revocation.

Somebody outside a run posts a *notice* to the store that the run uses; every
run of every process and host that shares the store obeys it from its next
decision on, at most :data:`FRESH_FOR` seconds later, until it is withdrawn.
Time alone lifts nothing. The notices::

    stop:all            every guarded call
    stop:tool:NAME      calls of one tool
    stop:resource:NAME  calls that claim one resource
    stop:agent:NAME     calls in runs of one agent
    stop:run:ID         calls in one run, and in those inside it
    revoked:ID          calls under one grant, and under what was delegated from it
    expired:ID          the same; posted when a signed grant is seen expired, so that
                        a clock that is set back does not revive it

A body that has started is not interrupted; a stream ends at its next item. A
store that cannot be read denies every call: whether it says stop is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from checkrein.lazy import logger
from checkrein.resources import Resources

if TYPE_CHECKING:
    from checkrein.ports import Store

FRESH_FOR: Final = 0.5
"""For how many seconds what was read of a store that waits is relied on."""

STOP_ALL: Final = "stop:all"
UNREADABLE: Final = frozenset({STOP_ALL})


def stop_tool(name: str) -> str:
    """Return the notice that stops one tool."""
    return f"stop:tool:{name}"


def stop_resource(name: str) -> str:
    """Return the notice that stops what claims one resource."""
    return f"stop:resource:{name}"


def stop_agent(name: str) -> str:
    """Return the notice that stops one agent."""
    return f"stop:agent:{name}"


def stop_run(run: str) -> str:
    """Return the notice that stops one run."""
    return f"stop:run:{run}"


def revoked(grant: str) -> str:
    """Return the notice that a grant is revoked."""
    return f"revoked:{grant}"


def expired(grant: str) -> str:
    """Return the notice that a grant was seen expired."""
    return f"expired:{grant}"


_TAINTED: Final = "tainted:"


def tainted(resource: str) -> str:
    """Return the notice that what is read back from a resource is no evidence."""
    return f"{_TAINTED}{resource}"


class Orders:
    """The notices of one store, as the runs of this process see them.

    Args:
        store: where they are posted.

    Attributes:
        tainted: the resources that a run with this store has written to while it was
            exposed, until somebody withdraws the notice.
        untold: those that are not posted yet, where other processes share the store.
    """

    __slots__ = ("_lock", "_read_at", "_seen", "_store", "_told", "current", "tainted", "untold")

    current: Callable[[], frozenset[str]]
    """Returns the notices that stand."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = Lock()
        self._seen: frozenset[str] = UNREADABLE
        self._read_at = -FRESH_FOR
        self.tainted = Resources()
        self.untold: frozenset[str] = frozenset()
        self._told: frozenset[str] = frozenset()  # posted, and not read again yet
        self.current = self._as_read if store.waits else self._as_it_says

    @property
    def stale(self) -> bool:
        """Whether the store has to be read, off any event loop, before :meth:`current` is used."""
        return self._store.waits and time.monotonic() - self._read_at >= FRESH_FOR

    def refresh(self) -> None:
        """Read the store, unless another thread has just done so."""
        with self._lock:
            if not self.stale:
                return
            asked = time.monotonic()  # what is posted while we read counts from the next time on
            try:
                self._take_in(self._store.notices())
            except Exception as error:  # noqa: BLE001 (whatever it says, nothing is known)
                logger().error("the store cannot be read (%s)", type(error).__name__)
                self._seen = UNREADABLE
            self._read_at = asked

    def _take_in(self, notices: frozenset[str]) -> None:
        self._seen = notices
        named = {one.removeprefix(_TAINTED) for one in notices if one.startswith(_TAINTED)}
        self._told -= named
        tainted = Resources()
        tainted.add(named | self._told | self.untold)
        self.tainted = tainted

    def taint(self, resources: frozenset[str]) -> None:
        """Take in that what the model may have chosen is written there."""
        with self._lock:
            self.untold |= self.tainted.add(resources)
        if self.untold and not self._store.waits:
            with suppress(Exception):  # it is tried again, aloud, before the body starts
                self.tell()

    def tell(self) -> None:
        """Post what is not posted yet, so that runs of other processes know."""
        for resource in sorted(self.untold):
            self._store.post(tainted(resource), reason="written to by a run that was exposed")
            with self._lock:
                self.untold -= {resource}
                self._told |= {resource} if self._store.waits else frozenset()

    def _as_read(self) -> frozenset[str]:
        return self._seen

    def _as_it_says(self) -> frozenset[str]:
        try:
            notices = self._store.notices()
        except Exception:  # noqa: BLE001 (whatever it says, nothing is known)
            return UNREADABLE
        if notices is not self._seen:
            with self._lock:
                self._take_in(notices)
        return notices


_ORDERS: Final[WeakKeyDictionary[Store, Orders]] = WeakKeyDictionary()
_ORDERS_LOCK: Final = Lock()


def orders_of(store: Store) -> Orders:
    """Return what the runs of this process share about *store*."""
    with _ORDERS_LOCK:
        try:
            return _ORDERS.setdefault(store, Orders(store))
        except TypeError:  # a store that takes no weak references shares nothing
            return Orders(store)

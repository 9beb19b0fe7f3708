"""What a store does around ``os.fork``.

A child has one thread, the one that forked. A lock that another thread held
stays locked in it for ever, and a connection that it shares with its parent
may be used by neither. So a store may say what it does before a fork, and
after it in the parent and in the child.
"""

from __future__ import annotations

import os
from threading import RLock
from typing import Protocol
from weakref import WeakSet


class Forked(Protocol):
    """What has to know of a fork."""

    def before_fork(self) -> None:
        """Come to rest: no other thread is within the store when this returns."""
        ...

    def after_fork_in_parent(self) -> None:
        """Go on."""
        ...

    def after_fork_in_child(self) -> None:
        """Start anew, with nothing that belongs to the parent."""
        ...


class _Watch:
    """All stores of this process that have to know of forks."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._known: WeakSet[Forked] = WeakSet()
        self._resting: list[Forked] = []

    def add(self, one: Forked) -> None:
        with self._lock:
            self._known.add(one)

    def before(self) -> None:
        self._lock.acquire()
        for one in list(self._known):
            one.before_fork()
            self._resting.append(one)

    def in_parent(self) -> None:
        self._wake_up()
        self._lock.release()

    def in_child(self) -> None:
        self._lock = RLock()
        self._wake_up(child=True)

    def _wake_up(self, *, child: bool = False) -> None:
        while self._resting:
            one = self._resting.pop()
            if child:
                one.after_fork_in_child()
            else:
                one.after_fork_in_parent()


_WATCH = _Watch()
watch = _WATCH.add
"""Tell a store of every fork from now on, as long as it exists."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_WATCH.before,
        after_in_parent=_WATCH.in_parent,
        after_in_child=_WATCH.in_child,
    )

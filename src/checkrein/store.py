"""Counting the uses of budgets.

The embedded default counts in this process, across its threads and tasks.
Stores that count across processes and hosts implement the same protocol,
:class:`checkrein.ports.Store`.
"""

from __future__ import annotations

from threading import Lock


class MemoryStore:
    """Counts in memory. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._taken: dict[str, int] = {}

    def reserve(self, key: str, limit: int) -> bool:
        """Take one use of *key* if fewer than *limit* are taken; say whether it was."""
        with self._lock:
            taken = self._taken.get(key, 0)
            if taken >= limit:
                return False
            self._taken[key] = taken + 1
            return True

    def release(self, key: str) -> None:
        """Give one reserved use of *key* back."""
        with self._lock:
            taken = self._taken.get(key, 0)
            if taken <= 0:
                raise ValueError(f"{key} has no reserved use to give back")
            self._taken[key] = taken - 1

    def taken(self, key: str) -> int:
        """Return how many uses of *key* are reserved or spent."""
        with self._lock:
            return self._taken.get(key, 0)


PROCESS_STORE = MemoryStore()
"""Where the budgets of this process are counted unless a run is given another store."""

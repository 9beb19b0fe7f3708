"""Small shared state: how much of each budget is taken, and what was stopped or revoked.

Three stores implement :class:`checkrein.ports.Store`:

=================  ============================  ==================================
`MemoryStore`      the threads of one process    lost with the process
`SqliteStore`      the processes of one machine  a file; every commit is synced
`PostgresStore`    several hosts                 ``pip install 'checkrein[postgres]'``
=================  ============================  ==================================

All three behave alike:

* A reservation takes every use or none. It fits if, for each use, what is taken
  and the use's ``amount`` are at most its ``limit``; the limit of the call counts,
  whatever earlier calls said.
* A use without a window counts until it is given back. A use with a window
  counts for that many seconds: one made at *t* no longer counts at *t + window*.
  The two kinds are counted apart, even under one key.
* Time does not run backwards for a key: a use is made at *now* or at the latest
  time of any use of that key with a window, whichever is later. A clock that is set
  back frees nothing; one that was ahead holds the key up until the others catch up.
* What is older than the longest window ever asked for under its key is forgotten.
* Giving back is done once: a second time, another store's token, or a use that is
  forgotten changes nothing. What is not given back is spent.
* A use of amount 0 must fit like any other, and takes nothing.
* What cannot be counted is refused before anything is done; the bounds are in
  :mod:`checkrein.store.checks`.
* Whatever fails is a `StoreError`, and means no. A reservation that fails may have
  been taken, never the reverse.

From low to high: `faults`, `checks` and `forks`; `memory`; `tables`, which is what
`sqlite` and `postgres` have in common. Importing this package loads neither
SQLite nor psycopg.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from checkrein.errors import ConfigurationError
from checkrein.store.checks import Posting
from checkrein.store.faults import StoreError
from checkrein.store.memory import PROCESS_STORE, MemoryStore

if TYPE_CHECKING:
    from checkrein.store.postgres import PostgresStore
    from checkrein.store.sqlite import SqliteStore

__all__ = [
    "PROCESS_STORE",
    "MemoryStore",
    "PostgresStore",
    "Posting",
    "SqliteStore",
    "StoreError",
    "open_store",
]

_LATER = {"PostgresStore": "checkrein.store.postgres", "SqliteStore": "checkrein.store.sqlite"}


def open_store(where: str, *, create: bool = True) -> SqliteStore | PostgresStore:
    """Open the store at *where*.

    Args:
        where: a ``postgresql://`` or ``postgres://`` URL, or the path of an SQLite file.
        create: whether to create a store that is not there.

    Raises:
        ConfigurationError: there is no store, and none can be made.
        StoreError: it cannot be reached, or is damaged.

    Example:
        >>> with open_store("budgets.db") as store:  # doctest: +SKIP
        ...     store.post("stop:all", reason="it sends too much")
    """
    scheme, colon, _ = where.partition("://")
    if scheme.lower() in {"postgres", "postgresql"} and colon:
        url = scheme.lower() + where[len(scheme) :]
        from checkrein.store.postgres import PostgresStore  # noqa: PLC0415 (heavy)

        return PostgresStore.open(url, create=create)
    if colon and scheme.isalnum():
        raise ConfigurationError("a store is the path of a file, or a postgresql:// URL")
    from checkrein.store.sqlite import SqliteStore  # noqa: PLC0415 (heavy)

    return SqliteStore.open(where, create=create)


def __getattr__(name: str) -> Any:
    """Load a store when it is first used."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'checkrein.store' has no attribute {name!r}")

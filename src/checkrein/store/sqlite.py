"""The store of one machine: an SQLite file that several processes share.

The file is recognised by its ``application_id``, the four letters ``ckrn``;
its ``user_version`` is the layout of :mod:`checkrein.store.tables`. It is in
WAL mode, so there are two files beside it, ``-wal`` and ``-shm``; every commit
is synced. It belongs on a local file system, and its processes on one kernel.

A file is created for its owner only. A file that is moved away or replaced while it is open is
never used on: what was counted would be forgotten.
"""

from __future__ import annotations

import math
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final, NoReturn, Self, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from checkrein.errors import ConfigurationError
from checkrein.ports import Clock
from checkrein.store.faults import StoreError
from checkrein.store.tables import NAMES, VERSION, Session, TableStore

T = TypeVar("T")

APPLICATION: Final = int.from_bytes(b"ckrn", "big")
"""The ``application_id`` of a store."""

_NAMES: Final = {name: name for name in NAMES}
_QUESTIONS: Final = """
CREATE TABLE questions (
    id TEXT PRIMARY KEY NOT NULL,
    state TEXT NOT NULL,
    question TEXT NOT NULL,
    verdicts TEXT NOT NULL,
    asked REAL NOT NULL,
    expires REAL NOT NULL,
    changed REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX questions_by_state ON questions (state, asked);
"""
_LAYOUT: Final = f"""
CREATE TABLE about (version INTEGER NOT NULL);
INSERT INTO about (version) VALUES ({VERSION});
CREATE TABLE budgets (
    key TEXT PRIMARY KEY NOT NULL,
    total INTEGER NOT NULL DEFAULT 0 CHECK (typeof(total) = 'integer' AND total >= 0),
    latest REAL,
    span REAL NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE reservations (
    token TEXT NOT NULL,
    key TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (typeof(amount) = 'integer' AND amount > 0),
    at REAL,
    PRIMARY KEY (token, key)
) WITHOUT ROWID;
CREATE INDEX reservations_in_time ON reservations (key, at) WHERE at IS NOT NULL;
CREATE TABLE notices (
    notice TEXT PRIMARY KEY NOT NULL,
    reason TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
{_QUESTIONS}
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""  # noqa: S608 (of two numbers)
_UPGRADE: Final = f"""{_QUESTIONS}
UPDATE about SET version = {VERSION};
PRAGMA user_version = {VERSION};
"""  # noqa: S608 (of a number)
_TICK: Final = 0.02  # seconds between two looks at a file, at most
_SMALLEST: Final = 512  # bytes of a page
_SETTINGS: Final = {
    "trusted_schema": "OFF",
    "cell_size_check": "ON",
    "synchronous": "FULL",
    "fullfsync": "ON",
    "checkpoint_fullfsync": "ON",
}
_CREATING: Final = Lock()
_ABANDONED: Final[list[object]] = []  # connections of a parent that forked without our hooks


class SqliteStore(TableStore):
    """Counts in an SQLite file. Use :meth:`open`.

    Example:
        >>> with SqliteStore.open("budgets.db") as store:  # doctest: +SKIP
        ...     token = store.reserve([Use("mail", limit=5)], time.time())
    """

    def __init__(self, path: str, timeout: float, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.path = path
        # SQLite would wait as well, but for so long at a time that a process may never
        # get the lock while others take it in quick succession.
        self._patiently = Retrying(
            retry=retry_if_exception(_is_busy),
            wait=wait_random_exponential(multiplier=0.001, max=0.008),
            stop=stop_after_delay(timeout),
            reraise=True,
        )
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._file: tuple[int, int] | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        timeout: float = 5.0,
        create: bool = True,
        clock: Clock = time.time,
    ) -> Self:
        """Open the store in the file *path*.

        Args:
            path: the file; its directory must exist.
            timeout: for how many seconds to wait for another process, at most 3600.
            create: whether to create a file that is not there.
            clock: tells when a notice is posted.

        Raises:
            ConfigurationError: the file cannot be used: it is not a store, or of a later
                version, or cannot be written, or has no directory.
            StoreError: the file is damaged, or others kept it locked all the time.
        """
        if not (type(timeout) in {int, float} and math.isfinite(timeout) and 0 <= timeout <= 3600):
            raise ConfigurationError("the timeout of a store is 0 to 3600 seconds")
        name = os.fspath(path)
        if not isinstance(name, str) or not name or "\0" in name:
            raise ConfigurationError("the path of a store is a text, not empty and without NUL")
        if name == ":memory:":
            raise ConfigurationError("a store in memory is a MemoryStore")
        place = os.path.realpath(name)
        with _CREATING:  # closing a file drops the locks that this process has on it
            if create:
                _create(place)
            _check_file(place)
        store = cls(place, float(timeout), clock)
        try:
            with store._as_store_error():
                store._connect()
        except BaseException:
            store.close()
            raise
        return store

    def __repr__(self) -> str:
        return f"SqliteStore({self.path!r})"

    def __del__(self) -> None:
        with suppress(Exception):
            self._disconnect()

    # -- the connection ------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._owner != os.getpid():  # a fork without hooks
            _ABANDONED.append(self._connection)
            self._connection = None
        here = _identity(self.path)
        if self._file is not None and self._file != here:
            self._disconnect()
            raise StoreError(f"the store {self.path} was moved or replaced; open it anew")
        if self._connection is None:
            # mode=rw: a file that has vanished is not made anew, its counts would be lost
            self._connection = connection = sqlite3.connect(
                f"{Path(self.path).as_uri()}?mode=rw",
                timeout=0.0,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=64,
                uri=True,
            )
            self._owner = os.getpid()
            try:
                self._patiently(lambda: self._prepare(connection, new=self._file is None))
            except BaseException:
                self._disconnect()
                raise
            self._file = here
        return self._connection

    def _prepare(self, connection: sqlite3.Connection, *, new: bool) -> None:
        for name, value in _SETTINGS.items():
            connection.execute(f"PRAGMA {name} = {value}")
        self._establish(connection, new=new)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise ConfigurationError(
                f"the file system of {self.path} cannot be shared between processes"
            )

    def _establish(self, connection: sqlite3.Connection, *, new: bool) -> None:
        try:
            connection.execute("BEGIN")  # so that all is read from one state of the file
            fresh = self._is_fresh(connection)
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")  # says now if the file cannot be written
            if fresh and self._is_fresh(connection):
                if not new:
                    self._refuse_emptied()
                for statement in _LAYOUT.split(";\n"):
                    connection.execute(statement)
            elif not fresh and self._version(connection) < VERSION:
                for statement in _UPGRADE.split(";\n"):
                    connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            self._undo(connection)
            raise

    def _refuse_emptied(self) -> NoReturn:
        raise StoreError(f"the store {self.path} was emptied; open it anew")

    def _is_fresh(self, connection: sqlite3.Connection) -> bool:
        """Say whether the file is empty; refuse it if it is something else than a store."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        version = self._version(connection)
        if application == APPLICATION:
            if version > VERSION:
                raise ConfigurationError(
                    f"the store {self.path} was made by a later version of this library"
                )
            if 1 <= version <= VERSION:
                return False
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application or version or tables:
            raise ConfigurationError(f"{self.path} is no store of this library")
        return True

    def _version(self, connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return int(version)

    def await_news(self, seconds: float) -> bool:
        """Wait a little: a file tells nobody that it has changed."""
        time.sleep(min(seconds, _TICK))
        return True

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._owner != os.getpid():
            _ABANDONED.append(connection)
            return
        with suppress(sqlite3.Error):
            connection.close()

    # -- work ----------------------------------------------------------------------------------

    def _attempt(self, work: Callable[[Session], T], *, changes: bool, repeatable: bool) -> T:
        with self._as_store_error():
            connection = self._connect()
            return self._patiently(lambda: self._once(connection, work, changes=changes))

    def _once(
        self, connection: sqlite3.Connection, work: Callable[[Session], T], *, changes: bool
    ) -> T:
        try:
            if changes:
                connection.execute("BEGIN IMMEDIATE")
            result = work(_Session(connection))
            if changes:
                connection.execute("COMMIT")
        except BaseException:
            self._undo(connection)
            raise
        return result

    def _undo(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._disconnect()

    @contextmanager
    def _as_store_error(self) -> Generator[None]:
        try:
            yield
        except UnicodeDecodeError as error:  # of what the file holds, or says of itself
            self._disconnect()
            raise StoreError(f"{self.path}: the store is damaged") from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _BROKEN:
                self._disconnect()
            kind = ConfigurationError if self._file is None and code in _UNUSABLE else StoreError
            raise kind(f"{self.path}: {_MEANING.get(code) or _named(error)}") from error


class _Session:
    """A connection with the names of its tables."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def ask(self, statement: str, *values: str | float | None) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement.format_map(_NAMES), values).fetchall()

    lock = ask  # a transaction that writes has locked the file

    def tell(self, news: str) -> None:
        """Do nothing: who waits looks at the file."""


_MEANING: Final = {
    sqlite3.SQLITE_BUSY: "the store is locked by another process",
    sqlite3.SQLITE_LOCKED: "the store is locked by another process",
    sqlite3.SQLITE_READONLY: "the store cannot be written",
    sqlite3.SQLITE_CANTOPEN: "the store cannot be opened",
    sqlite3.SQLITE_PERM: "the store cannot be opened",
    sqlite3.SQLITE_NOTADB: "the file is no store of this library",
    sqlite3.SQLITE_CORRUPT: "the store is damaged",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk cannot be read or written",
}
_UNUSABLE: Final = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOTADB,
    }
)
_BROKEN: Final = _UNUSABLE | {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_IOERR}


def _named(error: sqlite3.Error) -> str:
    return f"the store failed ({getattr(error, 'sqlite_errorname', type(error).__name__)})"


def _is_busy(error: BaseException) -> bool:
    """Say whether another process holds a lock that is needed."""
    if not isinstance(error, sqlite3.OperationalError):
        return False
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _create(place: str) -> None:
    """Create an empty file for its owner only, unless there is a file."""
    try:
        os.close(os.open(place, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the store {place} cannot be created: {_reason(error)}"
        ) from error
    with suppress(OSError):  # there are systems that sync no directory
        directory = os.open(os.path.dirname(place), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _check_file(place: str) -> None:
    try:
        found = os.stat(place)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the store {place} cannot be opened: {_reason(error)}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"the store {place} is no file")
    if 0 < found.st_size < _SMALLEST:  # SQLite would write over it
        raise ConfigurationError(f"{place} is no store of this library")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__


def _identity(place: str) -> tuple[int, int] | None:
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_dev, found.st_ino

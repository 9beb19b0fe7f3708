"""The store of several hosts: a schema in a PostgreSQL database.

The schema holds the tables of :mod:`checkrein.store.tables`. Who opens the
first store in it needs the right to create them; everybody else needs the
rights to select, insert, update and delete.

Every transaction is READ COMMITTED and locks the budgets that it changes. No
statement runs longer than ten seconds, none waits longer than five for a lock,
and a session that stands still within a transaction is ended after three: a
client that is stopped while it holds a lock makes others wait, not fail. These
are settings of the session, so a pooler in between must not share sessions.

A connection that is lost is opened once more if it is certain that nothing was
committed, or if doing it twice does no harm. If a ``reserve`` loses it at its
commit, what was taken is unknown: the call fails, and the uses count as taken.

Needs psycopg 3: ``pip install 'checkrein[postgres]'``.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from checkrein.errors import ConfigurationError
from checkrein.ports import Clock
from checkrein.store.faults import StoreError
from checkrein.store.tables import NAMES, NEWS, VERSION, NoRoom, Session, TableStore

_missing: ImportError | None = None
if TYPE_CHECKING:
    import psycopg
    from psycopg import conninfo

    _Connection = psycopg.Connection[tuple[Any, ...]]
else:
    try:
        import psycopg
        from psycopg import conninfo
    except ImportError as error:
        _missing = error

T = TypeVar("T")

_SCHEMA: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_HOST: Final = re.compile(r"[A-Za-z0-9._:,/-]+")
_SESSION: Final = {
    "search_path": "pg_catalog, pg_temp",  # names without a schema mean the system's own
    "statement_timeout": "10s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "3s",
    "client_min_messages": "error",
}
_LIVENESS: Final[dict[str, Any]] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_TURNSTILE: Final = int.from_bytes(b"ckrn", "big")  # of the advisory locks
_QUESTIONS: Final = """
CREATE TABLE {questions} (
    id text COLLATE "C" PRIMARY KEY,
    state text COLLATE "C" NOT NULL,
    question text NOT NULL,
    verdicts text NOT NULL,
    asked double precision NOT NULL,
    expires double precision NOT NULL,
    changed double precision NOT NULL
);
CREATE INDEX questions_by_state ON {questions} (state, asked);
"""
_UPGRADE: Final = f"{_QUESTIONS}UPDATE {{about}} SET version = ?;\n"  # noqa: S608 (of constants)
_LAYOUT: Final = """
CREATE TABLE {budgets} (
    key text COLLATE "C" PRIMARY KEY,
    total bigint NOT NULL DEFAULT 0 CHECK (total >= 0),
    latest double precision,
    span double precision NOT NULL DEFAULT 0
);
CREATE TABLE {reservations} (
    token text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    at double precision,
    PRIMARY KEY (token, key)
);
CREATE INDEX reservations_in_time ON {reservations} (key, at) WHERE at IS NOT NULL;
CREATE TABLE {notices} (
    notice text COLLATE "C" PRIMARY KEY,
    reason text NOT NULL,
    at double precision NOT NULL
);
CREATE TABLE {about} (version integer NOT NULL);
INSERT INTO {about} (version) VALUES (?);
"""
_SCHEMA_EXISTS: Final = "SELECT oid FROM pg_namespace WHERE nspname = ?"
_EXISTS: Final = (
    "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = ? AND c.relname = 'about'"
)
_DEAF: Final = 1.0  # seconds until it is tried again to hear the news
_ABANDONED: Final[list[object]] = []  # connections of a parent that forked without our hooks


class PostgresStore(TableStore):
    """Counts in a PostgreSQL database. Use :meth:`open`.

    Example:
        >>> with PostgresStore.open("postgresql:///app") as store:  # doctest: +SKIP
        ...     token = store.reserve([Use("mail", limit=5)], time.time())
    """

    def __init__(self, url: str, schema: str, connect_timeout: int, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.schema = schema
        self._url = url
        self._connect_timeout = connect_timeout
        self._names = {name: f'"{schema}".{name}' for name in NAMES}
        self._connection: _Connection | None = None
        self._owner = 0
        self._ears: _Connection | None = None  # hears the news; for one thread alone
        self._ears_of = 0

    @classmethod
    def open(
        cls,
        url: str,
        *,
        schema: str = "checkrein",
        connect_timeout: int = 5,
        create: bool = True,
        clock: Clock = time.time,
    ) -> Self:
        """Open the store in the schema *schema* of the database at *url*.

        Args:
            url: where the database is; a password is better kept in a ``.pgpass`` file.
            schema: a name of lower-case letters, digits and ``_``.
            connect_timeout: for how many seconds to wait for an answer, 1 to 60, for each host.
            create: whether to create the schema and its tables if they are not there.
            clock: tells when a notice is posted.

        Raises:
            ConfigurationError: psycopg is not installed; the URL or the schema is none, or
                the schema holds something else, or the store is of a later version.
            StoreError: the database cannot be reached, or refused something.
        """
        if _missing is not None:
            raise ConfigurationError(
                "a store in PostgreSQL needs psycopg: pip install 'checkrein[postgres]'"
            ) from _missing
        if type(schema) is not str or not _SCHEMA.fullmatch(schema):
            raise ConfigurationError(
                "the schema of a store is a name of lower-case letters, digits and _"
            )
        if type(connect_timeout) is not int or not 1 <= connect_timeout <= 60:
            raise ConfigurationError("the time to connect is 1 to 60 seconds, a whole number")
        if not _is_url(url):
            raise ConfigurationError("the URL of the PostgreSQL database cannot be understood")
        store = cls(url, schema, connect_timeout, clock)
        try:
            store._establish(create=create)
        except BaseException:
            store.close()
            raise
        return store

    def __repr__(self) -> str:
        return f"PostgresStore(schema={self.schema!r})"

    def __del__(self) -> None:
        with suppress(Exception):
            self._disconnect()

    # -- the tables ----------------------------------------------------------------------------

    def _establish(self, *, create: bool) -> None:
        """See that the tables are there and ours."""
        connection = self._connect()
        try:
            try:
                ours = self._is_ours(connection)
            except _Old:
                ours, create = False, True
            if not ours:
                if not create:
                    raise ConfigurationError(f"there is no store in the schema {self.schema!r}")
                self._create(connection)
        except psycopg.Error as error:
            raise StoreError(f"the store cannot be opened: {_named(error)}") from error

    def _is_ours(self, connection: _Connection) -> bool:
        """Say whether the tables are there; refuse those of a later version."""
        # Not to_regclass: it may not have heard of what was created while we waited for the lock.
        if not self._run(connection, _EXISTS, self.schema):
            return False
        try:
            versions = self._run(connection, "SELECT version FROM {about}")
        except psycopg.errors.UndefinedColumn:
            versions = []
        if versions == [(VERSION,)]:
            return True
        if versions == [(1,)]:
            raise _Old
        if len(versions) == 1 and type(versions[0][0]) is int and versions[0][0] > VERSION:
            raise ConfigurationError(
                f"the store in the schema {self.schema!r} "
                "was made by a later version of this library"
            )
        raise ConfigurationError(f"the schema {self.schema!r} holds no store of this library")

    def _create(self, connection: _Connection) -> None:
        self._run(connection, _BEGIN)
        try:
            self._run(
                connection, f"SELECT pg_advisory_xact_lock({_TURNSTILE}, hashtext(?))", self.schema
            )
            try:
                layout = "" if self._is_ours(connection) else _LAYOUT + _QUESTIONS
            except _Old:
                layout = _UPGRADE
            if layout and not self._run(connection, _SCHEMA_EXISTS, self.schema):
                self._run(connection, f'CREATE SCHEMA "{self.schema}"')
            for statement in filter(str.strip, layout.split(";\n")):
                self._run(connection, statement, *[VERSION] * statement.count("?"))
            self._run(connection, "COMMIT")
        except psycopg.errors.DuplicateTable as error:
            raise ConfigurationError(
                f"the schema {self.schema!r} holds tables that are not of this library"
            ) from error
        finally:
            if not connection.closed and connection.info.transaction_status:
                self._undo(connection)

    # -- the connection ------------------------------------------------------------------------

    def await_news(self, seconds: float) -> bool:
        """Wait for a notification on a connection of its own; look now and then all the same."""
        try:
            if self._ears is None or self._ears.closed or self._ears_of != os.getpid():
                if self._ears is not None and self._ears_of != os.getpid():
                    _ABANDONED.append(self._ears)
                self._ears, self._ears_of = self._open_connection(), os.getpid()
                self._run(self._ears, f"LISTEN {NEWS}")
                if self._closed:  # meanwhile, by another thread
                    _close(self._ears)
                return True  # what was told before nobody heard
            return any(True for _ in self._ears.notifies(timeout=seconds, stop_after=1))
        except (psycopg.Error, StoreError):
            _close(self._ears)
            self._ears = None
            time.sleep(min(seconds, _DEAF))
            return True

    def _connect(self) -> _Connection:
        if self._connection is not None:
            if self._owner != os.getpid():  # a fork without hooks
                _ABANDONED.append(self._connection)
            elif not self._connection.closed:
                return self._connection
        self._connection = None
        self._connection, self._owner = self._open_connection(), os.getpid()
        return self._connection

    def _open_connection(self) -> _Connection:
        connection: _Connection | None = None
        problem = ""
        try:
            connection = psycopg.connect(
                self._url,
                autocommit=True,
                prepare_threshold=None,
                connect_timeout=self._connect_timeout,
                client_encoding="UTF8",
                fallback_application_name="checkrein",
                **_LIVENESS,
            )
            calls = ", ".join(["set_config(?, ?, false)"] * len(_SESSION))
            self._run(connection, f"SELECT {calls}", *itertools.chain(*_SESSION.items()))
            self._run(
                connection,
                "SELECT set_config('synchronous_commit', 'on', false)"
                " WHERE current_setting('synchronous_commit') = 'off'",
            )
        except psycopg.Error as error:
            problem = _unreachable(self._url, str(error))
        except BaseException:
            _close(connection)
            raise
        if problem or connection is None:  # outside: the library's error may quote the URL
            _close(connection)
            raise StoreError(problem)
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._owner != os.getpid():
            _ABANDONED.append(connection)
        else:
            _close(connection)

    def close(self) -> None:
        """Close the connections. Any later use is a `StoreError`; closing again is none."""
        super().close()
        ears, self._ears = self._ears, None
        if self._ears_of == os.getpid():
            _close(ears)

    def _run(
        self, connection: _Connection, statement: str, *values: str | float | None
    ) -> list[tuple[Any, ...]]:
        text = statement.format_map(self._names).replace("?", "%s")
        cursor = connection.execute(text.encode(), values or None)
        if statement == "COMMIT" and cursor.statusmessage != "COMMIT":
            raise psycopg.OperationalError("the transaction was rolled back")
        return cursor.fetchall() if cursor.description else []

    # -- work ----------------------------------------------------------------------------------

    def _attempt(self, work: Callable[[Session], T], *, changes: bool, repeatable: bool) -> T:
        try:
            return self._once(work, changes=changes, repeatable=repeatable)
        except _Lost:
            pass
        try:
            return self._once(work, changes=changes, repeatable=repeatable)
        except _Lost as lost:
            raise StoreError("the connection to the database was lost twice") from lost.__cause__

    def _once(self, work: Callable[[Session], T], *, changes: bool, repeatable: bool) -> T:
        connection = self._connect()
        committing = False
        try:
            if changes:
                self._run(connection, _BEGIN)
            result = work(_Session(self, connection))
            committing = changes
            if changes:
                self._run(connection, "COMMIT")
        except NoRoom:
            self._undo(connection)
            raise
        except psycopg.Error as error:
            lost = connection.closed
            if isinstance(error, psycopg.errors.LockNotAvailable):
                self._undo(connection)
            else:  # perhaps the server is not the right one any more
                self._disconnect()
            if lost and (repeatable or not committing):
                raise _Lost from error
            if committing:
                raise StoreError(
                    f"whether it was committed is unknown: {_named(error)}; it counts as done"
                ) from error
            raise StoreError(f"the database refused: {_named(error)}") from error
        except StoreError:
            self._undo(connection)
            raise
        except BaseException:  # an interrupt: the connection may be in the midst of a statement
            self._disconnect()
            raise
        return result

    def _undo(self, connection: _Connection) -> None:
        """Roll back, and give the connection up if that is not certain to have worked."""
        try:
            idle = psycopg.pq.TransactionStatus.IDLE
            if not connection.closed and connection.info.transaction_status != idle:
                self._run(connection, "ROLLBACK")
            if connection.closed or connection.info.transaction_status != idle:
                self._disconnect()
        except psycopg.Error:
            self._disconnect()


class _Old(Exception):
    """The tables are of an earlier version."""


class _Lost(Exception):
    """The connection was lost, and it may be done again."""


class _Session:
    """A connection with the names of its tables."""

    def __init__(self, store: PostgresStore, connection: _Connection) -> None:
        self._store = store
        self._connection = connection

    def ask(self, statement: str, *values: str | float | None) -> list[tuple[Any, ...]]:
        return self._store._run(self._connection, statement, *values)  # noqa: SLF001

    def lock(self, statement: str, *values: str | float | None) -> list[tuple[Any, ...]]:
        return self.ask(f"{statement} FOR UPDATE", *values)

    def tell(self, news: str) -> None:
        self.ask("SELECT pg_notify(?, ?)", NEWS, news)


def _close(connection: _Connection | None) -> None:
    if connection is not None:
        with suppress(psycopg.Error, OSError):
            connection.close()


def _is_url(url: object) -> bool:
    if type(url) is not str or "\0" in url or not url.startswith(("postgres://", "postgresql://")):
        return False
    try:
        conninfo.conninfo_to_dict(url)
    except (psycopg.Error, UnicodeError):
        return False
    return True


def _named(error: psycopg.Error) -> str:
    return f"{type(error).__name__} ({error.sqlstate or 'no SQLSTATE'})"


_CAUSES: Final = (
    ("password authentication failed", "the user or the password is wrong"),
    ("no password supplied", "it wants a password"),
    ("no pg_hba.conf entry", "it does not let this user in from here"),
    ("authentication failed", "it does not let this user in"),
    ("does not exist", "the database or the user does not exist"),
    ("timeout", "it did not answer in time"),
    ("refused", "nothing listens there"),
    ("No such file", "nothing listens there"),
    ("could not translate host name", "there is no host of that name"),
    ("failed to resolve host", "there is no host of that name"),
    ("certificate", "its certificate is not accepted"),
    ("SSL", "it does not agree to the encryption asked for"),
    ("too many", "it has too many connections"),
)


def _unreachable(url: str, complaint: str) -> str:
    """Say which server cannot be reached and why, with no text from the URL but a host's name.

    A URL with a mistake in it may have a piece of the password where a host
    should be; so the host is named only if nothing in the URL is out of place.
    """
    cause = next((ours for theirs, ours in _CAUSES if theirs in complaint), "it did not answer")
    parts = conninfo.conninfo_to_dict(url)
    host, password = str(parts.get("host", "")), str(parts.get("password", ""))
    plain = url.count("@") <= 1 and _HOST.fullmatch(host) and not (password and password in host)
    return f"PostgreSQL{f' on {host}' if plain else ''} cannot be used: {cause}"

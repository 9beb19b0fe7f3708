"""Sessions with the PostgreSQL database of a log, and its tables.

The tables are in the schema ``checkrein_log``, and hold any number of logs::

    head     origin   the log's name
             size     how many entries it has
             note     the signed head over them
    entry    origin, index
             entry    the bytes of the entry
             hashes   its leaf hash, then the hash of each larger complete subtree of the
                      tree that ends with it: that of 2**h leaves is at byte 32 * h
             batch    with the first entry of each commit 16 random bytes, else null
    opening  origin, index, commitment, key
             line     see `checkrein.log.openings`

``note``, ``entry``, ``hashes`` and ``line`` are bytes. The schema's comment says
``checkrein log, format 1``. Who opens the first log in a database needs the right to create the
schema; a writer needs SELECT, INSERT and UPDATE on all of it, and DELETE on ``opening`` if it
erases; who exports, USAGE on the schema and SELECT.

Rules of a session:

1. A session that could lose commits (``synchronous_commit`` or ``fsync`` is off) is refused.
2. Waits end: 5 seconds to connect, 10 for a lock, 30 for a statement; but a COMMIT waits for
   standby servers as long as the server does. A session that
   stands still within a transaction is ended after 5 seconds, so that a writer that was stopped
   holds nobody up for longer; one that only reads, after 10 minutes. These are settings of the
   session: a pooler in between must not share sessions.
3. Names without a schema mean the system's own.
4. What psycopg raises becomes a `LogError` of our own words, without its text, which may
   quote the URL or an entry.
5. A COMMIT that comes with a warning is none: the server has given up waiting for the standby
   servers that ``synchronous_commit`` promises.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from checkrein.errors import ConfigurationError, LogError, TamperedError
from checkrein.store.postgres import _LIVENESS, _close, _is_url, _named, _unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg

    _Connection = psycopg.Connection[tuple[Any, ...]]
else:
    try:
        import psycopg
    except ImportError:
        psycopg = None

_FORMAT: Final = "checkrein log, format 1"
_SESSION: Final = {
    "search_path": "pg_catalog, pg_temp",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "client_min_messages": "warning",
}
_TABLES: Final = (
    "CREATE SCHEMA checkrein_log",
    f"COMMENT ON SCHEMA checkrein_log IS '{_FORMAT}'",
    """CREATE TABLE checkrein_log.head (
    origin text COLLATE "C" PRIMARY KEY,
    size bigint NOT NULL,
    note bytea NOT NULL
)""",
    """CREATE TABLE checkrein_log.entry (
    origin text COLLATE "C" NOT NULL,
    index bigint NOT NULL,
    entry bytea NOT NULL,
    hashes bytea NOT NULL,
    batch bytea,
    PRIMARY KEY (origin, index)
)""",
    """CREATE TABLE checkrein_log.opening (
    origin text COLLATE "C" NOT NULL,
    index bigint NOT NULL,
    commitment text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    line bytea NOT NULL,
    PRIMARY KEY (origin, commitment)
)""",
    "CREATE INDEX opening_by_key ON checkrein_log.opening (origin, key) WHERE key <> ''",
)
_FIND: Final = (
    "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'checkrein_log'"
)
TURNSTILE: Final = f"SELECT pg_advisory_xact_lock({int.from_bytes(b'ckrl', 'big')})"
"""Waits until nobody else creates tables, or a log."""


class Lost(Exception):
    """The session has ended; what was not committed never was."""


class Session:
    """An open session. Of one thread at a time, and of one process.

    Args:
        url: where the database is.
        reads: nothing is written, so a slow reader is left in peace.

    Raises:
        ConfigurationError: psycopg is not installed, the URL is none, or the server may lose
            commits.
        LogError: the database cannot be reached.
    """

    def __init__(self, url: str, *, reads: bool = False) -> None:
        if psycopg is None:
            raise ConfigurationError(
                "a log in PostgreSQL needs psycopg: pip install 'checkrein[postgres]'"
            )
        scheme, colon, rest = url.partition("://")
        url = scheme.lower() + colon + rest
        if not _is_url(url):
            raise ConfigurationError("the URL of the PostgreSQL database cannot be understood")
        self._owner = os.getpid()
        self._warned = False
        self._connection = _connected(url)
        self._connection.add_notice_handler(self._notice)
        try:
            self._settle(reads=reads)
        except Lost:
            self.close()
            raise LogError("the database ended the session at once") from None
        except BaseException:
            self.close()
            raise

    def _settle(self, *, reads: bool) -> None:
        idle = {"idle_in_transaction_session_timeout": "10min" if reads else "5s"}
        for name, value in {**_SESSION, **idle}.items():
            self.run("SELECT set_config(%s, %s, false)", name, value)
        if not reads:
            refuse_lossy(*self.run(f"SELECT {LOSSY}")[0])

    @property
    def lost(self) -> bool:
        """Whether the session has ended."""
        return bool(self._connection.closed)

    @property
    def where(self) -> str:
        """Host and database, as a person would name them."""
        info = self._connection.info
        return f"the database {info.dbname} of PostgreSQL on {info.host or 'this host'}"

    def run(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows.

        Raises:
            Lost: the session has ended.
            TamperedError: there is a row already where one was to be put.
            LogError: the database refuses.
        """
        try:
            cursor = self._connection.cursor(binary=True)
            cursor.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            problem = self._problem(error)
        raise problem  # outside: what the library says is not to be seen

    def copy(self, columns: str, types: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Put rows into a table.

        Args:
            columns: the table and its columns, as COPY wants them.
            types: of the columns.
            rows: their values.

        Raises:
            Lost: the session has ended.
            TamperedError: there is a row already where one was to be put.
            LogError: the database refuses.
        """
        statement = f"COPY checkrein_log.{columns} FROM STDIN (FORMAT BINARY)"
        try:
            with self._connection.cursor().copy(statement.encode()) as copy:
                copy.set_types(types)
                for row in rows:
                    copy.write_row(row)
        except psycopg.Error as error:
            problem = self._problem(error)
        else:
            return
        raise problem

    def commit(self) -> None:
        """Commit, and return when that is as durable as the server makes it.

        Raises:
            Lost: the session has ended; whether it was committed is unknown.
            LogError: it was not committed, or not everywhere.
        """
        self._warned = False
        try:
            outcome = self._connection.execute(b"COMMIT").statusmessage
        except psycopg.Error as error:
            problem: Exception = self._problem(error)
        else:
            if outcome == "COMMIT" and not self._warned:
                return
            problem = LogError(
                "the commit is not on all servers that it was to be on"
                if outcome == "COMMIT"
                else "the database rolled the commit back"
            )
        raise problem

    def close(self) -> None:
        """End the session; in a forked child, leave it to the parent."""
        connection = self._connection
        if self._owner == os.getpid():
            _close(connection)
        elif connection not in _INHERITED:
            # A proper end would end it for the parent, too; a socket that stays open here would
            # keep it alive when the parent dies.
            _INHERITED.append(connection)
            with suppress(psycopg.Error, OSError):
                os.close(connection.fileno())

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        self._warned = self._warned or notice.severity_nonlocalized == "WARNING"

    def _problem(self, error: psycopg.Error) -> Exception:
        if isinstance(error, _endings()):  # it may not have noticed yet that nobody is there
            _close(self._connection)
        if self._connection.closed:
            return Lost()
        if isinstance(error, psycopg.errors.UniqueViolation):
            return TamperedError("there is a row that no head covers", where="entry")
        if isinstance(error, psycopg.errors.LockNotAvailable):
            return LogError("another writer has held the log for 10 seconds")
        return LogError(f"the database refused: {_named(error)}")


def _endings() -> tuple[type[psycopg.Error], ...]:
    """Return the errors that are the server's last word in a session."""
    errors = psycopg.errors
    return (
        errors.AdminShutdown,
        errors.CrashShutdown,
        errors.IdleInTransactionSessionTimeout,
        errors.IdleSessionTimeout,
    )


_INHERITED: Final[list[Any]] = []
"""Connections of a parent. They are never let go, nor is what they think is their socket used."""

LOSSY: Final = "current_setting('synchronous_commit'), current_setting('fsync')"


def refuse_lossy(synchronous: object, fsync: object) -> None:
    """Refuse a server that answers `LOSSY` so that it may lose commits.

    Raises:
        ConfigurationError: it does.
    """
    for name, value in (("synchronous_commit", synchronous), ("fsync", fsync)):
        if value == "off":
            raise ConfigurationError(
                f"the database has {name} = off and could lose what it has acknowledged; "
                "set it to on, for the server or for this user (ALTER ROLE ... SET)"
            )


def create_tables(session: Session) -> None:
    """See that the tables are there; several may try at once.

    Raises:
        ConfigurationError: the schema holds something else, or is of another version.
        LogError: the database refuses.
    """
    if _are_there(session):
        return
    session.run("BEGIN")
    session.run(TURNSTILE)
    if not _are_there(session):
        for statement in _TABLES:
            session.run(statement)
    session.commit()


def _are_there(session: Session) -> bool:
    found = session.run(_FIND)
    if found and found[0][0] != _FORMAT:
        raise ConfigurationError(
            "the schema checkrein_log of the database holds no log of this version"
        )
    return bool(found)


def _connected(url: str) -> _Connection:
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=5,
            client_encoding="UTF8",
            fallback_application_name="checkrein",
            **_LIVENESS,
        )
    except psycopg.Error as error:
        problem = _unreachable(url, str(error))
    raise LogError(problem)  # outside: the library's error may quote the URL

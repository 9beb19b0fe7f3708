"""The ledger of several hosts: a PostgreSQL database, to which all of them write.

Tables and sessions are those of `checkrein.log.database`. A commit is one transaction::

    BEGIN
    SELECT the head FOR UPDATE      whoever else writes to this log waits from here on
    SELECT the hashes of what others have added; they lead from the tree that is known here to
                                    the head that is there, which the log's key has signed
    COPY the entries, with the hashes of the subtrees that they complete
    UPDATE the head                 signed, over all of it
    COMMIT

So the hosts take turns, entry for entry, and each signs only what extends the head before. What
is known of a tree are its peaks; those of the next are at most two rows for each doubling, however
many entries lie between. In the database nothing is believed that no head of the log's key covers:

1. A head that is older than one that is known here, or differs from it, is refused: by a writer
   that is at work from its memory, by one that opens the log from its own pin
   (`checkrein.log.pins`). So is a head that is gone, or rows behind it.
   The processes of a user share that pin, and a lock beside it, ``<pin>.lock``.
2. Rows that do not lead from the tree that is known to the head are refused.
3. A writer reads no entry that others have written. Entries are read for publication, and each
   is compared with its leaf hash, and all of them with the head, before the head is written.

A session that is lost is opened anew for up to 20 seconds, and what was not committed is done
again. If it was lost at the COMMIT itself, the outcome is in the database: the head is locked once
more, which waits for the old session to end, and the first of the rows has the batch's
random mark or has not. Only if the database stays away, or keeps the lock, the commit is in doubt:
a `LogError`, and the ledger takes no more. If it comes back with less than it had, as an
asynchronous standby may, that is a `RollbackError`.

Published, if that is asked for, is the static form of `checkrein.log`, without openings, into a
directory of this host, which has the lock and the checks of `checkrein.log.directory`. Several
hosts may each publish into their own. Nobody can open that directory as a log to write to.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import tenacity

from checkrein.errors import ConfigurationError, LogError, RollbackError, TamperedError
from checkrein.log.checkpoint import Checkpoint, open_checkpoint
from checkrein.log.database import LOSSY, TURNSTILE, Lost, Session, create_tables, refuse_lossy
from checkrein.log.disk import Disk, as_log_error, read_file
from checkrein.log.ledgers import PUBLISHED_FROM, Committed, authorised
from checkrein.log.locks import FileLock, locked, refuse_network
from checkrein.log.merkle import (
    EMPTY_ROOT,
    HASH_SIZE,
    Frontier,
    check_inclusion,
    leaf_hash,
    leaf_hashes,
    prove_inclusion,
    subtrees_between,
)
from checkrein.log.note import MAX_NOTE, Signer, Verifier, parse_vkey, sign_note
from checkrein.log.openings import Entry, read_openings
from checkrein.log.pins import OwnPin, rolled_back
from checkrein.log.published import Published
from checkrein.log.shelf import keep_openings, remove_openings
from checkrein.log.tiles import MAX_ENTRY

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Iterator

_PATIENCE: Final = 20.0
_TIMELY: Final = 4096  # entries, after which it is time to publish
_STRIDE: Final = 1024
_MAX_HASHES: Final = 64 * HASH_SIZE
_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_HEAD: Final = (
    f"SELECT size, substring(note for {MAX_NOTE + 1}), {LOSSY}"  # noqa: S608 (of constants)
    " FROM checkrein_log.head WHERE origin = %s"
)
_HASHES: Final = (
    f"SELECT index, substring(hashes for {_MAX_HASHES + 1})"  # noqa: S608 (of constants)
    " FROM checkrein_log.entry WHERE origin = %s AND index = ANY(%s::bigint[])"
)
_ENTRIES: Final = (
    f"SELECT index, substring(entry for {MAX_ENTRY + 1}), substring(hashes for {HASH_SIZE})"  # noqa: S608
    " FROM checkrein_log.entry WHERE origin = %s AND index >= %s AND index < %s ORDER BY index"
)


class PostgresLedger:
    """A log in a PostgreSQL database; see `checkrein.log.ledgers` for its methods.

    Args:
        url: where the database is, ``postgresql://``.
        signer: signs the heads; None is the key in the user's data directory.
        origin: the log's name; None is the signer's, or the only log that is there, or one
            that is made up.
        pin: the file of the writer's own pin, None for the one in the user's data directory.
        publish_to: absolute; the directory that gets the static form, None for none.
        disk: the operating system.
        patience: for how many seconds a lost session is opened anew.

    Raises:
        LogError: the database cannot be reached, or refuses.
        ConfigurationError: psycopg is not installed; origin, signer and log do not belong
            together; the key cannot be used; or the server may lose commits.
        TamperedError: what is in the database does not agree with its signed head.
        RollbackError: it ends before a head that was signed.
    """

    def __init__(
        self,
        url: str,
        signer: Signer | None = None,
        origin: str | None = None,
        *,
        pin: Path | None = None,
        publish_to: Path | None = None,
        disk: Disk | None = None,
        patience: float = _PATIENCE,
    ) -> None:
        self._url, self._disk, self._patience = url, disk or Disk(), patience
        self._directory, self._published = publish_to, 0
        self._tree, self._note = Frontier(), ""
        self._failed = False
        self._session = Session(url)
        self._where = self._session.where
        self._files: list[OwnPin | FileLock] = []
        try:
            with _told(self._where):
                self._open(signer, origin, pin)
            if publish_to is not None:
                self._publishing = _prepare(publish_to, self._disk)
                self._files.append(self._publishing)
                note = read_file(publish_to / "checkpoint")
                self._published = open_checkpoint(note, self._verifier).size if note else 0
        except BaseException:
            self.close()
            raise

    @property
    def signer(self) -> Signer:
        """Who signs."""
        return self._signer

    @property
    def where(self) -> str:
        """The host and the database."""
        return self._where

    @property
    def directory(self) -> Path | None:
        """The directory that it is published to."""
        return self._directory

    @property
    def size(self) -> int:
        """How many entries are durable, as far as this process knows."""
        return self._tree.size

    @property
    def note(self) -> str:
        """The signed head of so many entries."""
        return self._note

    @property
    def backlog(self) -> float:
        """How much of what makes it time to publish is not published; 0 if nothing ever is."""
        return (self.size - self._published) / _TIMELY if self._directory else 0.0

    def close(self) -> None:
        """End the session, and close all files."""
        self._failed = True
        self._session.close()
        for file in self._files:
            file.close()

    # Opening

    def _open(self, signer: Signer | None, origin: str | None, pin: Path | None) -> None:
        session = self._session
        create_tables(session)
        session.run("BEGIN")
        session.run(TURNSTILE)
        origin = origin or (signer.name if signer else _only_log(session))
        new = not session.run("SELECT 1 FROM checkrein_log.head WHERE origin = %s", origin)
        self._signer = authorised(signer, origin, self._directory, new=new)
        self._verifier = parse_vkey(self._signer.vkey)
        self._pin: OwnPin | None = None
        if pin or not getattr(self._signer, "passing", False):
            self._pin = OwnPin(origin, pin, self._directory, self._disk)
            self._files.append(self._pin)
        pinned = self._pinned()  # read before the head, which others move on meanwhile
        if new:
            self._start(pinned)
        session.commit()
        self._follow(*_read_head(session, self._verifier), pinned)

    def _start(self, pinned: Checkpoint | None) -> None:
        """Start a log where there is none."""
        origin, session = self._signer.name, self._session
        if pinned and pinned.size and self._pin:
            raise rolled_back(0, pinned.size, self._pin.path)
        if session.run("SELECT 1 FROM checkrein_log.entry WHERE origin = %s LIMIT 1", origin):
            raise TamperedError("there are entries and no head", where="head")
        note = sign_note(Checkpoint(origin, 0, EMPTY_ROOT).text(), self._signer)
        open_checkpoint(note, self._verifier)
        insert = "INSERT INTO checkrein_log.head (origin, size, note) VALUES (%s, 0, %s)"
        session.run(insert, origin, note.encode())

    def _pinned(self) -> Checkpoint | None:
        """Return the last head that this user's writers have signed."""
        if self._pin is None:
            return None
        with locked(_beside(self._pin.path)):
            kept = self._pin.read()
        return open_checkpoint(kept, self._verifier) if kept else None

    def _remember(self) -> None:
        """Renew the pin, unless another process of this user has a newer one."""
        if self._pin is None:
            return
        with locked(_beside(self._pin.path)):
            kept = self._pin.read()
            if not kept or open_checkpoint(kept, None).size < self.size:
                self._pin.keep(self._note)

    # Committing

    def commit(self, entries: list[bytes]) -> Committed:
        """Make *entries* durable, behind what others have written."""
        if self._failed:
            raise LogError("this ledger takes nothing any more; open the log again")
        if not entries:
            return Committed(self.size, self._note, [])
        leaves = leaf_hashes(entries)
        try:
            with _told(self._where):
                first = self._commit(entries, leaves)
            self._remember()
        except BaseException:
            self._failed = True
            self._session.close()  # with it goes the lock
            raise
        return Committed(first, self._note, leaves)

    def _commit(self, entries: list[bytes], leaves: list[bytes]) -> int:
        """Commit, and return the index of the first entry; again if it surely was not committed."""
        batch, until = secrets.token_bytes(16), time.monotonic() + self._patience
        while True:
            self._connect(until)
            try:
                tree, note = self._write(entries, leaves, batch)
            except Lost:
                continue
            try:
                self._session.commit()
            except Lost:
                if not self._has(tree.size - len(entries), batch, until):
                    continue
            else:
                self._tree, self._note = tree, note
            return tree.size - len(entries)

    def _write(
        self, entries: list[bytes], leaves: list[bytes], batch: bytes
    ) -> tuple[Frontier, str]:
        """Do all but the COMMIT; return what holds after it."""
        session, origin = self._session, self._signer.name
        self._lock_head()
        tree = self._tree.copy()
        first = tree.size
        marks = [batch, *[None] * (len(entries) - 1)]
        rows = [
            (origin, index, entry, tree.grow(leaf), mark)
            for index, (entry, leaf, mark) in enumerate(
                zip(entries, leaves, marks, strict=True), first
            )
        ]
        note = sign_note(Checkpoint(origin, tree.size, tree.root()).text(), self._signer)
        session.copy(
            "entry (origin, index, entry, hashes, batch)",
            ("text", "int8", "bytea", "bytea", "bytea"),
            rows,
        )
        openings = [*_opening_rows(origin, entries, first)]
        if openings:
            session.copy(
                "opening (origin, index, commitment, key, line)",
                ("text", "int8", "text", "text", "bytea"),
                openings,
            )
        update = "UPDATE checkrein_log.head SET size = %s, note = %s WHERE origin = %s"
        session.run(update, tree.size, note.encode(), origin)
        return tree, note

    def _lock_head(self) -> None:
        """Begin a transaction, keep others from this log, and learn what they have done."""
        self._session.run("BEGIN")
        rows = self._session.run(f"{_HEAD} FOR UPDATE", self._signer.name)
        if rows and rows[0] == (self.size, self._note.encode(), "on", "on"):
            return  # nobody has written since
        self._follow(*_check_head(rows, self._session, self._verifier, writing=True))

    def _follow(self, head: Checkpoint, note: str, pinned: Checkpoint | None = None) -> None:
        """Go on to the head that is there, by way of *pinned*, if it extends what is known."""
        if note == self._note:
            return
        if head.size < self.size:
            raise RollbackError(
                f"{self._where} has {head.size} entries of the log and had {self.size} before",
                where="head",
            )
        tree, where = self._tree, "entry"
        if pinned and self._pin:
            where = str(self._pin.path)
            if pinned.size > head.size:
                raise rolled_back(head.size, pinned.size, self._pin.path)
            tree = _grown(self._session, head.origin, tree, pinned, where)
        self._tree = _grown(self._session, head.origin, tree, head, "head")
        self._note = note

    def _has(self, first: int, batch: bytes, until: float) -> bool:
        """Tell whether the batch is there whose COMMIT got no answer."""
        query = "SELECT batch FROM checkrein_log.entry WHERE origin = %s AND index = %s"
        while True:
            try:
                self._connect(until)
                self._lock_head()
                found = self._session.run(query, self._signer.name, first)
                # Not a rollback: this commit waits for the standby servers, and so for that one.
                self._session.commit()
            except Lost:
                continue
            except LogError as error:
                raise LogError(f"whether the last commit was made is unknown: {error}") from None
            return found == [(batch,)]

    def _connect(self, until: float) -> None:
        """See that there is a session."""
        if not self._session.lost:
            return
        attempts = tenacity.Retrying(
            stop=lambda _: time.monotonic() >= until,
            wait=tenacity.wait_random_exponential(0.1, max=1),
            retry=tenacity.retry_if_exception_type(LogError),
            reraise=True,
        )
        if time.monotonic() >= until:
            raise LogError("the session with the database was lost again and again")
        self._session = attempts(Session, self._url)

    # Publishing and erasing

    def publish(self, *, wait: bool) -> None:
        """Bring the static form up to date, if there is to be one."""
        if self._directory is None:
            return
        if not self._publishing.acquire(wait=wait):
            if wait:
                raise LogError("another process publishes this log, and does not come to an end")
            return
        try:
            known = self.size
            with self._reader() as session:
                head = _bring_up(session, self._directory, self._disk, self._verifier, known)
            self._published = head.size
        finally:
            self._publishing.release()

    def entry(self, index: int) -> bytes:
        """Return the bytes of an entry, which the head proves to be there."""
        known = self.size
        with self._reader() as session:
            session.run(_SNAPSHOT)
            head, _ = _read_head(session, self._verifier, known=known)
            if not 0 <= index < head.size:
                raise LogError(f"the log has no entry {index}")
            entry = next(_read_entries(session, head.origin, index, index + 1))[0]
            proof = prove_inclusion(
                index,
                head.size,
                lambda height, place: _hashes(session, head.origin, [(height, place)])[0],
            )
            check_inclusion(index, head.size, leaf_hash(entry), proof, head.root)
            return entry

    def erase(self, commitments: Collection[str], key: str = "") -> int:
        """Remove openings for good; return how many there were."""
        with closing(Session(self._url)) as session, _told(self._where):
            session.run("BEGIN")
            gone = session.run(
                "DELETE FROM checkrein_log.opening WHERE origin = %s"
                " AND (commitment = ANY(%s::text[]) OR key <> '' AND key = %s) RETURNING index",
                self._signer.name,
                [*commitments],
                key,
            )
            session.commit()
            return len(gone)

    @contextmanager
    def _reader(self) -> Generator[Session]:
        with closing(Session(self._url, reads=True)) as session, _told(self._where):
            yield session


def export_static(
    url: str,
    directory: str | os.PathLike[str],
    *,
    origin: str,
    vkey: str,
    openings: bool = False,
) -> str:
    """Bring a log's static form up to date in *directory*, from a database that is only read.

    What is in *directory* already is extended, and not read again; a log that does not extend it
    is refused. Into an empty directory, every entry is read and compared.

    Args:
        url: the database, as a user who can read the tables.
        directory: created if needed.
        origin: the log's name.
        vkey: its verifier key text.
        openings: copy what entries commit to as well, and take away what is not in the database
            any more; otherwise values that can be erased stay where they are.

    Returns:
        The signed head of what is there now; keep it elsewhere to pin the log.

    Raises:
        TamperedError: entries are not those that the head covers; the head stays as it was.
        RollbackError: the database has less than *directory*.
        ConfigurationError: *vkey* is not of *origin*; there is a log of its own in *directory*;
            or the database cannot be used.
        LogError: the database or the disk fails, or there is no such log.

    Example:
        >>> export_static(url, "copy/", origin="example.com/log", vkey=key)  # doctest: +SKIP
    """
    verifier, place, disk = parse_vkey(vkey), Path(directory).absolute(), Disk()
    if verifier.name != origin:
        raise ConfigurationError(f"the key is of {verifier.name}, not of {origin}")
    with closing(Session(url, reads=True)) as session, _told(session.where):
        lock = _prepare(place, disk)
        try:
            with lock:
                _bring_up(session, place, disk, verifier)
                if openings:
                    _copy_openings(session, place, disk, origin)
                return (read_file(place / "checkpoint") or b"").decode()
        finally:
            lock.close()


# -- what is in the database -----------------------------------------------------------------


def _only_log(session: Session) -> str:
    """Return the name of the log that is there, or a new one."""
    found = session.run("SELECT origin FROM checkrein_log.head LIMIT 2")
    if len(found) > 1:
        raise ConfigurationError("there are several logs in this database: say which, by origin=")
    return str(found[0][0]) if found else f"checkrein.local/{secrets.token_hex(8)}"


def _read_head(session: Session, verifier: Verifier, known: int = 0) -> tuple[Checkpoint, str]:
    """Return the head and its note, which the log's key has signed; see `_check_head`."""
    return _check_head(session.run(_HEAD, verifier.name), session, verifier, known=known)


def _check_head(
    rows: list[tuple[Any, ...]],
    session: Session,
    verifier: Verifier,
    *,
    known: int = 0,
    writing: bool = False,
) -> tuple[Checkpoint, str]:
    """Return the head in the answer to `_HEAD`, and its note, which the log's key has signed.

    Args:
        rows: the answer.
        session: where it is from.
        verifier: the log's key.
        known: how many entries the log has had.
        writing: the log was there, and a new head is to be written.
    """
    if not rows:
        if writing or known:
            raise RollbackError("the head of the log is gone", where="head")
        raise LogError(f"{session.where} has no log {verifier.name}")
    size, note, synchronous, fsync = rows[0]
    if writing:
        refuse_lossy(synchronous, fsync)
    head = open_checkpoint(note if type(note) is bytes else b"", verifier)
    if size != head.size:
        raise TamperedError("the head has another size than it was signed for", where="head")
    if head.size < known:
        raise RollbackError(
            f"{session.where} has {head.size} entries of the log and had {known} before",
            where="head",
        )
    return head, note.decode()


def _hashes(session: Session, origin: str, places: Iterable[tuple[int, int]]) -> list[bytes]:
    """Return the hashes of the complete subtrees at (height, index); **unverified**."""
    wanted = [(height, (index + 1 << height) - 1) for height, index in places]
    rows = dict(session.run(_HASHES, origin, [row for _, row in wanted])) if wanted else {}
    found: list[bytes] = []
    for height, row in wanted:
        hashes = rows.get(row, b"")
        one = hashes[HASH_SIZE * height :][:HASH_SIZE] if type(hashes) is bytes else b""
        if len(one) != HASH_SIZE:
            raise TamperedError(f"entry {row} is missing, or its hashes", where=f"entry {row}")
        found.append(one)
    return found


def _grown(session: Session, origin: str, tree: Frontier, head: Checkpoint, where: str) -> Frontier:
    """Return the tree of *head*, grown from one that is known."""
    if head.size < tree.size:
        return tree
    places = [*subtrees_between(tree.size, head.size)]
    tree = tree.copy()
    for (height, _), one in zip(places, _hashes(session, origin, places), strict=True):
        tree.push(one, height)
    if tree.root() != head.root:
        raise TamperedError(
            f"the first {head.size} entries are not those of a head that this log has signed",
            where=where,
        )
    return tree


def _read_entries(session: Session, origin: str, start: int, stop: int) -> Iterator[list[bytes]]:
    """Yield the entries from *start* to *stop*, some at a time, compared with their leaf hashes."""
    while start < stop:
        end = min(stop, start // _STRIDE * _STRIDE + _STRIDE)
        rows = session.run(_ENTRIES, origin, start, end)
        entries: list[bytes] = []
        for expected in range(start, end):
            index, entry, leaf = (
                rows[expected - start] if expected - start < len(rows) else [None] * 3
            )
            if index != expected or type(entry) is not bytes or leaf_hash(entry) != leaf:
                raise TamperedError(
                    f"entry {expected} is {'missing' if index != expected else 'changed'}",
                    where=f"entry {expected}",
                )
            entries.append(entry)
        yield entries
        start = end


def _opening_rows(
    origin: str, entries: list[bytes], first: int
) -> Iterator[tuple[str, int, str, str, bytes]]:
    for index, entry in enumerate(entries, first):
        if type(entry) is Entry:
            for one in entry.openings:
                line = replace(one, index=index).line()
                yield origin, index, one.commitment, one.key, line


# -- the static form -------------------------------------------------------------------------


def _prepare(directory: Path, disk: Disk) -> FileLock:
    """Make the directory that gets the static form; return who-publishes-there's lock."""
    with as_log_error(f"publishing to {directory}"):
        disk.make_directory(directory / ".state")
        refuse_network(directory)
        if (directory / ".state" / "journal").exists():
            raise ConfigurationError(f"in {directory} is a log of its own; publish elsewhere")
        disk.write_files({directory / PUBLISHED_FROM: b""})
        return FileLock(directory / ".state" / "publishing")


def _bring_up(
    session: Session, directory: Path, disk: Disk, verifier: Verifier, known: int = 0
) -> Checkpoint:
    """Extend what is published in *directory* to the head that is there; return that."""
    session.run(_SNAPSHOT)
    head, note = _read_head(session, verifier, known=known)
    stored = read_file(directory / "checkpoint")
    here = Checkpoint(head.origin, 0, EMPTY_ROOT)
    if stored is not None:
        here = open_checkpoint(stored, verifier)
    if head.size < here.size:
        raise rolled_back(head.size, here.size, directory / "checkpoint")
    with as_log_error(f"publishing to {directory}"):
        published = Published(directory, disk, here)
        for entries in _read_entries(session, head.origin, here.size, head.size):
            leaves = leaf_hashes(entries)
            last = published.size + len(entries) == head.size
            if last:
                _compare(published.tree, leaves, head)
            published.publish(entries, leaves, note if last else "")
        if here.size == head.size:
            _compare(published.tree, [], head)
            published.publish([], [], note)
    session.commit()
    return head


def _compare(tree: Frontier, leaves: list[bytes], head: Checkpoint) -> None:
    tree.extend(leaves)
    if tree.root() != head.root:
        raise TamperedError("the entries are not those that the head covers", where="entry")


def _copy_openings(session: Session, directory: Path, disk: Disk, origin: str) -> None:
    query = "SELECT line FROM checkrein_log.opening WHERE origin = %s ORDER BY index"
    lines = b"".join([line for (line,) in session.run(query, origin) if type(line) is bytes])
    there = {one.commitment for one in read_openings(lines)}
    with as_log_error(f"copying openings to {directory}"):
        keep_openings(directory, disk, lines)
        remove_openings(directory, disk, lambda one: one.commitment not in there)


# -- the rest --------------------------------------------------------------------------------


def _beside(pin: Path) -> Path:
    """Return the lock file of a pin, which the processes of one user share."""
    return pin.with_name(f"{pin.name}.lock")


@contextmanager
def _told(where: str) -> Generator[None]:
    """Say in our words that a session was lost."""
    try:
        yield
    except Lost:
        problem = LogError(f"the session with {where} was lost")
    else:
        return
    raise problem

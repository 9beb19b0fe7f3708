"""`AuditLog`: what a program writes to.

Entries are in the log in the order in which they were queued, whether they came
by `append` (which waits until they are durable) or by `enqueue` (which does
not). One commit, one signature and one sync cover all that is queued.

What was enqueued is committed by whoever appends next, by `flush`, or by a
background thread after about 50 ms; at 4,096 queued entries the caller commits
itself. The same thread publishes when it is time to; if it falls sixteen times
behind, the next append publishes first and waits for it.

Any failure of a commit (the disk, the signer, an interrupt in the middle) ends
the use of this object: every waiter and every later call gets a `LogError`, and
opening the log anew reads what is really there. A failed publication ends
nothing; it is made up for by the next.

Several processes may have one log open; their entries take turns (see
`checkrein.log.directory` and, for several hosts, `checkrein.log.postgres`). A
forked child opens the log for itself: what it inherited gives `LogError`.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
import time
import weakref
from contextlib import suppress
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

import orjson

from checkrein.errors import ConfigurationError, LogError, MisuseError, TamperedError
from checkrein.log.directory import DirectoryLedger
from checkrein.log.disk import Disk
from checkrein.log.groupcommit import GroupCommit
from checkrein.log.keys import finish_change, next_key
from checkrein.log.openings import Entry, commit_fields, commitments_in, lay_aside
from checkrein.log.shelf import is_at
from checkrein.log.subjects import Subjects
from checkrein.log.succession import REVOKED, revoked
from checkrein.log.tiles import MAX_ENTRY
from checkrein.waiting import off_loop

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Self

    from checkrein.log.ledgers import Committed, Ledger
    from checkrein.log.note import Signer
    from checkrein.log.openings import Seal
    from checkrein.log.policy import Policy

_logger = logging.getLogger("checkrein")
_GATHER_SECONDS: Final = 0.05
_QUEUE_LIMIT: Final = 4096
_BEHIND: Final = 16
_URL: Final = re.compile(r"\s*[A-Za-z][A-Za-z0-9+]*://")
_DATABASE: Final = re.compile("postgres(ql)?://", re.IGNORECASE)


class Position(NamedTuple):
    """Where an entry is, for good: durable, sequenced, in the tree, and under a signed head.

    Attributes:
        index: its number, from 0.
        leaf_hash: its hash in the tree.
        checkpoint: a signed head that covers it; keep it elsewhere to pin the log.
        log: where it is.
    """

    index: int  # type: ignore[assignment] # pyright: ignore[reportIncompatibleMethodOverride]
    leaf_hash: bytes
    checkpoint: str
    log: AuditLog

    def witnessed(self, policy: Policy, *, within: float = 60.0) -> str:
        """Return when witnesses have cosigned a head that covers the entry.

        Args:
            policy: which witnesses, where they are, and how many are enough.
            within: for how many seconds to ask them again.

        Returns:
            That head with its cosignatures, a signed note.

        Raises:
            LogError: there was no quorum in time.
            TamperedError: a witness has seen another past of this log.
            MisuseError: the log is in a database, and not published to a directory.
        """
        from checkrein.log.witness import await_quorum  # noqa: PLC0415 (few ask for it)

        self.log.publish()
        return await_quorum(self.log.directory, policy, self.index, within)

    async def awitnessed(self, policy: Policy, *, within: float = 60.0) -> str:
        """Do as `witnessed` does, without holding an event loop up."""
        return await off_loop(partial(self.witnessed, policy, within=within))


def encode(event: Mapping[str, object], seal: Seal | None = None) -> bytes:
    """Return the bytes of *event* as an entry; they are the leaf, and are never encoded again.

    Args:
        event: the event. Its `Erasable` fields are committed to, and so are its large texts
            if it is too large for an entry; what opens them is in the `Entry` returned.
        seal: seals what belongs to a subject.

    Raises:
        LogError: no mapping with a str ``type``, nothing that JSON can hold, or too large.
    """
    plain: dict[str, object] = cast("Any", event) if type(event) is dict else _as_dict(event)
    kind = plain.get("type")
    if type(kind) is not str:
        raise LogError("an event is a mapping with a 'type' that is a str")
    try:
        entry = orjson.dumps(plain)
    except orjson.JSONEncodeError:
        entry = b""
    if not 0 < len(entry) <= MAX_ENTRY:  # a field is to be kept aside, or it is none
        return _encode_aside(plain, kind, seal)
    # The encoder's buffer is larger than its result; kept as it is, each costs 2 us of malloc.
    return bytes(memoryview(entry))


def _encode_aside(plain: dict[str, object], kind: str, seal: Seal | None) -> Entry:
    """Return the bytes of an event that commits to some of its fields."""
    try:
        entry = commit_fields(plain, seal)
        if len(entry) > MAX_ENTRY:
            entry = commit_fields(lay_aside(plain), seal)
    except orjson.JSONEncodeError as error:
        raise LogError(
            f"the event {kind!r} cannot be written as JSON ({error}); "
            "give it str keys and JSON values only"
        ) from error
    if len(entry) > MAX_ENTRY:
        raise LogError(
            f"the event {kind!r} has {len(entry)} bytes, an entry at most {MAX_ENTRY}, and no "
            "large text that could be kept aside; log a digest, or make fields Erasable"
        )
    return entry


class AuditLog:
    """A signed append-only log in a directory or a database; get one from `AuditLog.open`.

    Safe to use from many threads. Use it as a context manager, or `close` it.

    Example:
        >>> with AuditLog.open("audit/") as log:  # doctest: +SKIP
        ...     position = log.append({"type": "greeting", "text": "hello"})
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._subjects = Subjects(ledger.signer.name)
        self._release = weakref.finalize(self, ledger.close)
        self._release.atexit = False
        self._line = GroupCommit(self._commit)
        self._queue = self._line.queue
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._idle, self._overdue, self._stopping = True, False, False
        _OPEN.add(self)

    @classmethod
    def open(
        cls,
        directory: str | os.PathLike[str],
        *,
        signer: Signer | None = None,
        origin: str | None = None,
        durability: Literal["disk", "os"] = "disk",
        pin: str | os.PathLike[str] | None = None,
        publish_to: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Open the log in *directory*, or start one there.

        Args:
            directory: created if needed; on a local file system. Or the ``postgresql://`` URL
                of a database, for several hosts (``pip install 'checkrein[postgres]'``); see
                `checkrein.log.postgres`. A password is better kept in a ``.pgpass`` file.
            signer: signs the heads. Without one, a new log gets a key in the user's
                data directory, and an existing log uses that key.
            origin: the log's name, a URL without scheme. A new log gets
                ``checkrein.local/<random>`` by default; an existing one keeps its own.
            durability: "os" does not wait for the disk: a crash of the process loses
                nothing, a power failure may lose the last entries, and nobody will see it.
            pin: the file in which the writer keeps the last head that it signed, outside of
                *directory*; in the user's data directory by default.
            publish_to: a directory in which the static form of a log in a database is kept up
                to date, for those who verify and read it.

        Raises:
            LogError: the disk fails, or the database does.
            ConfigurationError: origin, signer and log do not belong together; the key is
                missing, open to others, or inside *directory*; or that is on a network.
            TamperedError: what is in *directory* does not agree with its signed heads.
            RollbackError: it ends before a head that was signed.
        """
        if durability not in {"disk", "os"}:
            raise ConfigurationError('durability is "disk" or "os"')
        kept = None if pin is None else Path(pin).absolute()
        durable = durability == "disk"
        where = os.fspath(directory)
        if _DATABASE.match(where):
            if not durable:
                raise ConfigurationError('a log in a database has durability "disk"')
            from checkrein.log.postgres import PostgresLedger  # noqa: PLC0415 (heavy)

            public = None if publish_to is None else Path(publish_to).absolute()
            return cls(PostgresLedger(where, signer, origin, pin=kept, publish_to=public))
        if _URL.match(where):
            raise ConfigurationError("a log is in a directory, or at a postgresql:// URL")
        if publish_to is not None:
            raise ConfigurationError(
                "publish_to= is for a log in a database; one in a directory is published there"
            )
        place = Path(where).absolute()
        return cls(DirectoryLedger(place, signer, origin, Disk(), durable=durable, pin=kept))

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._ledger.signer.name

    @property
    def vkey(self) -> str:
        """The verifier key text: publish it, and verify with it."""
        return self._ledger.signer.vkey

    @property
    def directory(self) -> Path:
        """Where the log is, or is published to.

        Raises:
            MisuseError: it is in a database, and not published.
        """
        place = self._ledger.directory
        if place is None:
            raise MisuseError(
                f"this log is in {self._ledger.where}, not in a directory; open it with publish_to="
            )
        return place

    @property
    def size(self) -> int:
        """How many entries are durable, as far as this process has seen."""
        return self._ledger.size

    @property
    def checkpoint(self) -> str:
        """The latest signed head that this process has seen."""
        return self._ledger.note

    def append(self, event: Mapping[str, object]) -> Position:
        """Append *event*; on return it is durable, in order, and under a signed head.

        Raises:
            LogError: it is not in the log, or not surely.
        """
        return self.append_many((event,))[0]

    def append_many(self, events: Iterable[Mapping[str, object]]) -> list[Position]:
        """Append *events*, one behind the other; see `append`."""
        seal = self._subjects.seal
        entries = [encode(event, seal) for event in events]
        self._relieve()
        positions: list[Position] = []
        for ticket in self._line.submit(entries):
            indexes = range(ticket.first, ticket.first + len(ticket.leaves))
            positions += map(Position, indexes, ticket.leaves, repeat(ticket.note), repeat(self))
        return positions

    async def aappend(self, event: Mapping[str, object]) -> Position:
        """Do as `append` does, without holding an event loop up."""
        return await off_loop(partial(self.append, event))

    def enqueue(self, event: Mapping[str, object]) -> None:
        """Append *event* soon: it is encoded now and keeps its place in the order.

        A crash of the process may lose it. `append` and `flush` wait for all before.

        Raises:
            LogError: *event* cannot be an entry, or the log takes nothing any more.
        """
        queue = self._queue
        queue.append(encode(event, self._subjects.seal))
        if self._line.refusal:
            self._line.check()
        if self._idle:
            self._rouse()
        if len(queue) >= _QUEUE_LIMIT:
            self.flush()

    def flush(self) -> None:
        """Return when all that was enqueued before is durable.

        Raises:
            LogError: it is not.
        """
        self._relieve()
        self._line.submit([])

    def publish(self) -> None:
        """Bring all entries so far into tiles and bundles, and replace ``checkpoint``.

        Raises:
            LogError: that failed, and nothing is lost by it.
        """
        self.flush()
        self._ledger.publish(wait=True)

    def erase(
        self, *, index: int | None = None, field: str = "", subject: str = "", by: str, reason: str
    ) -> int:
        """Erase what entries commit to; the log says that it was, and every proof still holds.

        First an entry ``erasure`` is written, then the values go. A crash in between leaves
        some there, and the same call made again removes them.

        Args:
            index: the number of an entry; all its fields that can be erased, or
            field: the one at this path in it: ``arguments.to``.
            subject: instead, all that was written for one subject, by destroying its key.
            by: who decided it.
            reason: why.

        Returns:
            How many values were erased here. Copies of the log that were made before still
            have them, but for those of a subject.

        Raises:
            MisuseError: neither an entry nor a subject is given, or both.
            LogError: there is no such entry, field or subject; or the disk fails.
        """
        if (index is None) == (not subject) or (subject and field):
            raise MisuseError("erase() takes index=, and perhaps field=; or subject=")
        about: dict[str, Any] = {"by": by, "reason": reason}
        if index is None:
            key, gone = self._subjects.id_of(subject), []
            if not key:
                raise LogError("nothing is sealed for this subject, or it was erased before")
            about["key"] = key
        else:
            key, gone = "", self._commitments(index, field)
            about |= {"index": index, "field": field, "commitments": gone}
        self.append({"v": 1, "type": "erasure", "time": time.time_ns(), **about})
        self.publish()
        if key:
            self._subjects.destroy(subject)
        return self._ledger.erase(gone, key)

    def rotate(self, signer: Signer | None = None) -> str:
        """Hand the log over to another key; return its verifier key text, to be made known.

        The head right after has the signatures of both keys, those that follow the new one's
        alone. Who has the old verifier key gets to the new one by the log
        (`checkrein.log.succession`). Other processes that have the log open must open it anew.

        Args:
            signer: the new key. Without it a key is made, and takes the old one's place in the
                user's data directory; the old one is kept beside it.

        Raises:
            ConfigurationError: it is no other key of this log, or one that signs heads alone.
            LogError: that failed; where an entry ``log.key`` says so, the new key is in force.
            MisuseError: the log is in a database.
        """
        if not isinstance(self._ledger, DirectoryLedger):
            raise MisuseError(f"the key of {self._ledger.where} is not changed from here")
        new = next_key(self.origin) if signer is None else signer
        self.flush()
        self._ledger.change_key(new, encode)
        self._ledger.publish(wait=True)
        if signer is None:
            finish_change(self.origin, self.checkpoint)
        return new.vkey

    def revoke(self, vkey: str, reason: str) -> Position:
        """Write down that a former key of this log vouches for nothing any more.

        Args:
            vkey: that key's text.
            reason: why.

        Raises:
            ConfigurationError: it is no former key of this log.
            LogError: the entry is not in the log; others append too fast, for example.
        """
        for _ in range(20):  # the entry names its own place
            size = self.size
            fields = revoked(self.origin, size, vkey, reason, self._ledger.signer)
            position = self.append({"v": 1, "type": REVOKED, "time": time.time_ns(), **fields})
            if position.index == size:
                return position
        raise LogError("others append too fast; stop them for a moment")

    def _commitments(self, index: int, field: str) -> list[str]:
        """Return what the fields of an entry at, or below, a path are committed to by."""
        self.publish()
        found = [
            commitment
            for path, commitment in commitments_in(orjson.loads(self._ledger.entry(index)))
            if is_at(path, field or "*")
        ]
        if not found:
            raise LogError(f"entry {index} has nothing there that can be erased")
        return found

    def close(self) -> None:
        """Flush, publish, and let others open the log. A second call does nothing.

        Raises:
            LogError: entries could not be made durable or published, now or before.
        """
        with self._wake:
            if self._stopping:
                return
            self._stopping = True
            self._wake.notify_all()
        self._line.refusal = self._line.refusal or "the log is closed"
        if self._thread is not None:
            self._thread.join()
        try:
            self._line.submit([], last=True)
            self._ledger.publish(wait=True)
        finally:
            self._release()
            _OPEN.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Committing and publishing

    def _commit(self, entries: list[bytes]) -> Committed:
        done = self._ledger.commit(entries)
        if self._ledger.backlog >= 1 and not self._overdue:
            self._overdue = True
            self._rouse()
        return done

    def _relieve(self) -> None:
        """Publish first if the background thread has fallen far behind."""
        self._line.check()
        if self._ledger.backlog >= _BEHIND:
            self._ledger.publish(wait=True)

    # The background thread

    def _rouse(self) -> None:
        """Start or wake the background thread."""
        with self._wake:
            self._idle = False
            if self._thread is not None:
                self._wake.notify()
            elif not self._stopping:
                thread = threading.Thread(target=self._run, name="checkrein-log", daemon=True)
                # No thread can start while the interpreter ends; close() commits then.
                with suppress(RuntimeError):
                    thread.start()
                    self._thread = thread

    def _run(self) -> None:
        while True:
            with self._wake:
                # Who enqueues looks at _idle after the queue, so this looks the other way round.
                self._idle = True
                while not (self._queue or self._overdue or self._stopping):
                    self._wake.wait()
                    self._idle = True
                self._idle = False
                self._wake.wait_for(lambda: self._stopping, _GATHER_SECONDS)
                if self._stopping:
                    return
                overdue = self._overdue
            try:
                self._line.submit([])
                if overdue:
                    self._overdue = False
                    self._ledger.publish(wait=False)
            except (LogError, TamperedError) as error:
                _logger.error("the log %s: %s", self.origin, error)  # noqa: TRY400 - no trace

    def disown(self) -> None:
        """Refuse everything in a forked child; locks may be held by threads it does not have.

        Its files are closed: a lock that the parent holds must not outlive the parent here.
        """
        self._wake = threading.Condition()
        self._line = GroupCommit(self._commit)
        self._line.refusal = (
            "this log belongs to the process that opened it before the fork; "
            "open it again in this process"
        )
        self._stopping = True
        self._ledger.close()


def _as_dict(event: Mapping[str, object]) -> dict[str, object]:
    try:
        return dict(event)
    except (TypeError, ValueError):
        raise LogError("an event is a mapping with a 'type' that is a str") from None


_OPEN: weakref.WeakSet[AuditLog] = weakref.WeakSet()


def _disown_all() -> None:
    for log in list(_OPEN):
        log.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)


@atexit.register
def _close_all() -> None:
    for log in list(_OPEN):
        try:
            log.close()
        except (LogError, TamperedError) as error:
            _logger.error("the log %s was not closed well: %s", log.origin, error)  # noqa: TRY400

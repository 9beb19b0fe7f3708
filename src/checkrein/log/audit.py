"""`AuditLog`: the one writer of a log.

Entries are in the log in the order in which they were queued, whether they came
by `append` (which waits until they are durable) or by `enqueue` (which does
not). One journal frame, one signature and one sync commit all that is queued.

What was enqueued is committed by whoever appends next, by `flush`, or by a
background thread after about 50 ms; at 4,096 queued entries the caller commits
itself. The same thread publishes when the journal has 4,096 entries or 8 MiB; if
it falls sixteen times behind, the next append publishes first and waits for it.

Any failure of a commit (the disk, the signer, an interrupt in the middle) ends
the use of this object: every waiter and every later call gets a `LogError`, and
opening the log anew reads what is really there. A failed publication ends
nothing; the journal still has it all.

A log belongs to the process that opened it. A forked child gets a `LogError`.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from checkrein.errors import ConfigurationError, LogError, TamperedError
from checkrein.log import keys
from checkrein.log.checkpoint import Checkpoint, open_checkpoint
from checkrein.log.disk import DirectoryLock, Disk, as_log_error, read_file
from checkrein.log.groupcommit import GroupCommit
from checkrein.log.journal import Frame, Journal, encode_frame
from checkrein.log.merkle import EMPTY_ROOT, leaf_hashes
from checkrein.log.note import Ed25519Signer, Signer, parse_vkey, sign_note
from checkrein.log.published import Published
from checkrein.log.tiles import MAX_ENTRY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType
    from typing import Self

_logger = logging.getLogger("checkrein")
_GATHER_SECONDS: Final = 0.05
_QUEUE_LIMIT: Final = 4096
_JOURNAL_ENTRIES: Final = 4096
_JOURNAL_BYTES: Final = 8 << 20
_BEHIND: Final = 16


@dataclass(frozen=True, slots=True)
class Position:
    """Where an entry is, for good.

    Attributes:
        index: its number, from 0.
        leaf_hash: its hash in the tree.
        checkpoint: a signed head that covers it; keep it elsewhere to pin the log.
    """

    index: int
    leaf_hash: bytes
    checkpoint: str


def encode(event: Mapping[str, object]) -> bytes:
    """Return the bytes of *event* as an entry; they are the leaf, and are never encoded again.

    Raises:
        LogError: no mapping with a str ``type``, nothing that JSON can hold, or too large.
    """
    plain: dict[str, object] = cast("Any", event) if type(event) is dict else _as_dict(event)
    kind = plain.get("type")
    if type(kind) is not str:
        raise LogError("an event is a mapping with a 'type' that is a str")
    try:
        entry = orjson.dumps(plain)
    except orjson.JSONEncodeError as error:
        raise LogError(
            f"the event {kind!r} cannot be written as JSON ({error}); "
            "give it str keys and JSON values only"
        ) from error
    if len(entry) > MAX_ENTRY:
        raise LogError(
            f"the event {kind!r} has {len(entry)} bytes, an entry at most {MAX_ENTRY}; "
            "log a digest and keep the content elsewhere"
        )
    # The encoder's buffer is larger than its result; kept as it is, each costs 2 us of malloc.
    return bytes(memoryview(entry))


class AuditLog:
    """A signed append-only log in a directory; get one from `AuditLog.open`.

    Safe to use from many threads. Use it as a context manager, or `close` it.

    Example:
        >>> with AuditLog.open("audit/") as log:  # doctest: +SKIP
        ...     position = log.append({"type": "greeting", "text": "hello"})
    """

    def __init__(
        self, directory: Path, signer: Signer | None, origin: str | None, disk: Disk
    ) -> None:
        self._directory, self._disk = directory, disk
        with as_log_error(f"opening the log in {directory}"):
            disk.make_directory(directory / ".state")
            lock = DirectoryLock(directory / ".state" / "lock")
            try:
                self._signer, note = self._identify(signer, origin)
                self._journal = Journal(directory / ".state" / "journal", disk)
                self._release = weakref.finalize(self, _release, lock, self._journal)
                self._release.atexit = False
            except BaseException:
                lock.release()
                raise
            try:
                self._recover(note)
            except BaseException:
                self._release()
                raise
        self._line = GroupCommit(self._commit)
        self._queue = self._line.queue
        self._wake = threading.Condition()
        self._publishing = threading.Lock()
        self._state = threading.Lock()
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
    ) -> Self:
        """Open the log in *directory*, or start one there.

        Args:
            directory: created if needed.
            signer: signs the heads. Without one, a new log gets a key in the user's
                data directory, and an existing log uses that key.
            origin: the log's name, a URL without scheme. A new log gets
                ``checkrein.local/<random>`` by default; an existing one keeps its own.

        Raises:
            LogError: it is open already, or the disk fails.
            ConfigurationError: origin, signer and log do not belong together, or the
                key is missing, open to others, or inside *directory*.
            TamperedError: what is in *directory* does not agree with its signed heads.
        """
        return cls(Path(directory).absolute(), signer, origin, Disk())

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._signer.name

    @property
    def vkey(self) -> str:
        """The verifier key text: publish it, and verify with it."""
        return self._signer.vkey

    @property
    def directory(self) -> Path:
        """Where the log is."""
        return self._directory

    @property
    def size(self) -> int:
        """How many entries are durable."""
        return self._size

    @property
    def checkpoint(self) -> str:
        """The latest signed head."""
        return self._note

    def append(self, event: Mapping[str, object]) -> Position:
        """Append *event*; on return it is durable, in order, and under a signed head.

        Raises:
            LogError: it is not in the log, or not surely.
        """
        return self.append_many((event,))[0]

    def append_many(self, events: Iterable[Mapping[str, object]]) -> list[Position]:
        """Append *events*, one behind the other; see `append`."""
        entries = [encode(event) for event in events]
        self._relieve()
        return [
            Position(index, leaf, ticket.note)
            for ticket in self._line.submit(entries)
            for index, leaf in enumerate(ticket.leaves, ticket.first)
        ]

    def enqueue(self, event: Mapping[str, object]) -> None:
        """Append *event* soon: it is encoded now and keeps its place in the order.

        A crash of the process may lose it. `append` and `flush` wait for all before.

        Raises:
            LogError: *event* cannot be an entry, or the log takes nothing any more.
        """
        queue = self._queue
        queue.append(encode(event))
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
            LogError: that failed; the journal still has what is not published.
        """
        self.flush()
        self._publish()

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
            self._publish()
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

    # Opening

    def _identify(self, signer: Signer | None, origin: str | None) -> tuple[Signer, bytes]:
        """Return the log's signer and its published head, starting the log if there is none."""
        note = read_file(self._directory / "checkpoint")
        if note is None:
            return self._start(signer, origin)
        found = open_checkpoint(note, None).origin
        if origin not in {None, found}:
            raise ConfigurationError(f"the log in {self._directory} is {found}, not {origin}")
        return self._authorise(signer or self._default_signer(found, create=False), found), note

    def _start(self, signer: Signer | None, origin: str | None) -> tuple[Signer, bytes]:
        if (self._directory / "tile").exists() or read_file(self._directory / ".state" / "journal"):
            raise TamperedError("there are entries and no checkpoint", where="checkpoint")
        if origin is None:
            origin = signer.name if signer else f"checkrein.local/{secrets.token_hex(8)}"
        signer = self._authorise(signer or self._default_signer(origin, create=True), origin)
        note = sign_note(Checkpoint(origin, 0, EMPTY_ROOT).text(), signer).encode()
        open_checkpoint(note, parse_vkey(signer.vkey))
        self._disk.write_files({self._directory / "checkpoint": note})
        return signer, note

    def _default_signer(self, origin: str, *, create: bool) -> Signer:
        keys.refuse_inside(keys.key_path(origin), self._directory)
        return keys.default_signer_for(origin, create=create)

    def _authorise(self, signer: Signer, origin: str) -> Signer:
        if signer.name != origin or parse_vkey(signer.vkey).name != origin:
            raise ConfigurationError(f"the signer is {signer.name}, the log is {origin}")
        if isinstance(signer, Ed25519Signer) and signer.path is not None:
            keys.refuse_inside(signer.path, self._directory)
        return signer

    def _recover(self, note: bytes) -> None:
        """Rebuild the state from tiles and journal; refuse what no signed head of ours covers."""
        verifier = parse_vkey(self._signer.vkey)
        head = open_checkpoint(note, verifier)
        self._published = Published(self._directory, self._disk, head)
        self._tree, self._note, self._size = self._published.tree, note.decode(), head.size
        self._entries: list[bytes] = []
        self._leaves: list[bytes] = []
        found = self._journal.recover(lambda data: open_checkpoint(data, verifier))
        if found.torn:
            _logger.warning(
                "the log %s ended in %d bytes of a commit that was never acknowledged; cut off",
                self.origin,
                found.torn,
            )
        for frame in found.frames:
            self._replay(frame, head)
        self._stop = self._journal.size

    def _replay(self, frame: Frame, published: Checkpoint) -> None:
        if frame.end <= published.size:
            good = frame.end < published.size or frame.head == published
        else:
            leaves = leaf_hashes(frame.entries)
            good = frame.first == self._tree.size
            self._tree.extend(leaves)
            good = good and frame.head.root == self._tree.root()
            self._entries += frame.entries
            self._leaves += leaves
            self._note, self._size = frame.note.decode(), frame.end
        if not good:
            raise TamperedError(
                f"the journal does not extend the published head at entry {frame.first}",
                where=".state/journal",
            )

    # Committing and publishing

    def _commit(self, entries: list[bytes]) -> tuple[int, str, list[bytes]]:
        first, leaves = self._size, leaf_hashes(entries)
        if entries:
            tree = self._tree.copy()
            tree.extend(leaves)
            note = sign_note(Checkpoint(self.origin, tree.size, tree.root()).text(), self._signer)
            self._journal.append(encode_frame(first, entries, note))
            with self._state:
                self._tree, self._note, self._size = tree, note, tree.size
                self._stop = self._journal.size
                self._entries += entries
                self._leaves += leaves
            if len(self._leaves) >= _JOURNAL_ENTRIES or self._stop >= _JOURNAL_BYTES:
                self._overdue = True
                self._rouse()
        return first, self._note, leaves

    def _relieve(self) -> None:
        """Publish first if the background thread has fallen far behind."""
        self._line.check()
        many = len(self._leaves) >= _BEHIND * _JOURNAL_ENTRIES
        if many or self._stop >= _BEHIND * _JOURNAL_BYTES:
            self._publish()

    def _publish(self) -> None:
        with self._publishing:
            self._overdue = False
            with self._state:
                stop, note = self._stop, self._note
                entries, leaves = self._entries.copy(), self._leaves.copy()
            if stop == 0:
                return
            with as_log_error("publishing the log"):
                if entries:
                    self._published.publish(entries, leaves, note)
            with self._line.alone():
                self._journal.restart(stop)
                self._stop = self._journal.size
                del self._entries[: len(entries)], self._leaves[: len(entries)]

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
                    self._publish()
            except LogError as error:
                _logger.error("the log %s: %s", self.origin, error)  # noqa: TRY400 - no trace

    def disown(self) -> None:
        """Refuse everything in a forked child; locks may be held by threads it does not have."""
        self._wake = threading.Condition()
        self._line = GroupCommit(self._commit)
        self._line.refusal = (
            "this log belongs to the process that opened it before the fork; "
            "open another log in this process"
        )
        self._stopping = True


def _as_dict(event: Mapping[str, object]) -> dict[str, object]:
    try:
        return dict(event)
    except (TypeError, ValueError):
        raise LogError("an event is a mapping with a 'type' that is a str") from None


def _release(lock: DirectoryLock, journal: Journal) -> None:
    journal.close()
    lock.release()


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
        except LogError as error:
            _logger.error("the log %s was not closed well: %s", log.origin, error)  # noqa: TRY400

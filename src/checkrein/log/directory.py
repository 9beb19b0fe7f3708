"""The ledger of one machine: a directory, shared by the processes that write to the log.

A commit takes the lock of the directory, reads what others have appended to the
journal since, signs the head of all of it, appends one frame, syncs it, renews
the writer's pin, and gives the lock back. So the processes take turns, entry for
entry, and each signs only what extends the head before.

Publication has a lock of its own, and works outside of the first while it writes
tiles; then it puts a new journal in place of the old one, which the others notice
by the file's identity.

In the directory nothing is believed that no head of the log's key covers:

1. The tiles must add up to the published head, and the journal extend it.
2. Of what others have appended, every root is computed anew, and the last head's
   signature checked; the one before the last is then vouched for by the tree.
3. A log that ends before the writer's pin, or differs from it, is refused.
4. A journal that gets shorter, disappears, or no longer has the head that was
   known, is refused as well.

What entries commit to and do not show (`checkrein.log.openings`) is in the frames until it
is published; then it lies in ``.state/openings``, written before the head that covers it. It
is erased there only, after a publication: so nobody has it in a journal, to write it again.

On Windows a file that is open cannot be replaced; there the lock is kept from
opening to closing, and a log has one writer.
"""

from __future__ import annotations

import logging
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from checkrein.errors import ConfigurationError, LogError, RollbackError, TamperedError
from checkrein.log.checkpoint import Checkpoint, open_checkpoint
from checkrein.log.disk import Disk, as_log_error, read_file
from checkrein.log.journal import Frame, Journal, encode_frame, read_unsigned, scan
from checkrein.log.keys import finish_change
from checkrein.log.ledgers import PUBLISHED_FROM, Committed, authorised
from checkrein.log.locks import FileLock, refuse_network
from checkrein.log.merkle import (
    EMPTY_ROOT,
    Frontier,
    fold,
    leaf_hashes,
    prove_consistency,
    subtree_hash,
)
from checkrein.log.note import Signer, parse_vkey, sign_note
from checkrein.log.openings import openings_of
from checkrein.log.pins import OwnPin, rolled_back
from checkrein.log.published import Published
from checkrein.log.shelf import keep_openings, remove_openings
from checkrein.log.succession import HANDED_OVER, handed_over, key_ids
from checkrein.log.tilereader import TileReader, open_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

_logger = logging.getLogger("checkrein")
_JOURNAL_ENTRIES: Final = 4096
_JOURNAL_BYTES: Final = 8 << 20
_ATTEMPTS: Final = 20


class DirectoryLedger:
    """A log in a directory; see `checkrein.log.ledgers` for its methods.

    Args:
        directory: absolute; created if needed.
        signer: signs the heads; None is the key in the user's data directory.
        origin: the log's name; None keeps that of an existing log, or makes one up.
        disk: the operating system.
        durable: whether a commit waits for the disk. Without, it waits for the operating
            system only, and the pin is renewed by publications, which do wait.
        pin: the file of the writer's own pin, None for the one in the user's data directory.

    Raises:
        LogError: the disk fails, or another process keeps the lock.
        ConfigurationError: origin, signer and log do not belong together; the key is
            missing, open to others, or inside *directory*; or that is on a network.
        TamperedError: what is in *directory* does not agree with its signed heads.
        RollbackError: it ends before a head that was signed.
    """

    def __init__(
        self,
        directory: Path,
        signer: Signer | None,
        origin: str | None,
        disk: Disk,
        *,
        durable: bool = True,
        pin: Path | None = None,
    ) -> None:
        self._directory, self._disk, self._durable = directory, disk, durable
        state = directory / ".state"
        with as_log_error(f"opening the log in {directory}"):
            disk.make_directory(state)
            refuse_network(directory)
            self._lock = FileLock(state / "lock", for_good=sys.platform == "win32")
            self._publishing = FileLock(state / "publishing")
            self._files: list[FileLock | Journal | OwnPin] = [self._lock, self._publishing]
            try:
                with self._lock:
                    self._open(signer, origin, pin)
            except BaseException:
                self.close()
                raise

    @property
    def signer(self) -> Signer:
        """Who signs."""
        return self._signer

    @property
    def directory(self) -> Path:
        """Where the log is."""
        return self._directory

    @property
    def where(self) -> str:
        """The directory."""
        return str(self._directory)

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
        """How much of what makes it time to publish is in the journal."""
        return max(len(self._leaves) / _JOURNAL_ENTRIES, self._journal.size / _JOURNAL_BYTES)

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()

    # Opening

    def _open(self, signer: Signer | None, origin: str | None, pin: Path | None) -> None:
        if (self._directory / PUBLISHED_FROM).exists():
            raise ConfigurationError(
                f"{self._directory} is what a log in a database publishes; write to that log"
            )
        note = read_file(self._directory / "checkpoint")
        if note is None:
            note = self._start(signer, origin)
        else:
            found = open_checkpoint(note, None).origin
            if origin not in {None, found}:
                raise ConfigurationError(f"the log in {self._directory} is {found}, not {origin}")
            if signer is None:
                finish_change(found, self._latest(note))
            self._signer = authorised(signer, found, self._directory, new=False)
        self._verifier = parse_vkey(self._signer.vkey)
        self._refuse_successor(note)
        self._pin: OwnPin | None = None
        if pin or not getattr(self._signer, "passing", False):
            self._pin = OwnPin(self._signer.name, pin, self._directory, self._disk)
            self._files.append(self._pin)
        self._proves = hasattr(self._signer, "sign_extending")
        self._pending = self._directory / ".state" / "pending"
        self._journal = Journal(self._directory / ".state" / "journal", self._disk)
        self._files.append(self._journal)
        latest = self._latest(note)
        # A change of keys that is not published: the new key vouches for the head by the old one
        # with its own, in the journal, which extends it.
        self._handed = latest != note and len(key_ids(latest, self._signer.name)) > 1
        published = open_checkpoint(note, None if self._handed else self._verifier)
        self._begin(published, note.decode())
        self._catch_up(thoroughly=True)
        if self._handed:
            open_checkpoint(self._note, self._verifier)
            self._handed = False

    def _latest(self, published: bytes) -> bytes:
        """Return the latest head that is here, **unverified**."""
        journal = read_file(self._directory / ".state" / "journal") or b""
        frames = scan(journal, lambda note: open_checkpoint(note, None)).frames
        return frames[-1].note if frames else published

    def _start(self, signer: Signer | None, origin: str | None) -> bytes:
        """Start a log where there is none."""
        directory = self._directory
        if (directory / "tile").exists() or read_file(directory / ".state" / "journal"):
            raise TamperedError("there are entries and no checkpoint", where="checkpoint")
        if origin is None:
            origin = signer.name if signer else f"checkrein.local/{secrets.token_hex(8)}"
        self._signer = authorised(signer, origin, directory, new=True)
        note = sign_note(Checkpoint(origin, 0, EMPTY_ROOT).text(), self._signer).encode()
        open_checkpoint(note, parse_vkey(self._signer.vkey))
        self._disk.write_files({directory / "checkpoint": note})
        return note

    def _begin(self, head: Checkpoint, note: str) -> None:
        """Stand at the published head."""
        self._published = Published(self._directory, self._disk, head)
        self._head, self._note = head, note
        self._tree = self._published.tree
        self._entries: list[bytes] = []
        self._leaves: list[bytes] = []
        self._aside: list[tuple[int, bytes]] = []  # openings, with the end of their commit

    def _compare_with_pin(self) -> None:
        kept = self._pin.read() if self._pin else b""
        if not self._pin or not kept:
            return
        pinned = open_checkpoint(kept, None if self._handed else self._verifier)
        if pinned.size > self.size:
            raise rolled_back(self.size, pinned.size, self._pin.path)
        if self._root_at(pinned.size) != pinned.root:
            raise TamperedError(
                f"the first {pinned.size} entries are not those of the head in {self._pin.path}, "
                "which this log signed before",
                where=str(self._pin.path),
            )

    def _root_at(self, size: int) -> bytes:
        """Return the root of the first *size* entries, of which there are that many."""
        if size <= self._head.size:
            read = TileReader(self._directory, self._head.size)
            return subtree_hash(0, size, read) if size else EMPTY_ROOT
        tree = self._edge().tree.copy()
        tree.extend(self._leaves[: size - self._head.size])
        return tree.root()

    # Committing; all of it under the lock

    def commit(self, entries: list[bytes]) -> Committed:
        """Make *entries* durable, behind what other processes have written."""
        with self._lock:
            self._catch_up()
            first, leaves = self.size, leaf_hashes(entries)
            if entries:
                aside = openings_of(entries, first)
                if self._proves:  # what such a signer has signed must not get lost
                    pending = encode_frame(first, entries, "", aside)
                    with as_log_error("keeping entries for the signer"):
                        self._disk.write_files({self._pending: pending})
                self._append(entries, leaves, aside)
            return Committed(first, self._note, leaves)

    def _append(self, entries: list[bytes], leaves: list[bytes], aside: bytes) -> None:
        """Sign a head that covers *entries*, too, and append their frame."""
        first, tree = self.size, self._tree.copy()
        tree.extend(leaves)
        head = Checkpoint(self._signer.name, tree.size, tree.root())
        signer = self._signer
        if self._proves:
            signer = _Proving(signer, self._prover(head, entries, leaves))
        note = sign_note(head.text(), signer)
        frame = encode_frame(first, entries, note, aside)
        self._journal.append(frame, sync=self._durable)
        self._advance(tree, note, entries, leaves, aside)
        if self._durable and self._pin:
            self._pin.keep(note)
        if self._proves:
            self._pending.unlink(missing_ok=True)

    def _prover(
        self, head: Checkpoint, entries: list[bytes], leaves: list[bytes]
    ) -> Callable[[int], list[bytes]]:
        """Return what proves to a signer that *head* extends a tree that it has signed."""
        size, tree = self.size, self._tree

        def read(height: int, index: int) -> bytes:
            """Return a subtree left or right of the end of the tree as it is; none lies across."""
            start = index << height
            if start < size:
                return tree.peak(height)
            return fold(leaves[start - size : start - size + (1 << height)])

        def prove(old: int) -> list[bytes]:
            if old > head.size:
                return []
            if old == size:
                return prove_consistency(old, head.size, read)
            tail = TileReader(self._directory, self._head.size, [*self._entries, *entries])
            return prove_consistency(old, head.size, tail)

        return prove

    def _finish_pending(self) -> None:
        """Append what a writer kept for its signer, and then could not append."""
        found = read_unsigned(read_file(self._pending) or b"")
        if found is not None and found[0] == self.size:
            _, entries, aside = found
            self._append(entries, leaf_hashes(entries), aside)
        elif found is not None and found[0] > self.size:
            raise TamperedError("entries were kept behind the end", where=".state/pending")
        self._pending.unlink(missing_ok=True)

    def _advance(
        self, tree: Frontier, note: str, entries: list[bytes], leaves: list[bytes], aside: bytes
    ) -> None:
        self._tree, self._note = tree, note
        self._entries += entries
        self._leaves += leaves
        if aside:
            self._aside.append((tree.size, aside))

    def _catch_up(self, *, thoroughly: bool = False) -> None:
        """Take in what other processes have written since this one looked.

        Args:
            thoroughly: check the signature of every head, not of the last alone.
        """
        news = self._journal.news()
        if news is None:
            return
        known = {self._head.size: self._head.root, self.size: self._tree.root()}
        reached = not news.anew or thoroughly or self._follow_publication()
        check = self._verifier if thoroughly else None
        found = scan(news.data, lambda note: open_checkpoint(note, check))
        for frame in found.frames:
            self._replay(frame, known)
            reached = reached or frame.end in known
        if not reached:
            raise RollbackError("the journal ends before what it had", where=".state/journal")
        if found.frames:
            self._refuse_successor(found.frames[-1].note)
            if not thoroughly:
                open_checkpoint(found.frames[-1].note, self._verifier)
        if thoroughly and not found.broken:
            self._compare_with_pin()  # before anything is cut off
        self._journal.accept(found)
        if self._pending.exists():
            self._finish_pending()
        if found.torn:
            _logger.warning(
                "the log %s ended in %d bytes of a commit that was never acknowledged; cut off",
                self._signer.name,
                found.torn,
            )

    def _follow_publication(self) -> bool:
        """Learn the head that another process has published; tell whether it has all we knew."""
        note = read_file(self._directory / "checkpoint") or b""
        self._refuse_successor(note)
        head, size, root = open_checkpoint(note, self._verifier), self.size, self._tree.root()
        if head.size < self._head.size or (head.size == size and head.root != root):
            raise _changed(head.size, "checkpoint")
        if head.size <= size:
            self._drop(head)
        else:
            self._begin(head, note.decode())
            if self._root_at(size) != root:
                raise _changed(size, "tile")
        return head.size >= size

    def _replay(self, frame: Frame, known: dict[int, bytes]) -> None:
        """Take in one frame; of one that is known already, see that it is the same."""
        if frame.end <= self.size:
            good = known.get(frame.end, frame.head.root) == frame.head.root
        else:
            tree, leaves = self._tree.copy(), leaf_hashes(frame.entries)
            tree.extend(leaves)
            good = frame.first == self.size and frame.head.root == tree.root()
            if good:
                self._advance(tree, frame.note.decode(), frame.entries, leaves, frame.openings)
        if not good:
            raise _changed(frame.first, ".state/journal")

    # The key

    def change_key(self, signer: Signer, encode: Callable[[Mapping[str, Any]], bytes]) -> int:
        """Hand the log over to another key; return the number of the entry that says so.

        Args:
            signer: the new key.
            encode: gives the bytes of an event.

        Raises:
            ConfigurationError: it is no other key of this log, or one that signs heads alone.
            LogError: that failed; the old key is in force if no entry says otherwise.
        """
        if self._proves or hasattr(signer, "sign_extending"):
            raise ConfigurationError("the key of a signer process is changed where the key is")
        for _ in range(_ATTEMPTS):
            self.publish(wait=True)  # so that every head in the journal has the new key
            with self._lock:
                self._catch_up()
                if self._journal.size == 0:
                    return self._change_key(signer, encode)
        raise LogError("others append too fast; stop them for a moment")

    def _change_key(self, signer: Signer, encode: Callable[[Mapping[str, Any]], bytes]) -> int:
        first, old = self.size, self._signer
        fields = handed_over(old.name, first, old, signer)
        entry = encode({"v": 1, "type": HANDED_OVER, "time": time.time_ns(), **fields})
        leaves, tree = leaf_hashes([entry]), self._tree.copy()
        tree.extend(leaves)
        head = Checkpoint(old.name, tree.size, tree.root())
        note = sign_note(head.text(), old, signer)
        self._journal.append(encode_frame(first, [entry], note))
        self._advance(tree, note, [entry], leaves, b"")
        self._signer, self._verifier = signer, parse_vkey(signer.vkey)
        if self._pin:
            self._pin.keep(note)
        return first

    def _refuse_successor(self, note: bytes) -> None:
        """Refuse to go on with a key that has handed over to another one.

        Raises:
            LogError: it has.
        """
        ids = key_ids(note, self._signer.name)
        if len(ids) > 1 and ids[-1] != self._verifier.key_id:
            raise LogError(
                f"the log {self._signer.name} has another key by now; open it again, with that one"
            )

    # Publishing

    def publish(self, *, wait: bool) -> None:
        """Write tiles and bundles, replace ``checkpoint``, and begin a new journal."""
        if not self._publishing.acquire(wait=wait):
            if wait:
                raise LogError("another process publishes this log, and does not come to an end")
            return
        try:
            with self._lock:
                self._catch_up()
                entries, leaves, note = self._entries.copy(), self._leaves.copy(), self._note
                edge, stop = self._edge(), self._journal.size
                aside = b"".join([lines for _, lines in self._aside])
            if stop:
                with as_log_error("publishing the log"):
                    if aside:
                        keep_openings(self._directory, self._disk, aside)
                    if entries:
                        edge.publish(entries, leaves, note)
                self._begin_journal(stop, note)
        finally:
            self._publishing.release()

    def entry(self, index: int) -> bytes:
        """Return the bytes of a published entry."""
        tree, _ = open_tree(self._directory)
        if not 0 <= index < tree.size:
            raise LogError(f"the log has no entry {index}")
        return tree.entry(index)

    def erase(self, commitments: Collection[str], key: str = "") -> int:
        """Remove openings of published entries for good; return how many there were.

        Args:
            commitments: which ones.
            key: the id of a subject's key, whose openings go as well.

        Raises:
            LogError: that failed, and can be tried again.
        """
        if not self._publishing.acquire():
            raise LogError("another process publishes this log, and does not come to an end")
        try:
            with as_log_error("erasing"):
                return remove_openings(
                    self._directory,
                    self._disk,
                    lambda one: one.commitment in commitments or bool(key and one.key == key),
                )
        finally:
            self._publishing.release()

    def _begin_journal(self, stop: int, note: str) -> None:
        with self._lock:
            self._catch_up()
            self._journal.restart(stop)
            self._drop(open_checkpoint(note, self._verifier))
            if self._pin and not self._durable:
                self._pin.keep(note)

    def _edge(self) -> Published:
        """Return the right edge of what is published, which another process may have moved."""
        if self._published.size != self._head.size:
            self._published = Published(self._directory, self._disk, self._head)
        return self._published

    def _drop(self, head: Checkpoint) -> None:
        """Forget entries that are published."""
        count = head.size - self._head.size
        del self._entries[:count], self._leaves[:count]
        self._aside = [one for one in self._aside if one[0] > head.size]
        self._head = head


class _Proving:
    """A signer that is given what it asks for beside the text."""

    def __init__(self, signer: Any, prove: Callable[[int], list[bytes]]) -> None:
        self.name, self.vkey = signer.name, signer.vkey
        self._signer, self._prove = signer, prove

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*."""
        return bytes(self._signer.sign_extending(message, self._prove))


def _changed(index: int, where: str) -> TamperedError:
    return TamperedError(
        f"the journal does not extend the published head at entry {index}"
        if where == ".state/journal"
        else f"the head over {index} entries is not of this log",
        where=where,
    )

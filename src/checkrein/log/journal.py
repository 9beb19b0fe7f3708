"""The write-ahead journal, ``.state/journal``: what is durable and not yet published.

The file is a row of frames, one per commit, all integers big endian::

    "ALJ2" | u32 length | u32 crc32 | u64 first | u32 n | u32 m | bundle[n] | openings[m] | note
                                      `------------ length bytes, crc32 over them -------------'

``first`` is the index of the first entry, ``bundle`` holds at least one entry
as in an entry bundle (see `checkrein.log.tiles`; here without limit of 256),
``openings`` is what they commit to and do not show (`checkrein.log.openings`), and
``note`` is the signed head of the log after these entries. A
frame is shorter than 64 MiB. It is written with one ``pwrite`` and one
``fdatasync``: entries, openings and signed head become durable together.

How a journal is read:

1. Frames follow one another without a gap in the indices; each is whole, its
   bundle decodes, its head is signed by the log and has the size it must have.
   A whole frame that breaks this was changed: refused.
2. Bytes at the end that are no whole frame are *torn*: a commit that a crash cut
   short, never acknowledged. A writer cuts them off, a reader reports them.
3. If a valid frame with a signed head follows such bytes, they were not torn by
   a crash but changed: refused, since cutting there would lose acknowledged
   entries. No entry can fake such a frame: a length has a zero byte, JSON none.

A journal begins at the published head, or before it where a crash came between
publication and the new journal; it never begins behind it.

Several processes append to one journal, each while it holds the log's lock. Who
gets the lock first reads what others have appended since, and what they have
replaced. A frame whose sync failed is taken off again before the lock is given
back, so that nobody builds on entries that may not be on the disk.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from checkrein.errors import LogError, RollbackError, TamperedError
from checkrein.log.checkpoint import Checkpoint
from checkrein.log.disk import Disk, as_log_error
from checkrein.log.tiles import decode_bundle, encode_bundle

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC: Final = b"ALJ2"
_HEAD: Final = struct.Struct(">4sII")
_BODY: Final = struct.Struct(">QII")
_MAX_LENGTH: Final = (64 << 20) - 1

Check = Callable[[bytes], Checkpoint]
"""Opens a signed head of this log; raises `TamperedError` for any other note."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One commit: its entries from index *first* on, and the signed head after them."""

    first: int
    entries: list[bytes]
    openings: bytes
    note: bytes
    head: Checkpoint
    stop: int

    @property
    def end(self) -> int:
        """The size of the log after this frame."""
        return self.first + len(self.entries)


@dataclass(slots=True)
class Scan:
    """What a journal holds.

    Attributes:
        frames: the good frames from the start.
        stop: the offset behind the last of them.
        torn: how many bytes of an unfinished commit follow.
        broken: why the rest is refused, "" if it is not.
    """

    frames: list[Frame] = field(default_factory=list[Frame])
    stop: int = 0
    torn: int = 0
    broken: str = ""


class _Raw(NamedTuple):
    first: int
    bundle: bytes
    openings: bytes
    note: bytes
    stop: int


def encode_frame(first: int, entries: list[bytes], note: str, openings: bytes = b"") -> bytes:
    """Return the bytes of a frame.

    Raises:
        LogError: it would be too long.
    """
    bundle = encode_bundle(entries)
    start = _BODY.pack(first, len(bundle), len(openings))
    body = b"".join((start, bundle, openings, note.encode()))
    if len(body) > _MAX_LENGTH:
        raise LogError(f"one commit has at most {_MAX_LENGTH} bytes; append less at once")
    return _HEAD.pack(_MAGIC, len(body), zlib.crc32(body)) + body


def scan(data: bytes, check: Check) -> Scan:
    """Read a journal by the rules above.

    Args:
        data: the bytes of the file.
        check: opens a signed head.
    """
    found = Scan()
    while found.stop < len(data):
        raw = _frame_at(data, found.stop)
        if raw is None:
            if _is_followed(data, found.stop + 1, check):
                found.broken = f"the frame at byte {found.stop} is damaged and others follow it"
            else:
                found.torn = len(data) - found.stop
            break
        try:
            frame = _open(raw, check)
        except TamperedError as error:
            found.broken = f"the frame at byte {found.stop} is whole but wrong: {error}"
            break
        if found.frames and frame.first != found.frames[-1].end:
            found.broken = f"entries are missing or doubled before the frame at byte {found.stop}"
            break
        found.frames.append(frame)
        found.stop = frame.stop
    return found


def _frame_at(data: bytes, offset: int) -> _Raw | None:
    start = offset + _HEAD.size
    if start + _BODY.size > len(data):
        return None
    magic, length, crc = _HEAD.unpack_from(data, offset)
    stop = start + length
    if magic != _MAGIC or not _BODY.size <= length <= _MAX_LENGTH or stop > len(data):
        return None
    if zlib.crc32(memoryview(data)[start:stop]) != crc:
        return None
    first, count, more = _BODY.unpack_from(data, start)
    here = start + _BODY.size
    middle, end = here + count, here + count + more
    return _Raw(first, data[here:middle], data[middle:end], data[end:stop], stop)


def _open(raw: _Raw, check: Check) -> Frame:
    entries = decode_bundle(raw.bundle)
    head = check(raw.note)
    frame = Frame(raw.first, entries, raw.openings, raw.note, head, raw.stop)
    if not entries or head.size != frame.end:
        raise TamperedError("its head has another size", where="journal")
    return frame


def _is_followed(data: bytes, offset: int, check: Check) -> bool:
    while (offset := data.find(_MAGIC, offset)) >= 0:
        raw = _frame_at(data, offset)
        if raw is not None:
            with suppress(TamperedError):
                check(raw.note)
                return True
        offset += 1
    return False


def read_unsigned(data: bytes) -> tuple[int, list[bytes], bytes] | None:
    """Return first index, entries and openings of a frame without a head, None if it is none."""
    raw = _frame_at(data, 0)
    if raw is None or raw.note or raw.stop != len(data):
        return None
    with suppress(TamperedError):
        return raw.first, decode_bundle(raw.bundle), raw.openings
    return None


class News(NamedTuple):
    """What the file has that was not read before: *data*, from the start if *anew*."""

    anew: bool
    data: bytes


class Journal:
    """The open journal of a writer; who calls its methods holds the log's lock.

    Args:
        path: the file, created if missing.
        disk: the operating system.

    After a failed write or sync nothing can be known about what is on the disk:
    the journal takes no more frames, and a new one reads the file again.

    Attributes:
        size: the bytes that were read or written, all of them whole frames.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path, self._disk = path, disk
        self._fd = disk.open(path)
        self._failed = self._seen = False
        self.size = 0

    def news(self) -> News | None:
        """Return what others did to the file since it was last looked at.

        Raises:
            LogError: it cannot be read.
            RollbackError: it is gone, or shorter than it was.
        """
        with as_log_error("reading the journal"):
            try:
                there, here = os.stat(self._path), os.fstat(self._fd)
            except FileNotFoundError:
                raise RollbackError("the journal is gone", where=str(self._path)) from None
            anew = not self._seen
            if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
                self._reopen()
                anew = True
            if there.st_size < self.size:
                raise RollbackError("the journal was cut back", where=str(self._path))
            if there.st_size == self.size and not anew:
                return None
            self._seen = True
            return News(anew, self._disk.read_at(self._fd, there.st_size - self.size, self.size))

    def accept(self, found: Scan) -> None:
        """Take over what was found in the news: count its frames, and cut off a torn one.

        Raises:
            TamperedError: a frame was changed.
            LogError: the file cannot be cut.
        """
        if found.broken:
            raise TamperedError(f"journal: {found.broken}", where=str(self._path))
        self.size += found.stop
        if found.torn:
            with as_log_error("cutting a torn frame off the journal"):
                os.ftruncate(self._fd, self.size)
                self._disk.sync(self._fd)

    def append(self, frame: bytes, *, sync: bool = True) -> None:
        """Append *frame* and return when it is on the disk, or without *sync* in its cache.

        Raises:
            LogError: it is not, or a former one was not.
        """
        if self._failed:
            raise LogError("the journal failed before; open the log again")
        doing = "written"
        try:
            self._disk.write_at(self._fd, frame, self.size)
            doing = "synced"
            if sync:
                self._disk.sync(self._fd)
        except BaseException as error:
            self._failed = True
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)
            if isinstance(error, OSError):
                raise LogError(f"the journal could not be {doing}: {error.strerror}") from error
            raise
        self.size += len(frame)

    def restart(self, start: int) -> None:
        """Replace the journal by a new one that keeps what lies behind byte *start*.

        Raises:
            LogError: that failed; the journal takes no more frames.
        """
        failed, self._failed = self._failed, True
        with as_log_error("making a new journal"):
            rest = self._disk.read_at(self._fd, self.size - start, start)
            if sys.platform == "win32":  # a file that is open cannot be replaced there
                self.close()
            self._disk.write_files({self._path: rest})
            self._reopen()
        self._failed, self.size = failed, len(rest)

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _reopen(self) -> None:
        # Opened before the other is closed: as long as that is open, its number is not used again.
        fd = self._disk.open(self._path)
        self.close()
        self._fd, self.size = fd, 0

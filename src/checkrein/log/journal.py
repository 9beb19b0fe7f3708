"""The write-ahead journal, ``.state/journal``: what is durable and not yet published.

The file is a row of frames, one per commit, all integers big endian::

    "ALJ1" | u32 length | u32 crc32 | u64 first | u32 count | bundle[count] | note
                                      `------------- length bytes, crc32 over them -------------'

``first`` is the index of the first entry, ``bundle`` holds at least one entry
as in an entry bundle (see `checkrein.log.tiles`; here without limit of 256),
and ``note`` is the signed head of the log after these entries. A frame is
shorter than 16 MiB. It is written with one ``pwrite`` and one ``fdatasync``:
entries and signed head become durable together.

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
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from checkrein.errors import LogError, TamperedError
from checkrein.log.checkpoint import Checkpoint
from checkrein.log.disk import Disk, as_log_error, read_file
from checkrein.log.tiles import decode_bundle, encode_bundle

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC: Final = b"ALJ1"
_HEAD: Final = struct.Struct(">4sII")
_BODY: Final = struct.Struct(">QI")
_MAX_LENGTH: Final = (16 << 20) - 1

Check = Callable[[bytes], Checkpoint]
"""Opens a signed head of this log; raises `TamperedError` for any other note."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One commit: its entries from index *first* on, and the signed head after them."""

    first: int
    entries: list[bytes]
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
    note: bytes
    stop: int


def encode_frame(first: int, entries: list[bytes], note: str) -> bytes:
    """Return the bytes of a frame."""
    bundle = encode_bundle(entries)
    body = _BODY.pack(first, len(bundle)) + bundle + note.encode()
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
    first, count = _BODY.unpack_from(data, start)
    middle = start + _BODY.size + count
    return _Raw(first, data[start + _BODY.size : middle], data[middle:stop], stop)


def _open(raw: _Raw, check: Check) -> Frame:
    entries = decode_bundle(raw.bundle)
    head = check(raw.note)
    frame = Frame(raw.first, entries, raw.note, head, raw.stop)
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


class Journal:
    """The open journal of a writer.

    Args:
        path: the file, created if missing.
        disk: the operating system.

    After a failed write or sync nothing can be known about what is on the disk:
    the journal takes no more frames, and a new one reads the file again.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path, self._disk = path, disk
        self._fd = disk.open(path)
        self._failed = False
        self.size = 0

    def recover(self, check: Check) -> Scan:
        """Read the file, and cut off a torn frame.

        Raises:
            TamperedError: a frame was changed.
            LogError: the file cannot be read or cut.
        """
        found = scan(read_file(self._path) or b"", check)
        if found.broken:
            raise TamperedError(f"journal: {found.broken}", where=str(self._path))
        if found.torn:
            with as_log_error("cutting a torn frame off the journal"):
                os.ftruncate(self._fd, found.stop)
                self._disk.sync(self._fd)
        self.size = found.stop
        return found

    def append(self, frame: bytes) -> None:
        """Append *frame* and return when it is on the disk.

        Raises:
            LogError: it is not, or a former one was not.
        """
        if self._failed:
            raise LogError("the journal failed before; open the log again")
        try:
            self._disk.write_at(self._fd, frame, self.size)
        except OSError as error:
            self._failed = True
            with suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise LogError(f"the journal could not be written: {error.strerror}") from error
        try:
            self._disk.sync(self._fd)
        except OSError as error:
            self._failed = True
            raise LogError(f"the journal could not be synced: {error.strerror}") from error
        self.size += len(frame)

    def restart(self, start: int) -> None:
        """Replace the journal by a new one that keeps what lies behind byte *start*.

        Raises:
            LogError: that failed; the journal takes no more frames.
        """
        try:
            rest = (read_file(self._path) or b"")[start : self.size]
            self._disk.write_files({self._path: rest})
            fd = self._disk.open(self._path)
        except OSError as error:
            self._failed = True
            raise LogError(f"a new journal could not be made: {error.strerror}") from error
        os.close(self._fd)
        self._fd, self.size = fd, len(rest)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

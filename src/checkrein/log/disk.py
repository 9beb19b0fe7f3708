"""What must survive a crash passes through here: one small seam to the operating system.

A file is written beside its place, synced, renamed into place, and its
directory synced. A directory belongs to one process: an exclusive lock on a
file in it, which ends with the process. Everything is created for the owner
only. On Windows directories cannot be synced, and on macOS only ``F_FULLFSYNC``
reaches the disk.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from checkrein.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_BINARY: int = getattr(os, "O_BINARY", 0)


class Disk:
    """The operating system, as far as the log needs it."""

    def open(self, path: Path) -> int:
        """Open *path* to read and write, created empty if missing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o600)

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of *data* at *offset*."""
        view = memoryview(data)
        while view:
            if sys.platform == "win32":
                os.lseek(fd, offset, os.SEEK_SET)
                count = os.write(fd, view)
            else:
                count = os.pwrite(fd, view, offset)
            view, offset = view[count:], offset + count

    def sync(self, fd: int) -> None:
        """Return when what was written to *fd* is on the disk."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        elif sys.platform == "win32":
            os.fsync(fd)
        else:
            os.fdatasync(fd)

    def sync_directory(self, path: Path) -> None:
        """Return when the names in directory *path* are on the disk."""
        if sys.platform != "win32":
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def make_directory(self, path: Path) -> None:
        """Create directory *path* and its parents, durably."""
        if not path.is_dir():
            self.make_directory(path.parent)
            path.mkdir(mode=0o700, exist_ok=True)
            self.sync_directory(path.parent)

    def write_files(self, files: Mapping[Path, bytes]) -> None:
        """Write or replace each of *files*: whole or not at all, in this order."""
        for path, data in files.items():
            self.make_directory(path.parent)
            beside = path.with_name(path.name + ".tmp")
            fd = self.open(beside)
            try:
                os.ftruncate(fd, 0)
                self.write_at(fd, data, 0)
                self.sync(fd)
            finally:
                os.close(fd)
            beside.replace(path)
        for directory in {path.parent for path in files}:
            self.sync_directory(directory)

    def remove_directory(self, path: Path) -> None:
        """Remove *path* with what is in it, if it is there."""
        with suppress(FileNotFoundError):
            shutil.rmtree(path)


def read_file(path: Path) -> bytes | None:
    """Return what is in the file *path*, None if there is no such file.

    Raises:
        LogError: the file is there and cannot be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def as_log_error(doing: str) -> Generator[None]:
    """Turn an ``OSError`` into a `LogError` that says what was being done."""
    try:
        yield
    except OSError as error:
        raise LogError(f"{doing} failed: {error.strerror or error}") from error


class DirectoryLock:
    """The right to write to a log, held until `release` or the end of the process.

    Args:
        path: the lock file.

    Raises:
        LogError: this or another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self._pid = os.getpid()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if sys.platform == "win32":
                msvcrt.locking(self._fd, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise LogError(
                f"the log in {path.parent.parent} is open already, here or in another process; "
                "a log has one writer at a time"
            ) from error

    def release(self) -> None:
        """Let others open the log."""
        # A forked child shares the lock; only its owner may end it, and then for the child too.
        if self._pid == os.getpid():
            if sys.platform == "win32":
                os.lseek(self._fd, 0, os.SEEK_SET)
                msvcrt.locking(self._fd, msvcrt.LK_UNLCK, 1)
            else:
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)

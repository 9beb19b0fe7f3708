"""What must survive a crash passes through here: one small seam to the operating system.

A file is written beside its place, synced, renamed into place, and its
directory synced. Everything is created for the owner only. On Windows
directories cannot be synced, and on macOS only ``F_FULLFSYNC`` reaches the disk.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from checkrein.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

if sys.platform == "darwin":
    import fcntl

_BINARY: int = getattr(os, "O_BINARY", 0)
_TOGETHER: Final = 128
"""Files that are open at the same time."""
_FEW: Final = 16
_AT_ONCE: Final = 8


class Disk:
    """The operating system, as far as the log needs it."""

    def open(self, path: Path) -> int:
        """Open *path* to read and write, created empty if missing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | _BINARY, 0o600)

    def read_at(self, fd: int, count: int, offset: int) -> bytes:
        """Read *count* bytes at *offset*, fewer if the file ends before."""
        parts: list[bytes] = []
        while count:
            if sys.platform == "win32":
                os.lseek(fd, offset, os.SEEK_SET)
                part = os.read(fd, count)
            else:
                part = os.pread(fd, count, offset)
            if not part:
                break
            parts.append(part)
            count, offset = count - len(part), offset + len(part)
        return b"".join(parts)

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
        """Write or replace each of *files*: whole or not at all; all are durable on return."""
        places = [*files]
        for start in range(0, len(places), _TOGETHER):
            self._write_together({path: files[path] for path in places[start : start + _TOGETHER]})
        for directory in {path.parent for path in files}:
            self.sync_directory(directory)

    def _write_together(self, files: Mapping[Path, bytes]) -> None:
        # All are written before the first is synced: what one sync takes to the disk, the
        # journal of the file system takes along for the others.
        opened: dict[Path, int] = {}
        try:
            for path, data in files.items():
                self.make_directory(path.parent)
                opened[path] = fd = self.open(path.with_name(path.name + ".tmp"))
                os.ftruncate(fd, 0)
                self.write_at(fd, data, 0)
            self._sync_all([*opened.values()])
        finally:
            for fd in opened.values():
                os.close(fd)
        for path in files:
            path.with_name(path.name + ".tmp").replace(path)

    def _sync_all(self, fds: list[int]) -> None:
        """Return when all of *fds* are on the disk; many at once, since a disk can do that."""
        if len(fds) >= _FEW:
            # While the interpreter ends no thread can be started; then one after the other.
            with suppress(RuntimeError):
                from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 (slow to load)

                with ThreadPoolExecutor(_AT_ONCE, "checkrein-sync") as pool:
                    for _ in pool.map(self.sync, fds):
                        pass  # what one of them raises is raised here
                return
        for fd in fds:
            self.sync(fd)

    def remove_directory(self, path: Path) -> None:
        """Remove *path* with what is in it, if it is there."""
        if path.is_dir():  # nearly never
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

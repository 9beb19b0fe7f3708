"""Who may change a log: one at a time, among the threads and the processes of one machine.

A lock is a lock of the operating system on a file, so it ends with the process
that holds it, however that ends. Threads of one process share the open file, so
a lock of threads comes first. The wait for another process is looked at again
and again, and is not endless: a process that was stopped while it held the lock
makes the others fail after half a minute, and go on when it is gone.

Such locks hold on local file systems. Over a network they may be emulated, lost
at a reconnection, or silently ignored, so `refuse_network` refuses those that it
recognises (Linux tells the type of a file system; elsewhere nobody is asked).
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from checkrein.errors import ConfigurationError, LogError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_PATIENCE: Final = 30.0
_PAUSES: Final = (0.0002, 0.0005, 0.001, 0.002)
_MOUNTS: Final = "/proc/self/mountinfo"
_NETWORKED: Final = frozenset(
    {"afs", "beegfs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "lustre", "ncpfs"}
    | {"nfs", "nfs4", "ocfs2", "smb3", "smbfs"}
    | {f"fuse.{name}" for name in ("blobfuse", "blobfuse2", "ceph", "cephfs", "gcsfuse")}
    | {f"fuse.{name}" for name in ("glusterfs", "juicefs", "mount-s3", "rclone", "s3fs", "sshfs")}
)


class FileLock:
    """An exclusive lock, for ``with``.

    Args:
        path: the lock file, created if missing; nothing is ever in it.
        patience: for how many seconds to wait for another process.
        for_good: keep other processes out from now until `close`.

    Raises:
        LogError: with *for_good*, another process has it.

    Example:
        >>> with FileLock(directory / "lock"):  # doctest: +SKIP
        ...     change(directory)
    """

    def __init__(self, path: Path, patience: float = _PATIENCE, *, for_good: bool = False) -> None:
        self._path, self._patience, self._for_good = path, patience, for_good
        self._threads = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if for_good and not _try_lock(self._fd):
            self.close()
            raise LogError(f"{path} is held already: here a log has one writer at a time")

    def __enter__(self) -> None:
        """Wait for the lock.

        Raises:
            LogError: another process keeps it, or it was closed.
        """
        if not self.acquire():
            raise LogError(
                f"another process has held the lock {self._path} for {self._patience:g} seconds; "
                "a log can go on when that process does, or ends"
            )

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock if that is possible, and tell whether it is taken.

        Raises:
            LogError: the lock cannot be asked for.
        """
        if not self._threads.acquire(blocking=wait):
            return False
        try:
            if self._acquire(wait=wait):
                return True
        except BaseException:
            self._threads.release()
            raise
        self._threads.release()
        return False

    def release(self) -> None:
        """Give the lock back."""
        try:
            if self._fd >= 0 and not self._for_good:
                _unlock(self._fd)
        finally:
            self._threads.release()

    def close(self) -> None:
        """Close the file; also right in a forked child, whose parent goes on with the lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _acquire(self, *, wait: bool) -> bool:
        if self._fd < 0:
            raise LogError(f"the lock {self._path} was closed")
        if self._for_good or _try_lock(self._fd):
            return True
        until = time.monotonic() + self._patience if wait else 0.0
        attempt = 0
        while time.monotonic() < until:
            time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
            attempt += 1
            if _try_lock(self._fd):
                return True
        return False


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the lock on the file *path* for a block, however long that is waited for.

    Raises:
        LogError: the file cannot be created or locked.
    """
    try:
        lock = FileLock(path, math.inf)
    except OSError as error:
        raise LogError(f"locking {path} failed: {error.strerror or error}") from error
    try:
        with lock:
            yield
    finally:
        lock.close()


def refuse_network(directory: Path) -> None:
    """Refuse a directory on a network file system, where that can be seen.

    Raises:
        ConfigurationError: it lies on one.
    """
    kind = file_system(directory)
    if kind in _NETWORKED:
        raise ConfigurationError(
            f"the directory {directory} lies on a network file system ({kind}), where locks and "
            "syncs cannot be relied on; keep the log on a local disk and publish it, "
            "or keep it in PostgreSQL"
        )


def file_system(path: Path) -> str:
    """Return the type of the file system that holds *path*, "" if nobody can tell.

    Example:
        >>> file_system(Path("/tmp"))  # doctest: +SKIP
        'ext4'
    """
    try:
        with open(_MOUNTS, encoding="utf-8", errors="replace") as mounts:
            lines = mounts.read().splitlines()
        device = os.stat(path).st_dev
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        # id parent major:minor root place options [tag...] - type source options
        before, _, after = line.partition(" - ")
        if before.split(" ")[2:3] == [number]:
            return after.split(" ")[0]
    return ""


def _try_lock(fd: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        raise LogError(f"the lock of the log cannot be taken: {error.strerror}") from error
    return True


def _unlock(fd: int) -> None:
    if sys.platform == "win32":
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)

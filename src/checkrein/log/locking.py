"""A lock on a file, to wait for: among the threads of a process and among processes.

The lock ends with the block, or with the process. On a network file system it may
hold nobody back: what is locked lies on a local one.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from checkrein.log.disk import as_log_error

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the lock on the file *path*, which is created if it is missing.

    Raises:
        LogError: the file cannot be created or locked.
    """
    with as_log_error(f"locking {path}"):
        # Opened for each block: two threads with two descriptors wait for each other.
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with as_log_error(f"locking {path}"):
            _lock(fd)
        try:
            yield
        finally:
            _unlock(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(fd, msvcrt.LK_LOCK, 1)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX)


def _unlock(fd: int) -> None:
    # Closing is not enough: a forked child may have a copy of the descriptor.
    if sys.platform == "win32":
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)

"""Where a log is published: a web root on this machine; a bucket is in `checkrein.log.s3`.

A `Destination` holds files by name. It has one way to write, and that has a condition:
only if nothing is there, or only if what is there is still what was read. There is no
way to overwrite what nobody has looked at.

A web root is a directory that a web server shows. One publisher at a time holds the lock
on ``.publishing`` in it, so there the condition is a comparison. A file is written
beside its place, synced, and renamed into place: a reader sees all of it or nothing.
Files and directories get the modes that the umask gives, since the web server has to
read them. A directory on a network file system is refused, where that can be seen, and
so is one that holds a log of its own.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from checkrein.errors import ConfigurationError, TamperedError
from checkrein.log.disk import Disk, as_log_error
from checkrein.log.locks import FileLock, refuse_network
from checkrein.log.note import MAX_NOTE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from contextlib import AbstractContextManager

CHECKPOINT: Final = "checkpoint"
_PATIENCE: Final = 300.0
_BINARY: Final[int] = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


class Stored(NamedTuple):
    """A file at a destination, and the tag that changes with its bytes."""

    data: bytes
    tag: str


class Destination(Protocol):
    """A place for the published part of a log; names are as in `checkrein.log.tiles`.

    Every method raises `LogError` if the place fails, and `ConfigurationError` if it
    refuses or cannot do what is needed. Threads may call them at the same time.
    """

    def held(self, source: Path) -> AbstractContextManager[None]:
        """Get ready for the log in the directory *source*; until the end it is ours."""
        ...

    def read(self, name: str, limit: int) -> Stored | None:
        """Return a file, of a longer one the first *limit* + 1 bytes, None if there is none."""
        ...

    def write(self, name: str, data: bytes, *, replacing: str | None = None) -> bool:
        """Write a file whole, and tell whether that was done.

        Args:
            name: where.
            data: what.
            replacing: the tag that the file must still have; without, none may be there.
        """
        ...

    def has(self, name: str) -> bool:
        """Tell whether there is such a file."""
        ...

    def names(self) -> Iterator[str]:
        """Yield the names of all tiles and bundles, and maybe of other files."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...


class WebRoot:
    """A directory that a web server shows.

    Args:
        root: the directory; created if needed, readable as the umask says.
        patience: for how many seconds to wait for another publisher.
    """

    def __init__(self, root: str | os.PathLike[str], patience: float = _PATIENCE) -> None:
        self._root, self._patience, self._disk = Path(root), patience, Disk()

    def __str__(self) -> str:
        return str(self._root)

    @contextmanager
    def held(self, source: Path) -> Generator[None]:
        """Hold the lock on the web root; see `Destination`."""
        here, there = source.resolve(), self._root.resolve()
        if here.is_relative_to(there) or there.is_relative_to(here):
            raise ConfigurationError("the log and the web root must not lie in one another")
        with as_log_error(f"creating {self._root}"):
            self._make(self._root)
            if (self._root / ".state").exists():
                raise ConfigurationError(
                    f"{self._root} is the directory of a log, with a .state: publish to a "
                    "directory that no program writes a log to"
                )
            refuse_network(self._root)
            lock = FileLock(self._root / ".publishing", self._patience)
        try:
            with lock:
                yield
        finally:
            lock.close()

    def read(self, name: str, limit: int) -> Stored | None:
        """Return a file; see `Destination`."""
        path = self._root / name
        with as_log_error(f"reading {path}"):
            if path.exists() and not path.is_file():
                raise TamperedError(f"{name} at the destination is no file", where=name)
            try:
                with path.open("rb") as file:
                    data = file.read(limit + 1)
            except FileNotFoundError:
                return None
        return Stored(data, _tag(data))

    def write(self, name: str, data: bytes, *, replacing: str | None = None) -> bool:
        """Write a file; see `Destination`."""
        path = self._root / name
        with as_log_error(f"writing {path}"):
            if not self._is_so(name, replacing):
                return False
            self._make(path.parent)
            beside = path.with_name(path.name + ".tmp")
            with suppress(FileNotFoundError):
                beside.unlink()  # somebody died; never write through a link that lies there
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
            try:
                self._disk.write_at(fd, data, 0)
                self._disk.sync(fd)
            finally:
                os.close(fd)
            beside.replace(path)
            self._disk.sync_directory(path.parent)
        return True

    def has(self, name: str) -> bool:
        """Tell whether there is such a file."""
        return (self._root / name).is_file()

    def names(self) -> Iterator[str]:
        """Yield the names of all tiles and bundles, and maybe of other files."""
        for folder, _, names in os.walk(self._root / "tile"):
            below = Path(folder).relative_to(self._root).as_posix()
            yield from (f"{below}/{name}" for name in names)

    def remove(self, name: str) -> None:
        """Remove a file, and its directory if that is empty then."""
        path = self._root / name
        with as_log_error(f"removing {path}"), suppress(FileNotFoundError):
            path.unlink()
        with suppress(OSError):
            path.parent.rmdir()

    def _is_so(self, name: str, tag: str | None) -> bool:
        if tag is None:
            return not os.path.lexists(self._root / name)
        found = self.read(name, MAX_NOTE)
        return found is not None and found.tag == tag

    def _make(self, path: Path) -> None:
        if not path.is_dir():
            self._make(path.parent)
            path.mkdir(exist_ok=True)
            self._disk.sync_directory(path.parent)


def open_destination(text: str, *, endpoint: str = "", workers: int = 8) -> Destination:
    """Return the destination that *text* names.

    Args:
        text: ``s3://bucket`` or ``s3://bucket/prefix``, or the path of a web root.
        endpoint: the URL of a store other than Amazon's; without, what the usual AWS
            environment variables and files say.
        workers: how many requests there are at the same time.

    Raises:
        ConfigurationError: *text* is neither, or the client for buckets is not installed or
            not set up.

    Example:
        >>> str(open_destination("public/log"))
        'public/log'
    """
    if text.startswith("s3://"):
        from checkrein.log.s3 import Bucket  # noqa: PLC0415 (heavy, and rarely needed)

        return Bucket.open(text, endpoint=endpoint, workers=workers)
    if "://" in text or not text:
        raise ConfigurationError("publish to s3://bucket/prefix, or to the path of a web root")
    if endpoint:
        raise ConfigurationError("an endpoint is for s3://bucket/prefix, not for a web root")
    return WebRoot(text)


def _tag(data: bytes) -> str:
    return sha256(data).hexdigest()

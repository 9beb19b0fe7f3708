"""Paths beneath a directory: as text, or opened.

``under`` resolves a path when the call is decided; the tool opens it later.
Somebody who can create links beneath the root can swap one in between. Where
that matters, let the grant open the file: ``opened_under``, for a parameter
annotated ``BinaryIO`` or ``TextIO``. It walks down from a descriptor of the root
without following any link, so that there is nothing to swap.

A hard link beneath the root is a file beneath the root, for both.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import PurePath, PureWindowsPath
from typing import IO, Any, ClassVar, Final

from checkrein.conditions import Refused
from checkrein.constraints.words import check, text_of

_MAX_PATH: Final = 4096
_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_PATH_LETTERS: Final = "/\\.~:%"


@dataclass(frozen=True, slots=True, repr=False)
class Under:
    """A path beneath ``root`` after every link was followed; handed over absolute.

    Relative paths are taken from ``root``. Spellings that another layer might
    decode once more are refused: percent signs, full-width letters, ``~``,
    URLs, backslashes, control characters.
    """

    root: str
    itself: bool = False
    pins: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_root(self.root, "under")
        check(type(self.itself) is bool, "under(itself=...) takes True or False")

    def normalise(self, value: Any) -> Any:
        """Return the real, absolute path of *value* if it lies beneath the root."""
        path = isinstance(value, PurePath)
        if path and isinstance(value, PureWindowsPath) != (os.name == "nt"):
            raise Refused("must be a path of this system")
        real = _real_path(self.root, str(value) if path else value, itself=self.itself)
        return type(value)(real) if path else real

    def __repr__(self) -> str:
        itself = ", itself=True" if self.itself else ""
        return f"under({self.root!r}{itself})"


_FLAGS: Final = {
    "r": os.O_RDONLY,
    "w": os.O_WRONLY | os.O_CREAT,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
}
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0)
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True, repr=False)
class OpenedUnder:
    """A path beneath ``root`` that the body gets as an open file."""

    root: str
    mode: str = "rb"
    pins: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_root(self.root, "opened_under")
        modes = {letter + kind for letter in _FLAGS for kind in ("", "b")}
        check(
            type(self.mode) is str and self.mode in modes,
            "opened_under(mode=...) takes r, w, x or a, for bytes followed by b",
        )
        check(
            os.open in os.supports_dir_fd,
            "opened_under() needs directory descriptors, which this system has not; use under()",
        )

    @property
    def binary(self) -> bool:
        """Whether the body gets bytes."""
        return self.mode.endswith("b")

    def normalise(self, value: Any) -> str:
        """Return the real, absolute path of *value* if it lies beneath the root."""
        return _real_path(self.root, value, itself=False)

    def open(self, value: Any) -> IO[Any]:
        """Open what :meth:`normalise` returned, without following a link beneath the root.

        Raises:
            Refused: a part of the path is a link by now, or the file is no regular one.
            OSError: as :func:`open` raises it.
        """
        text = text_of(value, _MAX_PATH)
        root = os.path.realpath(self.root)
        beneath = root.rstrip(os.sep) + os.sep
        parts = text.removeprefix(beneath).split(os.sep)
        if not text.startswith(beneath) or any(part in {"", ".", ".."} for part in parts):
            raise Refused("must be a path beneath the directory that the permission names")
        try:
            descriptor = self._descend(root, parts)
        except OSError as error:
            if error.errno in _LINK_ERRORS:
                raise Refused("must be a path without links") from None
            raise
        return self._file(descriptor)

    def _descend(self, root: str, parts: list[str]) -> int:
        directory = os.open(root, os.O_RDONLY | _DIRECTORY | _CLOEXEC)
        try:
            for part in parts[:-1]:
                flags = os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC
                inner = os.open(part, flags, dir_fd=directory)
                os.close(directory)
                directory = inner
            flags = _FLAGS[self.mode[0]] | _NOFOLLOW | _NONBLOCK | _CLOEXEC
            return os.open(parts[-1], flags, 0o600, dir_fd=directory)
        finally:
            os.close(directory)

    def _file(self, descriptor: int) -> IO[Any]:
        try:
            _refuse_odd_file(descriptor)
            if self.mode[0] == "w":
                os.ftruncate(descriptor, 0)  # only now: what is no file of ours is left alone
            encoding = None if self.binary else "utf-8"
            return os.fdopen(descriptor, self.mode.replace("x", "w"), encoding=encoding)
        except BaseException:
            os.close(descriptor)
            raise

    def __repr__(self) -> str:
        return f"opened_under({self.root!r}, {self.mode!r})"


_LINK_ERRORS: Final = frozenset({errno.ELOOP, errno.ENOTDIR})


def _refuse_odd_file(descriptor: int) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise Refused("must be a regular file")


def _check_root(root: Any, name: str) -> None:
    fits = type(root) is str and "\0" not in root and os.path.isabs(root)
    check(fits, f"{name}(root) needs a directory, as a text or a path")


def _real_path(root: str, value: Any, *, itself: bool) -> str:
    text = text_of(value, _MAX_PATH)
    root = os.path.realpath(root)
    beneath = root.rstrip(os.sep) + os.sep
    # What the permission itself spells may be as odd as its author likes.
    _refuse_odd_path(text.removeprefix(beneath) if text != beneath else ".")
    try:
        real = os.path.realpath(os.path.join(root, text))
    except (OSError, ValueError):
        raise Refused("must be a path that can be resolved") from None
    if not (itself if real == root else real.startswith(beneath)):
        raise Refused("must be a path beneath the directory that the permission names")
    return real


def _refuse_odd_path(text: str) -> None:
    if not text or not text.isprintable():
        raise Refused("must be a path without control or invisible characters")
    if text.startswith("~") or _SCHEME.match(text) or "\\" in text:
        raise Refused("must be a plain path: no ~, no URL, no backslash")
    if _PERCENT.search(text):
        raise Refused("must be a path without percent-encoding")
    plain = unicodedata.normalize("NFKC", text)
    if any(plain.count(letter) != text.count(letter) for letter in _PATH_LETTERS):
        raise Refused("must be a path without look-alikes of / . ~ or :")


def under(root: str | os.PathLike[str], *, itself: bool = False) -> Under:
    """Allow a path beneath the directory *root*; relative paths are taken from it.

    Args:
        root: the directory, made absolute now. It need not exist yet.
        itself: whether the directory itself is allowed, for tools that list.

    Raises:
        ConfigurationError: *root* is no path.

    Example:
        >>> under("/srv/reports").normalise("2026/june.txt")
        '/srv/reports/2026/june.txt'
    """
    return Under(_absolute(root, "under"), itself)


def opened_under(root: str | os.PathLike[str], mode: str = "rb") -> OpenedUnder:
    """Allow a path beneath *root*, for a parameter that takes an open file.

    The tool's parameter is annotated ``BinaryIO``, ``TextIO`` or ``IO[...]``; a
    caller gives a path; log and gate see the path; the body gets the file, which
    is closed when it ends.

    Args:
        root: the directory, made absolute now.
        mode: ``r``, ``w``, ``x`` or ``a`` for text (UTF-8), followed by ``b`` for
            bytes. Files are created readable by their owner only.

    Raises:
        ConfigurationError: *root* is no path, the mode is none of these, or the
            system has no directory descriptors.
    """
    return OpenedUnder(_absolute(root, "opened_under"), mode)


def _absolute(root: str | os.PathLike[str], name: str) -> str:
    text = root if isinstance(root, str) else getattr(root, "__fspath__", lambda: None)()
    check(
        isinstance(text, str) and bool(text) and "\0" not in text,
        f"{name}(root) needs a directory, as a text or a path",
    )
    return os.path.abspath(str(text))

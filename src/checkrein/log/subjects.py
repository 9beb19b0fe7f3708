"""One key for each person that a log knows something about: destroy it, and that is erased.

::

    <data>/subjects/<id of the log>/<id of the subject>     mode 0600
    <key id: 32 hex digits> SP <AES-256 key: 64 hex digits> LF

``<data>`` and the ids are those of `checkrein.log.keys`. The keys lie where the log is not, so
that a copy of the log, however old, holds no more than sealed values once the key is gone.
A key id is random: what is in the log does not tell whose it was.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from checkrein.errors import LogError
from checkrein.log.disk import Disk, as_log_error, read_file
from checkrein.log.keys import subject_path, subjects_directory

if TYPE_CHECKING:
    from pathlib import Path

_TEXT: Final = re.compile(rb"([0-9a-f]{32}) ([0-9a-f]{64})\n")
_NONCE: Final = 12


class Subjects:
    """The keys of the subjects of one log.

    Args:
        origin: the log's name.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin

    def seal(self, subject: str, value: bytes, commitment: bytes) -> tuple[str, bytes]:
        """Return the id of the subject's key, and *value* sealed with it.

        Raises:
            LogError: the key cannot be made or read.
        """
        found = self._key(subject_path(self._origin, subject)) or self._create(subject)
        nonce = os.urandom(_NONCE)
        return found[0], nonce + _cipher(found[1]).encrypt(nonce, value, commitment)

    def keys(self) -> dict[str, bytes]:
        """Return all keys that there are, by their ids.

        Raises:
            LogError: one cannot be read.
        """
        folder = subjects_directory(self._origin)
        with as_log_error(f"listing {folder}"):
            paths = sorted(folder.iterdir()) if folder.is_dir() else []
        found = (self._key(path) for path in paths)
        return dict(one for one in found if one is not None)

    def destroy(self, subject: str) -> str:
        """Destroy the key of a subject; return its id.

        Raises:
            LogError: there is none, or it cannot be removed.
        """
        path = subject_path(self._origin, subject)
        found = self._key(path)
        if found is None:
            raise LogError("the log has nothing that is sealed for this subject, or has erased it")
        with as_log_error(f"destroying {path}"):
            with open(path, "r+b") as file:  # some file systems write in place
                file.write(bytes(path.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
            Disk().sync_directory(path.parent)
        return found[0]

    def id_of(self, subject: str) -> str:
        """Return the id of a subject's key, ``""`` if there is none."""
        found = self._key(subject_path(self._origin, subject))
        return "" if found is None else found[0]

    def _create(self, subject: str) -> tuple[str, bytes]:
        path = subject_path(self._origin, subject)
        text = f"{os.urandom(16).hex()} {os.urandom(32).hex()}\n".encode()
        beside = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
        with as_log_error(f"creating {path}"):
            Disk().make_directory(path.parent)
            Disk().write_files({beside: text})
            # Linked, not renamed: of two processes the first one's key stays.
            with suppress(FileExistsError):
                os.link(beside, path)
            beside.unlink()
            Disk().sync_directory(path.parent)
        found = self._key(path)
        if found is None:
            raise LogError(f"the key {path} is gone; it was destroyed just now")
        return found

    @staticmethod
    def _key(path: Path) -> tuple[str, bytes] | None:
        data = read_file(path)
        match = None if data is None else _TEXT.fullmatch(data)
        if data is not None and match is None and path.suffix != ".tmp":
            raise LogError(f"{path} is no key of a subject")
        return None if match is None else (match[1].decode(), bytes.fromhex(match[2].decode()))


def unseal(sealed: bytes, key: bytes, commitment: bytes) -> bytes | None:
    """Return a sealed value, None if it was sealed with another key or changed."""
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 (the cipher loads it)

    try:
        return bytes(_cipher(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], commitment))
    except (InvalidTag, ValueError):
        return None


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 (heavy)

    return AESGCM(key)

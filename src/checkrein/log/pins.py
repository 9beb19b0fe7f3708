"""The writer's own pin: the last head that it signed, kept where the log is not.

::

    <data>/heads/<id>     a signed head, replaced in place at each commit; filled up with NUL
    <id>                  as of the key, see `checkrein.log.keys`

(or wherever ``AuditLog.open(pin=...)`` puts it).

A log that is cut back, or put back from an old copy, is consistent in itself. Its
writer would go on and sign a second story under the same name. So before it
signs anything it compares the log with its pin, and refuses a log that ends
before the pin or differs from it (`RollbackError`, `TamperedError`).

The pin is written after the entries are on the disk and not synced itself: what
a power failure takes from it makes it older, never newer than the log, and an
older pin is still one. It is smaller than a sector, so it is written whole.

A key that was made for one process alone (`Ed25519Signer.generate`) has no pin
but the one that was asked for.

It does not help against somebody who can write the user's data directory, too,
nor when that is put back from the same old copy: for that there are witnesses
on other machines.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from checkrein.errors import ConfigurationError, RollbackError
from checkrein.log.disk import Disk, as_log_error, read_file
from checkrein.log.keys import head_path, refuse_inside

if TYPE_CHECKING:
    from pathlib import Path


class OwnPin:
    """The pin of one log, in the user's data directory.

    Args:
        origin: the log's name.
        path: the file, None for the one in the user's data directory.
        directory: the log's directory, where the pin must not be; None if it has none.
        disk: the operating system.

    Raises:
        ConfigurationError: it would lie in the log's directory, or cannot be written.
    """

    def __init__(self, origin: str, path: Path | None, directory: Path | None, disk: Disk) -> None:
        self._disk, self.path = disk, path or head_path(origin)
        if directory is not None:
            refuse_inside(self.path, directory, "the writer's own pin")
        try:
            disk.make_directory(self.path.parent)
            self._fd = disk.open(self.path)
        except OSError as error:
            raise ConfigurationError(
                f"the last head of a log is remembered in {self.path}, which cannot be written "
                f"({error.strerror}); pass pin=<a file that can>, or set CHECKREIN_DATA"
            ) from error

    def read(self) -> bytes:
        """Return the last head that was kept, b"" if there is none."""
        return (read_file(self.path) or b"").rstrip(b"\0")

    def keep(self, note: str) -> None:
        """Remember *note*, which is not older than the one before.

        Raises:
            LogError: that failed.
        """
        # Covers the one before, which is longer where a key has handed over to another one.
        data = note.encode()
        with as_log_error("remembering the head of the log"):
            data = data.ljust(os.fstat(self._fd).st_size, b"\0")
            self._disk.write_at(self._fd, data, 0)

    def close(self) -> None:
        """Close the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def rolled_back(size: int, kept: int, path: Path) -> RollbackError:
    """Return the error for a log of *size* entries that signed a head over *kept*."""
    return RollbackError(
        f"the log has {size} entries, and a head over {kept} was signed before ({path}): it was "
        "cut back, or an old copy was put in its place. Put the newer one back; if it is lost, "
        "keep this one as it is and start a log of another name",
        where=str(path),
    )

"""Reading a log to display it, once or for ever; nothing here is verified.

Published entries come from the bundles, the others from the journal's frames,
up to the first that cannot be read. Use `checkrein.log.verify_log` to learn
whether what is shown is what was written.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from checkrein.errors import LogError, TamperedError
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.disk import read_file
from checkrein.log.journal import scan
from checkrein.log.openings import opened
from checkrein.log.published import read_items
from checkrein.log.shelf import stored_openings, values_of
from checkrein.log.tiles import ENTRIES, WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from checkrein.log.journal import Frame

_PAUSE: Final = 0.2
_COMMITTED: Final = b'{"commitment":"'


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The two files that change: which head is published, and what follows it."""

    checkpoint: bytes | None
    journal: bytes


def take_snapshot(directory: Path) -> Snapshot:
    """Read both files as they belong together, also while a writer publishes.

    Raises:
        LogError: there is no log here, or it cannot be read.
    """
    checkpoint = read_file(directory / "checkpoint")
    while True:
        journal = read_file(directory / ".state" / "journal")
        again = read_file(directory / "checkpoint")
        # Published between the two reads: the journal may begin behind the head we have.
        if again == checkpoint:
            break
        checkpoint = again
    if checkpoint is None and not journal and not (directory / "tile").exists():
        raise LogError(f"there is no log in {directory}")
    return Snapshot(checkpoint, journal or b"")


def read_entries(
    directory: str | os.PathLike[str], *, values: bool = True
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (index, event) for each entry, **unverified**, for display.

    Args:
        directory: the log's directory; the log may be open or crashed.
        values: put the values that entries commit to in their places, where they are here
            and were not erased.

    Raises:
        LogError: there is no log here.
        TamperedError: an entry cannot be read.
    """
    place = Path(directory)
    known: dict[str, Any] | None = None
    for index, entry in _entries(place, 0):
        event = decode_event(index, entry)
        if values and _COMMITTED in entry:
            known = _values(place) if known is None else known
            event = opened(event, known)
        yield index, event


def _values(directory: Path) -> dict[str, Any]:
    origin = open_checkpoint(take_snapshot(directory).checkpoint or b"", None).origin
    return values_of(stored_openings(directory), origin)


def entry_count(directory: str | os.PathLike[str]) -> int:
    """Return how many entries a log has, published or not; **unverified**.

    Raises:
        LogError: there is no log here.
        TamperedError: its head cannot be read.
    """
    size, frames = _look(take_snapshot(Path(directory)))
    return max([size, *(frame.end for frame in frames)])


def follow_entries(
    directory: str | os.PathLike[str],
    *,
    start: int = 0,
    pause: Callable[[], object] = lambda: time.sleep(_PAUSE),
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (index, event) for each entry from *start* on, **unverified**, without an end.

    Args:
        directory: the log's directory.
        start: the index of the first one.
        pause: waits before each next look.

    Raises:
        LogError: there is no log here, or it cannot be read.
        TamperedError: an entry cannot be read.
    """
    place = Path(directory)
    seen: tuple[int, int] | None = None
    while True:
        now = _stamp(place)
        if now != seen:
            seen = now
            for index, entry in _entries(place, start):
                yield index, decode_event(index, entry)
                start = index + 1
        pause()


def _stamp(directory: Path) -> tuple[int, int]:
    """Return what changes whenever there are new entries."""
    try:
        found = os.stat(directory / ".state" / "journal")
    except OSError:
        found = None
    size, inode = (0, 0) if found is None else (found.st_size, found.st_ino)
    try:
        return size, inode ^ os.stat(directory / "checkpoint").st_ino << 32
    except OSError:
        return size, inode


def _look(snapshot: Snapshot) -> tuple[int, list[Frame]]:
    """Return how many entries are published, and the frames of the journal."""
    size = open_checkpoint(snapshot.checkpoint or b"", None).size
    return size, scan(snapshot.journal, lambda note: open_checkpoint(note, None)).frames


def _entries(directory: Path, first: int) -> Iterator[tuple[int, bytes]]:
    """Yield (index, bytes) for each entry from *first* on."""
    size, frames = _look(take_snapshot(directory))
    for start in range(first // WIDTH * WIDTH, size, WIDTH):
        width = min(WIDTH, size - start)
        for index, entry in enumerate(read_items(directory, ENTRIES, start // WIDTH, width), start):
            if index >= first:
                yield index, entry
    for frame in frames:
        for index, entry in enumerate(frame.entries, frame.first):
            if index >= max(size, first):
                yield index, entry


def decode_event(index: int, entry: bytes) -> dict[str, Any]:
    """Return the event in *entry*.

    Raises:
        TamperedError: it is not a JSON object with a ``type``.
    """
    try:
        event: Any = orjson.loads(entry)
    except orjson.JSONDecodeError:
        event = None
    if type(event) is dict and type(event.get("type")) is str:
        return event
    raise TamperedError(f"entry {index} is not an event", where=f"entry {index}")

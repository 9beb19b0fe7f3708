"""Reading a log to display it; nothing here is verified.

Published entries come from the bundles, the others from the journal's frames,
up to the first that cannot be read. Use `checkrein.log.verify_log` to learn
whether what is shown is what was written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from checkrein.errors import LogError, TamperedError
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.disk import read_file
from checkrein.log.journal import scan
from checkrein.log.published import read_items
from checkrein.log.tiles import ENTRIES, WIDTH

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


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


def read_entries(directory: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (index, event) for each entry, **unverified**, for display.

    Args:
        directory: the log's directory; the log may be open or crashed.

    Raises:
        LogError: there is no log here.
        TamperedError: an entry cannot be read.
    """
    directory = Path(directory)
    snapshot = take_snapshot(directory)
    size = open_checkpoint(snapshot.checkpoint or b"", None).size
    for start in range(0, size, WIDTH):
        width = min(WIDTH, size - start)
        for i, entry in enumerate(read_items(directory, ENTRIES, start // WIDTH, width)):
            yield start + i, decode_event(start + i, entry)
    for frame in scan(snapshot.journal, lambda note: open_checkpoint(note, None)).frames:
        for index, entry in enumerate(frame.entries, frame.first):
            if index >= size:
                yield index, decode_event(index, entry)


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

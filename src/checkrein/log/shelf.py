"""Where the openings of published entries lie: ``.state/openings``, a file for each bundle.

A file has the lines of `checkrein.log.openings`, each commitment once, and the path of
its bundle's number, as in ``tile/entries``. It is replaced as a whole, durably. What was
erased is in no file any more; that it was there is in the log.
"""

from __future__ import annotations

import os
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import orjson

from checkrein.errors import TamperedError
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.disk import Disk, read_file
from checkrein.log.journal import scan
from checkrein.log.openings import Opening, commitments_in, read_openings
from checkrein.log.subjects import Subjects, unseal
from checkrein.log.tiles import ENTRIES, WIDTH, tile_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

_PLACE: Final = "tile/entries/"


def shelf_path(directory: Path, index: int) -> Path:
    """Return the file that has the openings of entry *index*."""
    name = tile_path(ENTRIES, index // WIDTH).removeprefix(_PLACE)
    return directory / ".state" / "openings" / f"{name}.jsonl"


def keep_openings(directory: Path, disk: Disk, lines: bytes) -> None:
    """Add openings to the files that they belong in; those that are there stay, once.

    Raises:
        OSError: not all are kept; the same call may be made again.
        TamperedError: a file there cannot be read.
    """
    files: dict[Path, bytes] = {}
    for path, some in groupby(read_openings(lines), lambda one: shelf_path(directory, one.index)):
        before = files.get(path) or read_file(path) or b""
        known = {one.commitment for one in read_openings(before)}
        new = [one.line() for one in some if one.commitment not in known]
        files[path] = b"".join([before, *new])
    disk.write_files(files)


def remove_openings(directory: Path, disk: Disk, gone: Callable[[Opening], bool]) -> int:
    """Rewrite the files without the openings that are *gone*; return how many those are.

    Raises:
        OSError: not all are gone; the same call may be made again.
        TamperedError: a file cannot be read.
    """
    count = 0
    for path in _files(directory):
        there = [*read_openings(read_file(path) or b"")]
        left = [one for one in there if not gone(one)]
        if len(left) < len(there):
            count += len(there) - len(left)
            disk.write_files({path: b"".join([one.line() for one in left])})
    return count


def stored_openings(directory: Path) -> Iterator[Opening]:
    """Yield all openings that are kept for a log, those in its journal last; **unchecked**.

    Raises:
        TamperedError: they cannot be read.
    """
    for path in _files(directory):
        yield from read_openings(read_file(path) or b"")
    journal = read_file(directory / ".state" / "journal") or b""
    for frame in scan(journal, lambda note: open_checkpoint(note, None)).frames:
        yield from read_openings(frame.openings)


def values_of(openings: Iterator[Opening], origin: str) -> dict[str, Any]:
    """Return the values of openings, by their commitments; what nobody can open is left out.

    Raises:
        TamperedError: an opening does not fit its commitment.
    """
    keys = Subjects(origin).keys()
    known: dict[str, Any] = {}
    for one in openings:
        bare = _unsealed(one, keys)
        if bare is not None:
            bare.check()
            known[one.commitment] = orjson.loads(bare.value)
    return known


def _unsealed(one: Opening, keys: Mapping[str, bytes]) -> Opening | None:
    """Return an opening that anybody can check, None if its subject's key is gone."""
    if not one.key:
        return one
    key = keys.get(one.key)
    value = None if key is None else unseal(one.value, key, bytes.fromhex(one.commitment))
    return None if value is None else Opening(one.index, one.commitment, one.salt, value)


def disclose(directory: Path, index: int, entry: bytes, wanted: Collection[str]) -> list[Opening]:
    """Return the openings of fields of a published entry, unsealed, for who may see them.

    Args:
        directory: the log's directory.
        index: the number of the entry.
        entry: its bytes.
        wanted: paths such as ``arguments.to``, which stand for all below them; "*" for all.

    Raises:
        TamperedError: openings or entry cannot be read.
    """
    paths = {commitment: path for path, commitment in commitments_in(decode_json(entry, index))}
    origin = open_checkpoint(read_file(directory / "checkpoint") or b"", None).origin
    kept = read_openings(read_file(shelf_path(directory, index)) or b"")
    chosen = [
        one
        for one in kept
        if one.index == index and one.commitment in paths
        if any(is_at(paths[one.commitment], name) for name in wanted)
    ]
    keys = Subjects(origin).keys() if any(one.key for one in chosen) else {}
    return [bare for one in chosen if (bare := _unsealed(one, keys)) is not None]


def is_at(path: str, wanted: str) -> bool:
    """Tell whether the field at *path* is the one wanted, or below it."""
    return wanted in {"*", path} or path.startswith(f"{wanted}.")


def decode_json(entry: bytes, index: int) -> Any:
    """Return the JSON in an entry.

    Raises:
        TamperedError: there is none.
    """
    try:
        return orjson.loads(entry)
    except orjson.JSONDecodeError:
        raise TamperedError(f"entry {index} is not an event", where=f"entry {index}") from None


def _files(directory: Path) -> list[Path]:
    place = directory / ".state" / "openings"
    found = [
        place.joinpath(folder, name)
        for folder, _, names in os.walk(place)
        for name in names
        if name.endswith(".jsonl")
    ]
    return sorted(found)

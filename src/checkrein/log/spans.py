"""Whole tiles of a published log, checked a span at a time.

A span is a row of full entry bundles with their tiles of level 0. Whether the
entries are those in the tree, whether every stored version of a tile or bundle is
what the entries give, and what the entries say, can be told of each span alone; how
the spans' roots make one tree is for `checkrein.log.verify` to see. So spans can be
checked in several processes, and in memory that does not grow with the log.
"""

from __future__ import annotations

import os
from operator import length_hint
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from checkrein.errors import TamperedError
from checkrein.log.completeness import Story
from checkrein.log.disk import read_file
from checkrein.log.merkle import fold, leaf_hashes
from checkrein.log.published import read_items
from checkrein.log.tiles import ENTRIES, WIDTH, encode_bundle, tile_path

if TYPE_CHECKING:
    from collections.abc import Iterator

SPAN: Final = 256
"""How many tiles a span has at most: one tile of level 1."""


class Checked(NamedTuple):
    """What was found in a span.

    Attributes:
        roots: the root of each tile, by the hashes in the tree.
        content: problems with entries.
        tree: problems with hashes.
        story: what the entries say.
    """

    roots: list[bytes]
    content: list[str]
    tree: list[str]
    story: Story


def check_span(directory: str, first: int, stop: int) -> Checked:
    """Check the full tiles and bundles from number *first* up to *stop*."""
    found = Checked([], [], [], Story(whole=False))
    place = Path(directory)
    for number in range(first, stop):
        entries, hashes = _read_pair(place, number, found)
        found.roots.append(fold(hashes))
        if entries is not None:
            found.content.extend(tell(found.story, number * WIDTH, entries))
    return found


def _read_pair(place: Path, number: int, found: Checked) -> tuple[list[bytes] | None, list[bytes]]:
    """Return the entries of a bundle, if they can be read, and their hashes in the tree."""
    hashed = read_file(place / tile_path(0, number))
    entries = _read_items(place, ENTRIES, number, found.content)
    leaves = leaf_hashes(entries or ())
    if entries is None or hashed != b"".join(leaves):
        hashes = _read_items(place, 0, number, found.tree)
        if hashes is None and entries is None:
            first = number * WIDTH
            raise TamperedError(
                f"entries {first} to {first + WIDTH - 1} and their hashes are missing"
            )
        if hashes is not None:
            found.content.extend(differing(number, leaves, hashes))
            leaves = hashes
    # A full bundle that was decoded strictly has no second spelling to compare.
    others = stored_widths(place, 0, number) - {WIDTH}
    found.tree.extend(compare(place, 0, number, others, leaves))
    if entries is not None:
        others = stored_widths(place, ENTRIES, number) - {WIDTH}
        found.content.extend(compare(place, ENTRIES, number, others, entries))
    return entries, leaves


def _read_items(place: Path, level: int, number: int, problems: list[str]) -> list[bytes] | None:
    try:
        return read_items(place, level, number)
    except TamperedError as error:
        problems.append(str(error))
        return None


def differing(number: int, leaves: list[bytes], hashes: list[bytes]) -> Iterator[str]:
    """Yield a line for each entry of a bundle that has another hash in the tree."""
    width = len(hashes)
    bundle, tile = (tile_path(level, number, width) for level in (ENTRIES, 0))
    for i, leaf in enumerate(leaves):
        if leaf != hashes[i]:
            yield f"{bundle}: entry {number * WIDTH + i} is not the one in {tile}"


def tell(story: Story, first: int, entries: list[bytes]) -> Iterator[str]:
    """Tell *story* the events in *entries*; yield a line for each that is none."""
    rest = iter(entries)
    while length_hint(rest):
        # One event at a time: many at once keep the garbage collector busy.
        try:
            story.tell_all(map(orjson.loads, rest))
        except (orjson.JSONDecodeError, TamperedError):
            index = first + len(entries) - length_hint(rest) - 1
            yield f"entry {index} is not an event"


def stored_widths(place: Path, level: int, number: int) -> set[int]:
    """Return which versions of a tile or bundle there are, by their widths."""
    widths = {WIDTH} if os.path.lexists(place / tile_path(level, number)) else set[int]()
    try:
        names = os.listdir(place / f"{tile_path(level, number)}.p")
    except OSError:
        return widths
    return widths | {int(name) for name in names if _is_width(name)}


def _is_width(name: str) -> bool:
    return name.isascii() and name.isdecimal() and 0 < int(name) < WIDTH and name[0] != "0"


def compare(
    place: Path, level: int, number: int, widths: set[int], items: list[bytes]
) -> Iterator[str]:
    """Compare the stored versions of a tile or bundle with what it must hold; yield problems.

    One that is wider may have been published since; whether it was there before is not seen here.
    """
    for width in sorted(one for one in widths if one <= len(items)):
        path = tile_path(level, number, width)
        stored = read_file(place / path)
        if stored is None:
            # A writer removes a partial tile once there is the full one.
            if not (place / tile_path(level, number)).is_file():
                yield f"{path}: is missing"
        elif stored != (encode_bundle if level == ENTRIES else b"".join)(items[:width]):
            yield f"{path}: is not what the entries give"

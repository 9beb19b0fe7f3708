"""Tiles and entry bundles (C2SP tlog-tiles): the published, static form of the tree.

::

    tile/<L>/<N>[.p/<W>]        hashes 256*N ... of tree level 8*L, 32 bytes each
    tile/entries/<N>[.p/<W>]    entries 256*N ..., each u16be length || bytes

``N`` is written in groups of three digits, all but the last behind an ``x``:
1234067 is ``x001/x234/067``. A full tile has 256 items; one with fewer is
partial and carries its width ``W``, 1 to 255. Hash ``i`` of level ``L`` is the
root of the complete subtree over the entries from ``i * 256**L`` up to
``(i + 1) * 256**L``; an incomplete subtree is in no tile. Full tiles never
change. An entry is at most 65,535 bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from checkrein.errors import TamperedError
from checkrein.log.merkle import HASH_SIZE, Frontier, fold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

WIDTH: Final = 256
MAX_ENTRY: Final = 65_535
ENTRIES: Final = -1
"""Stands for the level of entry bundles, which lie beside the tree."""

_PATH: Final = re.compile(
    r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII
)


class Tile(NamedTuple):
    """One tile or bundle: its level (or `ENTRIES`), number, width and bytes."""

    level: int
    number: int
    width: int
    data: bytes

    @property
    def path(self) -> str:
        """The path below the log's directory."""
        return tile_path(self.level, self.number, self.width)


def tile_path(level: int, number: int, width: int = WIDTH) -> str:
    """Return where a tile lies, or with level `ENTRIES` an entry bundle.

    Example:
        >>> tile_path(0, 1234067, 8)
        'tile/0/x001/x234/067.p/8'
    """
    digits = str(number)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    kind = "entries" if level == ENTRIES else str(level)
    return f"tile/{kind}/{name}" + (f".p/{width}" if width < WIDTH else "")


def parse_path(path: str) -> tuple[int, int, int] | None:
    """Return (level, number, width) of a tile's path, or None if it is no such path."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    level = ENTRIES if match[1] == "entries" else int(match[1])
    number = int(match[2].replace("x", "").replace("/", ""))
    width = int(match[3] or WIDTH)
    return (level, number, width) if tile_path(level, number, width) == path else None


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Return the bytes of an entry bundle; no entry is longer than `MAX_ENTRY`."""
    return b"".join([len(entry).to_bytes(2, "big") + entry for entry in entries])


def decode_bundle(data: bytes) -> list[bytes]:
    """Return the entries in a bundle.

    Raises:
        TamperedError: the lengths do not add up.
    """
    entries: list[bytes] = []
    start, end = 0, len(data)
    while start + 2 <= end:
        stop = start + 2 + (data[start] << 8 | data[start + 1])
        entries.append(data[start + 2 : stop])
        start = stop
    if start != end:
        raise TamperedError("the lengths in the entry bundle do not add up", where="entries")
    return entries


class Edge:
    """The right edge of all levels of tiles: the hashes of the tiles that are not full yet."""

    __slots__ = ("rows", "size")

    def __init__(self) -> None:
        self.size = 0
        self.rows: list[list[bytes]] = []

    @classmethod
    def load(cls, size: int, read: Callable[[int, int, int], list[bytes]]) -> Edge:
        """Return the edge of a published tree.

        Args:
            size: how many entries the tree has.
            read: (level, number, width) to the hashes in that partial tile.
        """
        edge = cls()
        edge.size = size
        for level in range(-(-size.bit_length() // 8)):
            here = size >> 8 * level
            width = here % WIDTH
            edge.rows.append(read(level, here // WIDTH, width) if width else [])
        return edge

    def add(self, leaves: list[bytes]) -> Iterator[Tile]:
        """Take in leaf hashes; yield each tile that gets full."""
        start, end = 0, len(leaves)
        while start < end:
            room = WIDTH - self.size % WIDTH
            yield from self._push(0, leaves[start : start + room])
            self.size += min(room, end - start)
            start += room

    def add_full(self, root: bytes) -> Iterator[Tile]:
        """Take in a whole tile of level 0 by its root, where one begins; yield those above."""
        if not self.rows:
            self.rows.append([])
        yield from self._push(1, [root])
        self.size += WIDTH

    def partials(self) -> Iterator[Tile]:
        """Yield the tiles that are not full."""
        for level, row in enumerate(self.rows):
            if row:
                yield Tile(level, self.size >> 8 * (level + 1), len(row), b"".join(row))

    def frontier(self) -> Frontier:
        """Return the tree's frontier."""
        tree = Frontier()
        for level in reversed(range(len(self.rows))):
            for subtree in self.rows[level]:
                tree.push(subtree, 8 * level)
        return tree

    def copy(self) -> Edge:
        """Return an independent copy."""
        other = Edge()
        other.size, other.rows = self.size, [row.copy() for row in self.rows]
        return other

    def _push(self, level: int, hashes: list[bytes]) -> Iterator[Tile]:
        if level == len(self.rows):
            self.rows.append([])
        row = self.rows[level]
        row += hashes
        if len(row) == WIDTH:
            self.rows[level] = []
            yield Tile(level, self.size >> 8 * (level + 1), WIDTH, b"".join(row))
            yield from self._push(level + 1, [fold(row)])


def split_hashes(data: bytes) -> list[bytes]:
    """Return the hashes in a tile's bytes."""
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]

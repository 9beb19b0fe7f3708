"""What a signed head vouches for: tiles and bundles that were verified before they are handed out.

A log's directory may have been changed by whoever can write there. So every tile is
checked against the one above it, from the head down:

1. The incomplete tiles of all levels are the tree's right edge: their hashes add up to
   the head's root, or nothing is handed out.
2. The root over the 256 hashes of a full tile is a hash in a tile of the level above,
   which was checked before, or is one of the edge.
3. Each entry of a bundle hashes to its hash in the tile of level 0.

The bytes that were checked are the bytes that are handed out; no file is read again in
between. Tiles above level 0 are kept for a while, bundles are not: memory does not grow
with the log.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from checkrein.errors import TamperedError
from checkrein.log.merkle import fold, leaf_hashes
from checkrein.log.published import read_items
from checkrein.log.tiles import ENTRIES, WIDTH, Edge, Tile, encode_bundle, tile_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from checkrein.log.checkpoint import Checkpoint

_KEPT: Final = 64


class Proven:
    """The published part of a log, as far as a head vouches for it.

    Args:
        directory: the log's directory; its writer may publish meanwhile.
        head: a published head of it, verified.

    Raises:
        TamperedError: the tiles do not add up to *head*; also from `since`.
    """

    def __init__(self, directory: Path, head: Checkpoint) -> None:
        self._directory, self._size = directory, head.size
        self._edge = Edge.load(head.size, partial(read_items, directory))
        if self._edge.frontier().root() != head.root:
            raise TamperedError("the tiles do not add up to the published head", where="tile")
        self._above = lru_cache(_KEPT)(self._hashes)

    def since(self, old: int) -> Iterator[Tile]:
        """Yield what there is for readers of the head and was not there at size *old*.

        That is every full tile and bundle that was incomplete or missing then, and every
        incomplete one that belongs to the head, of whatever age.

        Args:
            old: from 0 to the size of the head.
        """
        for number in range(old // WIDTH, self._size // WIDTH):
            hashes = self._hashes(0, number)
            yield self._bundle(number, hashes)
            yield Tile(0, number, WIDTH, b"".join(hashes))
        for level in range(1, len(self._edge.rows)):
            above = 8 * (level + 1)
            for number in range(old >> above, self._size >> above):
                yield Tile(level, number, WIDTH, b"".join(self._above(level, number)))
        if self._size % WIDTH:
            yield self._bundle(self._size // WIDTH, self._edge.rows[0])
        yield from self._edge.partials()

    def _hashes(self, level: int, number: int) -> list[bytes]:
        """Return the hashes of a full tile, after the tile above has vouched for them."""
        hashes = read_items(self._directory, level, number)
        parent, offset = divmod(number, WIDTH)
        last = self._size >> 8 * (level + 2)
        above = self._edge.rows[level + 1] if parent == last else self._above(level + 1, parent)
        if fold(hashes) != above[offset]:
            path = tile_path(level, number)
            raise TamperedError(f"{path} is not what the head vouches for", where=path)
        return hashes

    def _bundle(self, number: int, hashes: list[bytes]) -> Tile:
        entries = read_items(self._directory, ENTRIES, number, len(hashes))
        if leaf_hashes(entries) != hashes:
            path = tile_path(ENTRIES, number, len(hashes))
            raise TamperedError(f"{path} is not what the head vouches for", where=path)
        return Tile(ENTRIES, number, len(hashes), encode_bundle(entries))

"""The published part of a log: ``checkpoint``, tiles and entry bundles, for its writer.

Publication writes bundles and tiles of all levels first, then replaces
``checkpoint``. A crash in between leaves tiles that are ahead of the checkpoint;
the journal still has their entries and the next publication writes the same
bytes again. Partial tiles go when the full one is there and the checkpoint
needs it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from checkrein.errors import TamperedError
from checkrein.log.disk import Disk, read_file
from checkrein.log.merkle import HASH_SIZE, Frontier, leaf_hashes
from checkrein.log.tiles import (
    ENTRIES,
    WIDTH,
    Edge,
    Tile,
    decode_bundle,
    encode_bundle,
    split_hashes,
    tile_path,
)

if TYPE_CHECKING:
    from pathlib import Path

    from checkrein.log.checkpoint import Checkpoint


def read_items(directory: Path, level: int, number: int, width: int = WIDTH) -> list[bytes]:
    """Return the first *width* hashes of a tile, or entries of a bundle; **unverified**.

    Raises:
        TamperedError: neither the partial nor the full file is there with the right length.
    """
    for actual in (width, WIDTH):
        path = tile_path(level, number, actual)
        data = read_file(directory / path)
        if data is not None:
            return parse_items(level, actual, data, path)[:width]
    path = tile_path(level, number, width)
    raise TamperedError(f"{path} is missing", where=path)


def parse_items(level: int, width: int, data: bytes, path: str) -> list[bytes]:
    """Return the *width* hashes or entries in *data*.

    Raises:
        TamperedError: it holds more or fewer, or not whole ones.
    """
    try:
        items = decode_bundle(data) if level == ENTRIES else split_hashes(data)
    except TamperedError as error:
        raise TamperedError(f"{path}: {error}", where=path) from None
    if len(items) != width or (level != ENTRIES and len(data) != HASH_SIZE * width):
        raise TamperedError(f"{path} has not {width} items", where=path)
    return items


class Published:
    """What a writer keeps of the published part: its right edge.

    Args:
        directory: the log's directory.
        disk: the operating system.
        head: the published checkpoint, verified.

    Raises:
        TamperedError: tiles are missing or do not add up to the head.
    """

    def __init__(self, directory: Path, disk: Disk, head: Checkpoint) -> None:
        self._directory, self._disk = directory, disk
        number, width = divmod(head.size, WIDTH)
        self._edge = Edge.load(head.size, partial(read_items, directory))
        if self.tree.root() != head.root:
            raise TamperedError("the tiles do not add up to the published head", where="tile")
        self._bundle = read_items(directory, ENTRIES, number, width) if width else []
        if width and leaf_hashes(self._bundle) != self._edge.rows[0]:
            path = tile_path(ENTRIES, number, width)
            raise TamperedError(f"the entries in {path} are not those in the tree", where=path)

    @property
    def size(self) -> int:
        """How many entries are published."""
        return self._edge.size

    @property
    def tree(self) -> Frontier:
        """The tree over them."""
        return self._edge.frontier()

    def publish(self, entries: list[bytes], leaves: list[bytes], note: str) -> None:
        """Write tiles and bundles for further entries, then the signed head over all.

        Args:
            entries: the entries after those that are published.
            leaves: their hashes.
            note: the signed head after them; "" if more follow, of which that will be.

        Raises:
            OSError: not published; the same call may be made again.
        """
        edge = self._edge.copy()
        pending = self._bundle + entries
        full = [*self._full_bundles(pending), *edge.add(leaves)]
        rest = pending[len(pending) // WIDTH * WIDTH :]
        others = [*edge.partials()] if note else []
        if rest and note:
            number = edge.size // WIDTH
            others.append(Tile(ENTRIES, number, len(rest), encode_bundle(rest)))
        self._disk.write_files({self._directory / tile.path: tile.data for tile in full + others})
        if note:
            self._disk.write_files({self._directory / "checkpoint": note.encode()})
        self._edge, self._bundle = edge, rest
        for tile in full:
            self._disk.remove_directory(self._directory / f"{tile.path}.p")

    def _full_bundles(self, pending: list[bytes]) -> list[Tile]:
        first = self.size // WIDTH
        return [
            Tile(ENTRIES, first + i, WIDTH, encode_bundle(pending[i * WIDTH : (i + 1) * WIDTH]))
            for i in range(len(pending) // WIDTH)
        ]

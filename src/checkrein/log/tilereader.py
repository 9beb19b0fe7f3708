"""Reading single hashes and entries out of a stored log, for those who prove something about it.

A proof needs about two hashes a level, and of those only a few tiles. Nothing
that is read here is verified: whoever makes a proof of it checks the proof
against a signed head before handing it out, and so notices what was changed.

The subtree of ``2**height`` leaves at ``index << height`` is a hash of level
``height // 8`` of the tiles, or the root over up to 128 hashes that lie side by side
in one tile of that level. What lies behind the published head is in no tile:
those hashes are computed from the entries in the journal.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from checkrein.errors import LogError, TamperedError
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.journal import scan
from checkrein.log.merkle import (
    EMPTY_ROOT,
    check_consistency,
    fold,
    leaf_hash,
    node_hash,
    prove_consistency,
    subtree_hash,
)
from checkrein.log.published import read_items
from checkrein.log.reading import take_snapshot
from checkrein.log.tiles import ENTRIES, WIDTH

if TYPE_CHECKING:
    import os

    from checkrein.log.checkpoint import Checkpoint


class TileReader:
    """The hashes and entries of a log, as they are stored; **unverified**.

    Args:
        directory: the log's directory.
        published: how many entries are in tiles and bundles.
        tail: the entries behind them.

    Calling it makes it a `checkrein.log.merkle.HashReader`.

    Raises:
        TamperedError: from any call: a tile or bundle is missing, or not what it must be.
    """

    def __init__(self, directory: Path, published: int, tail: list[bytes] | None = None) -> None:
        self._directory, self._published, self._tail = directory, published, tail or []
        # Bundles may be large and are read in order; hashes are small and needed again.
        self._bundle = lru_cache(maxsize=1)(self._read)
        self._tile = lru_cache(maxsize=256)(self._read)
        self._hash = lru_cache(maxsize=4096)(self._compute)

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self._published + len(self._tail)

    def __call__(self, height: int, index: int) -> bytes:
        """Return the hash of the complete subtree of that height; see `HashReader`."""
        return self._hash(height, index)

    def entry(self, index: int) -> bytes:
        """Return the bytes of entry *index*, which is below `size`."""
        if index >= self._published:
            return self._tail[index - self._published]
        number, offset = divmod(index, WIDTH)
        return self._bundle(ENTRIES, number)[offset]

    def _compute(self, height: int, index: int) -> bytes:
        if (index + 1) << height <= self._published:
            level, rest = divmod(height, 8)
            number, offset = divmod(index << rest, WIDTH)
            return fold(self._tile(level, number)[offset : offset + (1 << rest)])
        if height:
            return node_hash(self(height - 1, 2 * index), self(height - 1, 2 * index + 1))
        return leaf_hash(self.entry(index))

    def _read(self, level: int, number: int) -> list[bytes]:
        items = self._published >> 8 * max(level, 0)
        return read_items(self._directory, level, number, min(WIDTH, items - number * WIDTH))


def consistency_to(directory: Path, old: int, head: Checkpoint) -> tuple[bytes, list[bytes]]:
    """Return the root that the log had at size *old*, and the proof that *head* extends it.

    The proof leads to the root of *head*: what is returned is as good as that is.

    Args:
        directory: the log's directory.
        old: from 0 to the size of *head*.
        head: a published head, verified.

    Raises:
        TamperedError: the tiles do not add up to *head*.
    """
    read = TileReader(directory, head.size)
    root = subtree_hash(0, old, read) if old else EMPTY_ROOT
    proof = prove_consistency(old, head.size, read)
    try:
        check_consistency(old, head.size, root, head.root, proof)
    except TamperedError:
        raise TamperedError("the tiles do not add up to the published head", where="tile") from None
    return root, proof


def open_tree(directory: str | os.PathLike[str], head: str | None = None) -> tuple[TileReader, str]:
    """Return a reader of the log in *directory*, and the signed head to prove against.

    Args:
        directory: the log's directory; the log may be open or crashed.
        head: a signed head of this log. Without one, the published head. A head that an
            append returned reaches into the journal: what it covers is durable. Heads that
            lie there are not taken from it, since they may be of a commit that is under
            way, and a power failure would leave a proof of what never was.

    Raises:
        LogError: there is no log, or it does not reach as far as *head*.
        TamperedError: checkpoint, journal or *head* cannot be read, or *head* is another log's.
    """
    directory = Path(directory)
    snapshot = take_snapshot(directory)
    published = open_checkpoint(snapshot.checkpoint or b"", None)
    if head is None:
        return TileReader(directory, published.size), (snapshot.checkpoint or b"").decode()
    wanted = open_checkpoint(head, None)
    if wanted.origin != published.origin:
        raise TamperedError("the head is of another log", where="head")
    if wanted.size <= published.size:
        return TileReader(directory, published.size), head
    found = scan(snapshot.journal, lambda note: open_checkpoint(note, None))
    entries = {i: e for f in found.frames for i, e in enumerate(f.entries, f.first)}
    needed = range(published.size, wanted.size)
    if not all(index in entries for index in needed):
        raise LogError(
            f"the head is of {wanted.size} entries, and the log does not have all of them: it was "
            "rolled back, or is a copy of what was published before. Take the log itself, or an "
            "older head"
        )
    return TileReader(directory, published.size, [entries[index] for index in needed]), head

"""The hashes of a published log, as proofs need them, from the tiles on disk.

What is read is **unverified**: a tile may have been changed. Whoever makes a proof
from these hashes checks that it leads to the root of a signed head before trusting it,
or sends it to somebody who does; `consistency_to` does so.

Tiles are read when first asked for, and kept: a proof asks for the same ones again.
A writer may publish meanwhile. Full tiles never change, and a partial tile stays until
the full one is there.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from checkrein.errors import TamperedError
from checkrein.log.merkle import (
    EMPTY_ROOT,
    check_consistency,
    fold,
    prove_consistency,
    subtree_hash,
)
from checkrein.log.published import read_items
from checkrein.log.tiles import WIDTH

if TYPE_CHECKING:
    from pathlib import Path

    from checkrein.log.checkpoint import Checkpoint
    from checkrein.log.merkle import HashReader

_KEPT: Final = 64


def stored_hashes(directory: Path, size: int) -> HashReader:
    """Return a reader of the hashes in the tree of *size* entries; **unverified**.

    Args:
        directory: the log's directory.
        size: that of the published head, or of an earlier one.

    Raises:
        TamperedError: later, by the reader: a tile is missing, or has another length.
    """
    tile = lru_cache(_KEPT)(partial(read_items, directory))

    def read(height: int, index: int) -> bytes:
        level, rest = divmod(height, 8)
        number, offset = divmod(index << rest, WIDTH)
        width = min(WIDTH, (size >> 8 * level) - number * WIDTH)
        return fold(tile(level, number, width)[offset : offset + (1 << rest)])

    return read


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
    read = stored_hashes(directory, head.size)
    root = subtree_hash(0, old, read) if old else EMPTY_ROOT
    proof = prove_consistency(old, head.size, read)
    try:
        check_consistency(old, head.size, root, head.root, proof)
    except TamperedError:
        raise TamperedError("the tiles do not add up to the published head", where="tile") from None
    return root, proof

"""The Merkle tree: RFC 6962 section 2.1 and RFC 9162 section 2.1, with SHA-256.

::

    empty tree   SHA-256("")
    leaf         SHA-256(0x00 || entry)
    node         SHA-256(0x01 || left || right)
    n leaves     node(tree of the first k leaves, tree of the rest),
                 k the largest power of two below n; nothing is padded or doubled

An inclusion proof lists the siblings from the leaf's to the root's child. A
consistency proof shows that the tree of ``old`` leaves is a prefix of the tree
of ``new`` leaves; from ``old`` 0 it is empty and proves nothing. Both have one
valid length: a longer or a shorter proof is refused.

Nothing here does I/O. What a proof needs from a stored tree is asked of a
`HashReader`: the hash of the complete subtree of ``2**height`` leaves that
starts at leaf ``index << height``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final, NoReturn

from checkrein.errors import MisuseError, TamperedError

HASH_SIZE: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
_BLOCK_HEIGHT: Final = 6
_BLOCK: Final = 1 << _BLOCK_HEIGHT

HashReader = Callable[[int, int], bytes]
"""``(height, index)`` to the hash of that complete subtree."""


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of *entry* as a leaf."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of the node above *left* and *right*."""
    return sha256(b"\1" + left + right).digest()


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """Return the leaf hashes of *entries*; written without a call per entry, for speed."""
    return [sha256(b"\0" + entry).digest() for entry in entries]


def fold(hashes: list[bytes]) -> bytes:
    """Return the root of a complete subtree: *hashes* are a power of two in number."""
    while len(hashes) > 1:
        rest = iter(hashes)
        pairs = zip(rest, rest, strict=True)  # the first with the second, the third with the fourth
        hashes = [sha256(b"\1" + left + right).digest() for left, right in pairs]
    return hashes[0]


class Frontier:
    """The right edge of a growing tree: all that is needed to append and to get the root.

    Example:
        >>> tree = Frontier()
        >>> tree.push(leaf_hash(b"an entry"))
        >>> tree.root() == leaf_hash(b"an entry")
        True
    """

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def push(self, subtree: bytes, height: int = 0) -> None:
        """Append a complete subtree of ``2**height`` leaves; the size must be a multiple of it."""
        count = self.size >> height
        while count & 1:
            subtree = sha256(b"\1" + self._peaks.pop() + subtree).digest()
            count >>= 1
        self._peaks.append(subtree)
        self.size += 1 << height

    def grow(self, leaf: bytes) -> bytes:
        """Append a leaf hash; return it, and the hashes of all larger subtrees that end with it.

        The complete subtree of ``2**height`` leaves is at byte ``32 * height``.
        """
        hashes, count = [leaf], self.size
        while count & 1:
            hashes.append(sha256(b"\1" + self._peaks.pop() + hashes[-1]).digest())
            count >>= 1
        self._peaks.append(hashes[-1])
        self.size += 1
        return b"".join(hashes)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Append leaf hashes; whole blocks at a time, for speed."""
        leaves = leaves if isinstance(leaves, list) else list(leaves)
        place = min(-self.size % _BLOCK, len(leaves))
        for leaf in leaves[:place]:
            self.push(leaf)
        while place + _BLOCK <= len(leaves):
            self.push(fold(leaves[place : place + _BLOCK]), _BLOCK_HEIGHT)
            place += _BLOCK
        for leaf in leaves[place:]:
            self.push(leaf)

    def peak(self, height: int) -> bytes:
        """Return the complete subtree of ``2**height`` leaves at the edge: one for each bit.

        Raises:
            MisuseError: the size has no such bit.
        """
        if not self.size >> height & 1:
            raise MisuseError(f"a tree of {self.size} leaves has no peak of height {height}")
        return self._peaks[(self.size >> height).bit_count() - 1]

    def root(self) -> bytes:
        """Return the root of the tree so far."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in self._peaks[-2::-1]:
            root = node_hash(peak, root)
        return root

    def copy(self) -> Frontier:
        """Return an independent copy."""
        other = Frontier()
        other.size, other._peaks = self.size, self._peaks.copy()
        return other


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Return the root of the tree over these leaf hashes."""
    tree = Frontier()
    tree.extend(leaves)
    return tree.root()


def subtree_hash(start: int, stop: int, read: HashReader) -> bytes:
    """Return the hash of the tree over the leaves from *start* up to *stop*."""
    count = stop - start
    if count & (count - 1) == 0:
        height = count.bit_length() - 1
        return read(height, start >> height)
    middle = start + _split(count)
    return node_hash(subtree_hash(start, middle, read), subtree_hash(middle, stop, read))


def subtrees_between(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield (height, index) of the fewest complete subtrees that make up *start* to *stop*.

    Example:
        >>> [*subtrees_between(3, 10)]
        [(0, 3), (2, 1), (1, 4)]
    """
    while start < stop:
        height = (stop - start).bit_length() - 1
        if start:
            height = min(height, (start & -start).bit_length() - 1)
        yield height, start >> height
        start += 1 << height


def prove_inclusion(index: int, size: int, read: HashReader) -> list[bytes]:
    """Return the proof that leaf *index* is in the tree of *size* leaves.

    Raises:
        MisuseError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise MisuseError(f"a tree of {size} leaves has no leaf {index}")
    proof: list[bytes] = []
    start, stop = 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            proof.append(subtree_hash(middle, stop, read))
            stop = middle
        else:
            proof.append(subtree_hash(start, middle, read))
            start = middle
    return proof[::-1]


def check_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that *leaf* is leaf *index* of the tree of *size* leaves with this *root*.

    Raises:
        TamperedError: the proof does not show that.
    """
    if not 0 <= index < size or not _are_hashes(leaf, *proof):
        _refuse("inclusion")
    here, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            _refuse("inclusion")
        if here & 1 or here == last:
            computed = node_hash(sibling, computed)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        here, last = here >> 1, last >> 1
    if last or computed != root:
        _refuse("inclusion")


def prove_consistency(old: int, new: int, read: HashReader) -> list[bytes]:
    """Return the proof that the tree of *old* leaves is a prefix of that of *new* leaves.

    Raises:
        MisuseError: *old* is larger than *new*, or negative.
    """
    if not 0 <= old <= new:
        raise MisuseError(f"a tree of {old} leaves is no prefix of one of {new}")
    if old == 0:
        return []
    proof: list[bytes] = []
    start, stop = 0, new
    while old < stop:
        middle = start + _split(stop - start)
        if old <= middle:
            proof.append(subtree_hash(middle, stop, read))
            stop = middle
        else:
            proof.append(subtree_hash(start, middle, read))
            start = middle
    if start:
        proof.append(subtree_hash(start, stop, read))
    return proof[::-1]


def check_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree (*new*, *new_root*) extends the tree (*old*, *old_root*).

    Raises:
        TamperedError: the proof does not show that.
    """
    if not 0 <= old <= new or not _are_hashes(*proof):
        _refuse("consistency")
    if old in {0, new}:
        expected = EMPTY_ROOT if old == 0 else new_root
        if proof or old_root != expected:
            _refuse("consistency")
        return
    here, last = old - 1, new - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    # An old tree that is one complete subtree is its own first element.
    path = [old_root, *proof] if here == 0 else list(proof)
    if not path:
        _refuse("consistency")
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            _refuse("consistency")
        if here & 1 or here == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while here and not here & 1:
                here, last = here >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        here, last = here >> 1, last >> 1
    if last or first != old_root or second != new_root:
        _refuse("consistency")


def _split(count: int) -> int:
    """Return the largest power of two below *count*, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _are_hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_SIZE for value in values)


def _refuse(kind: str) -> NoReturn:
    raise TamperedError(f"the {kind} proof does not hold", where="proof")

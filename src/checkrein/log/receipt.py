r"""Receipts: a signed head, and the proof that one entry is under it (C2SP tlog-proof v1).

::

    c2sp.org/tlog-proof@v1 "\n"
    ["extra " base64(extra) "\n"]     left out if empty; whose word it is, nobody knows
    "index " n "\n"                   decimal, without leading zeros
    base64(hash[32]) "\n" *           the siblings, from the leaf's to the root's child
    "\n"
    signed head                       as it was signed, with all its cosignatures

The entry is not in it: the receipt is verified with the entry's exact bytes, the
log's public key, and nothing else; neither log nor network is needed. It shows
that the log has vouched for the entry at that index. It does not show that the
log still does, or has told everybody the same: for that, keep the head, and ask
for the proof that a later one extends it.

That proof is stored as what a witness is sent (C2SP tlog-witness, add-checkpoint)::

    "old " size "\n"
    base64(hash[32]) "\n" *           at most 63
    "\n"
    signed head                       the later one

Both have one spelling: what was read is written again and compared. In the head
that spelling covers the text; a signature line by a key that nobody asked for is
taken as it is, like ``extra``.

Whoever proves checks the proof before handing it out: of tiles that were changed
there are no receipts.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from checkrein.errors import LogError, MisuseError, TamperedError
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.merkle import (
    HASH_SIZE,
    check_consistency,
    check_inclusion,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
)
from checkrein.log.note import MAX_NOTE, decode_base64, parse_vkey
from checkrein.log.tilereader import TileReader, open_tree

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

SUFFIX: Final = ".tlog-proof"
MAX_EXTRA: Final = 64 * 1024
_MAX_TEXT: Final = 4 * MAX_NOTE
_MAX_PROOF: Final = 63
_HEADER: Final = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The proof that an entry is in a log.

    Attributes:
        index: the entry's number.
        proof: the hashes beside its path, from the leaf's sibling to the root's child.
        note: the signed head.
        extra: what somebody has put with it; **nothing vouches for it**.
    """

    index: int
    proof: tuple[bytes, ...]
    note: str
    extra: bytes = b""

    def to_text(self) -> str:
        """Return the receipt as text, to be kept in a ``.tlog-proof`` file."""
        extra = [f"extra {_encode(self.extra)}"] if self.extra else []
        lines = [_HEADER, *extra, f"index {self.index}", *map(_encode, self.proof)]
        return "\n".join(lines) + "\n\n" + self.note


@dataclass(frozen=True, slots=True)
class Consistency:
    """The proof that a log has only grown since it had *old* entries.

    Attributes:
        old: how many entries it had.
        proof: the hashes of RFC 9162 section 2.1.4.1.
        note: the later signed head.
    """

    old: int
    proof: tuple[bytes, ...]
    note: str

    def to_text(self) -> str:
        """Return the proof as the text that a witness is sent."""
        return "\n".join([f"old {self.old}", *map(_encode, self.proof)]) + "\n\n" + self.note


@dataclass(frozen=True, slots=True)
class Included:
    """What a receipt has shown. Where it does not, there is an error instead.

    Attributes:
        origin: the log's name.
        index: the entry's number in it.
        size: how many entries the log had at least.
        freshness: what is known of the log since: "unknown", from a receipt alone.
    """

    origin: str
    index: int
    size: int
    freshness: str = "unknown"


@dataclass(frozen=True, slots=True)
class Extended:
    """What a consistency proof has shown.

    Attributes:
        origin: the log's name.
        old: how many entries the earlier head covers; 0 says nothing about any.
        new: how many the later head covers, the same ones first.
    """

    origin: str
    old: int
    new: int


# -- reading -------------------------------------------------------------------------------


def read_receipt(text: str | bytes) -> Receipt:
    """Read a receipt; what it says is **unverified**.

    Raises:
        TamperedError: it is none, or not in its one spelling.

    Example:
        >>> read_receipt("c2sp.org/tlog-proof@v1")
        Traceback (most recent call last):
        checkrein.errors.TamperedError: this is no receipt (c2sp.org/tlog-proof@v1)
    """
    whole, lines, note = _split(text)
    if len(lines) < 2 or lines[0] != _HEADER:
        raise _no(f"receipt ({_HEADER})")
    del lines[0]
    extra = decode_base64(lines.pop(0)[6:]) if lines[0].startswith("extra ") else b""
    index = _number(lines, "index ")
    proof = _hashes(lines[1:])
    if extra is not None and len(extra) <= MAX_EXTRA and index is not None and proof is not None:
        receipt = Receipt(index, proof, note, extra)
        if receipt.to_text() == whole:
            open_checkpoint(note, None)
            return receipt
    raise _no(f"receipt ({_HEADER})")


def read_consistency(text: str | bytes) -> Consistency:
    """Read a consistency proof; what it says is **unverified**.

    Raises:
        TamperedError: it is none, or not in its one spelling.
    """
    whole, lines, note = _split(text)
    old, proof = _number(lines, "old "), _hashes(lines[1:])
    if old is not None and proof is not None:
        found = Consistency(old, proof, note)
        if found.to_text() == whole:
            open_checkpoint(note, None)
            return found
    raise _no("consistency proof (old, hashes, signed head)")


# -- proving -------------------------------------------------------------------------------


def prove(directory: str | os.PathLike[str], index: int, *, head: str | None = None) -> Receipt:
    """Return a receipt for entry *index* of the log in *directory*.

    Args:
        directory: the log's directory; the log may be open or crashed.
        index: the entry's number, from 0.
        head: the signed head to prove it against: one that an append returned, which also
            covers entries that are not published yet, or one with cosignatures. Without it,
            the published head.

    Raises:
        MisuseError: *index* is no number from 0.
        LogError: there is no log, or no such entry under that head.
        TamperedError: what is stored does not agree with the head.

    Example:
        >>> receipt = prove("audit/", 17)  # doctest: +SKIP
        >>> Path("17.tlog-proof").write_text(receipt.to_text())  # doctest: +SKIP
    """
    if type(index) is not int or index < 0:
        raise MisuseError("'index' is the number of an entry, an int from 0 on")
    tree, note = open_tree(directory, head)
    return receipt_of(tree, note, index)


def receipt_of(tree: TileReader, note: str, index: int) -> Receipt:
    """Return a receipt for entry *index* against the signed head *note*; see `prove`."""
    head = open_checkpoint(note, None)
    if index >= head.size:
        raise LogError(
            f"the head covers {head.size} entries, none with the number {index}. If it was "
            "appended since, publish the log first (AuditLog.publish, or close it), or pass head= "
            "as the append returned it (Position.checkpoint)"
        )
    leaf, proof = leaf_hash(tree.entry(index)), prove_inclusion(index, head.size, tree)
    try:
        check_inclusion(index, head.size, leaf, proof, head.root)
    except TamperedError:
        raise TamperedError(
            f"entry {index} and the tiles do not add up to the head; checkrein log verify tells "
            "which file was changed",
            where=f"entry {index}",
        ) from None
    return Receipt(index, tuple(proof), note)


def prove_consistency_between(
    directory: str | os.PathLike[str], old_note: str | bytes, *, head: str | None = None
) -> Consistency:
    """Return the proof that the log in *directory* extends the signed head *old_note*.

    Args:
        directory: the log's directory; the log may be open or crashed.
        old_note: a signed head of this log that was kept. Whose signature it has is for
            `verify_consistency` to say.
        head: the later signed head; without it, the published one.

    Raises:
        LogError: there is no log, or the later head covers less than the old one.
        TamperedError: the log is not the one of *old_note*, or was changed.
    """
    old = open_checkpoint(old_note, None)
    tree, note = open_tree(directory, head)
    new = open_checkpoint(note, None)
    if old.origin != new.origin:
        raise TamperedError("the older head is of another log", where="old head")
    if old.size > new.size:
        raise LogError(
            f"the older head covers {old.size} entries, the later one {new.size}. If that many "
            "were appended, publish the log first; if they were published, the log was rolled back"
        )
    proof = prove_consistency(old.size, new.size, tree)
    try:
        check_consistency(old.size, new.size, old.root, new.root, proof)
    except TamperedError:
        raise TamperedError(
            f"the log does not extend the older head: its first {old.size} entries are others, or "
            "its tiles were changed; checkrein log verify tells which",
            where="tile",
        ) from None
    return Consistency(old.size, tuple(proof), note)


# -- verifying -----------------------------------------------------------------------------


def verify_receipt(entry: bytes, receipt: Receipt | str | bytes, *, vkey: str) -> Included:
    """Check that *entry* is in the log that *vkey* signs for.

    Args:
        entry: the exact bytes of the entry; JSON that was parsed and written again is another.
        receipt: the receipt, or its text.
        vkey: the log's verifier key text, from a source that you trust.

    Returns:
        What was shown.

    Raises:
        TamperedError: it is not shown.
        ConfigurationError: *vkey* cannot be read.
        MisuseError: *entry* is no bytes.
    """
    if type(entry) is not bytes:
        raise MisuseError("'entry' is the exact bytes of the entry, not a text or an event")
    verifier = parse_vkey(vkey)
    if not isinstance(receipt, Receipt):
        receipt = read_receipt(receipt)
    head = open_checkpoint(receipt.note, verifier)
    check_inclusion(receipt.index, head.size, leaf_hash(entry), receipt.proof, head.root)
    return Included(head.origin, receipt.index, head.size)


def verify_consistency(
    old_note: str | bytes, new_note: str | bytes, proof: Sequence[bytes], vkey: str
) -> Extended:
    """Check that the log of the head *new_note* extends that of the head *old_note*.

    Args:
        old_note: the signed head that was kept.
        new_note: the later signed head.
        proof: the hashes of the consistency proof.
        vkey: the log's verifier key text, from a source that you trust; it signed both.

    Returns:
        What was shown.

    Raises:
        TamperedError: it is not shown.
        ConfigurationError: *vkey* cannot be read.
    """
    verifier = parse_vkey(vkey)
    old, new = open_checkpoint(old_note, verifier), open_checkpoint(new_note, verifier)
    check_consistency(old.size, new.size, old.root, new.root, proof)
    return Extended(new.origin, old.size, new.size)


# -- inside --------------------------------------------------------------------------------


def _split(text: str | bytes) -> tuple[str, list[str], str]:
    """Return the whole text, the lines before the first empty one, and what is behind it."""
    if len(text) > _MAX_TEXT:
        raise TamperedError(f"a proof has at most {_MAX_TEXT} bytes", where="proof")
    try:
        whole = text if isinstance(text, str) else text.decode()
    except UnicodeError:
        raise TamperedError("the proof is not UTF-8", where="proof") from None
    lines, _, note = whole.partition("\n\n")
    return whole, lines.split("\n"), note


def _number(lines: list[str], name: str) -> int | None:
    digits = lines[0].removeprefix(name) if lines else ""
    return int(digits) if digits.isdecimal() and len(digits) < 20 else None


def _hashes(lines: list[str]) -> tuple[bytes, ...] | None:
    found = [decode_base64(line) for line in lines]
    hashes = tuple(one for one in found if one is not None and len(one) == HASH_SIZE)
    return hashes if len(hashes) == len(lines) <= _MAX_PROOF else None


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _no(what: str) -> TamperedError:
    return TamperedError(f"this is no {what}", where="proof")

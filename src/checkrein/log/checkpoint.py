r"""The head of a log (C2SP tlog-checkpoint v1): the text that gets signed.

::

    origin "\n" size "\n" base64(root[32]) "\n"

``origin`` is the log's name, a URL without scheme; it is also the name of the
key that signs. ``size`` is decimal without leading zeros. Extension lines are
neither written nor read. There is one spelling: what was read is written again
and compared.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from checkrein.errors import TamperedError
from checkrein.log.merkle import HASH_SIZE
from checkrein.log.note import Verifier, decode_base64, is_name, open_note, split_note


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log claims to be: its name, its size and its root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the text to sign."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a checkpoint.

    Raises:
        TamperedError: it is not one, or not in its one spelling.
    """
    lines = text.split("\n")
    if len(lines) == 4 and is_name(lines[0]) and lines[1].isdecimal() and len(lines[1]) < 20:
        root = decode_base64(lines[2])
        if root is not None and len(root) == HASH_SIZE:
            checkpoint = Checkpoint(lines[0], int(lines[1]), root)
            if checkpoint.text() == text:
                return checkpoint
    raise TamperedError("the checkpoint cannot be read", where="checkpoint")


def open_checkpoint(note: bytes | str, verifier: Verifier | None) -> Checkpoint:
    """Return the checkpoint in *note*.

    Args:
        note: the signed note.
        verifier: the key that must have signed it, under the origin as its name.
            With None the checkpoint is **unverified**.

    Raises:
        TamperedError: malformed, not signed by that key, or of another origin.
    """
    if verifier is None:
        return parse_checkpoint(split_note(note)[0])
    checkpoint = parse_checkpoint(open_note(note, [verifier]))
    if checkpoint.origin != verifier.name:
        raise TamperedError("the checkpoint is of another log", where="checkpoint")
    return checkpoint

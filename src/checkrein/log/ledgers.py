"""What an `AuditLog` stands on: a ledger, which makes entries durable under a signed head.

There are two: a directory for the processes of one machine
(`checkrein.log.directory`), and a PostgreSQL database for several hosts
(`checkrein.log.postgres`). Both hold to this:

* Entries are taken in the order in which they are given, all of a commit or none.
* A head is signed for what is there at that moment, by whomever it was written,
  and is given to nobody before it is durable together with its entries.
* No head is signed that is not an extension of every head this ledger knows of.
* What fails leaves the ledger as it was or unusable, never in doubt and in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from checkrein.errors import ConfigurationError
from checkrein.log import keys
from checkrein.log.note import Ed25519Signer, Signer, parse_vkey

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


PUBLISHED_FROM: Final = ".state/published-from"
"""Is in a directory to which a log in a database is published: nobody writes a log there."""


class Committed(NamedTuple):
    """What a commit gave: the index of its first entry, its head, and the hashes of its entries."""

    first: int
    note: str
    leaves: list[bytes]


class Ledger(Protocol):
    """Entries and signed heads, durable. `commit` is never called twice at a time."""

    @property
    def signer(self) -> Signer:
        """Who signs the heads; its name is the log's."""
        ...

    @property
    def where(self) -> str:
        """The place, as a person would name it, without passwords."""
        ...

    @property
    def directory(self) -> Path | None:
        """The directory that it is in, or is published to."""
        ...

    @property
    def size(self) -> int:
        """How many entries are durable, as far as this process knows."""
        ...

    @property
    def note(self) -> str:
        """The signed head of so many entries."""
        ...

    @property
    def backlog(self) -> float:
        """How much is to be published: at 1 it is time, above 16 late."""
        ...

    def commit(self, entries: list[bytes]) -> Committed:
        """Make *entries* durable.

        Raises:
            LogError: they are not durable, or not surely; the ledger takes no more.
            TamperedError: what is there was changed.
        """
        ...

    def publish(self, *, wait: bool) -> None:
        """Bring what is durable into its static form.

        Args:
            wait: for another process that does it; otherwise leave it to that.

        Raises:
            LogError: that failed, and can be tried again.
        """
        ...

    def entry(self, index: int) -> bytes:
        """Return the bytes of a published entry.

        Raises:
            LogError: there is no such entry, or it cannot be read.
            TamperedError: what is there was changed.
        """
        ...

    def erase(self, commitments: Collection[str], key: str = "") -> int:
        """Remove openings of published entries for good; return how many there were.

        Args:
            commitments: which ones.
            key: the id of a subject's key, whose openings go as well.

        Raises:
            LogError: that failed, and can be tried again.
        """
        ...

    def close(self) -> None:
        """Let go of all files and connections; also in a forked child. A second call does nothing.

        Never waits, and writes nothing.
        """
        ...


def authorised(signer: Signer | None, origin: str, directory: Path | None, *, new: bool) -> Signer:
    """Return who signs for the log *origin*.

    Args:
        signer: given by the caller; None is the key in the user's data directory.
        origin: the log's name.
        directory: where the log is, and no key must be.
        new: the log is new, and so is its key if none was given.

    Raises:
        ConfigurationError: signer and log do not belong together, or the key cannot be used.
    """
    if signer is None:
        if directory is not None:
            keys.refuse_inside(keys.key_path(origin), directory)
        signer = keys.default_signer_for(origin, create=new)
    if signer.name != origin or parse_vkey(signer.vkey).name != origin:
        raise ConfigurationError(f"the signer is {signer.name}, the log is {origin}")
    if directory is not None and isinstance(signer, Ed25519Signer) and signer.path is not None:
        keys.refuse_inside(signer.path, directory)
    return signer

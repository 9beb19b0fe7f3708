"""Logs for others to judge, and proofs from their tiles."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from checkrein.log.audit import AuditLog
from checkrein.log.directory import DirectoryLedger
from checkrein.log.disk import Disk
from checkrein.log.merkle import HashReader
from checkrein.log.note import Ed25519Signer
from checkrein.log.tilereader import TileReader

ORIGIN = "example.com/checkrein-test"
SIZES = (1, 2, 3, 255, 256, 257, 600, 70_000)
LARGEST = 65_535


class QuickDisk(Disk):
    """Writes for real and does not wait for the disk."""

    def sync(self, fd):
        pass

    def sync_directory(self, path):
        pass


def event(number: int, pad: str = "") -> dict[str, object]:
    """Return an event; some have letters of several bytes, and a line end."""
    more = {"text": "grüße\n你好"} if number % 5 == 0 else {}
    return {"type": "test", "n": number, **more, **({"pad": pad} if pad else {})}


def largest(number: int) -> dict[str, object]:
    """Return an event that as an entry is as long as any may be."""
    empty = len(f'{{"type":"test","n":{number},"pad":""}}')
    return {"type": "test", "n": number, "pad": "x" * (LARGEST - empty)}


class Grown(NamedTuple):
    """One log at several sizes: what was published then, and the key that signed it."""

    signer: Ed25519Signer
    published: dict[int, Path]

    @property
    def vkey(self) -> str:
        """The log's verifier key text."""
        return self.signer.vkey

    def older(self, size: int) -> Iterator[Path]:
        """Yield the heads of all smaller sizes."""
        for other, place in self.published.items():
            if other < size:
                yield place / "checkpoint"


def open_log(place: Path, signer: Ed25519Signer) -> AuditLog:
    """Open or start a log that does not wait for the disk."""
    return AuditLog(DirectoryLedger(place, signer, None, QuickDisk()))


def grow(place: Path, sizes: tuple[int, ...] = SIZES, signer: Ed25519Signer | None = None) -> Grown:
    """Write one log, and keep what is published at each of *sizes*."""
    signer = signer or Ed25519Signer.generate(ORIGIN)
    published = {}
    with open_log(place / "log", signer) as log:
        for size in sizes:
            more = [largest(i) if i in {2, 299} else event(i) for i in range(log.size, size)]
            log.append_many(more)
            log.publish()
            published[size] = place / str(size)
            shutil.copytree(log.directory, published[size], ignore=shutil.ignore_patterns(".state"))
    return Grown(signer, published)


def files(directory: Path) -> list[Path]:
    """Return the published files: head, tiles and bundles."""
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]


def entry(directory: Path, index: int, size: int) -> bytes:
    """Return entry *index* of the log of *size* entries."""
    return TileReader(directory, size).entry(index)


def tile_reader(directory: Path, size: int) -> HashReader:
    """Return a reader of the hashes in the tiles of the log of *size* entries."""
    return TileReader(directory, size)

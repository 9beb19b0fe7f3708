"""Publishing a log where others can read it: a web root, or a bucket of an S3-compatible store.

Only the static part of a log goes there: tiles, entry bundles, and a signed head as
``checkpoint``. Readers fetch the head first and then what it vouches for, so that comes
first and the head last, and at every moment a reader finds all that he needs.

1. What is read from the log's directory is verified against its published head before it
   leaves (`checkrein.log.proven`), whoever may have changed it there.
2. The checkpoint at the destination is read first, then the log's own. It must be signed by
   the log's key. If it is larger than the log's own, that is an old copy: `RollbackError`. If
   the log's own does not extend it, there is a fork: `TamperedError`.
3. What that checkpoint covers was sent before. The rest is sent, each file under the condition
   that none is there. Tiles and bundles never change, so if there is one, its bytes are
   compared; others mean another log or somebody's change: `TamperedError`.
4. With the first file it is tried whether the destination honours conditions; one that
   does not would let two publishers overwrite each other, and is refused.
5. The checkpoint is written last, if it is still the one that was read. If it is not,
   somebody else publishes this log as well, and all starts over from rule 2: the slower one
   finds that everything is there already, or goes on from there.
6. If any of this fails the checkpoint is as it was, and the same call may be made again.

The head is that of ``checkpoint``, with the cosignatures in ``.state/witnessed`` if they are
for the same one; or, if that is wanted, the one that witnesses cosigned last, even if the
log has grown since. Of two notes for the same head the destination keeps the one there if
it has a signature by somebody who has not signed ours.

A partial tile may be removed once the full one is there: a reader with an older head then
takes that (C2SP tlog-tiles). It is done after the checkpoint was written, if wanted, and
lists all that is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from checkrein.errors import ConfigurationError, LogError, RollbackError, TamperedError
from checkrein.log.checkpoint import Checkpoint, open_checkpoint
from checkrein.log.destinations import CHECKPOINT
from checkrein.log.disk import read_file
from checkrein.log.note import MAX_NOTE, Verifier, parse_vkey, split_note
from checkrein.log.proven import Proven
from checkrein.log.stored import consistency_to
from checkrein.log.tiles import WIDTH, parse_path, tile_path

if TYPE_CHECKING:
    import os

    from checkrein.log.destinations import Destination, Stored
    from checkrein.log.tiles import Tile

_ROUNDS: Final = 10
_MOST: Final = 64
_NO_TAG: Final = '"00000000000000000000000000000000"'


@dataclass(frozen=True, slots=True)
class Publication:
    """What was done.

    Attributes:
        origin: the log's name.
        size: how many entries the head at the destination covers now, at least.
        files: how many tiles and bundles were sent.
        octets: how many bytes they had.
        found: how many were there already, the same.
        removed: how many partial tiles were removed.
        changed: whether the checkpoint at the destination was replaced.
    """

    origin: str
    size: int
    files: int = 0
    octets: int = 0
    found: int = 0
    removed: int = 0
    changed: bool = False


class _Head(NamedTuple):
    """The head to publish, and the log's newest, which may be later."""

    note: bytes
    head: Checkpoint
    newest: Checkpoint


def publish(
    directory: str | os.PathLike[str],
    destination: Destination,
    *,
    vkey: str,
    cosigned: bool = False,
    everything: bool = False,
    prune: bool = False,
    workers: int = 8,
) -> Publication:
    """Bring the published part of a log to *destination*.

    Args:
        directory: the log's directory; the log may be open meanwhile.
        destination: from `checkrein.log.destinations.open_destination`.
        vkey: the log's verifier key text.
        cosigned: publish the head that witnesses cosigned last, and no other.
        everything: look at every file, also at those that the checkpoint there covers; those
            that are missing are sent again.
        prune: remove partial tiles at the destination of which the full one is there.
        workers: how many files are on their way at the same time, 1 to 64; so many are in
            memory, each of 16 MiB at most, most of them of some KiB.

    Returns:
        What was done.

    Raises:
        ConfigurationError: *vkey* or *workers* is not what it should be; the destination
            refuses, cannot be set up, or does not honour conditions.
        TamperedError: the log does not agree with its head; or what is at the destination is
            not of this log, or was changed, or is of another past of it.
        RollbackError: the destination, or the witnesses, have seen more of this log than is here.
        LogError: there is no log, or the disk or the destination fails.

    Example:
        >>> publish("audit/", open_destination("s3://logs/audit"), vkey=vkey)  # doctest: +SKIP
    """
    if not 1 <= workers <= _MOST:
        raise ConfigurationError(f"workers is a number from 1 to {_MOST}")
    source, verifier = Path(directory), parse_vkey(vkey)
    work = _Work(source, destination, verifier, workers)
    with destination.held(source):
        for _ in range(_ROUNDS):
            size = work.round(cosigned=cosigned, everything=everything)
            if size is not None:
                removed = work.prune(size) if prune else 0
                return Publication(
                    verifier.name, size, *work.sent, work.found, removed, work.changed
                )
    raise LogError("others change the checkpoint at the destination all the time; try again later")


class _Work:
    """One publication: what it has done so far."""

    def __init__(
        self, source: Path, destination: Destination, verifier: Verifier, workers: int
    ) -> None:
        self._source, self._destination = source, destination
        self._verifier, self._workers = verifier, workers
        self._honoured = False
        self.sent = (0, 0)
        self.found = 0
        self.changed = False

    def round(self, *, cosigned: bool, everything: bool) -> int | None:
        """Publish once; return the size that is there then, None if somebody else was quicker."""
        # The order matters: whoever published what is there had read a head of the log before.
        there = self._destination.read(CHECKPOINT, MAX_NOTE)
        ours = _head_of(self._source, self._verifier, cosigned=cosigned)
        old = _covered(self._source, there, ours.newest, self._verifier)
        if old > ours.head.size:
            return old
        proven = Proven(self._source, ours.head)
        if everything or old < ours.head.size:
            self._send(proven.since(0 if everything else old))
        if there is not None and not _is_better(ours, old, there):
            return old
        tag = None if there is None else there.tag
        if not self._destination.write(CHECKPOINT, ours.note, replacing=tag):
            return None
        self.changed = True
        return ours.head.size

    def _send(self, tiles: Iterable[Tile]) -> None:
        """Send *tiles*, the first one alone; no more are read than are on their way."""
        tiles = iter(tiles)
        for first in islice(tiles, 1):
            self._count(first, self._put(first))
            self._require_conditions(first)
        under_way: dict[Future[bool], Tile] = {}
        with ThreadPoolExecutor(self._workers) as pool:
            for tile in tiles:
                if len(under_way) == self._workers:
                    for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                        self._count(under_way.pop(done), done.result())
                under_way[pool.submit(self._put, tile)] = tile
            for rest, tile in under_way.items():
                self._count(tile, rest.result())

    def _count(self, tile: Tile, sent: bool) -> None:
        files, octets = self.sent
        if sent:
            self.sent = files + 1, octets + len(tile.data)
        else:
            self.found += 1

    def _put(self, tile: Tile) -> bool:
        """Send one file; tell whether it was sent, and not there before."""
        for _ in range(_ROUNDS):
            if self._destination.write(tile.path, tile.data):
                return True
            there = self._destination.read(tile.path, len(tile.data))
            if there is not None:
                break  # else another publisher has just removed it: it prunes
        else:
            raise LogError(f"{tile.path} comes and goes at the destination")
        if there.data != tile.data:
            raise TamperedError(
                f"{tile.path} at the destination has other bytes than this log gives: another log "
                "was published there, or somebody changed it. The checkpoint was not touched",
                where=tile.path,
            )
        return False

    def _require_conditions(self, tile: Tile) -> None:
        """See that a file that is there is overwritten neither as new nor by a wrong tag."""
        if self._honoured:
            return
        again = partial(self._destination.write, tile.path, tile.data)
        if again() or again(replacing=_NO_TAG):
            raise ConfigurationError(
                "the destination ignores If-None-Match or If-Match when an object is written, so "
                "that two publishers could overwrite each other; choose a store that honours them"
            )
        self._honoured = True

    def prune(self, size: int) -> int:
        """Remove partial tiles of which the full one is there; return how many."""
        removed, full = 0, ""
        for name in self._destination.names():
            level, number, width = parse_path(name) or (0, 0, WIDTH)
            if width == WIDTH or number >= size >> 8 * (max(level, 0) + 1):
                continue
            place = tile_path(level, number)
            if place != full and not self._destination.has(place):
                raise TamperedError(
                    f"{place} is missing at the destination, though the checkpoint there covers "
                    "it; publish everything again, without pruning",
                    where=place,
                )
            full = place
            self._destination.remove(name)
            removed += 1
        return removed


def _head_of(source: Path, verifier: Verifier, *, cosigned: bool) -> _Head:
    """Return the head to publish."""
    # Only a published head is cosigned, so what is read second is not smaller.
    witnessed = read_file(source / ".state" / "witnessed")
    note = read_file(source / CHECKPOINT)
    if note is None:
        raise LogError(f"there is no published log in {source}")
    newest = open_checkpoint(note, verifier)
    if witnessed is None:
        if cosigned:
            raise LogError("no witness has cosigned this log yet: checkrein log cosign")
        return _Head(note, newest, newest)
    seen = open_checkpoint(witnessed, verifier)
    if seen.size > newest.size:
        raise RollbackError(
            f"the log has {newest.size} published entries, and witnesses cosigned {seen.size}: it "
            "was cut back, or an old copy was put in its place",
            where=CHECKPOINT,
        )
    if consistency_to(source, seen.size, newest)[0] != seen.root:
        raise TamperedError("the log does not extend the head in .state/witnessed", where="tile")
    if cosigned or seen.size == newest.size:
        return _Head(witnessed, seen, newest)
    return _Head(note, newest, newest)


def _covered(source: Path, there: Stored | None, ours: Checkpoint, verifier: Verifier) -> int:
    """Return how many entries are published at the destination already."""
    if there is None:
        return 0
    try:
        old = open_checkpoint(there.data, verifier)
    except TamperedError as error:
        raise TamperedError(
            f"the checkpoint at the destination is not of this log: {error}", where=CHECKPOINT
        ) from error
    if old.size > ours.size:
        raise RollbackError(
            f"the checkpoint at the destination covers {old.size} entries, and the log here has "
            f"{ours.size} published ones: it is an older copy, or was cut back",
            where=CHECKPOINT,
        )
    if consistency_to(source, old.size, ours)[0] != old.root:
        raise TamperedError(
            f"the checkpoint at the destination is signed by this log's key, and its {old.size} "
            "entries are not those of the log here: one key has signed two pasts. Keep both",
            where=CHECKPOINT,
        )
    return old.size


def _is_better(ours: _Head, old: int, there: Stored) -> bool:
    """Tell whether our note is to replace the one there, which is of no larger head."""
    if ours.head.size > old:
        return True
    signed = {line[:2] for line in split_note(ours.note)[1]}
    return ours.note != there.data and {line[:2] for line in split_note(there.data)[1]} <= signed

"""`verify_log`: read a log's directory, trust nothing in it, and say what holds.

1. *content*: every entry, in bundles and journal, hashes to its hash in the tree.
2. *tree*: those hashes give the roots of all heads, published and in the journal,
   and every hash in every tile of every level.
3. *signature*: all heads are signed by the key that the caller gave or this user
   knows. Without a key the log only asserts itself: anybody could have written it.
4. *freshness*: a log that was cut back, or replaced by an older copy, is
   consistent in itself. Only a head kept elsewhere (a *pin*) shows that. Without
   a pin freshness is unknown, however good the rest is.

A commit cut short at the journal's end is reported; it was never acknowledged.
Nothing is written. A log may be verified while its writer works: if something
looks wrong and files have changed meanwhile, it is looked at again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from checkrein.errors import ConfigurationError, MisuseError, TamperedError
from checkrein.log.checkpoint import Checkpoint, open_checkpoint
from checkrein.log.completeness import Runs, Story
from checkrein.log.disk import read_file
from checkrein.log.journal import Frame, scan
from checkrein.log.keys import known_verifier
from checkrein.log.merkle import leaf_hashes
from checkrein.log.note import Verifier, parse_vkey
from checkrein.log.published import read_items
from checkrein.log.reading import Snapshot, decode_event, take_snapshot
from checkrein.log.tiles import (
    ENTRIES,
    WIDTH,
    Edge,
    Tile,
    encode_bundle,
    parse_path,
    split_hashes,
    tile_path,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_ATTEMPTS: Final = 5
_Stored: TypeAlias = dict[tuple[int, int], set[int]]


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify_log` found; read the fields, there is no single truth.

    Attributes:
        content: "ok" or "bad: ...": the entries are those in the tree.
        tree: "ok" or "bad: ...": tiles and heads are one tree.
        signature: "verified (given key)", "verified (known key)", "self-asserted" or "bad: ...".
        freshness: "unknown", "at least size N (pin)" or "bad: ...".
        origin: the log's name, as it says.
        size: how many entries were read.
        problems: each names its file or entry.
        in_doubt: ids of calls with an intent and no outcome.
        runs: which runs are open, or have gaps.
    """

    content: str
    tree: str
    signature: str
    freshness: str
    origin: str = ""
    size: int = 0
    problems: tuple[str, ...] = ()
    in_doubt: tuple[str, ...] = ()
    runs: Runs = field(default_factory=Runs)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong and a key vouches for it; freshness may be unknown."""
        return (
            self.content == self.tree == "ok"
            and self.signature.startswith("verified")
            and not self.freshness.startswith("bad")
            and not self.problems
        )

    def __bool__(self) -> NoReturn:
        raise MisuseError("a report is not true or false; read its fields, or .good")


def verify_log(
    directory: str | os.PathLike[str], *, vkey: str | None = None, pin: str | None = None
) -> Report:
    """Verify the log in *directory*, which may be closed, crashed or in use.

    Args:
        directory: the log's directory; nothing in it is changed.
        vkey: the log's verifier key text. Without it, the key that this user's data
            directory has for the log's origin.
        pin: a signed head of this log, kept elsewhere (`Position.checkpoint`).

    Returns:
        What holds and what does not.

    Raises:
        LogError: there is no log here, or it cannot be read.
        ConfigurationError: *vkey* or *pin* cannot be read.

    Example:
        >>> verify_log("audit/", vkey=published, pin=kept).good  # doctest: +SKIP
        True
    """
    path = Path(directory)
    given = None if vkey is None else parse_vkey(vkey)
    try:
        if pin is not None:
            open_checkpoint(pin, None)
    except TamperedError as error:
        raise ConfigurationError(f"the pin is not a signed head: {error}") from error
    attempts = 0
    while True:
        # Listed first: what is listed then has its entries in the snapshot.
        stored = _list_tiles(path)
        snapshot = take_snapshot(path)
        report = _Verification(path, stored, snapshot, given, pin).report()
        attempts += 1
        if not report.problems or attempts == _ATTEMPTS or take_snapshot(path) == snapshot:
            return report


class _Verification:
    """One pass over one snapshot."""

    def __init__(
        self,
        directory: Path,
        stored: _Stored,
        snapshot: Snapshot,
        given: Verifier | None,
        pin: str | None,
    ) -> None:
        self.directory, self.stored, self.snapshot = directory, stored, snapshot
        self.published = 0
        self.given, self.pin = given, pin
        self.pinned = None if pin is None else open_checkpoint(pin, None)
        self.content: list[str] = []
        self.tree: list[str] = []
        self.signature: list[str] = []
        self.freshness: list[str] = []
        self.other: list[str] = []
        self.story = Story()
        self.roots: dict[int, bytes] = {}

    def report(self) -> Report:
        """Verify everything."""
        try:
            claimed = open_checkpoint(self.snapshot.checkpoint or b"", None)
        except TamperedError as error:
            bad = f"bad: {error}"
            return Report(bad, bad, bad, "unknown", problems=(f"checkpoint: {error}",))
        verifier, vouched = self._key(claimed.origin)
        frames = self._heads(claimed, verifier)
        size = max([claimed.size, *(frame.end for frame in frames)])
        marks = {claimed.size, *(frame.end for frame in frames)}
        if self.pinned is not None and self.pinned.size <= size:
            marks.add(self.pinned.size)
        try:
            self._walk(claimed.size, size, frames, marks)
        except TamperedError as error:
            self.tree.append(str(error))
        self._compare_roots(claimed, frames)
        fresh = self._freshness(claimed.origin, size, verifier)
        return Report(
            _status(self.content, "ok"),
            _status(self.tree, "ok"),
            _status(self.signature, vouched),
            _status(self.freshness, fresh),
            claimed.origin,
            size,
            (*self.content, *self.tree, *self.signature, *self.freshness, *self.other),
            self.story.in_doubt(),
            self.story.runs(),
        )

    def _key(self, origin: str) -> tuple[Verifier | None, str]:
        if self.given is not None:
            return self.given, "verified (given key)"
        known = known_verifier(origin)
        if known is not None:
            return parse_vkey(known), "verified (known key)"
        return None, "self-asserted"

    def _heads(self, claimed: Checkpoint, verifier: Verifier | None) -> list[Frame]:
        """Return the journal's frames, after all signatures were checked."""
        try:
            open_checkpoint(self.snapshot.checkpoint or b"", verifier)
        except TamperedError as error:
            self.signature.append(f"checkpoint: {error}")
            verifier = None

        def check(note: bytes) -> Checkpoint:
            head = open_checkpoint(note, verifier)
            if head.origin != claimed.origin:
                raise TamperedError(f"its head is of the log {head.origin}", where="journal")
            return head

        found = scan(self.snapshot.journal, check)
        if found.broken:
            self.tree.append(f"journal: {found.broken}")
        if found.torn:
            self.other.append(
                f"journal: {found.torn} bytes of an unfinished commit at byte {found.stop}"
            )
        if found.frames and found.frames[0].first > claimed.size:
            first = found.frames[0].first
            self.tree.append(f"journal: entries {claimed.size} to {first - 1} are missing")
            return []
        return found.frames

    def _walk(self, published: int, size: int, frames: list[Frame], marks: set[int]) -> None:
        """Recompute everything, 256 entries at a time."""
        self.published = published
        journal = {i: e for frame in frames for i, e in enumerate(frame.entries, frame.first)}
        edge = Edge()
        self.roots[0] = edge.frontier().root()
        for start in range(0, size, WIDTH):
            stop = min(start + WIDTH, size)
            covered = max(start, min(published, stop))
            entries, leaves = self._read_chunk(start, covered, journal)
            tail = [journal[index] for index in range(covered, stop)]
            leaves += leaf_hashes(tail)
            told = tail if entries is None else entries + tail
            self._tell(stop - len(told), told)
            self._mark(edge, leaves, marks.intersection(range(start + 1, stop + 1)))
            versions = self.stored.pop((ENTRIES, start // WIDTH), set())
            if entries is not None:
                # A full bundle that was decoded strictly has no second spelling to compare.
                decoded = {WIDTH} if covered == start + WIDTH else set[int]()
                self._compare(ENTRIES, start // WIDTH, versions - decoded, told, self.content)
            for tile in edge.add(leaves):
                self._compare_tile(tile)
        for tile in edge.partials():
            self._compare_tile(tile)
        for (level, number), widths in sorted(self.stored.items()):
            for width in widths:
                path = tile_path(level, number, width)
                self.tree.append(f"{path}: lies behind the end of the log")

    def _read_chunk(
        self, start: int, stop: int, journal: dict[int, bytes]
    ) -> tuple[list[bytes] | None, list[bytes]]:
        """Return the published entries from *start* to *stop* and their hashes in the tree."""
        if start == stop:
            return [], []
        entries = self._read(ENTRIES, start // WIDTH, stop - start, self.content)
        hashes = self._read(0, start // WIDTH, stop - start, self.tree)
        leaves = leaf_hashes(entries or ())
        if hashes is None:
            if entries is None:
                raise TamperedError(f"entries {start} to {stop - 1} and their hashes are missing")
            return entries, leaves
        if entries is not None and leaves != hashes:
            paths = [tile_path(level, start // WIDTH, stop - start) for level in (ENTRIES, 0)]
            wrong = [start + i for i, leaf in enumerate(leaves) if leaf != hashes[i]]
            self.content += [f"{paths[0]}: entry {i} is not the one in {paths[1]}" for i in wrong]
        for index in range(start, stop) if journal else ():
            entry = journal.get(index)
            if entry is not None and leaf_hashes([entry]) != [hashes[index - start]]:
                self.tree.append(f"journal: entry {index} is not the published one")
        return entries, hashes

    def _read(self, level: int, number: int, width: int, problems: list[str]) -> list[bytes] | None:
        try:
            return read_items(self.directory, level, number, width)
        except TamperedError as error:
            problems.append(str(error))
            return None

    def _tell(self, first: int, entries: list[bytes]) -> None:
        tell = self.story.tell
        for index, entry in enumerate(entries, first):
            try:
                tell(decode_event(index, entry))
            except TamperedError as error:
                self.content.append(str(error))

    def _mark(self, edge: Edge, leaves: list[bytes], marks: set[int]) -> None:
        """Note the roots at the sizes in *marks*, which lie within these *leaves*."""
        if marks:
            tree = edge.frontier()
            for leaf in leaves:
                tree.push(leaf)
                if tree.size in marks:
                    self.roots[tree.size] = tree.root()

    def _compare_tile(self, tile: Tile) -> None:
        level, number = tile.level, tile.number
        widths = self.stored.pop((level, number), set())
        full, rest = divmod(self.published >> 8 * level, WIDTH)
        # What the head needs must be there; of level 0 that was seen when it was read.
        if level and (number < full or (number == full and rest)):
            widths.add(WIDTH if number < full else rest)
        self._compare(level, number, widths, split_hashes(tile.data), self.tree)

    def _compare(
        self, level: int, number: int, widths: set[int], items: list[bytes], problems: list[str]
    ) -> None:
        """Compare the stored versions of a tile or bundle with what it must hold."""
        for width in widths:
            path = tile_path(level, number, width)
            stored = read_file(self.directory / path)
            if width > len(items):
                problems.append(f"{path}: lies behind the end of the log")
            elif stored is None:
                # A writer removes a partial tile once there is the full one.
                if not (self.directory / tile_path(level, number)).is_file():
                    problems.append(f"{path}: is missing")
            elif stored != (encode_bundle if level == ENTRIES else b"".join)(items[:width]):
                problems.append(f"{path}: is not what the entries give")

    def _compare_roots(self, claimed: Checkpoint, frames: list[Frame]) -> None:
        if self.roots.get(claimed.size) != claimed.root:
            self.tree.append(f"checkpoint: its root is not that of the {claimed.size} entries")
        for frame in frames:
            if self.roots.get(frame.end) != frame.head.root:
                self.tree.append(f"journal: the head after entry {frame.end - 1} has another root")

    def _freshness(self, origin: str, size: int, verifier: Verifier | None) -> str:
        if self.pinned is None or self.pin is None:
            return "unknown"
        pinned = self.pinned
        if pinned.origin != origin:
            self.freshness.append(f"the pin is of the log {pinned.origin}")
        elif pinned.size > size:
            self.freshness.append(f"rolled back behind pin, from {pinned.size} entries to {size}")
        elif self.roots.get(pinned.size) != pinned.root:
            self.freshness.append(f"the log is not the one whose first {pinned.size} were pinned")
        if verifier is not None:
            try:
                open_checkpoint(self.pin, verifier)
            except TamperedError as error:
                self.freshness.append(f"the pin is not signed by the log's key: {error}")
        return f"at least size {pinned.size} (pin)"


def _list_tiles(directory: Path) -> _Stored:
    """Return which widths there are of each (level, number); other files are nobody's business."""
    stored: _Stored = {}
    for folder, _, names in os.walk(directory / "tile"):
        below = Path(folder).relative_to(directory).as_posix()
        for name in names:
            found = parse_path(f"{below}/{name}")
            if found is not None:
                level, number, width = found
                stored.setdefault((level, number), set()).add(width)
    return stored


def _status(problems: Sequence[str], otherwise: str) -> str:
    return f"bad: {problems[0]}" if problems else otherwise

"""`verify_log`: read a log's directory, trust nothing in it, and say what holds.

1. *content*: every entry, in bundles and journal, hashes to its hash in the tree.
2. *tree*: those hashes give the roots of all heads, published and in the journal,
   and every hash in every tile of every level. What is kept beside the tree for
   entries that commit to fields (`checkrein.log.openings`) is what they commit to.
3. *signature*: all heads are signed by the key that the caller gave or this user
   knows, or by those that it has handed over to (`checkrein.log.succession`). Without
   a key the log only asserts itself: anybody could have written it.
4. *freshness*: a log that was cut back, or replaced by an older copy, is
   consistent in itself. Only a head kept elsewhere (a *pin*) shows that. Without
   a pin freshness is unknown, however good the rest is.
5. *witnesses*: with a trust policy, which witnesses have cosigned a head of this
   log, whether they are a quorum, and when.

A commit cut short at the journal's end is reported; it was never acknowledged.
Nothing is written. A log may be verified while its writer works: if something
looks wrong and files have changed meanwhile, it is looked at again.

Whole tiles are checked in spans (`checkrein.log.spans`), in several processes if
that is asked for; the memory that it takes does not grow with the log, but for the
runs that are open in it. Who has verified a log up to a pin can have the entries
before it left out: the stored hashes must then give the pin's root.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import orjson

from checkrein.errors import ConfigurationError, MisuseError, TamperedError
from checkrein.log.checkpoint import Checkpoint, open_checkpoint
from checkrein.log.completeness import Runs, Story
from checkrein.log.disk import read_file
from checkrein.log.journal import Frame, scan
from checkrein.log.keys import known_verifier
from checkrein.log.merkle import EMPTY_ROOT, leaf_hashes, subtree_hash
from checkrein.log.note import Verifier, open_note, parse_vkey
from checkrein.log.published import read_items
from checkrein.log.reading import Snapshot, take_snapshot
from checkrein.log.shelf import stored_openings
from checkrein.log.spans import (
    SPAN,
    Checked,
    check_span,
    compare,
    differing,
    stored_widths,
    tell,
)
from checkrein.log.succession import Succession, opened_by
from checkrein.log.tilereader import TileReader
from checkrein.log.tiles import ENTRIES, WIDTH, Edge, Tile, parse_path, split_hashes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from checkrein.log.policy import Policy

_ATTEMPTS: Final = 5
_MOST_PROBLEMS: Final = 1000


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify_log` found; read the fields, there is no single truth.

    Attributes:
        content: "ok" or "bad: ...": the entries are those in the tree.
        tree: "ok" or "bad: ...": tiles and heads are one tree.
        signature: "verified (given key)", "verified (known key)", "self-asserted" or "bad: ...".
        freshness: "unknown", "at least size N (pin)" or "bad: ...".
        origin: the log's name, as it says.
        size: how many entries there are.
        problems: each names its file or entry; at most a thousand.
        in_doubt: ids of calls with an intent and no outcome.
        runs: which runs are open, or have gaps; which calls have no intent.
        witnesses: "not asked", "2 of 3, a quorum, size N, as of TIME", or "bad: ...".
        since: entries before this number were not read again; 0 where all were.
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
    witnesses: str = "not asked"
    since: int = 0

    @property
    def good(self) -> bool:
        """Whether nothing is wrong and a key vouches for it; freshness may be unknown."""
        return (
            self.content == self.tree == "ok"
            and self.signature.startswith("verified")
            and not self.freshness.startswith("bad")
            and not self.witnesses.startswith("bad")
            and not self.problems
        )

    @property
    def complete(self) -> bool:
        """Whether the entries tell of nothing that is missing, left open or in doubt."""
        runs = self.runs
        return not (runs.open or runs.gaps or runs.orphans or self.in_doubt)

    def __bool__(self) -> NoReturn:
        raise MisuseError("a report is not true or false; read its fields, or .good")


def verify_log(
    directory: str | os.PathLike[str],
    *,
    vkey: str | None = None,
    pin: str | None = None,
    policy: Policy | None = None,
    after_pin: bool = False,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Verify the log in *directory*, which may be closed, crashed or in use.

    Args:
        directory: the log's directory; nothing in it is changed.
        vkey: the log's verifier key text. Without it, the policy's, or the key that this
            user's data directory has for the log's origin.
        pin: a signed head of this log, kept elsewhere (`Position.checkpoint`).
        policy: which witnesses must have cosigned; see `checkrein.log.policy`.
        after_pin: leave out the entries before *pin*, which were verified when it was
            taken. What they say of runs and calls is not known then.
        processes: how many to use. With more than one, a program's main module must be
            guarded by ``if __name__ == "__main__":``.
        progress: called now and then with how many entries were checked, of how many.

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
    if after_pin and pin is None:
        raise ConfigurationError("after_pin=True takes pin=<the head that was verified>")
    if processes < 1:
        raise ConfigurationError("processes= takes a number from 1")
    try:
        if pin is not None:
            open_checkpoint(pin, None)
    except TamperedError as error:
        raise ConfigurationError(f"the pin is not a signed head: {error}") from error
    attempts = 0
    with _spans(processes) as check:
        while True:
            # Looked at first: what is there then has its entries in the snapshot.
            furthest = _furthest(path)
            snapshot = take_snapshot(path)
            work = _Verification(path, snapshot, given, pin, policy)
            work.furthest, work.after_pin, work.check = furthest, after_pin, check
            work.progress = progress or work.progress
            report = work.report()
            attempts += 1
            if not report.problems or attempts == _ATTEMPTS or take_snapshot(path) == snapshot:
                return report


class _Verification:
    """One pass over one snapshot."""

    def __init__(
        self,
        directory: Path,
        snapshot: Snapshot,
        given: Verifier | None,
        pin: str | None,
        policy: Policy | None,
    ) -> None:
        self.directory, self.snapshot = directory, snapshot
        self.published = 0
        self.given, self.pin, self.policy = given, pin, policy
        self.pinned = None if pin is None else open_checkpoint(pin, None)
        self.after_pin = False
        self.furthest: dict[int, tuple[int, int, str]] = {}
        self.check: _Check = _check_here
        self.progress: Callable[[int, int], None] = lambda _done, _all: None
        self.content: list[str] = []
        self.tree: list[str] = []
        self.signature: list[str] = []
        self.freshness: list[str] = []
        self.vouched: list[str] = []
        self.other: list[str] = []
        self.story = Story()
        self.succession: Succession | None = None
        self.roots: dict[int, bytes] = {0: EMPTY_ROOT}

    def report(self) -> Report:
        """Verify everything."""
        try:
            claimed = open_checkpoint(self.snapshot.checkpoint or b"", None)
        except TamperedError as error:
            bad = f"bad: {error}"
            return Report(bad, bad, bad, "unknown", problems=(f"checkpoint: {error}",))
        verifier, vouched = self._key(claimed.origin)
        frames = self._heads(claimed)
        size = max([claimed.size, *(frame.end for frame in frames)])
        witnessed = self._witnessed_head()
        marks = {claimed.size, *(frame.end for frame in frames)}
        marks |= {one.size for one in (self.pinned, witnessed) if one is not None}
        since = 0
        try:
            since = self._walk(claimed, size, frames, {one for one in marks if one <= size})
        except TamperedError as error:
            self.tree.append(str(error))
        self._compare_roots(claimed, frames)
        vouched = self._signatures(claimed, frames, verifier, vouched)
        self._check_openings(claimed.size, frames)
        fresh = self._freshness(claimed.origin, size, verifier)
        problems = (*self.content, *self.tree, *self.signature, *self.freshness)
        return Report(
            _status(self.content, "ok"),
            _status(self.tree, "ok"),
            _status(self.signature, vouched),
            _status(self.freshness, fresh),
            claimed.origin,
            size,
            (*problems, *self.vouched, *self.other)[:_MOST_PROBLEMS],
            self.story.in_doubt(),
            self.story.runs(),
            self._witnesses(witnessed, size),
            since,
        )

    # Keys and heads

    def _key(self, origin: str) -> tuple[Verifier | None, str]:
        if self.given is not None:
            return self.given, "verified (given key)"
        for key in self.policy.keys_of(origin) if self.policy else ():
            if isinstance(key, Verifier):
                return key, "verified (key of the policy)"
        known = known_verifier(origin)
        if known is not None:
            return parse_vkey(known), "verified (known key)"
        return None, "self-asserted"

    def _heads(self, claimed: Checkpoint) -> list[Frame]:
        """Return the journal's frames; who signed them is seen when all keys are known."""

        def check(note: bytes) -> Checkpoint:
            head = open_checkpoint(note, None)
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

    def _signatures(
        self, claimed: Checkpoint, frames: list[Frame], verifier: Verifier | None, vouched: str
    ) -> str:
        """Check who signed the heads; return what vouches for the log."""
        if verifier is None:
            return vouched
        if verifier.name != claimed.origin:
            self.signature.append("checkpoint: it is of another log than the key")
            return vouched
        keys = self.succession = Succession(claimed.origin, verifier)
        tree = self._reader(claimed.size, frames)
        keys.follow((event["size"], event) for event in self.story.keys if _is_there(tree, event))
        heads = [("checkpoint", self.snapshot.checkpoint or b"", claimed.size)]
        heads += [("journal", frame.note, frame.end) for frame in frames]
        for name, note, size in heads:
            try:
                problem = keys.may_sign(opened_by(note, keys.keys), size)
            except TamperedError as error:
                problem = str(error)
            if problem:
                _extend(self.signature, [f"{name}: {problem}"])
        if not keys.line:
            return vouched
        count = len(keys.line)
        return (
            f"{vouched.removesuffix(')')}, {count} {'change' if count == 1 else 'changes'} of keys)"
        )

    def _reader(self, published: int, frames: list[Frame]) -> TileReader:
        tail = [e for one in frames for i, e in enumerate(one.entries, one.first) if i >= published]
        return TileReader(self.directory, published, tail)

    def _witnessed_head(self) -> Checkpoint | None:
        """Return the head that witnesses have cosigned, as a policy of ours sees it."""
        if self.policy is None:
            return None
        notes = (read_file(self.directory / ".state" / "witnessed"), self.snapshot.checkpoint)
        reason = "no head is signed by a log of the policy"
        for note in notes:
            try:
                found = self.policy.check(note or b"", now=int(time.time()))
            except TamperedError as error:
                reason = str(error)
                continue
            if not found.holds:
                reason = found.shortfall
                continue
            self.witnessed = found
            return found.checkpoint
        self.vouched.append(f"witnesses: {reason}")
        return None

    def _witnesses(self, head: Checkpoint | None, size: int) -> str:
        if self.policy is None:
            return "not asked"
        if head is not None and self.roots.get(head.size) != head.root:
            there = "rolled back behind" if head.size > size else "not the one with"
            self.vouched.append(f"witnesses: the log is {there} the head that they have seen")
        if self.vouched or head is None:
            return _status(self.vouched, "")
        found, known = self.witnessed, len(self.policy.witnesses)
        seen = f"{len(found.seen)} of {known}, a quorum, size {head.size}"
        if found.as_of is None:
            return seen
        return f"{seen}, as of {time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(found.as_of))}"

    # The entries

    def _walk(self, claimed: Checkpoint, size: int, frames: list[Frame], marks: set[int]) -> int:
        """Recompute everything; return from which entry on."""
        self.published = claimed.size
        journal = {i: e for frame in frames for i, e in enumerate(frame.entries, frame.first)}
        edge = self._start(claimed.size)
        since = edge.size
        bulk = min(claimed.size, min(journal, default=claimed.size)) // WIDTH
        self._check_bulk(edge, bulk, size)
        for start in range(edge.size, size, WIDTH):
            stop = min(start + WIDTH, size)
            self._check_chunk(edge, start, stop, journal, marks)
            self.progress(stop, size)
        for tile in edge.partials():
            self._compare_tile(tile)
        self._look_behind(size)
        for mark in marks:
            if mark <= bulk * WIDTH and mark:
                # Every tile that is read here was just seen to be what the entries give.
                read = TileReader(self.directory, claimed.size)
                self.roots[mark] = subtree_hash(0, mark, read)
        return since

    def _start(self, published: int) -> Edge:
        """Return the edge to begin at: that of the pin, if what lies before it is left out."""
        pinned = self.pinned
        if not self.after_pin or pinned is None or not WIDTH <= pinned.size <= published:
            return Edge()

        def read(level: int, number: int, width: int) -> list[bytes]:
            stored = min(WIDTH, (published >> 8 * level) - number * WIDTH)  # wider by now
            return read_items(self.directory, level, number, stored)[:width]

        edge = Edge.load(pinned.size, read)
        if edge.frontier().root() != pinned.root:
            raise TamperedError("the stored hashes before the pin do not give its root")
        self.story = Story(whole=False)
        edge.size -= pinned.size % WIDTH
        edge.rows[0] = []
        return edge

    def _check_bulk(self, edge: Edge, stop: int, size: int) -> None:
        """Check the full tiles up to number *stop*."""
        first = edge.size // WIDTH
        bounds = [*range(first - first % SPAN + SPAN, stop, SPAN), stop]
        starts = [first, *bounds]
        spans = [(a, b) for a, b in zip(starts, bounds, strict=False) if a < b]
        for found in self.check(str(self.directory), spans):
            _extend(self.content, found.content)
            _extend(self.tree, found.tree)
            self.story.join(found.story)
            for root in found.roots:
                for tile in edge.add_full(root):
                    self._compare_tile(tile)
            self.progress(edge.size, size)

    def _check_chunk(
        self, edge: Edge, start: int, stop: int, journal: dict[int, bytes], marks: set[int]
    ) -> None:
        """Check at most 256 entries, published or in the journal or both."""
        covered = max(start, min(self.published, stop))
        entries, leaves = self._read_chunk(start, covered, journal)
        tail = [journal[index] for index in range(covered, stop)]
        leaves += leaf_hashes(tail)
        told = tail if entries is None else entries + tail
        _extend(self.content, tell(self.story, stop - len(told), told))
        self._mark(edge, leaves, marks.intersection(range(start + 1, stop + 1)))
        if entries is not None:
            number = start // WIDTH
            # A full bundle that was decoded strictly has no second spelling to compare.
            decoded = {WIDTH} if covered == start + WIDTH else set[int]()
            widths = stored_widths(self.directory, ENTRIES, number) - decoded
            _extend(self.content, compare(self.directory, ENTRIES, number, widths, told))
        for tile in edge.add(leaves):
            self._compare_tile(tile)

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
        if entries is not None:
            _extend(self.content, differing(start // WIDTH, leaves, hashes))
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
        widths = stored_widths(self.directory, level, number)
        full, rest = divmod(self.published >> 8 * level, WIDTH)
        # What the head needs must be there; of level 0 that was seen when it was read.
        if level and (number < full or (number == full and rest)):
            widths.add(WIDTH if number < full else rest)
        items = split_hashes(tile.data)
        _extend(self.tree, compare(self.directory, level, number, widths, items))

    def _look_behind(self, size: int) -> None:
        """Report tiles of which no entry of the log can be the reason."""
        for level, (number, width, path) in sorted(self.furthest.items()):
            if number * WIDTH + width > size >> 8 * max(level, 0):
                self.tree.append(f"{path}: lies behind the end of the log")

    def _check_openings(self, published: int, frames: list[Frame]) -> None:
        """See that what is kept beside the tree is what the entries are committed to."""
        tree = self._reader(published, frames)
        try:
            for one in stored_openings(self.directory):
                one.check()
                entry = tree.entry(one.index) if one.index < tree.size else b""
                if f'"{one.commitment}"'.encode() not in entry:
                    self.content.append(f"openings: one is of no field of entry {one.index}")
        except TamperedError as error:
            self.content.append(f"openings: {error}")

    # What it comes to

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
                open_note(self.pin, self.succession.keys if self.succession else [verifier])
            except TamperedError as error:
                self.freshness.append(f"the pin is not signed by the log's key: {error}")
        return f"at least size {pinned.size} (pin)"


# -- spans, here or in other processes ------------------------------------------------------

_Span = tuple[int, int]
if TYPE_CHECKING:
    _Check = Callable[[str, Sequence[_Span]], Iterator[Checked]]


def _check_here(directory: str, spans: Sequence[_Span]) -> Iterator[Checked]:
    return (check_span(directory, first, stop) for first, stop in spans)


@contextmanager
def _spans(processes: int) -> Generator[_Check]:
    """Lend what checks spans, in order, here or in so many processes."""
    if processes == 1:
        yield _check_here
        return
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415 (slow to load)

    # Not forked: this process may have threads, which a fork would cut off in the middle.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:

        def check(directory: str, spans: Sequence[_Span]) -> Iterator[Checked]:
            ahead: deque[Future[Checked]] = deque()
            for first, stop in spans:
                ahead.append(pool.submit(check_span, directory, first, stop))
                if len(ahead) > 2 * processes:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

        yield check


def _is_there(tree: TileReader, event: dict[str, Any]) -> bool:
    """Tell whether an entry about keys stands where it says."""
    size = event.get("size")
    if type(size) is not int or not 0 <= size < tree.size:
        return False
    try:
        return bool(orjson.loads(tree.entry(size)) == event)
    except (TamperedError, orjson.JSONDecodeError):
        return False


def _furthest(directory: Path) -> dict[int, tuple[int, int, str]]:
    """Return number, width and path of the last tile of each level; no other files count."""
    last: dict[int, tuple[int, int, str]] = {}
    for folder, _, names in os.walk(directory / "tile"):
        below = Path(folder).relative_to(directory).as_posix()
        for name in names:
            found = parse_path(f"{below}/{name}")
            if found is not None:
                level, number, width = found
                last[level] = max(last.get(level, (-1, 0, "")), (number, width, f"{below}/{name}"))
    return last


def _extend(problems: list[str], more: Iterable[str]) -> None:
    """Add problems, but not without end: a log may be wrong in every entry."""
    for one in more:
        if len(problems) < _MOST_PROBLEMS:
            problems.append(one)


def _status(problems: Sequence[str], otherwise: str) -> str:
    return f"bad: {problems[0]}" if problems else otherwise

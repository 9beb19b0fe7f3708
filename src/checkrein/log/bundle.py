"""Evidence bundles: some entries of a log, each with its receipt, for people who have no log.

A bundle is a directory, or a zip of it::

    manifest.json               what this is; see below
    manifest.sha256             the SHA-256 of manifest.json, in the form of sha256sum
    entries.jsonl               one line an entry: {"index":n,"entry":"<base64>"}
    openings.jsonl              values that entries commit to, if any are disclosed
    receipts/<n>.tlog-proof     the receipt of entry n, all against the one head below
    checkpoint                  that head, signed
    key.vkey                    the log's public key
    report.json                 what verifying the whole log found when this was exported
    verify.py                   a copy of `checkrein.log.standalone`, which see for how to verify

An entry is JSON already. It is in base64 all the same, because a receipt is for
exact bytes: a program that reads JSON and writes it again, an editor that adds a
line end, or a mail that is recoded would otherwise break every receipt of honest
evidence. Text in lines is still easy to split, to count and to diff.

manifest.json is JSON in one form (indent 1, sorted names, ASCII)::

    format      "checkrein-evidence/v1"
    checkrein   the version of this library
    origin      the log's name
    size        how many entries the head covers
    entries     the indices of those that are here
    chosen      why these: {"by": "all"}, {"by": "range", "from", "to"}, or by a "run" or
                "call" with its "id", and the "runs" that were taken for it
    exported    {"by", "at"}: who says to have exported it, and when; only if that was given
    note        not to trust the copy of the verifier that comes with the evidence
    files       name to SHA-256, of every file but manifest.json and manifest.sha256

A zip is sorted and undated, and its files are stored, not compressed. So the same
choice of the same log gives the same bytes on every machine, unless it says who
exported it; and a verifier that takes no other form cannot be made to unpack more
than it was given.

The receipts vouch for the entries, and for nothing else: the manifest, the report
and the choice are the exporter's word. Somebody who leaves entries out does not
get caught by the bundle, but by the sequence numbers within the runs, by a bundle
of all entries, or by the log.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from checkrein.errors import ConfigurationError, LogError, TamperedError
from checkrein.log import shelf, standalone
from checkrein.log.answers import runs_about
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.disk import as_log_error
from checkrein.log.note import parse_vkey
from checkrein.log.openings import disclosed
from checkrein.log.reading import decode_event
from checkrein.log.receipt import SUFFIX, receipt_of
from checkrein.log.tilereader import TileReader, open_tree
from checkrein.log.verify import Report, verify_log
from checkrein.setups import installed_version

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterator

_NOTE: Final = (
    "verify.py is a copy for convenience. Do not trust a verifier that comes with the evidence: "
    "take checkrein/log/standalone.py from a release, and the key from its owner."
)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which entries go into a bundle; all of them, if nothing is said.

    Args:
        run: those of the runs whose id begins like this.
        call: those that the answers about this call are drawn from: its run, the runs
            around and inside of it, and those that it goes on with.
        first: the number of the first one.
        last: the number of the last one, which is included.

    Raises:
        ConfigurationError: more than one of run, call and a range is named.
    """

    run: str = ""
    call: str = ""
    first: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        ranged = self.first is not None or self.last is not None
        if bool(self.run) + bool(self.call) + ranged > 1:
            raise ConfigurationError("choose entries by a run, by a call, or by their numbers")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported.

    Attributes:
        origin: the log's name.
        entries: the numbers of the entries in the bundle.
        manifest: the SHA-256 of manifest.json; write it where the bundle cannot be changed.
        report: what verifying the whole log found.
    """

    origin: str
    entries: tuple[int, ...]
    manifest: str
    report: Report


@dataclass(frozen=True, slots=True)
class Shown:
    """What a bundle has shown. Where it does not, there is an error instead.

    Attributes:
        origin: the log's name.
        size: how many entries its head covers.
        entries: entry bytes by number.
        freshness: what is known of the log since: "unknown", from a bundle alone.
        disclosed: by number, the values that the entry commits to, by their paths.
    """

    origin: str
    size: int
    entries: dict[int, bytes]
    freshness: str = "unknown"
    disclosed: dict[int, dict[str, Any]] = field(default_factory=dict[int, dict[str, Any]])


def export_bundle(
    directory: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    vkey: str,
    choice: Choice | None = None,
    disclose: Collection[str] = (),
    by: str = "",
    at: str = "",
) -> Exported:
    """Write an evidence bundle of the published entries of a log.

    Args:
        directory: the log's directory; the log may be open or crashed.
        out: where to write it; a zip if that ends in ``.zip``, else a directory. It must not
            be there yet, and is written whole or not at all, for its owner only.
        vkey: the log's verifier key text.
        choice: which entries; all, if left out.
        disclose: which fields that entries only commit to are shown: their paths, such as
            ``arguments.to``, which stand for all below them, or "*" for all.
        by: who exports it, for the record.
        at: when, for the record.

    Returns:
        What was written. A report that is not good does not keep anybody from
        exporting the entries that still have receipts.

    Raises:
        LogError: there is no log, no such entry, or the bundle cannot be written.
        ConfigurationError: the key cannot be read, *out* is there, or that is too much.
        TamperedError: the head is not signed by the key, or a chosen entry was changed.

    Example:
        >>> export_bundle("audit/", "case-17.zip", vkey=published)  # doctest: +SKIP
    """
    out, choice = Path(out), choice or Choice()
    if os.path.lexists(out):
        raise ConfigurationError(f"{out} is there already; choose another name for the bundle")
    tree, note = open_tree(directory)
    head = open_checkpoint(note, parse_vkey(vkey))
    chosen, indexes = _choose(tree, head.size, choice)
    report = verify_log(directory, vkey=vkey)
    files = {
        "entries.jsonl": b"".join(_line(index, tree.entry(index)) for index in indexes),
        "checkpoint": note.encode(),
        "key.vkey": f"{vkey}\n".encode(),
        "report.json": _json({**asdict(report), "good": report.good}),
        "verify.py": Path(standalone.__file__).read_bytes(),
    }
    shown = b"".join(
        opening.line()
        for index in (indexes if disclose else ())
        for opening in shelf.disclose(Path(directory), index, tree.entry(index), disclose)
    )
    if shown:
        files[standalone.OPENINGS] = shown
    for index in indexes:
        files[f"receipts/{index}{SUFFIX}"] = receipt_of(tree, note, index).to_text().encode()
    manifest = _json({
        "format": standalone.FORMAT,
        "checkrein": installed_version(),
        "origin": head.origin,
        "size": head.size,
        "entries": indexes,
        "chosen": chosen,
        **({"exported": {"by": by, "at": at}} if by or at else {}),
        "note": _NOTE,
        "files": {name: sha256(data).hexdigest() for name, data in files.items()},
    })  # fmt: skip
    digest = sha256(manifest).hexdigest()
    files |= {"manifest.json": manifest, "manifest.sha256": f"{digest}  manifest.json\n".encode()}
    # What a zip needs beside a file is less than that.
    if sum(len(data) + 200 for data in files.values()) > standalone.LARGEST:
        raise ConfigurationError(
            f"a bundle has at most {standalone.LARGEST} bytes, or nobody could verify it: choose "
            "fewer entries, and make several bundles"
        )
    with _in_our_words(f"writing the bundle {out}"):
        standalone.check_bundle(files, vkey)
        _write(out, files)
    return Exported(head.origin, tuple(indexes), digest, report)


def verify_bundle(bundle: str | os.PathLike[str], *, vkey: str) -> Shown:
    """Verify an evidence bundle: as `checkrein.log.standalone` does, which it calls.

    Args:
        bundle: the directory or the zip.
        vkey: the log's verifier key text, from a source that you trust: not from the bundle.

    Returns:
        What was shown.

    Raises:
        TamperedError: something in the bundle does not hold.
        ConfigurationError: *vkey* cannot be read, or the bundle is of a later format.
        LogError: the bundle cannot be read.
    """
    parse_vkey(vkey)
    with _in_our_words(f"reading the bundle {os.fspath(bundle)}"):
        files = standalone.read_bundle(os.fspath(bundle))
        manifest = standalone.check_bundle(files, vkey)
    lines = map(json.loads, files["entries.jsonl"].splitlines())
    entries = {line["index"]: base64.b64decode(line["entry"]) for line in lines}
    values: dict[int, dict[str, Any]] = {}
    for line in files.get(standalone.OPENINGS, b"").splitlines(keepends=True):
        index = json.loads(line)["index"]
        values.setdefault(index, {}).update(disclosed(entries[index], line))
    return Shown(manifest["origin"], manifest["size"], entries, disclosed=values)


def _choose(tree: TileReader, size: int, choice: Choice) -> tuple[dict[str, Any], list[int]]:
    """Return what the manifest says of the choice, and the numbers of the entries."""
    if choice.run or choice.call:
        return _choose_runs(tree, size, choice)
    first = 0 if choice.first is None else choice.first
    last = size - 1 if choice.last is None else choice.last
    if not 0 <= first <= last < size:
        raise LogError(
            f"there are no entries {first} to {last}: the published head covers {size}, numbered "
            "from 0. If they were appended since, publish the log first"
        )
    whole = choice.first is None and choice.last is None
    chosen = {"by": "all"} if whole else {"by": "range", "from": first, "to": last}
    return chosen, list(range(first, last + 1))


def _choose_runs(tree: TileReader, size: int, choice: Choice) -> tuple[dict[str, Any], list[int]]:
    if choice.call:
        told = {"by": "call", "id": choice.call}
        runs = runs_about(choice.call, (event for _, event in _events(tree, size)))
    else:
        told = {"by": "run", "id": choice.run}
        named = (event.get("run") for _, event in _events(tree, size))
        runs = {run for run in named if type(run) is str and run.startswith(choice.run)}
    indexes = [i for i, event in _events(tree, size) if _run_of(event) in runs]
    if not indexes:
        raise LogError(
            f"no published entry is of that {told['by']}; checkrein log show prints the ids. If it "
            "is a new one, publish the log first"
        )
    return {**told, "runs": sorted(runs)}, indexes


def _events(tree: TileReader, size: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for index in range(size):
        # What is no event is of no run; the report has it among its problems.
        with suppress(TamperedError):
            yield index, decode_event(index, tree.entry(index))


def _run_of(event: dict[str, Any]) -> str | None:
    run = event.get("run")
    return run if type(run) is str else None


def _line(index: int, entry: bytes) -> bytes:
    return b'{"index":%d,"entry":"%b"}\n' % (index, base64.b64encode(entry))


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def _write(out: Path, files: dict[str, bytes]) -> None:
    """Write the bundle beside its place, and put it there whole."""
    beside = Path(tempfile.mkdtemp(prefix=f"{out.name}.", dir=out.parent))
    try:
        if out.suffix == ".zip":
            (beside / "zip").write_bytes(standalone.zip_of(files))
            (beside / "zip").chmod(0o600)
            (beside / "zip").rename(out)
            return
        (beside / "receipts").mkdir()
        for name, data in files.items():
            (beside / name).write_bytes(data)
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _in_our_words(doing: str) -> Generator[None]:
    """Turn the errors of the stand-alone verifier into those of this library."""
    try:
        with as_log_error(doing):
            yield
    except standalone.Bad as error:
        raise TamperedError(f"{doing}: {error}", where="bundle") from None
    except standalone.CannotTell as error:
        raise ConfigurationError(f"{doing}: {error}") from None

"""``log prove``, ``log export`` and ``log check``: evidence for people who do not have the log.

A proof is printed as it is, so that it can be kept; one whose names hold what a
terminal may act on is only written to a file. A file that is there is never
overwritten: it may be the older half of the evidence.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from checkrein.cli.logs import key_text
from checkrein.cli.screen import Screen, safe_json
from checkrein.errors import ConfigurationError, TamperedError
from checkrein.log import AuditLog, shelf
from checkrein.log import receipt as receipts
from checkrein.log.bundle import Choice, Shown, export_bundle, verify_bundle
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.keys import known_verifier
from checkrein.log.openings import disclosed
from checkrein.log.tilereader import open_tree
from checkrein.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from checkrein.log.receipt import Extended, Included


class Given(NamedTuple):
    """The files that go with a proof.

    Attributes:
        entry: the entry's exact bytes, of a receipt.
        since: the earlier signed head, of a consistency proof.
        openings: what opens fields of the entry.
    """

    entry: Path | None = None
    since: Path | None = None
    openings: Path | None = None


class Wanted(NamedTuple):
    """What is to be exported.

    Attributes:
        choice: which entries, as `Choice` takes it.
        disclose: which fields that entries only commit to.
        key: the log's public key, or the path of a file that holds it.
        by: who exports it; then the time is written down as well.
        record: whether the log is to say so.
    """

    choice: Mapping[str, Any]
    disclose: tuple[str, ...] = ()
    key: str = ""
    by: str = ""
    record: bool = True


def prove(
    directory: Path,
    index: int | None,
    *,
    since: Path | None,
    out: Path | None,
    entry: Path | None,
    shown: tuple[Path | None, tuple[str, ...]] = (None, ()),
) -> int:
    """Make a receipt for an entry, or the proof that the log has only grown.

    Args:
        directory: the log's directory.
        index: the number of the entry.
        since: a file with a signed head; then there is no *index*.
        out: where to write the proof, if it is not to be printed.
        entry: where to write the entry's exact bytes.
        shown: where to write what opens fields of it, and which fields.

    Returns:
        The exit code.

    Raises:
        LogError: there is no log, or no such entry in its published part.
        ConfigurationError: what is asked for is unclear, or a file cannot be read or written.
        TamperedError: the log was changed, or is not the one of *since*.
    """
    if (index is None) == (since is None):
        raise ConfigurationError("name either the number of an entry, or --since FILE")
    openings, disclose = shown
    if (openings is None) != (not disclose):
        raise ConfigurationError("--openings FILE goes with --disclose PATH, once or more")
    if since is not None:
        if entry is not None or openings is not None:
            raise ConfigurationError(
                "--entry and --openings are for the receipt of one entry, not with --since"
            )
        text = receipts.prove_consistency_between(directory, read_bytes(since)).to_text()
    else:
        assert index is not None
        tree, note = open_tree(directory)
        text = receipts.receipt_of(tree, note, index).to_text()
        if openings is not None:
            found = shelf.disclose(directory, index, tree.entry(index), disclose)
            if not found:
                raise ConfigurationError("the entry has no such field, or it was erased")
            write_new(openings, b"".join([one.line() for one in found]))
        if entry is not None:
            write_new(entry, tree.entry(index))
    if out is not None:
        write_new(out, text.encode())
    else:
        _print(text)
    return 0


def check(proof: Path, given: Given, *, key: str, as_json: bool) -> int:
    """Check a receipt, or the proof that a log has only grown, and print what it shows.

    Args:
        proof: the file with the proof; or a bundle, with no other file.
        given: the other files.
        key: the log's public key, or the path of a file that holds it.
        as_json: print JSON.

    Returns:
        The exit code; where the proof does not hold, there is an error instead.

    Raises:
        TamperedError: the proof does not hold.
        ConfigurationError: what is asked for is unclear, or a file or the key cannot be read.
    """
    found: Included | Extended | Shown
    entry, since, openings = given
    values: dict[str, Any] = {}
    if openings is not None and entry is None:
        raise ConfigurationError("--openings goes with the --entry that they are of")
    if entry is not None and since is None:
        found, what, whose = _check_receipt(read_bytes(proof), read_bytes(entry), key)
        if openings is not None:
            values = disclosed(read_bytes(entry), read_bytes(openings))
    elif since is not None and entry is None:
        found, what, whose = _check_consistency(read_bytes(proof), read_bytes(since), key)
    elif entry is None and (proof.is_dir() or proof.suffix == ".zip"):
        found, what, whose = _check_bundle(proof, key)
    else:
        raise ConfigurationError("a receipt is checked with --entry FILE, or a proof --since FILE")
    screen = Screen()
    if as_json:
        fields = asdict(found)
        if isinstance(found, Shown):  # what they say is for log show, and not to be taken from here
            fields["entries"] = list(found.entries)
        if values:
            fields["disclosed"] = values
        screen.say(safe_json({**fields, "signature": whose, "good": True}, indent=2))
        return 0
    rows = [("log", visible(found.origin)), ("shown", what), ("signature", whose)]
    rows += [
        ("field", f"{visible(name)} = {visible(safe_json(one))}") for name, one in values.items()
    ]
    screen.table([*rows, ("freshness", "unknown: what the log says now, no proof tells")])
    screen.say("good", "bold green")
    return 0


def _check_receipt(data: bytes, entry: bytes, key: str) -> tuple[Included, str, str]:
    receipt = receipts.read_receipt(data)
    vkey, whose = key_for(key, receipt.note)
    found = receipts.verify_receipt(entry, receipt, vkey=vkey)
    return found, f"this is entry {found.index} of the first {found.size}", whose


def _check_consistency(data: bytes, old: bytes, key: str) -> tuple[Extended, str, str]:
    proof = receipts.read_consistency(data)
    vkey, whose = key_for(key, proof.note)
    found = receipts.verify_consistency(old, proof.note, proof.proof, vkey)
    if proof.old != found.old:
        raise TamperedError("the proof says that it is about another earlier head")
    return found, f"the first {found.old} of {found.new} entries are as they were", whose


def _check_bundle(bundle: Path, key: str) -> tuple[Shown, str, str]:
    if not key:
        raise ConfigurationError("give the log's public key with --key, and not from the bundle")
    found = verify_bundle(bundle, vkey=key_text(key))
    what = f"these are {len(found.entries)} of the first {found.size} entries"
    return found, what, "verified (given key)"


def export(directory: Path, out: Path, wanted: Wanted) -> int:
    """Write an evidence bundle, and say what is in it.

    Args:
        directory: the log's directory.
        out: the directory or zip to be made.
        wanted: what is to be in it.

    Returns:
        The exit code: 1 if the bundle is there, and the log as a whole is not good.

    Raises:
        LogError: there is no log, no such entry, or the bundle cannot be written.
        ConfigurationError: there is no key, *out* is there, or the choice is unclear.
        TamperedError: an entry that was chosen, or the head, was changed.
    """
    choice, by = Choice(**wanted.choice), wanted.by
    vkey, _ = key_for(wanted.key, open_tree(directory)[1])
    at = datetime.now(UTC).isoformat(timespec="seconds") if by else ""
    with _recorder(directory, record=wanted.record) as record:
        done = export_bundle(
            directory, out, vkey=vkey, choice=choice, disclose=wanted.disclose, by=by, at=at
        )
        record(
            {
                "v": 1,
                "type": "export",
                "time": time.time_ns(),
                "by": by,
                "entries": len(done.entries),
                "chosen": {name: one for name, one in wanted.choice.items() if one},
                "disclosed": list(wanted.disclose),
                "manifest": done.manifest,
            }
        )
    screen = Screen()
    screen.table(
        [
            ("log", visible(done.origin)),
            ("bundle", f"{len(done.entries)} entries in {visible(str(out))}"),
            ("manifest", f"SHA-256 {done.manifest}"),
            ("", "write that down where the bundle cannot be changed"),
            ("verify", "python -I standalone.py BUNDLE --key VKEY; see checkrein.log.standalone"),
        ]
    )
    if not done.report.good:
        screen.say("the log as a whole is NOT good: see report.json", "bold red")
    return 0 if done.report.good else 1


@contextmanager
def _recorder(directory: Path, *, record: bool) -> Generator[Callable[[dict[str, Any]], object]]:
    """Lend what writes into the log, which is opened before anything is exported."""
    if not record:
        yield lambda _event: None
        return
    try:
        log = AuditLog.open(directory)
    except (ConfigurationError, TamperedError) as error:
        raise type(error)(
            f"the log cannot say that it is exported: {error}. Where it need not: --unrecorded"
        ) from error
    with log:
        yield log.append


def key_for(key: str, note: str | bytes) -> tuple[str, str]:
    """Return the public key to verify *note* with, and where it comes from.

    Args:
        key: what was given: the key, the path of a file that holds it, or ``""``.
        note: a signed head; without a given key, it tells of which log the key is needed.

    Raises:
        ConfigurationError: there is no key, or it cannot be read.
    """
    if key:
        return key_text(key), "verified (given key)"
    known = known_verifier(open_checkpoint(note, None).origin)
    if known is None:
        raise ConfigurationError("nobody vouches for this log: give its public key with --key")
    return known, "verified (known key)"


def read_bytes(path: Path) -> bytes:
    """Return what is in a file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet.

    Raises:
        ConfigurationError: it is there, or cannot be written.
    """
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise ConfigurationError(f"{path} is there already; choose another name") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error


def _print(text: str) -> None:
    """Print a proof byte by byte, if that does nothing to a terminal."""
    if any(visible(line) != line for line in text.split("\n")):
        raise ConfigurationError(
            "the proof holds names that a terminal may act on; write it to a file with --out FILE"
        )
    out = typer.get_binary_stream("stdout")
    out.write(text.encode())
    out.flush()

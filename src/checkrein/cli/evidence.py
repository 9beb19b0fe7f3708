"""``log prove``, ``log export`` and ``log check``: evidence for people who do not have the log.

A proof is printed as it is, so that it can be kept; one whose names hold what a
terminal may act on is only written to a file. A file that is there is never
overwritten: it may be the older half of the evidence.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from checkrein.cli.logs import key_text
from checkrein.cli.screen import Screen, safe_json
from checkrein.errors import ConfigurationError, TamperedError
from checkrein.log import receipt as receipts
from checkrein.log.bundle import Choice, Shown, export_bundle, verify_bundle
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.keys import known_verifier
from checkrein.log.tilereader import open_tree
from checkrein.visible import visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from checkrein.log.receipt import Extended, Included


def prove(
    directory: Path, index: int | None, *, since: Path | None, out: Path | None, entry: Path | None
) -> int:
    """Make a receipt for an entry, or the proof that the log has only grown.

    Args:
        directory: the log's directory.
        index: the number of the entry.
        since: a file with a signed head; then there is no *index*.
        out: where to write the proof, if it is not to be printed.
        entry: where to write the entry's exact bytes.

    Returns:
        The exit code.

    Raises:
        LogError: there is no log, or no such entry in its published part.
        ConfigurationError: what is asked for is unclear, or a file cannot be read or written.
        TamperedError: the log was changed, or is not the one of *since*.
    """
    if (index is None) == (since is None):
        raise ConfigurationError("name either the number of an entry, or --since FILE")
    if since is not None:
        if entry is not None:
            raise ConfigurationError("--entry is for the receipt of one entry, not with --since")
        text = receipts.prove_consistency_between(directory, read_bytes(since)).to_text()
    else:
        assert index is not None
        tree, note = open_tree(directory)
        text = receipts.receipt_of(tree, note, index).to_text()
        if entry is not None:
            write_new(entry, tree.entry(index))
    if out is not None:
        write_new(out, text.encode())
    else:
        _print(text)
    return 0


def check(proof: Path, *, entry: Path | None, since: Path | None, key: str, as_json: bool) -> int:
    """Check a receipt, or the proof that a log has only grown, and print what it shows.

    Args:
        proof: the file with the proof; or a bundle, with neither *entry* nor *since*.
        entry: the file with the entry, of a receipt.
        since: the file with the earlier signed head, of a consistency proof.
        key: the log's public key, or the path of a file that holds it.
        as_json: print JSON.

    Returns:
        The exit code; where the proof does not hold, there is an error instead.

    Raises:
        TamperedError: the proof does not hold.
        ConfigurationError: what is asked for is unclear, or a file or the key cannot be read.
    """
    found: Included | Extended | Shown
    if entry is not None and since is None:
        found, what, whose = _check_receipt(read_bytes(proof), read_bytes(entry), key)
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
        screen.say(safe_json({**fields, "signature": whose, "good": True}, indent=2))
        return 0
    rows = [("log", visible(found.origin)), ("shown", what), ("signature", whose)]
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


def export(directory: Path, out: Path, *, choice: Mapping[str, Any], key: str, by: str) -> int:
    """Write an evidence bundle, and say what is in it.

    Args:
        directory: the log's directory.
        out: the directory or zip to be made.
        choice: which entries, as `Choice` takes it.
        key: the log's public key, or the path of a file that holds it.
        by: who exports it; then the time is written down as well.

    Returns:
        The exit code: 1 if the bundle is there, and the log as a whole is not good.

    Raises:
        LogError: there is no log, no such entry, or the bundle cannot be written.
        ConfigurationError: there is no key, *out* is there, or the choice is unclear.
        TamperedError: an entry that was chosen, or the head, was changed.
    """
    vkey, _ = key_for(key, open_tree(directory)[1])
    at = datetime.now(UTC).isoformat(timespec="seconds") if by else ""
    done = export_bundle(directory, out, vkey=vkey, choice=Choice(**choice), by=by, at=at)
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

"""``log publish``: bring a log to a web root or a bucket, for everybody to read and verify."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from checkrein.cli.evidence import key_for
from checkrein.cli.screen import Screen, safe_json
from checkrein.errors import LogError
from checkrein.log.destinations import CHECKPOINT, open_destination
from checkrein.log.disk import read_file
from checkrein.log.publishing import publish as publish_log
from checkrein.visible import visible

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def publish(
    directory: Path,
    place: str,
    *,
    key: str,
    endpoint: str,
    how: Mapping[str, bool],
    workers: int,
    as_json: bool,
) -> int:
    """Publish a log and say what was done.

    Args:
        directory: the log's directory.
        place: ``s3://bucket/prefix``, or the path of a web root.
        key: the log's public key, or the path of a file that holds it.
        endpoint: the URL of a store other than Amazon's.
        how: the options of `checkrein.log.publishing.publish`.
        workers: how many files are on their way at the same time.
        as_json: print JSON.

    Returns:
        The exit code.

    Raises:
        LogError: there is no log, or the destination fails.
        ConfigurationError: the key, the destination or its client is not what it should be.
        TamperedError: the log, or what is at the destination, is not what the key signed.
    """
    note = read_file(directory / CHECKPOINT)
    if note is None:
        raise LogError(f"there is no published log in {directory}")
    vkey, _ = key_for(key, note)
    destination = open_destination(place, endpoint=endpoint, workers=workers)
    done = publish_log(directory, destination, vkey=vkey, workers=workers, **how)
    screen = Screen()
    if as_json:
        screen.say(safe_json(asdict(done)))
        return 0
    there = f", {done.found} were there" if done.found else ""
    rows = [
        ("log", visible(done.origin)),
        ("published", f"{done.size} entries at {visible(place)}"),
        ("sent", f"{done.files} files of {done.octets} bytes{there}"),
        ("checkpoint", "replaced" if done.changed else "as it was"),
    ]
    if how["prune"]:
        rows.append(("removed", f"{done.removed} partial tiles"))
    screen.table(rows)
    return 0

"""``oversight``: what a log says about the people who confirm."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from checkrein.cli.screen import Screen, safe_json
from checkrein.log import read_entries
from checkrein.oversight import Approver, Share, look
from checkrein.visible import visible

if TYPE_CHECKING:
    from pathlib import Path

FLAGGED = 3
"""The exit code if somebody is flagged as rubber-stamping."""


def oversight(directory: Path, *, as_json: bool) -> int:
    """Print what the log in *directory* says about each approver.

    Returns:
        The exit code: 3 if somebody is rubber-stamping, else 0.

    Raises:
        LogError: there is no log.
    """
    found = look(event for _, event in read_entries(directory))
    screen = Screen()
    if as_json:
        trees = [{**asdict(one), "rubber_stamping": one.rubber_stamping} for one in found]
        screen.say(safe_json(trees, indent=2))
    elif not found:
        screen.say("nobody has answered a question in this log")
    for one in () if as_json else found:
        screen.say(visible(one.name), "bold red" if one.rubber_stamping else "bold")
        screen.table([(f"  {name}", value) for name, value in _rows(one)], width=20)
    return FLAGGED if any(one.rubber_stamping for one in found) else 0


def _rows(one: Approver) -> list[tuple[str, str]]:
    seconds = one.median_seconds
    return [
        ("said yes", _share(one.yeses)),
        ("faster than read", _share(one.too_fast)),
        ("seconds, median", "not known" if seconds is None else f"{seconds:.1f}"),
        ("canaries caught", _share(one.canaries)),
        ("bursts of yeses", str(one.bursts)),
        ("of all answers", _share(one.share)),
        ("flags", ", ".join(one.flags) or "none"),
        ("rubber-stamping", "yes" if one.rubber_stamping else "no"),
    ]


def _share(one: Share) -> str:
    if not one.whole:
        return "no data"
    interval = f"{one.low:.0%} to {one.high:.0%}"
    return f"{one.part} of {one.whole} ({interval})"

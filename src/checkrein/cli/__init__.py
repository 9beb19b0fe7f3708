"""The command line: ``checkrein demo``, ``inbox``, ``stop``, ``log`` and ``keys``.

It is an extra, since a library that guards agents should not bring a terminal
along. ``app`` declares the commands, ``logs`` reads and verifies logs,
``screen`` prints, ``demo`` is the story that can be tried out. ``inbox`` declares the
commands for people who answer; ``answers`` does what they say, ``watching`` is live.
``witnessing`` runs a witness of logs, and asks witnesses.

Exit codes: 0 for good, 1 for "looked at, and not good", 2 for "could not look".
"""

from __future__ import annotations

import sys

_OF_THE_EXTRA = frozenset({"click", "rich", "typer"})


def main() -> None:
    """Run the command line; without its extra, say in one line what is missing."""
    try:
        from checkrein.cli.app import app  # noqa: PLC0415 (the extra may be missing)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OF_THE_EXTRA:
            raise
        sys.stderr.write("checkrein needs its command line: pip install 'checkrein[cli]'\n")
        raise SystemExit(2) from None
    app(prog_name="checkrein")

"""``checkrein demo``: an agent reads a hostile mail and obeys it; see what happens.

A support desk has a mailbox, and an agent that is to write a report of the
day's mail. One mail holds orders of its own. The model is a script that obeys
whatever it reads, the honest and the hostile orders alike, so nothing here
hangs on how clever a model is. Mailbox, report, mail server and log are real
and stay on this machine.

``post`` is the mail server, ``tools`` what the agent can do, ``agent`` the
obedient script, ``approver`` who is asked, ``story`` what is told and checked.
"""

from __future__ import annotations

import logging
import shlex
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from checkrein.cli.demo.approver import Answer
from checkrein.cli.demo.post import Post
from checkrein.cli.demo.story import play
from checkrein.cli.screen import Screen
from checkrein.errors import ConfigurationError
from checkrein.visible import visible

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Answer", "Post", "play", "run"]


def run(answer: Answer, *, keep: Path | None = None) -> bool:
    """Run the demo on standard output.

    Args:
        answer: what is said to the one honest question; ``ask`` asks at the terminal.
        keep: keep what the demo leaves behind in this directory, new or empty.

    Returns:
        Whether every claim held.

    Raises:
        ConfigurationError: *keep* is not a new or empty directory.
    """
    screen = Screen()
    with _home(keep) as home, Post() as post, _no_warnings():
        tally = play(home, answer=answer, screen=screen, post=post)
        if keep is not None:
            _tell_kept(screen, keep)
    screen.say()
    screen.say(tally.line(), "bold green" if tally.good else "bold red")
    return tally.good


@contextmanager
def _home(keep: Path | None) -> Generator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="checkrein-demo-") as name:
            yield Path(name).resolve()
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        empty = not any(keep.iterdir())
    except OSError as error:
        raise ConfigurationError(f"--keep {keep} is not a directory to write to") from error
    if not empty:
        raise ConfigurationError(f"--keep {keep} is not empty; name a new directory")
    yield keep.resolve()


@contextmanager
def _no_warnings() -> Generator[None]:
    """Keep the library's warnings about denials off the screen: the story tells of them."""
    logger, silence = logging.getLogger("checkrein"), logging.NullHandler()
    logger.addHandler(silence)
    try:
        yield
    finally:
        logger.removeHandler(silence)


def _tell_kept(screen: Screen, keep: Path) -> None:
    where = visible(shlex.quote(str(keep)))
    screen.say()
    screen.say(f"Kept in {where}: the mailbox, the report, the received mail, the log.")
    screen.say("Look at it yourself:")
    screen.say(f"   cd {where}")
    screen.say("   checkrein log show audit")
    screen.say("   checkrein log verify audit --key audit.vkey --pin audit.pin")

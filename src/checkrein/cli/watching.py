"""``checkrein inbox watch``: a live list of what waits, and a line to type commands into.

The list has one entry a question, which fits a screen; ``show`` prints one whole, and
``approve`` shows it whole before it takes a yes. The live view is left for that, so what
was printed stays on the screen above.
"""

from __future__ import annotations

import importlib.util
import os
import select
import shlex
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from checkrein.cli import answers
from checkrein.cli.screen import Screen
from checkrein.errors import CheckreinError, ConfigurationError
from checkrein.gates.inbox import Inbox
from checkrein.visible import visible

_EVERY: Final = 0.5  # seconds between two looks at the store
_HELP: Final = (
    "show N   approve N   deny N [reason]   suspicious N [reason]   edit N name=JSON   doubt   quit"
)
_END: Final = "quit"


def watch(inbox: Inbox, *, by: str) -> None:
    """Show what waits, and do what is typed, until ``quit`` or the end of input.

    Args:
        inbox: the questions.
        by: who answers; without a name it is only watched.
    """
    board = Board(inbox, by)
    while True:
        line = _typed_live(board) if _is_terminal() else _typed_plainly(board)
        if line is None or line.strip() == _END:
            return
        board.obey(line)


@final
class Board:
    """The list as it was last shown, and the commands that name its entries by number.

    Args:
        inbox: the questions.
        by: who answers.
    """

    def __init__(self, inbox: Inbox, by: str) -> None:
        self._inbox = inbox
        self._by = by
        self._ids: list[str] = []
        self.typed = ""
        self._problem = ""

    def view(self, height: int) -> Text:
        """Return what is shown now, in about *height* lines."""
        try:
            questions = self._inbox.open()
            damaged = self._inbox.damaged(questions)
            self._problem = ""
        except CheckreinError as error:
            questions, damaged, self._problem = [], [], visible(str(error))
        # A number means one question for as long as somebody may be typing it.
        known = [one for one in self._ids if one in {q.id for q in questions}] if self.typed else []
        self._ids = self._ids if known else [one.id for one in questions]
        lines = answers.summary(questions, self._inbox.now())
        if len(lines) > height:
            lines = [*lines[: max(1, height - 1)], "     ... and more; type: list"]
        text = Text("\n".join(lines))
        for one in damaged:
            text.append(f"\nquestion {one} was tampered with in the database", "bold red")
        if self._problem:
            text.append(f"\n{self._problem}", "bold red")
        text.append(f"\n\n{_HELP}", "dim")
        text.append(f"\n> {visible(self.typed)}")
        return text

    def obey(self, line: str) -> None:
        """Do what was typed, and print what comes of it."""
        try:
            self._obey(line)
        except CheckreinError as error:
            Screen().say(f"checkrein: {visible(str(error))}", "red")

    def _obey(self, line: str) -> None:
        try:
            word, *rest = shlex.split(line) or [""]
        except ValueError:
            raise ConfigurationError("a quotation is not closed") from None
        if word in {"", "list"}:
            answers.list_open(self._inbox, as_json=False)
        elif word == "doubt":
            answers.list_doubtful(self._inbox)
        elif word == "show" and len(rest) == 1:
            answers.show(self._inbox, self._id(rest[0]))
        elif word in {"approve", "deny", "suspicious", "edit"} and rest:
            self._answer(word, self._id(rest[0]), rest[1:])
        else:
            raise ConfigurationError(f"type one of: {_HELP}")

    def _answer(self, word: str, id: str, rest: Sequence[str]) -> None:  # noqa: A002
        if not self._by:
            raise ConfigurationError("who answers? start it with --by NAME")
        if word == "approve":
            answers.approve(self._inbox, id, by=self._by)
        elif word == "edit":
            answers.edit(self._inbox, id, by=self._by, settings=rest)
        else:
            reason, suspicious = " ".join(rest), word == "suspicious"
            answers.deny(self._inbox, id, by=self._by, reason=reason, suspicious=suspicious)

    def _id(self, word: str) -> str:
        """Return the id that a number of the list, or the id itself, stands for."""
        if word.isascii() and word.isdigit() and 1 <= int(word) <= len(self._ids):
            return self._ids[int(word) - 1]
        return word


# -- the terminal --------------------------------------------------------------------------


def _is_terminal() -> bool:
    has_keys = importlib.util.find_spec("termios") is not None  # not on every system
    return has_keys and sys.stdin.isatty() and sys.stdout.isatty()


def _typed_plainly(board: Board) -> str | None:
    """Print the list once, and read a line: where there is no terminal to draw on."""
    Screen().say(board.view(1 << 30).plain)
    return sys.stdin.readline() or None


def _typed_live(board: Board) -> str | None:
    """Draw the list again and again until a line was typed; ``None`` at the end of input."""
    console = Console(markup=False, emoji=False, highlight=False)
    board.typed = ""
    live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="visible")
    with _letter_by_letter() as read, live:
        while True:
            live.update(board.view(max(4, console.height - 6)), refresh=True)
            for letter in read(_EVERY):
                if letter in "\r\n":
                    line, board.typed = board.typed, ""
                    return line
                if letter == "\x04":
                    return None
                board.typed = _after(board.typed, letter)


def _after(typed: str, letter: str) -> str:
    """Return the line after a key was pressed."""
    if letter in "\x7f\x08":
        return typed[:-1]
    if letter == "\x15":
        return ""
    return typed + letter if letter.isprintable() else typed


@contextmanager
def _letter_by_letter() -> Generator[Callable[[float], str]]:
    """Have letters come as they are typed; give a function that waits for some, in seconds."""
    import codecs  # noqa: PLC0415
    import termios  # noqa: PLC0415 (not on every system)
    import tty  # noqa: PLC0415

    file = sys.stdin.fileno()
    before: list[Any] = termios.tcgetattr(file)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(seconds: float) -> str:
        ready, _, _ = select.select([file], [], [], seconds)
        if not ready:
            return ""
        data = os.read(file, 4096)
        return decoder.decode(data) if data else "\x04"

    tty.setcbreak(file)
    try:
        yield read
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)

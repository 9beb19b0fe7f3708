"""Printing: nothing that somebody else wrote can act on the terminal.

``say`` prints text that is ours, or was made visible before; ``quote`` prints
text from elsewhere, every line of it made visible. Neither knows any markup.
Colours come only where a terminal is attached.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from checkrein.errors import CheckreinError, TamperedError
from checkrein.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable


class Screen:
    """Where a command prints.

    Args:
        file: where to; standard output if left out.
        stderr: standard error instead.
    """

    def __init__(self, file: TextIO | None = None, *, stderr: bool = False) -> None:
        self._console = Console(
            file=file, stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True
        )
        if hasattr(self.file, "reconfigure"):  # what a terminal cannot spell, it gets escaped
            self.file.reconfigure(errors="backslashreplace")

    @property
    def file(self) -> Any:
        """The stream that is printed to."""
        return self._console.file

    def say(self, text: str = "", style: str = "") -> None:
        """Print *text*, which is ours or was made visible before."""
        self._console.print(Text(text, style))

    def quote(self, text: str, *, lines: int = 0) -> None:
        """Print the words of somebody else.

        Args:
            text: the words.
            lines: how many lines to print at most, 0 for all; what is left out is counted.
        """
        every = text.splitlines()
        for line in every[: lines or None]:
            self.say(f"   | {visible(line)}", "dim")
        if lines and len(every) > lines:
            self.say(f"   | ... and {len(every) - lines} lines more", "dim")

    def table(self, rows: Iterable[tuple[str, str]], width: int = 11) -> None:
        """Print names and what belongs to them; both are ours or were made visible before."""
        for name, value in rows:
            self.say(f"{name:<{width}} {value}".rstrip())


@contextmanager
def progress_bar(doing: str) -> Generator[Callable[[int, int], None]]:
    """Lend what shows how far a long work is, at a terminal; it is called with (done, of all)."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _all: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, every: bar.update(task, completed=done, total=every)


def safe_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON in which every letter that is not printable ASCII is an escape."""
    try:
        text = json.dumps(value, indent=indent)
    except RecursionError:
        text = '"nested too deeply to be shown"'
    return text.replace("\x7f", "\\u007f")


@contextmanager
def plainly(*looked: type[CheckreinError]) -> Generator[None]:
    """Turn an error of the library into one line and an exit code.

    Args:
        looked: errors that mean "looked at, and not good", as what was tampered with does.
    """
    try:
        yield
    except CheckreinError as error:
        Screen(stderr=True).say(f"checkrein: {visible(str(error))}")
        raise typer.Exit(1 if isinstance(error, (TamperedError, *looked)) else 2) from None

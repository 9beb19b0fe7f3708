"""A gate that asks at the terminal."""

from __future__ import annotations

import getpass
import sys
from contextlib import suppress
from typing import TextIO, final

from checkrein.confirmations import Confirmation, Verdict
from checkrein.visible import shown, visible

_YES = "yes"
_SUSPICIOUS = "suspicious"


@final
class ConsoleGate:
    """Shows the whole call at the terminal and takes a typed answer.

    ``yes``, in full, approves. ``suspicious`` denies and locks the run.
    Anything else, and an empty line, denies. Where no terminal is attached,
    nobody can be asked, and the call is denied. It waits where it is called: an
    async tool that asks here stops its event loop until the answer is typed. What was
    typed before the question was shown is thrown away.

    Args:
        by: who sits there; the login name if left out.
        reader: where answers come from, for tests.
        writer: where the question goes, for tests.
    """

    def __init__(
        self, *, by: str = "", reader: TextIO | None = None, writer: TextIO | None = None
    ) -> None:
        self._by = by
        self._reader = reader
        self._writer = writer

    def ask(self, confirmation: Confirmation) -> Verdict | None:
        """Return the verdict typed at the terminal; ``None`` where there is none."""
        reader = self._reader or sys.stdin
        writer = self._writer or sys.stderr
        if self._reader is None and not (reader is not None and reader.isatty()):
            return None
        if self._reader is None:
            drop_typed()
        writer.write(question_text(confirmation))
        writer.flush()
        line = reader.readline()
        if not line:
            return None
        answer = line.strip().lower()
        by = self._by or getpass.getuser()
        if answer == _YES:
            return confirmation.approve(by=by)
        return confirmation.deny(by=by, suspicious=answer == _SUSPICIOUS)


def drop_typed() -> None:
    """Throw away what was typed before a question is shown: it answers nothing.

    What a person pasted into the chat may hold a line that says yes.
    """
    if sys.platform == "win32":
        import msvcrt  # noqa: PLC0415 (Windows alone has it)

        while msvcrt.kbhit():
            msvcrt.getwch()
    else:
        import termios  # noqa: PLC0415 (Windows has none)

        with suppress(OSError, ValueError, termios.error):
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


def question_text(confirmation: Confirmation) -> str:
    """Return the question as it is shown: every argument in full, every character visible."""
    one = confirmation
    lines = [
        "",
        f"{visible(one.agent)} wants to call {visible(one.tool)}",
        f"  effect     {visible(one.effect)} on {visible(one.resource)}",
    ]
    for argument in one.arguments:
        text = argument.text or shown(argument.value)
        lines.append(f"  {visible(argument.name):<10} {text}")
        note = f"from {argument.origin}" if argument.untrusted else argument.origin
        lines.append(f"  {'':<10} origin: {visible(note)}")
        if argument.concern:
            lines.append(f"  {'':<10} ! {visible(argument.concern)}")
    if one.chain:
        lines.append(f"  {'on behalf of':<10} {visible(', '.join(one.chain))}")
    if one.preview:
        lines.append("  what the tool says that it would do:")
        lines += [f"    | {line}" for line in one.preview.split("\n")]
    lines.append("  why you are asked:")
    lines += [f"    - {visible(reason)}" for reason in one.reasons]
    lines.append(f"  call {visible(one.call)}, digest {one.digest[:16]}")
    lines.append(f"Type {_YES!r} to allow it, {_SUSPICIOUS!r} to deny and lock the run: ")
    return "\n".join(lines)

"""Who is asked: a stand-in for the person at the support desk.

Whatever nobody trusted has named, the stand-in refuses, however the demo was
started: ``--yes`` answers the honest question and no other. The honest question
goes to the person at the terminal if there is no ``--yes`` and no ``--no``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Literal

from checkrein.gates.console import ConsoleGate, question_text
from checkrein.visible import visible

if TYPE_CHECKING:
    from checkrein.cli.screen import Screen
    from checkrein.confirmations import Confirmation, Verdict

Answer = Literal["yes", "no", "ask"]
_BY: Final = "stand-in"


class Approver:
    """A gate that shows each question, and answers it.

    Args:
        answer: what is said to the honest question.
        screen: where it is shown.

    Attributes:
        asked: every question so far.
        verdicts: the answers, ``None`` where nobody could be asked.
    """

    def __init__(self, answer: Answer, screen: Screen) -> None:
        self._answer: Answer = answer
        self._screen = screen
        self.asked: list[Confirmation] = []
        self.verdicts: list[Verdict | None] = []

    def ask(self, confirmation: Confirmation) -> Verdict | None:
        """Return the answer to *confirmation*."""
        self.asked.append(confirmation)
        verdict: Verdict | None
        if "flow.origin" in confirmation.rules:
            verdict = self._refuse(confirmation)
        elif self._answer == "ask":
            verdict = self._ask_person(confirmation)
        else:
            verdict = self._stand_in(confirmation)
        self.verdicts.append(verdict)
        return verdict

    def _refuse(self, confirmation: Confirmation) -> Verdict:
        say = self._screen.say
        say("   Somebody has to be asked. What the approver sees, less the mail itself:")
        for one in confirmation.arguments:
            if one.concern:
                say(f"     {visible(one.name)}: {visible(str(one.value))}")
                say(f"     origin: {visible(one.origin)}")
        for reason in confirmation.reasons:
            say(f"     - {visible(reason)}")
        say("   The approver, here a stand-in, says no.")
        return confirmation.deny(by=_BY, reason="nobody we trust has named this address")

    def _stand_in(self, confirmation: Confirmation) -> Verdict:
        self._screen.say(
            f"{question_text(confirmation)}{self._answer}   (said by --{self._answer})"
        )
        if self._answer == "yes":
            return confirmation.approve(by=f"--{self._answer}")
        return confirmation.deny(by=f"--{self._answer}")

    def _ask_person(self, confirmation: Confirmation) -> Verdict | None:
        if sys.stdin is not None and sys.stdin.isatty():
            return ConsoleGate(writer=self._screen.file).ask(confirmation)
        self._screen.say(f"{question_text(confirmation)}(no answer)")
        self._screen.say("No terminal is attached, so nobody can be asked: that counts as no.")
        return None

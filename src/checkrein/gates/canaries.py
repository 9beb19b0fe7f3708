"""Canaries: questions about calls that are plainly wrong, to learn whether people look.

The only direct measure of attention. A canary is asked in the same way as any question,
in the name of the run that asks, just before a real question; it is bound to no call, so
nothing can run whatever is answered. The answer is written to the log for
:mod:`checkrein.oversight`, and the real question is asked.

Tell the people that there are canaries: it is part of why they look. Their attention is
spent on each, so use few.
"""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, final

from checkrein.confirmations import Confirmation, Shown, Verdict, digest_of
from checkrein.errors import ConfigurationError
from checkrein.freezing import freeze
from checkrein.lazy import logger
from checkrein.mediation import control_flow
from checkrein.ports import Clock, Log, entropy
from checkrein.questions import plain_json
from checkrein.visible import shown

_ORIGIN: Final = "unknown: the model's choice"


class Case(NamedTuple):
    """A call that nobody who looks would allow.

    Args:
        tool: the name of a tool.
        resource: what it acts on.
        arguments: by name; plain data.
        reasons: why it is asked, as the rules would say it.
        effect: ``irreversible``, ``writes`` or ``reads``.
    """

    tool: str
    resource: str
    arguments: Mapping[str, Any]
    reasons: Sequence[str] = ("the effect cannot be taken back",)
    effect: str = "irreversible"


@final
class Canaries:
    """Asks a gate a canary now and then, before the question it was given.

    An answer that suspects something does not lock the run, for nothing was attempted. A
    canary that cannot be asked, or that nobody answers, is left out, and the real question
    is asked all the same; so it is where the gate puts questions off.

    Args:
        gate: who is asked.
        cases: what canaries are made of.
        log: where answers are written down; the log of the runs.
        every: how many questions there are for a canary, on average.
        chance: decides, unpredictably; for tests.
        clock: tells the time, for tests.

    Example:
        >>> from checkrein.gates import ConsoleGate
        >>> case = Case("send_email", "mail.send", {"to": "press@example.com", "body": "salaries"})
        >>> gate = Canaries(ConsoleGate(), [case], log=log, every=50)  # doctest: +SKIP
    """

    def __init__(
        self,
        gate: Any,
        cases: Sequence[Case],
        *,
        log: Log,
        every: int = 50,
        chance: random.Random | None = None,
        clock: Clock = time.time,
    ) -> None:
        if not callable(getattr(gate, "ask", None)):
            raise ConfigurationError("Canaries(gate, ...) takes a gate")
        if not cases or not all(isinstance(one, Case) for one in cases):
            raise ConfigurationError("Canaries(gate, [Case(...), ...]) takes cases")
        if type(every) is not int or every < 1:
            raise ConfigurationError("Canaries(every=...) takes a number of questions, at least 1")
        if not callable(getattr(log, "enqueue", None)):
            raise ConfigurationError("Canaries(log=...) takes the log of the runs")
        self._gate, self._cases, self._log, self._every = gate, tuple(cases), log, every
        self._chance = random.SystemRandom() if chance is None else chance
        self._clock = clock
        self.asynchronous = getattr(gate, "asynchronous", False)

    def ask(self, confirmation: Confirmation) -> Any:
        """Return the gate's answer to *confirmation*, or an awaitable of it."""
        if self._chance.randrange(self._every):
            return self._gate.ask(confirmation)
        canary, asked = self._canary(confirmation), self._clock()
        try:
            answer = self._gate.ask(canary)
        except control_flow():  # it puts questions off: a canary would wait for ever
            self._drop(canary)
            return self._gate.ask(confirmation)
        except Exception as error:  # noqa: BLE001 (a gate may fail in any way)
            self._failed(error)
            return self._gate.ask(confirmation)
        if inspect.isawaitable(answer):
            return self._later(answer, canary, asked, confirmation)
        self._note(canary, answer, asked)
        return self._gate.ask(confirmation)

    def finish(self, confirmation: Confirmation) -> None:
        """Tell the gate that a call is over."""
        finish = getattr(self._gate, "finish", None)
        if finish is not None:
            finish(confirmation)

    async def _later(
        self, answer: Any, canary: Confirmation, asked: float, question: Confirmation
    ) -> Any:
        try:
            self._note(canary, await answer, asked)
        except control_flow():
            self._drop(canary)
        except Exception as error:  # noqa: BLE001 (as above)
            self._failed(error)
        found = self._gate.ask(question)
        return await found if inspect.isawaitable(found) else found

    def _canary(self, question: Confirmation) -> Confirmation:
        """Return a question that looks like *question*, about a call that there is not."""
        case = self._chance.choice(self._cases)
        arguments = tuple(
            Shown(name, frozen, False, _ORIGIN, "", shown(frozen), plain_json(frozen))
            for name, value in case.arguments.items()
            for frozen in (freeze(value),)
        )
        number = self._chance.randrange(1, 1000)
        made = question._replace(
            id=entropy(8).hex(),
            tool=case.tool,
            effect=case.effect,
            resource=case.resource,
            arguments=arguments,
            reasons=tuple(case.reasons),
            call=f"{question.run}-{number}",
            bound_to=entropy(32).hex(),
            asked=self._clock(),
            preview="",
            needed=1,
            care=question.care._replace(retype=""),  # it names an argument of the real call
        )
        return made._replace(digest=digest_of(made))

    def _note(self, canary: Confirmation, answer: Any, asked: float) -> None:
        """Write down how a canary was answered; what is no answer to it says nothing."""
        if not isinstance(answer, Verdict):
            return
        if (answer.confirmation, answer.digest) == (canary.id, canary.digest):
            self._log.enqueue(
                {
                    "v": 1,
                    "type": "canary.answered",
                    "time": int(self._clock() * 1e9),
                    "asked": int(asked * 1e9),
                    "confirmation": canary.id,
                    "by": answer.by,
                    "caught": answer.approved is not True,
                    "letters": canary.letters,
                }
            )
        self._drop(canary)

    def _drop(self, canary: Confirmation) -> None:
        try:
            self.finish(canary)
        except Exception as error:  # noqa: BLE001 (it concerns no call)
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        logger().warning("a canary could not be asked (%s)", type(error).__name__)

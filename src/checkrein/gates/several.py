"""Gates made of gates: several people, and nobody."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any, final

from checkrein.confirmations import Confirmation, Verdict
from checkrein.errors import ConfigurationError


@final
class DenyAll:
    """Says no to every question: for runs that nobody watches.

    The denials are in the log, with the questions that were not asked.
    """

    def ask(self, confirmation: Confirmation) -> Verdict:
        """Return a no."""
        return confirmation.deny(by="nobody", reason="nobody is asked in this run")


@final
class Quorum:
    """Asks several gates, and says yes if enough of them do.

    The first no decides. A yes counts once for each name, and the same person at two
    gates is one. That they are different *people* is proven where the run has
    ``approvers=``, by their keys.

    Args:
        gates: whom to ask; asked one after the other, awaited ones together.
        needed: how many yeses it takes; all of them if left out.

    Example:
        >>> from checkrein.gates import CallbackGate
        >>> two = Quorum(
        ...     [CallbackGate(lambda _: True, by="dana"), CallbackGate(lambda _: True, by="lee")]
        ... )
        >>> two.needed
        2
    """

    def __init__(self, gates: Sequence[Any], *, needed: int = 0) -> None:
        self._gates = tuple(gates)
        if not self._gates or not all(callable(getattr(one, "ask", None)) for one in self._gates):
            raise ConfigurationError("Quorum([...]) takes gates")
        self.needed = needed or len(self._gates)
        if type(self.needed) is not int or not 1 <= self.needed <= len(self._gates):
            raise ConfigurationError("needed= takes a number from 1 to that of the gates")
        self.asynchronous = any(getattr(one, "asynchronous", False) for one in self._gates)

    def ask(self, confirmation: Confirmation) -> Any:
        """Return the joined verdict, or an awaitable of it."""
        answers: list[Any] = []
        for gate in self._gates:
            answer = _asked(gate, confirmation)
            answers.append(answer)
            if not inspect.isawaitable(answer):
                if _is_no(answer):
                    for one in answers:
                        _drop(one)
                    return answer
                if len(_yeses(answers, confirmation)) >= self.needed:
                    break
        if any(inspect.isawaitable(one) for one in answers):
            return self._later(answers, confirmation)
        return self._joined(answers, confirmation)

    def finish(self, confirmation: Confirmation) -> None:
        """Tell the gates that keep their answers that the call is over."""
        for gate in self._gates:
            finish = getattr(gate, "finish", None)
            if finish is not None:
                finish(confirmation)

    async def _later(self, answers: list[Any], confirmation: Confirmation) -> Any:
        waiting = {asyncio.ensure_future(one) for one in answers if inspect.isawaitable(one)}
        found = [one for one in answers if not inspect.isawaitable(one)]
        try:
            while waiting and len(_yeses(found, confirmation)) < self.needed:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    answer = None if one.exception() else one.result()
                    if _is_no(answer):
                        return answer
                    found.append(answer)
        finally:
            for one in waiting:
                one.cancel()
        return self._joined(found, confirmation)

    def _joined(self, answers: list[Any], confirmation: Confirmation) -> Any:
        yeses = _yeses(answers, confirmation)
        if len(yeses) < self.needed:
            return None  # too few could be asked
        together = confirmation.approve(by=", ".join(sorted(one.by for one in yeses)))
        return together._replace(parts=tuple(yeses))


def _yeses(answers: list[Any], confirmation: Confirmation) -> list[Verdict]:
    """Return the plain yeses to this very question, one of each name."""
    by_name: dict[str, Verdict] = {}
    for one in answers:
        if (
            isinstance(one, Verdict)
            and one.approved is True
            and (one.confirmation, one.digest) == (confirmation.id, confirmation.digest)
        ):
            by_name[one.by.strip().casefold()] = one
    return list(by_name.values())


def _asked(gate: Any, confirmation: Confirmation) -> Any:
    from checkrein.mediation import control_flow  # noqa: PLC0415 (gates stand above it)

    try:
        return gate.ask(confirmation)
    except control_flow():
        raise
    except Exception:  # noqa: BLE001 (a gate that fails has not said yes)
        return None


def _is_no(answer: object) -> bool:
    return isinstance(answer, Verdict) and answer.approved is not True


def _drop(answer: object) -> None:
    close = getattr(answer, "close", None)
    if inspect.iscoroutine(answer) and close is not None:
        close()

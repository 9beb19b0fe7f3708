"""A gate made of a function."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, final

from checkrein.confirmations import Confirmation, Verdict
from checkrein.errors import ConfigurationError

Answer = bool | Verdict


@final
class CallbackGate:
    """Asks a function of yours, sync or async.

    Args:
        callback: takes a :class:`Confirmation`; returns ``True`` for yes,
            ``False`` for no, or a verdict made by ``confirmation.approve`` or
            ``confirmation.deny``. Anything else, and any exception, is no.
        by: who answers, for the audit log, where the callback returns a bool.

    Example:
        >>> gate = CallbackGate(lambda confirmation: confirmation.tool == "send_email", by="dana")
    """

    def __init__(
        self,
        callback: Callable[[Confirmation], Answer | Awaitable[Answer]],
        *,
        by: str = "callback",
    ) -> None:
        if not callable(callback):
            raise ConfigurationError("CallbackGate(callback) takes a function of a confirmation")
        self._callback = callback
        self._by = by
        self.asynchronous = inspect.iscoroutinefunction(callback)
        """Whether every answer has to be awaited."""

    def ask(self, confirmation: Confirmation) -> Any:
        """Return the verdict of the callback, or an awaitable of it."""
        if self.asynchronous:
            # Called when awaited: a tool that cannot wait leaves no half-begun callback behind.
            return self._later(self._callback, confirmation)
        answer = self._callback(confirmation)
        if inspect.isawaitable(answer):
            return self._later(lambda _: answer, confirmation)
        return self._verdict(answer, confirmation)

    async def _later(self, callback: Callable[[Confirmation], Any], one: Confirmation) -> Any:
        return self._verdict(await callback(one), one)

    def _verdict(self, answer: object, confirmation: Confirmation) -> Any:
        # Only True itself is yes: a truthy object may be anything, an awaitable for example.
        if answer is True:
            return confirmation.approve(by=self._by)
        if answer is False:
            return confirmation.deny(by=self._by)
        return answer

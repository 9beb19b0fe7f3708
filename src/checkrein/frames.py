"""Where code runs, and what a decorator leaves on a function.

A *frame* is a run and, inside the body of a guarded tool, the call that the
body serves. It is what the one context variable holds; ``Untrusted`` asks it
whether ``reveal`` is free, nested calls ask it who encloses them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, final

from checkrein.errors import MisuseError
from checkrein.ports import ACTIVE

if TYPE_CHECKING:
    from checkrein.calls import Binder, Call
    from checkrein.facts import ToolFacts
    from checkrein.isolation import RunMarks
    from checkrein.labels import Label
    from checkrein.runs import Run

_SPEC: Final = "__checkrein__"
RECEIVER: Final = "__checkrein_receiver__"


class Guarded(Protocol):
    """What a decorator leaves on the function it guards."""

    facts: ToolFacts
    binder: Binder

    def bound_to(self, run: Run, receiver: tuple[Any, ...]) -> Callable[..., Any]:
        """Return the guarded function with *run* fixed, *receiver* as its first argument."""
        ...


def spec_of(function: object) -> Guarded | None:
    """Return what a decorator left on *function*, ``None`` if it is not guarded."""
    if inspect.isfunction(function):
        return cast("Guarded | None", function.__dict__.get(_SPEC))
    if inspect.ismethod(function):
        return spec_of(function.__func__)
    return None


def receiver_of(function: Callable[..., Any]) -> tuple[Any, ...]:
    """Return the object that a bound method, or a tool bound to a run, is bound to."""
    if inspect.ismethod(function):
        return (function.__self__,)
    receiver: tuple[Any, ...] = vars(function).get(RECEIVER, ())
    return receiver


def call_id() -> str:
    """Return the id of the guarded call whose body is running, an idempotency key.

    Raises:
        MisuseError: no guarded body is running here.
    """
    frame = ACTIVE.get()
    if frame is None or not frame.call_id:
        raise MisuseError("call_id() is for the body of a guarded tool, while it runs")
    return frame.call_id


@final
class Frame:
    """Where code runs: a run and, inside a guarded body, the call it serves.

    Attributes:
        run: the run.
        call: the call, ``None`` outside a guarded body.
        tainted: whether the body was given, or has seen, untrusted values.
        saw: whether it has seen some that it was not given.
        over: whether the body is done; a task that outlives it is in the call no more.
    """

    __slots__ = ("call", "over", "run", "saw", "tainted")

    def __init__(self, run: Run, call: Call | None = None, tainted: bool = False) -> None:
        self.run = run
        self.call = call
        self.tainted = tainted
        self.saw = False
        self.over = False

    @property
    def name(self) -> str:
        """The name of the tool whose body is running, ``""`` outside a guarded body."""
        return "" if self.call is None else self.call.facts.name

    def body_arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Return fresh positional and keyword arguments for the body."""
        assert self.call is not None
        return self.call.for_body()

    @property
    def call_id(self) -> str:
        """The id of the call whose body is running, ``""`` outside a guarded body."""
        return "" if self.call is None or self.over else self.call.id

    @property
    def marks(self) -> RunMarks:
        """The markers of the run."""
        return self.run.marks

    def revealed(self, label: Label, reason: str) -> None:
        """Record that a value left its wrapper."""
        if self.call is not None:
            self.tainted = self.saw = True
        self.run.record("reveal", sources=list(label.names), reason=reason, call=self.call_id)

    def endorsed(
        self, label: Label, value: object, *, reason: str, tool: object, parameter: str
    ) -> None:
        """Record that a value was checked and is trusted from here on."""
        self.run.take_endorsement(label, value, reason=reason, tool=tool, parameter=parameter)

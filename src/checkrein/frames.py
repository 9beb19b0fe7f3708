"""Where code runs, and what a decorator leaves on a function.

A *frame* is a run and, inside the body of a guarded tool, the call that the
body serves. It is what the one context variable holds; ``Untrusted`` asks it
whether ``reveal`` is free, nested calls ask it who encloses them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, final
from weakref import WeakSet

from checkrein.errors import MisuseError
from checkrein.isolation import PROCESS_MARKS
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
    function: Callable[..., Any]

    def bound_to(self, run: Run, receiver: tuple[Any, ...]) -> Callable[..., Any]:
        """Return the guarded function with *run* fixed, *receiver* as its first argument."""
        ...


WRAPPERS: Final[WeakSet[Callable[..., Any]]] = WeakSet()
"""Every function that a guard has made. What ``functools.wraps`` copies from one is not in it."""


def spec_of(function: object) -> Guarded | None:
    """Return what a decorator left on *function*, ``None`` if it is not guarded."""
    # The exact type: a proxy may lie about its class, its equality and its hash.
    if type(function) is FunctionType and function in WRAPPERS:
        return cast("Guarded", function.__dict__[_SPEC])
    if type(function) is MethodType:
        return spec_of(function.__func__)
    return None


def why_unguarded(tool: object) -> str:
    """Return what is wrong with a tool that is not guarded, and the way out."""
    name = getattr(tool, "__qualname__", None) or type(tool).__name__
    if isinstance(tool, functools.partial):
        return "a partial hides the name and the signature of its function: guard a def instead"
    if isinstance(tool, classmethod | staticmethod):
        return f"a {type(tool).__name__} object is no function: take it from its class or instance"
    if isinstance(tool, type):
        return f"{name} is a class: guard the function or method that acts"
    if not inspect.isroutine(tool):
        return (
            f"a {name} object is not guarded: guard the function that it was made of, below "
            "the framework's own decorator, or its method, and hand that over"
        )
    if _SPEC in getattr(tool, "__dict__", {}):
        return (
            f"{name} has another decorator above its guard, whose work nobody guards: "
            "put @reads, @writes or @irreversible on top of it"
        )
    plain = inspect.unwrap(cast("Any", getattr(tool, "__func__", tool)))
    if any(one.__dict__[_SPEC].function is plain for one in WRAPPERS):
        return f"{name} is the bare function of a guarded tool: hand over the guarded one"
    if name.endswith("<lambda>"):
        return "a lambda has no name to grant: write a def and guard it"
    return (
        f"{name} is not guarded: decorate the function itself with @reads, @writes or "
        "@irreversible, below the framework's own decorator"
    )


def receiver_of(function: Callable[..., Any]) -> tuple[Any, ...]:
    """Return the object that a bound method, or a tool bound to a run, is bound to."""
    if isinstance(function, MethodType):  # told from a proxy by spec_of()
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
class Apart:
    """Where a model runs that must not act: no tool is called from here, bound or not."""

    @property
    def call_id(self) -> str:
        """No call: ``""``."""
        return ""

    @property
    def marks(self) -> RunMarks:
        """The markers of no run."""
        return PROCESS_MARKS

    def revealed(self, label: Label, reason: str) -> None:
        """Let a value out of its wrapper: it is content that is looked at here."""

    def shown(self, label: Label) -> None:
        """Let content be shown."""

    def endorsed(
        self, label: Label, value: object, *, reason: str, tool: object, parameter: str
    ) -> None:
        """Refuse.

        Raises:
            MisuseError: always.
        """
        raise MisuseError("nothing is endorsed where a quarantined model runs")


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
    def current(self) -> Frame:
        """The frame to call from: a task that outlives a body is in the run, and in no call.

        It takes along what the body has seen, so that exposes the run.
        """
        if not self.over:
            return self
        if self.tainted:
            self.run.expose(f"what outlived a call of {self.name}")
        return self.run.top

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
        else:
            self.shown(label)
        self.run.record("reveal", sources=list(label.names), reason=reason, call=self.call_id)

    def shown(self, label: Label) -> None:
        """Take in that content is shown: a run that shows handles has not seen it before."""
        if self.run.marks.isolation.mode == "handle" and not label.trusted:
            self.run.expose(*label.names)

    def endorsed(
        self, label: Label, value: object, *, reason: str, tool: object, parameter: str
    ) -> None:
        """Record that a value was checked and is trusted from here on."""
        self.run.take_endorsement(label, value, reason=reason, tool=tool, parameter=parameter)

"""Spans for OpenTelemetry, made of the entries of the log.

::

    log = traced(AuditLog.open("audit/"))
    with log, Run(agent="clerk", grant=grant, log=log): ...

``traced`` wraps a log, or none. Each entry goes to the wrapped log first, and what that
raises is raised as before; then it becomes telemetry, which has no say: whatever a tracer,
a processor or an exporter raises is noted once with the logger ``checkrein`` and goes no
further. So no decision depends on it, and no entry is lost by it.

=====================================  =================================================
entry                                  becomes
=====================================  =================================================
``run.opened``                         a span ``invoke_agent {agent}``
``run.closed``, ``run.suspended``      its end, and the end of all calls that are open in it
``call.allowed``                       a span ``execute_tool {tool}``
``call.outcome``                       its end
``call.denied``                        a span without length, with an error; or the end of
                                       the span of a call that is denied on its way
an entry that the log did not take     as above, with an error: a call whose intent was not
                                       taken is one denied by ``log.unavailable``
everything else that a run writes      an event of the call's span, the enclosing call's,
                                       or the run's
=====================================  =================================================

The parent of a call is the call in whose body it was made, or else its run. That of a run
is the call in whose body it was opened, or its parent run, or else the span that is current
where it is opened. Times are those of the entries; no span ends before it begins. An event
is called ``checkrein.`` and the type of its entry.

``gen_ai.*`` and ``error.type`` are named by the installed semantic conventions, which have
nothing for a decision; those are ``checkrein.*``. ``error.type`` is the type of what a body
raised, the rule that denied, or ``log.unavailable``. ``checkrein.status`` is the status of
the outcome, ``denied``, ``unrecorded``, or ``unfinished`` if nobody said how it ended.

Spans hold names, ids, digests, rules, effects, resources and counts. They do not hold
arguments, what was said, reasons, where content came from, nor who answered; with
``content=True`` they hold arguments, as they are in the log, without secrets and without
what can be erased. Names are made visible and cut at 200 letters, lists at 64 items. At
most 10,000 calls and as many runs are open; the oldest is ended for one more.
"""

# pyright: reportDeprecated=false
# (what the conventions call deprecated is what moved, under its name, to a repository of its own)
from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, final

from checkrein.errors import ConfigurationError
from checkrein.forgetting import Erasable
from checkrein.frames import Frame
from checkrein.lazy import logger
from checkrein.ports import ACTIVE
from checkrein.setups import installed_version
from checkrein.visible import visible
from checkrein.waiting import off_loop

try:
    from opentelemetry.semconv._incubating.attributes.gen_ai_attributes import (
        GEN_AI_AGENT_NAME,
        GEN_AI_OPERATION_NAME,
        GEN_AI_TOOL_CALL_ARGUMENTS,
        GEN_AI_TOOL_NAME,
        GEN_AI_TOOL_TYPE,
        GenAiOperationNameValues,
    )
    from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
    from opentelemetry.trace import (
        INVALID_SPAN,
        Span,
        Status,
        StatusCode,
        Tracer,
        get_tracer,
        set_span_in_context,
    )
except ImportError as missing:
    raise ImportError(
        "checkrein.telemetry needs OpenTelemetry: pip install 'checkrein[otel]'"
    ) from missing

if TYPE_CHECKING:
    from types import TracebackType

    from checkrein.ports import Log

__all__ = ["TracedLog", "traced"]

_EXECUTE_TOOL: Final = GenAiOperationNameValues.EXECUTE_TOOL.value
_INVOKE_AGENT: Final = GenAiOperationNameValues.INVOKE_AGENT.value
_UNAVAILABLE: Final = "log.unavailable"
_MOST_OPEN: Final = 10_000
_MOST_EARLY: Final = 1_000
_LONGEST: Final = 200
_MOST_ITEMS: Final = 64
_INT64: Final = 1 << 63

_OF_RUN: Final = ("run", "grants", "policy", "version", "parent", "resumes", "exposed")
_OF_CALL: Final = (
    *("run", "call", "effect", "resource", "digest", "definition", "grants"),
    *("parent", "exposed", "shadow", "standing"),
)
_OF_EVENT: Final[dict[str, tuple[str, ...]]] = {
    "call.edited": ("call", "became", "arguments"),
    "call.outcome": ("call", "status", "error"),
    "confirmation.asked": ("call", "confirmation", "bound_to", "tool", "resource", "letters"),
    "confirmation.answered": ("call", "confirmation", "answer", "suspicious"),
    "endorsement": ("tool", "parameter"),
    "host": ("framework", "version"),
    "instruction": (),
    "model.output": ("digest", "letters"),
    "model.prompt": ("digest", "letters"),
    "prompt": (),
    "quarantine": (),
    "reveal": ("call",),
    "run.exposed": ("sources",),
    "run.locked": (),
    "run.plan": ("plan",),
    "run.stopped": (),
    "tool.unknown": ("tool",),
    "trusted": ("values",),
}
"""What of an entry is shown in an event. What is not named is not shown."""

_NAMES: Final = {
    "run": "checkrein.run.id",
    "call": "checkrein.call.id",
    "confirmation": "checkrein.confirmation.id",
    "parent": "checkrein.parent.id",
}
_FAILED: Final = frozenset({"raised", "cancelled", "in doubt"})


def traced(
    log: Log | None = None, tracer: Tracer | None = None, *, content: bool = False
) -> TracedLog:
    """Return a log that hands every entry on to *log*, and tells OpenTelemetry about it.

    Args:
        log: where entries are kept; with ``None`` they are not, and there are only spans.
        tracer: makes the spans; by default one of the global provider, also of a provider
            that is set later.
        content: put the arguments of calls on their spans.

    Raises:
        ConfigurationError: an argument is not what it should be, or *log* is traced already.

    Example:
        >>> from checkrein import Grant, Run, allow, reads
        >>> @reads("shop.stock")
        ... def stock(item: str) -> int:
        ...     return 7
        >>> with Run(agent="clerk", grant=Grant(allow("shop.stock")), log=traced()):
        ...     stock("nails")
        7
    """
    if isinstance(log, TracedLog):
        raise ConfigurationError("traced(log): this log is traced already; use it as it is")
    if log is not None and not all(
        callable(getattr(log, method, None)) for method in ("append", "enqueue")
    ):
        raise ConfigurationError("traced(log) takes a log, AuditLog.open('audit/'), or None")
    if tracer is not None and not callable(getattr(tracer, "start_span", None)):
        raise ConfigurationError("traced(tracer=...) takes a tracer: provider.get_tracer('name')")
    if tracer is None:
        tracer = get_tracer("checkrein", installed_version())
    return TracedLog(log, tracer, content=content)


class _Open:
    """A span that has not ended.

    Args:
        span: the span.
        started: when, in nanoseconds since the epoch.
        run: the id of the run it belongs to.
        call: the id of the call, ``""`` for a run.
    """

    __slots__ = ("call", "calls", "run", "span", "started")

    def __init__(self, span: Span, started: int, run: str, call: str = "") -> None:
        self.span, self.started, self.run, self.call = span, started, run, call
        self.calls: dict[str, None] = {}  # the ids of calls that are open in it, if it is a run

    def end(self, now: int, status: str, error: str = "") -> None:
        """End the span; with *error*, as one that failed."""
        try:
            self.span.set_attribute("checkrein.status", status)
            if error:
                self.span.set_attribute(ERROR_TYPE, error)
                self.span.set_status(Status(StatusCode.ERROR, error))
        finally:
            self.span.end(max(now, self.started))


@final
class TracedLog:
    """A log that tells OpenTelemetry what is written to it; get one from :func:`traced`.

    It has ``append``, ``append_many``, ``aappend`` and ``enqueue``, which trace; ``flush``,
    ``close`` and ``with``, which work without a wrapped log, too; and all else that the
    wrapped log has.
    """

    def __init__(self, log: Log | None, tracer: Tracer, *, content: bool) -> None:
        self._log: Any = _Nowhere() if log is None else log
        self._tracer, self._content = tracer, content
        self._runs: dict[str, _Open] = {}
        self._calls: dict[str, _Open] = {}
        # A task that is cancelled while its intent is written may say so before that is written.
        self._early: dict[str, Mapping[str, Any]] = {}
        self._quiet = False
        self._tell: dict[str, Callable[[Mapping[str, Any], int, str], None]] = {
            "run.opened": self._open_run,
            "run.closed": self._close_run,
            "run.suspended": self._close_run,
            "call.allowed": self._open_call,
            "call.denied": self._deny_call,
            "call.outcome": self._close_call,
            **dict.fromkeys(_OF_EVENT.keys() - {"call.outcome"}, self._add_event),
        }

    # -- a log ---------------------------------------------------------------------------

    def append(self, event: Mapping[str, Any], /) -> Any:
        """Append *event* to the wrapped log, and return and raise what that does."""
        return self._keep(self._log.append, event)

    def enqueue(self, event: Mapping[str, Any], /) -> Any:
        """Enqueue *event* in the wrapped log, and return and raise what that does."""
        return self._keep(self._log.enqueue, event)

    def append_many(self, events: Iterable[Mapping[str, Any]]) -> Any:
        """Append *events* to the wrapped log in one go, and return and raise what that does."""
        batch = tuple(events)
        try:
            kept = self._log.append_many(batch)
        except BaseException as error:
            for event in batch:
                self._trace(event, type(error).__name__)
            raise
        for event in batch:
            self._trace(event)
        return kept

    async def aappend(self, event: Mapping[str, Any]) -> Any:
        """Do as `append` does, without holding an event loop up."""
        return await off_loop(partial(self.append, event))

    def flush(self) -> None:
        """Flush the wrapped log. The spans are their provider's to flush."""
        self._pass_on("flush")

    def close(self) -> None:
        """Close the wrapped log, and end every span that is open."""
        try:
            self._pass_on("close")
        finally:
            self._end_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        """Return what the wrapped log has."""
        if name.startswith("_"):  # of a log half made, or copied: nothing is wrapped yet
            raise AttributeError(name)
        return getattr(self._log, name)

    def span(self) -> Span:
        """Return the span of the call whose body runs here, or else of the run; or an invalid one.

        For what others trace in between, which a log cannot place by itself.

        Example:
            >>> from opentelemetry.trace import use_span
            >>> with use_span(traced().span()):
            ...     pass  # what is traced here belongs to the call
        """
        frame = ACTIVE.get()
        if isinstance(frame, Frame):
            frame = frame.current
            found = self._calls.get(frame.call_id) or self._runs.get(frame.run.id)
            if found is not None:
                return found.span
        return INVALID_SPAN

    def _pass_on(self, name: str) -> None:
        method = getattr(self._log, name, None)
        if method is not None:
            method()

    def _keep(self, write: Callable[[Mapping[str, Any]], object], event: Mapping[str, Any]) -> Any:
        try:
            kept = write(event)
        except BaseException as error:
            self._trace(event, type(error).__name__)
            raise
        self._trace(event)
        return kept

    # -- spans ---------------------------------------------------------------------------

    def _trace(self, event: Mapping[str, Any], lost: str = "") -> None:
        """Turn *event* into telemetry; *lost* is the type of what the log has raised instead."""
        try:
            tell = self._tell.get(event.get("type", ""))
            if tell is not None and type(event.get("run")) is str:
                now = event["time"]
                tell(event, now if type(now) is int and 0 <= now < _INT64 else time.time_ns(), lost)
        except Exception as error:  # noqa: BLE001 (whatever it is, it concerns no decision)
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if not self._quiet:
            self._quiet = True
            name = type(error).__name__
            logger().warning("telemetry is incomplete (%s); this is said once", name)

    def _open_run(self, event: Mapping[str, Any], now: int, lost: str) -> None:
        outer = self._calls.get(event["call"]) or self._runs.get(event["parent"])
        agent = _text(event["agent"])
        opened = self._start(_INVOKE_AGENT, agent, outer, event, now, {GEN_AI_AGENT_NAME: agent})
        self._describe(opened.span, event, _OF_RUN, lost)
        if lost:
            opened.end(now, "unrecorded", _UNAVAILABLE)
        else:
            self._hold(self._runs, event["run"], opened, now)

    def _close_run(self, event: Mapping[str, Any], now: int, lost: str) -> None:
        opened = self._runs.pop(event["run"], None)
        if opened is None:
            return
        status = "suspended" if event["type"] == "run.suspended" else "closed"
        try:
            fields = ("calls", "exposed", "private", "confirmations")
            opened.span.add_event(*_event(event, fields, lost))
        finally:
            self._end_run(opened, now, status, lost)

    def _end_run(self, opened: _Open, now: int, status: str, lost: str = "") -> None:
        for call in list(opened.calls):
            self._end_call(call, now, "unfinished")
        self._end(opened, now, "unrecorded" if lost else status, _UNAVAILABLE if lost else "")

    def _open_call(self, event: Mapping[str, Any], now: int, lost: str) -> None:
        opened = self._start_call(event, now, lost)
        if lost:
            opened.end(now, "unrecorded", _UNAVAILABLE)
            return
        call = event["call"]
        self._hold(self._calls, call, opened, now)
        run = self._runs.get(event["run"])
        if run is not None:
            run.calls[call] = None
        early = self._early.pop(call, None)
        if early is not None:
            self._close_call(early, now, "")

    def _close_call(self, event: Mapping[str, Any], now: int, lost: str) -> None:
        call, status = event["call"], _text(event["status"])
        if call not in self._calls:  # it was never allowed, or was denied on its way
            self._add_event(event, now, lost)
            if status == "cancelled":
                self._early[call] = event
                _oldest_beyond(_MOST_EARLY, self._early)
            return
        error = ""
        if status in _FAILED:
            error = _text(event["error"]) or status
        if lost:
            status, error = "unrecorded", _UNAVAILABLE
        self._end_call(call, now, status, error)

    def _deny_call(self, event: Mapping[str, Any], now: int, lost: str) -> None:
        call = event["call"]
        rule = _findings(event).get("checkrein.rules", ["denied"])[0]
        opened = self._calls.get(call)
        if opened is None:
            self._start_call(event, now, lost).end(now, "denied", rule)
            return
        try:
            opened.span.add_event(*_event(event, (), lost))
        finally:
            self._end_call(call, now, "denied", rule)

    def _add_event(self, event: Mapping[str, Any], now: int, lost: str) -> None:
        opened = (
            self._calls.get(event.get("call", ""))
            or self._calls.get(event.get("parent", ""))
            or self._runs.get(event["run"])
        )
        if opened is not None and opened.span.is_recording():
            opened.span.add_event(*_event(event, _OF_EVENT[event["type"]], lost))

    def _start(
        self,
        operation: str,
        name: str,
        outer: _Open | None,
        event: Mapping[str, Any],
        now: int,
        known: dict[str, Any],
    ) -> _Open:
        """Start a span, with what a sampler may want to know."""
        span = self._tracer.start_span(
            f"{operation} {name}",
            context=None if outer is None else set_span_in_context(outer.span),
            attributes={GEN_AI_OPERATION_NAME: operation, **known},
            start_time=now,
        )
        call = "" if operation is _INVOKE_AGENT else event["call"]
        return _Open(span, now, event["run"], call)

    def _start_call(self, event: Mapping[str, Any], now: int, lost: str) -> _Open:
        outer = self._calls.get(event["parent"]) or self._runs.get(event["run"])
        tool = _text(event["tool"])
        known = {
            GEN_AI_TOOL_NAME: tool,
            GEN_AI_TOOL_TYPE: "function",
            GEN_AI_AGENT_NAME: _text(event["agent"]),
        }
        opened = self._start(_EXECUTE_TOOL, tool, outer, event, now, known)
        self._describe(opened.span, event, _OF_CALL, lost)
        if opened.span.is_recording():
            opened.span.add_event(*_event(event, ()))
            if self._content:
                arguments = json.dumps(event["arguments"], default=_withheld)
                opened.span.set_attribute(GEN_AI_TOOL_CALL_ARGUMENTS, arguments)
        return opened

    def _describe(
        self, span: Span, event: Mapping[str, Any], fields: tuple[str, ...], lost: str
    ) -> None:
        if span.is_recording():
            span.set_attributes(_attributes(event, fields, lost))

    # -- what is open --------------------------------------------------------------------

    # One step on a dict is safe among threads; a lock here could be held across a fork.

    def _hold(self, table: dict[str, _Open], key: str, opened: _Open, now: int) -> None:
        """Keep a span until it ends; end the oldest if there are too many."""
        before = table.pop(key, None)
        table[key] = opened
        for one in (before, _oldest_beyond(_MOST_OPEN, table)):
            if one is not None and not one.call:
                self._end_run(one, now, "unfinished")
            elif one is not None:
                self._forget(one)
                self._end(one, now, "unfinished")

    def _end_call(self, call: str, now: int, status: str, error: str = "") -> None:
        opened = self._calls.pop(call, None)
        if opened is not None:
            self._forget(opened)
            self._end(opened, now, status, error)

    def _forget(self, opened: _Open) -> None:
        run = self._runs.get(opened.run)
        if run is not None:
            run.calls.pop(opened.call, None)

    def _end(self, opened: _Open, now: int, status: str, error: str = "") -> None:
        """End one span of several: the others are ended whatever becomes of it."""
        try:
            opened.end(now, status, error)
        except Exception as failure:  # noqa: BLE001 (as above)
            self._complain(failure)

    def _end_all(self) -> None:
        now = time.time_ns()
        for table in (self._calls, self._runs):
            while table:
                with suppress(KeyError):  # another thread has ended it
                    self._end(table.popitem()[1], now, "unfinished")


class _Nowhere:
    """The log of those who keep none."""

    def append(self, event: Mapping[str, Any], /) -> None:
        """Keep nothing."""

    def enqueue(self, event: Mapping[str, Any], /) -> None:
        """Keep nothing."""

    def append_many(self, events: Iterable[Mapping[str, Any]], /) -> None:
        """Keep nothing."""


def _oldest_beyond(most: int, table: dict[str, Any]) -> Any:
    """Take the oldest item out if there are more than *most*."""
    if len(table) > most:
        with suppress(RuntimeError, StopIteration):  # another thread was here: next time, then
            return table.pop(next(iter(table)), None)
    return None


def _event(
    event: Mapping[str, Any], fields: tuple[str, ...], lost: str = ""
) -> tuple[str, dict[str, Any], int | None]:
    """Return name, attributes and time of a span's event."""
    when = event["time"]
    known = _attributes(event, fields, lost) | _findings(event)
    return f"checkrein.{event['type']}", known, when if type(when) is int else None


def _attributes(event: Mapping[str, Any], fields: tuple[str, ...], lost: str) -> dict[str, Any]:
    shown = {_NAMES.get(it, f"checkrein.{it}"): _value(event[it]) for it in fields if it in event}
    if lost:
        shown["checkrein.log.error"] = _text(lost)
    return {name: value for name, value in shown.items() if value not in (None, "", ())}


def _findings(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rules of an entry's findings, and the names of the arguments they are about."""
    found = event.get("findings")
    if not found:
        return {}
    rules = [_text(one["rule"]) for one in found[:_MOST_ITEMS]]
    names = [_text(one["argument"]) for one in found[:_MOST_ITEMS] if one["argument"]]
    return {"checkrein.rules": rules, **({"checkrein.arguments": names} if names else {})}


def _value(value: Any) -> Any:
    """Return what an attribute may be: a number, a text, or some texts; else ``None``."""
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is bool or (kind is int and -_INT64 <= value < _INT64):
        return value
    if kind is list:
        return tuple(_text(one) for one in value[:_MOST_ITEMS])
    return None


def _text(value: Any) -> str:
    """Return a name as it can be shown; what is no text has none."""
    if type(value) is not str:
        return ""
    if len(value) <= _LONGEST and value.isascii() and value.isprintable() and "\\" not in value:
        return value  # the usual case
    return visible(value[:_LONGEST])


def _withheld(value: object) -> dict[str, bool]:
    """Return what stands for a value that must be forgettable, or is no JSON."""
    return {"erasable": True} if type(value) is Erasable else {"withheld": True}

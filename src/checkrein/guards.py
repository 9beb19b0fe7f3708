"""``reads``, ``writes``, ``irreversible``: the decorators, and the drivers behind them.

A decorator states facts and changes nothing else: name, docstring and signature
stay (with plain, resolved parameter types), a coroutine function stays one, a
generator function stays one. What happens in a call is in
:mod:`checkrein.mediation`; a driver here serves its needs, one for plain
functions, one for coroutines, each also for streams.

Put the decorator *below* the framework's own: it takes functions, not the tool
objects that frameworks make of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Literal, NamedTuple, TypeVar, cast, final

from checkrein.calls import Binder
from checkrein.confirmations import NO_CARE, Care, check_care
from checkrein.directories import Directory, check_directory
from checkrein.errors import Denied, MisuseError
from checkrein.facts import Claim, Effect, Stated, ToolFacts, read_facts
from checkrein.frames import RECEIVER, WRAPPERS, Apart, Frame, spec_of
from checkrein.mediation import (
    END,
    Ask,
    Consult,
    Emit,
    Failure,
    Left,
    Mediation,
    Need,
    Persist,
    control_flow,
    mediate,
)
from checkrein.permissions import check_resource
from checkrein.ports import ACTIVE
from checkrein.ports import Frame as FramePort
from checkrein.runs import Run
from checkrein.waiting import off_loop, within

F = TypeVar("F", bound=Callable[..., Any])


# -- the decorators ------------------------------------------------------------------------


def reads(
    resource: str,
    *,
    private: bool = False,
    external: bool = False,
    evidence: bool | Sequence[str] = False,
    returns: Literal["trusted"] | None = None,
    directory: Directory | None = None,
) -> Callable[[F], F]:
    """Guard a tool that only reads.

    Args:
        resource: what it reads, dotted: ``mail.inbox``.
        private: what it reads is for some people only.
        external: it asks somebody outside, who learns the arguments.
        evidence: what it returns may be trusted as a source of arguments; or the names
            of the fields of its items for which that holds.
        returns: ``"trusted"`` if content from outside is to be taken as plain data.
        directory: which names or ids in its result may be relied on, for parameters that
            are declared to take them; see :mod:`checkrein.directories`.

    Raises:
        MisuseError: the target is no plain function, or its signature leaves open
            what is untrusted.

    Example:
        >>> from checkrein import Untrusted, reads
        >>> @reads("mail.inbox", private=True)
        ... def read_inbox(folder: str = "INBOX") -> Untrusted[str]:
        ...     return Untrusted("Dear customer, ...")
    """
    claim = Claim(Effect.READS, resource, external, private)
    return _decorator(claim, _stated(evidence, returns, directory))


def writes(
    resource: str,
    *,
    private: bool = False,
    external: bool = False,
    evidence: bool | Sequence[str] = False,
    returns: Literal["trusted"] | None = None,
    directory: Directory | None = None,
) -> Callable[[F], F]:
    """Guard a tool that changes what can be changed back. Arguments as for :func:`reads`."""
    claim = Claim(Effect.WRITES, resource, external, private)
    return _decorator(claim, _stated(evidence, returns, directory))


def irreversible(
    resource: str,
    *,
    private: bool = False,
    external: bool = False,
    evidence: bool | Sequence[str] = False,
    returns: Literal["trusted"] | None = None,
    directory: Directory | None = None,
    preview: Callable[..., str] | None = None,
    care: Care | None = None,
) -> Callable[[F], F]:
    """Guard a tool whose effect cannot be taken back: a person confirms each call.

    Args:
        resource: what it acts on, dotted: ``mail.send``.
        private: as for :func:`reads`, like those that follow.
        external: it reaches somebody outside.
        evidence: whether what it returns may be trusted as a source of arguments.
        returns: ``"trusted"`` if content from outside is to be taken as plain data.
        directory: which names or ids in its result may be relied on.
        preview: a plain function that takes the tool's arguments by name and returns, in
            words or as a diff, what the call would do. It is run before a person is
            asked, without any permission: it must change nothing.
        care: how much care a confirmation takes, beyond reading.

    Example:
        >>> from checkrein import irreversible
        >>> @irreversible("files.delete", preview=lambda path: f"removes {path} for good")
        ... def delete(path: str) -> None: ...
    """
    claim = Claim(Effect.IRREVERSIBLE, resource, external, private)
    stated = _stated(evidence, returns, directory)
    return _decorator(claim, stated._replace(**_shown_with(preview, care)))


def _shown_with(preview: object, care: object) -> dict[str, Any]:
    if preview is not None and (not callable(preview) or _is_deferred(preview)):
        raise MisuseError("preview= takes a plain function of the tool's arguments, not async")
    return {"preview": preview, "care": NO_CARE if care is None else check_care(care)}


def _stated(evidence: object, returns: object, directory: Directory | None) -> Stated:
    if returns not in {None, "trusted"}:
        raise MisuseError('returns= takes "trusted", or nothing')
    if directory is not None:
        check_directory(directory)
    if not isinstance(evidence, bool):
        names = list(evidence) if isinstance(evidence, list | tuple | set | frozenset) else []
        if not names or not all(isinstance(one, str) and one for one in names):
            raise MisuseError('evidence= takes True, or names of fields: evidence=["email"]')
        evidence = tuple(sorted(names))
    return Stated(evidence, returns == "trusted", () if directory is None else (directory,))


def definition_of(tool: Callable[..., Any]) -> bytes:
    """Return the digest of a guarded tool's definition, to pin it with ``Run(pins=...)``."""
    spec = spec_of(tool)
    if spec is None:
        raise MisuseError("definition_of() takes a guarded tool")
    return spec.facts.definition


def _decorator(claim: Claim, stated: Stated) -> Callable[[F], F]:
    if callable(claim.resource):
        raise MisuseError('write @reads("resource"), with the resource it reads, not @reads')
    check_resource(claim.resource)

    def decorate(function: F) -> F:
        below = spec_of(function)
        if isinstance(below, Tool):  # stacked decorators join into one guard
            facts = below.facts.with_claim(claim, stated)
            return cast("F", Tool(below.function, facts).wrapper)
        _refuse_what_is_no_function(function)
        return cast("F", Tool(function, read_facts(function, claim, stated)).wrapper)

    return decorate


def _is_deferred(function: Callable[..., Any]) -> bool:
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    )


def _refuse_what_is_no_function(function: object) -> None:
    if inspect.isfunction(function) or inspect.ismethod(function):
        if _is_deferred(inspect.unwrap(function)) and not _is_deferred(function):
            raise MisuseError(
                "another decorator hides that this is an async or a generator function, and its "
                "work would escape the guard: put this decorator below the other"
            )
        return
    kind = type(function).__name__
    if isinstance(function, classmethod | staticmethod):
        raise MisuseError(f"put this decorator below @{kind}, next to the function")
    if isinstance(function, functools.partial):
        raise MisuseError("a partial has no name and no fixed signature: guard a def that calls it")
    if isinstance(function, type):
        raise MisuseError("a class is no tool: guard the function or method that acts")
    raise MisuseError(
        f"this is a {kind} object, not a function: put the decorator below the framework's own "
        "decorator, next to the def; for an object with __call__, guard the method"
    )


# -- the guarded function ------------------------------------------------------------------


class Tool:
    """A guarded function: its facts, its binder, its body, and the wrapper that callers get.

    Attributes:
        function: the original; only the drivers call it.
        facts: what the tool is.
        binder: binds arguments to its parameters.
        wrapper: what takes the function's place.
    """

    __slots__ = ("binder", "facts", "function", "wrapper")

    def __init__(self, function: Callable[..., Any], facts: ToolFacts) -> None:
        self.function = function
        self.facts = facts
        self.binder = Binder(facts)
        self.wrapper = self._wrap(ACTIVE.get, ())

    def bound_to(self, run: Run, receiver: tuple[Any, ...]) -> Callable[..., Any]:
        """Return the guarded function with *run* fixed, *receiver* as its first argument."""

        def frame() -> Frame:
            return frame_for(run)

        return self._wrap(frame, receiver)

    def _wrap(
        self, find_frame: Callable[[], FramePort | None], receiver: tuple[Any, ...]
    ) -> Callable[..., Any]:
        wrapper = _wrapper_for(self, find_frame, receiver)
        functools.update_wrapper(wrapper, self.function)
        shown = self.facts.signature
        if receiver:
            shown = shown.replace(parameters=list(shown.parameters.values())[1:])
        # Resolved and plain: string annotations and wrapper types survive few frameworks,
        # and __wrapped__ would lead them back to both.
        vars(wrapper).pop("__wrapped__", None)
        vars(wrapper)["__signature__"] = shown
        wrapper.__annotations__ = {
            one.name: one.annotation
            for one in shown.parameters.values()
            if one.annotation is not inspect.Parameter.empty
        }
        if shown.return_annotation is not inspect.Signature.empty:
            wrapper.__annotations__["return"] = shown.return_annotation
        vars(wrapper)["__checkrein__"] = self
        vars(wrapper)[RECEIVER] = receiver
        WRAPPERS.add(wrapper)
        return wrapper


def frame_for(run: Run) -> Frame:
    """Return the frame for a tool bound to *run*, or for a framework that serves it.

    The active frame serves where it belongs to the run or to one inside it.

    Raises:
        Denied: another run is active, or a quarantined model runs here.
    """
    active = ACTIVE.get()
    if isinstance(active, Apart):
        raise Denied("a quarantined model calls no tool", rule="run.none")
    if not isinstance(active, Frame) or active.run.closed:
        return run.top
    if run in active.run.line:
        return active
    if active.run in run.line and (not active.call_id or run.opened_in == active.call_id):
        if active.tainted:
            run.expose("the body that opened the run")
        return run.top
    raise Denied(
        "the tool is bound to one run and called within another that is no part of it",
        rule="run.none",
    )


def _wrapper_for(
    tool: Tool, find_frame: Callable[[], FramePort | None], receiver: tuple[Any, ...]
) -> Callable[..., Any]:
    """Return a function of the same colour as the tool's that mediates each call."""
    function, facts, binder = tool.function, tool.facts, tool.binder
    if inspect.iscoroutinefunction(function):

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            mediation = mediate(facts, binder, find_frame(), receiver + args, kwargs)
            return await _adrive(mediation, function)

        return coroutine
    if inspect.isasyncgenfunction(function):

        async def asyncgen(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            stream = _astream(
                mediate(facts, binder, find_frame(), receiver + args, kwargs), function
            )
            try:
                async for item in stream:
                    yield item
            finally:
                await stream.aclose()

        return asyncgen
    if inspect.isgeneratorfunction(function):

        def generator(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
            mediation = mediate(facts, binder, find_frame(), receiver + args, kwargs)
            yield from _stream(mediation, function)

        return generator

    def plain(*args: Any, **kwargs: Any) -> Any:
        given = receiver + args if receiver else args
        return _drive(mediate(facts, binder, find_frame(), given, kwargs), function)

    return plain


# -- drivers -------------------------------------------------------------------------------


@final
class Done(NamedTuple):
    """The mediation is over; *result* is what the caller gets."""

    result: Any


def _send(mediation: Mediation, answer: Any) -> Need | Done:
    # Alone in its try: a StopIteration of anything else must never read as "go ahead".
    try:
        return mediation.send(answer)
    except StopIteration as end:
        return Done(end.value)
    except RuntimeError as error:
        _raise_what_the_body_raised(error)
        raise


def _throw(mediation: Mediation, error: BaseException) -> Need | Done:
    try:
        return mediation.throw(error)
    except StopIteration as end:
        return Done(end.value)
    except RuntimeError as raised:
        _raise_what_the_body_raised(raised)
        raise


def _raise_what_the_body_raised(error: RuntimeError) -> None:
    # A generator cannot let a StopIteration out as it is.
    if isinstance(error.__cause__, StopIteration) and error.args == _STOPPED:
        raise error.__cause__ from None


_STOPPED = ("generator raised StopIteration",)


def _drive(mediation: Mediation, function: Callable[..., Any]) -> Any:
    """Serve *mediation* for a plain function; return its result."""
    need: Need | Done = next(mediation)  # it begins with a need, or raises
    while type(need) is not Done:
        if type(need) is not Frame:
            need = _serve(mediation, need)
            continue
        token = ACTIVE.set(need)
        try:
            positional, named = need.body_arguments()
            raw = function(*positional, **named)
            if type(raw) in _DEFERRED:
                _refuse_deferred(raw, need)
        except BaseException as error:  # noqa: BLE001 (thrown on, and raised again there)
            ACTIVE.reset(token)
            need = _throw(mediation, error)
            continue
        ACTIVE.reset(token)
        try:
            need = mediation.send(raw)
        except StopIteration as end:
            return end.value
    return need.result


async def _adrive(mediation: Mediation, function: Callable[..., Any]) -> Any:
    """Serve *mediation* for a coroutine function; return its result."""
    need = _send(mediation, None)
    while type(need) is not Done:
        if type(need) is not Frame:
            need = await _aserve(mediation, need)
            continue
        token = ACTIVE.set(need)
        try:
            positional, named = need.body_arguments()
            raw = await function(*positional, **named)
            if type(raw) in _DEFERRED:
                _refuse_deferred(raw, need)
        except BaseException as error:  # noqa: BLE001 (thrown on, and raised again there)
            ACTIVE.reset(token)
            need = _throw(mediation, error)
        else:
            ACTIVE.reset(token)
            need = _send(mediation, raw)
    return need.result


def _stream(mediation: Mediation, function: Callable[..., Any]) -> Generator[Any, None, None]:
    """Serve *mediation* for a generator function; yield its items. ``send`` is not forwarded."""
    body: Generator[Any, Any, Any] | None = None
    frame: Frame | None = None
    try:
        need = _send(mediation, None)
        while type(need) is not Done:
            if type(need) is Emit:
                try:
                    yield need.item
                except BaseException as error:
                    try:
                        _close_body(body, frame)
                    finally:
                        body = None
                        _finish(mediation, error)
                    raise
                need = _send(mediation, None)
                continue
            if type(need) is not Frame:
                need = _serve(mediation, need)
                continue
            frame = need
            token = ACTIVE.set(frame)  # for one step of the body: never across a yield
            try:
                if body is None:
                    positional, named = need.body_arguments()
                    body = cast("Generator[Any, Any, Any]", function(*positional, **named))
                raw = next(body, END)
            except BaseException as error:  # noqa: BLE001 (as above)
                ACTIVE.reset(token)
                need = _throw(mediation, error)
            else:
                ACTIVE.reset(token)
                need = _send(mediation, raw)
    finally:
        _close_body(body, frame)


async def _astream(mediation: Mediation, function: Callable[..., Any]) -> AsyncGenerator[Any, None]:
    """Serve *mediation* for an async generator function; yield its items."""
    body: AsyncGenerator[Any, Any] | None = None
    frame: Frame | None = None
    try:
        need = _send(mediation, None)
        while type(need) is not Done:
            if type(need) is Emit:
                try:
                    yield need.item
                except BaseException as error:
                    try:
                        await _aclose_body(body, frame)
                    finally:
                        body = None
                        _finish(mediation, error)
                    raise
                need = _send(mediation, None)
                continue
            if type(need) is not Frame:
                need = await _aserve(mediation, need)
                continue
            frame = need
            token = ACTIVE.set(frame)
            try:
                if body is None:
                    positional, named = need.body_arguments()
                    body = cast("AsyncGenerator[Any, Any]", function(*positional, **named))
                raw = await anext(body, END)
            except BaseException as error:  # noqa: BLE001 (as above)
                ACTIVE.reset(token)
                need = _throw(mediation, error)
            else:
                ACTIVE.reset(token)
                need = _send(mediation, raw)
    finally:
        await _aclose_body(body, frame)


def _serve(mediation: Mediation, need: Need) -> Need | Done:
    """Meet the need for an answer or for the log, and return the next need."""
    answer: Any
    try:
        if type(need) is Persist:
            answer = _persist(need)
        elif type(need) is Consult:
            answer = need.work()
        else:
            answer = _ask(need)
            if inspect.isawaitable(answer):
                _discard(answer)
                answer = Failure("the gate has to be awaited, and the tool is not async")
    except BaseException as error:  # noqa: BLE001 (host control flow, or the process is ending)
        return _throw(mediation, error)
    return _send(mediation, answer)


async def _aserve(mediation: Mediation, need: Need) -> Need | Done:
    """Meet the need as :func:`_serve` does, awaiting what can be awaited."""
    answer: Any
    try:
        if type(need) is Persist:
            served = functools.partial(_persist, need)
            answer = await off_loop(served) if need.durable else served()
        elif type(need) is Consult:
            answer = await off_loop(need.work) if need.waits else need.work()
        else:
            answer = _ask(need)
            if inspect.isawaitable(answer):
                answer = await _await_answer(answer, need)
    except BaseException as error:  # noqa: BLE001 (cancelled, host control flow, or ending)
        return _throw(mediation, error)
    return _send(mediation, answer)


def _persist(need: Persist) -> Failure | None:
    try:
        if need.durable:
            need.log.append(need.event)
        else:
            need.log.enqueue(need.event)
    except Exception as error:  # noqa: BLE001 (whatever went wrong, it was not recorded)
        return Failure(type(error).__name__)
    return None


def _ask(need: Need) -> Any:
    """Return the gate's answer or an awaitable of it; let only host control flow out."""
    assert isinstance(need, Ask)
    try:
        return need.gate.ask(need.confirmation)
    except control_flow():
        raise
    except Exception as error:  # noqa: BLE001 (a gate that fails has not said yes)
        return Failure(type(error).__name__)


async def _await_answer(answer: Awaitable[Any], need: Need) -> Any:
    assert isinstance(need, Ask)
    try:
        return await within(answer, need.seconds)
    except control_flow():
        raise
    except Exception as error:  # noqa: BLE001 (as above; a time-out is one of these)
        return Failure(type(error).__name__)


def _discard(answer: Any) -> None:
    if type(answer) is CoroutineType:
        answer.close()  # never started: without this Python warns that nobody awaited it


def _finish(mediation: Mediation, error: BaseException) -> None:
    """Tell *mediation* that the consumer left, or threw *error*, and meet its last needs."""
    left = isinstance(error, GeneratorExit)
    try:
        need = _throw(mediation, Left() if left else error)
        while type(need) is not Done:
            need = _serve(mediation, need)
    except BaseException as raised:
        if raised is not error:
            raise


def _close_body(body: Generator[Any, Any, Any] | None, frame: Frame | None) -> None:
    if body is None:
        return
    token = ACTIVE.set(frame)  # its finally blocks belong to the call
    try:
        body.close()
    finally:
        ACTIVE.reset(token)


async def _aclose_body(body: AsyncGenerator[Any, Any] | None, frame: Frame | None) -> None:
    if body is None:
        return
    token = ACTIVE.set(frame)
    try:
        await body.aclose()
    finally:
        ACTIVE.reset(token)


_DEFERRED = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})


def _refuse_deferred(raw: Any, frame: Frame) -> None:
    """Refuse work that would be done after the call is over, outside its mediation."""
    kind = type(raw).__name__
    if not isinstance(raw, AsyncGeneratorType):
        raw.close()
    raise MisuseError(
        f"{frame.name} is a plain function that returned a {kind}, whose work would "
        "escape the guard: write it as an async or a generator function"
    )

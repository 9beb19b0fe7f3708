"""AG2: a middleware, an audit, a pause that outlives the process, guards for ready-made tools.

::

    agent = Agent("clerk", config=config, tools=[...], middleware=[Guard()])
    refuse_unguarded(agent)
    with talks.run("thread-7", agent="clerk", grant=grant, log=log):
        reply = await agent.ask("...", stream=stream)

The framework has no pause of its own that outlives a process. A call that a person has to confirm
ends the turn here with :class:`Paused`, when the other calls of the turn are done and before the
model is called again. It is a ``HumanInputError``: the framework lets that out of tools and agents.
The stream's history holds a result for each call then, and some say that they wait: any model takes
such a history.

:func:`resume` goes on with the framework's own ``agent.resume``: the calls that waited are made
again, and the guard decides; the others get the results that they have. A call of which the
history has no result, because its process died, may have run: it is not made again.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (the framework is not installed where types are checked)
from __future__ import annotations

import copy
import inspect
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic_core import to_jsonable_python

from checkrein.errors import Denied, MisuseError, Suspended
from checkrein.frames import spec_of
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted
from checkrein.integrations.hosts import Problem, answer
from checkrein.mediation import register_control_flow
from checkrein.untrusted import Untrusted
from checkrein.waiting import off_loop

try:
    from ag2.agent import Agent
    from ag2.events import (
        DataInput,
        DrainedModelRequest,
        ModelRequest,
        ModelResponse,
        TextInput,
        ToolCallsEvent,
        ToolErrorEvent,
        ToolResultEvent,
    )
    from ag2.events._serialization import serialize_value
    from ag2.exceptions import HumanInputError
    from ag2.middleware import BaseMiddleware
    from ag2.tools import Toolkit, ToolResult, tool
    from ag2.tools.final import FunctionTool
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.ag2 needs AG2: pip install 'checkrein[ag2]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = [
    "Guard",
    "Paused",
    "adopt",
    "answer",
    "audit",
    "refuse_unguarded",
    "resume",
]

register_control_flow(HumanInputError)

_VERSION: Final = hosts.installed("ag2")
_OURS: Final = "checkrein"
_LOST: Final = "It is not known whether this call was made: the process ended."


class Paused(HumanInputError):
    """A person has to confirm a call: the turn has ended, and :func:`resume` goes on with it.

    Attributes:
        questions: what is asked.
    """

    def __init__(self, questions: list[dict[str, Any]]) -> None:
        names = ", ".join(sorted({one["tool"] for one in questions}))
        super().__init__(f"a person has to confirm: {names}")
        self.questions = questions


class Guard:
    """Middleware that puts a run in force, says no to the model, asks people, and keeps a record.

    Put it last in ``middleware=``, next to the tools: what stands inside of it escapes it.

    Args:
        run: the run, for where the context does not carry one; the active one serves otherwise.
        abort: let the turn end with ``Denied`` before the model is called again, instead of
            telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Example:
        >>> agent = Agent("desk", tools=[send], middleware=[Guard()])  # doctest: +SKIP
    """

    def __init__(self, run: Run | None = None, *, abort: bool = False, texts: bool = False) -> None:
        self._run, self._abort, self._texts = run, abort, texts

    def __call__(self, event: Any, context: Any) -> BaseMiddleware:
        """Return what stands around one turn."""
        return _Turn(event, context, run=self._run, abort=self._abort, texts=self._texts)


class _Again(NamedTuple):
    """What a turn is resumed with: answers, and results of the calls that are not made again."""

    answers: tuple[Any, ...] = ()
    results: Mapping[str, Any] = {}


class _Turn(BaseMiddleware):
    """What is done around one turn, and the calls of tools and of the model in it."""

    def __init__(
        self, event: Any, context: Any, *, run: Run | None, abort: bool, texts: bool
    ) -> None:
        super().__init__(event, context)
        self._run, self._abort, self._texts = run, abort, texts
        # Taken out: the agents that this one calls have turns, and calls, of their own.
        again = context.dependencies.pop(_Again, _Again())
        self._answers, self._results = again.answers, dict(again.results)
        self._waiting: dict[str, dict[str, Any]] = {}
        self._no: Denied | Suspended | None = None

    async def on_turn(self, call_next: Any, event: Any, context: Any) -> Any:
        """Take answers, and make the turn."""
        run = hosts.current(self._run)
        if run is not None and self._answers:
            await off_loop(partial(self._take, run))
        response = await call_next(event, context)
        self._end()  # a tool may end the turn by itself, without another call of the model
        return response

    def _take(self, run: Run) -> None:
        for given in self._answers:
            hosts.take(run, None, given)

    def _end(self) -> None:
        """End the turn if it is to end; nothing that is raised in a tool does that."""
        if self._no is not None:
            raise self._no
        if self._waiting:
            raise Paused(list(self._waiting.values()))

    # -- tools -----------------------------------------------------------------------------

    async def on_tool_execution(self, call_next: Any, event: Any, context: Any) -> Any:
        """Make a tool call, unless it was made before the turn was paused."""
        if event.id in self._results:
            return self._results.pop(event.id)
        try:
            with hosts.active(self._run) as run:
                result = await call_next(event, context)
                no = getattr(result, "error", None)
                if isinstance(no, Suspended) and run is not None:
                    return await self._wait(run, event, no)
                if isinstance(no, Denied | Suspended):
                    raise no
                return _shown(result)
        except Paused as below:  # an agent that is a tool
            self._waiting.update({one["confirmation"]: one for one in below.questions})
            return _result(event, str(below))
        except (Denied, Suspended) as no:
            if self._abort:
                self._no = no
            told = ToolResult(hosts.tell(no))
            return ToolErrorEvent(parent_id=event.id, name=event.name, error=no, result=told)

    async def _wait(self, run: Run, event: Any, pending: Suspended) -> Any:
        """Return a result that says what is asked; the turn ends before the model reads it."""
        about = pending.confirmation
        self._waiting[about] = await off_loop(partial(hosts.question, run, pending))
        return _result(event, hosts.tell(pending), {_OURS: about})

    # -- the model -------------------------------------------------------------------------

    async def on_llm_call(self, call_next: Any, events: Any, context: Any) -> Any:
        """Call the model."""
        self._end()
        run = hosts.current(self._run)
        if run is None:
            return await call_next(events, context)
        stream = str(context.stream.id)
        run.hosted("ag2", _VERSION, stream_id=stream)
        history = not all(isinstance(one, ModelRequest) for one in events)
        hosts.begin(run, stream, history=history)
        hosts.expose_unguarded(run, _unguarded(call_next, context))
        run.heard("prompt", hosts.text_of([*context.prompt, *events]), keep=self._texts)
        response = await call_next(events, context)
        run.heard("output", hosts.text_of(response), keep=self._texts)
        return response


def _result(event: Any, text: str, about: dict[str, Any] | None = None) -> Any:
    told = ToolResult(text, metadata=about)
    return ToolResultEvent(parent_id=event.id, name=event.name, result=told)


def _shown(event: Any) -> Any:
    """Return a result in which content is text, and which does not say that it waits."""
    if not isinstance(event, ToolResultEvent) or isinstance(event, ToolErrorEvent):
        return event
    given = event.result
    parts = [
        to_jsonable_python(one.data, fallback=str) if isinstance(one, DataInput) else one
        for one in given.parts
    ]
    about = {name: one for name, one in given.metadata.items() if name != _OURS}
    told = ToolResult(parts=parts, final=given.final, metadata=about)
    return ToolResultEvent(parent_id=event.parent_id, name=event.name, result=told)


# -- people --------------------------------------------------------------------------------


async def resume(agent: Agent, *answers: Any, stream: Any, **more: Any) -> Any:
    """Go on with a turn that was paused; return the agent's reply.

    Args:
        agent: the agent, with its :class:`Guard`.
        answers: each an :func:`answer` to a question; without any, what is open is asked again.
        stream: the stream, or one with the same id and history.
        more: as ``agent.resume`` takes.

    Raises:
        Paused: a person still has to confirm a call.
        MisuseError: no call is the last that happened, or the agent has no guard.
    """
    if not any(isinstance(one.middleware, Guard) for one in agent.middleware):
        raise MisuseError("resume() is for an agent with middleware=[Guard()]")
    events = list(await stream.history.get_events())
    cut, results = _last_calls(events)
    waits = {id_ for id_, one in results.items() if _OURS in one.result.metadata}
    ended = any(isinstance(one, ModelResponse) for one in events[cut:])
    if cut == 0 or (ended and not waits):
        raise MisuseError("nothing waits here: no tool call is the last that happened")
    for one in events[cut:]:
        if isinstance(one, DrainedModelRequest):  # came in meanwhile, and no model has read it
            stream.enqueue(*one.parts)
    calls = {one.id: one for one in events[cut - 1].tool_calls.calls}
    times = Counter(one.id for one in events[cut - 1].tool_calls.calls)
    clear = {id_: one for id_, one in results.items() if times[id_] == 1}  # it is its only result
    known = {id_: clear.get(id_, _result(one, _LOST)) for id_, one in calls.items()}
    done = {id_: one for id_, one in known.items() if id_ not in waits or times[id_] > 1}
    dependencies = {**more.pop("dependencies", {}), _Again: _Again(answers, done)}
    trigger = ToolCallsEvent(list(calls.values()))
    return await agent.resume(
        *events[:cut], trigger, stream=stream, dependencies=dependencies, **more
    )


def _last_calls(events: list[Any]) -> tuple[int, dict[str, Any]]:
    """Return where the results of the last calls begin, 0 if a user was last, and the results."""
    for place in range(len(events), 0, -1):
        one = events[place - 1]
        if isinstance(one, ModelRequest) and not isinstance(one, DrainedModelRequest):
            break
        if isinstance(one, ModelResponse) and one.tool_calls:
            rest = (later for later in events[place:] if isinstance(later, ToolResultEvent))
            return place, {later.parent_id: later for later in rest}
    return 0, {}


# -- at start-up ---------------------------------------------------------------------------


def audit(agent_or_tools: Any) -> list[Problem]:
    """Return which tools of an agent, or of a list, are not guarded.

    A toolkit that finds its tools when a turn begins is named as a whole, and so is an agent that
    is used as a tool.
    """
    return hosts.judge(pair for one in _registered(agent_or_tools) for pair in _callables(one))


def refuse_unguarded(agent_or_tools: Any) -> None:
    """Refuse an agent, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(agent_or_tools))


def _registered(agent_or_tools: Any) -> Iterator[Any]:
    """Return tools: of an agent also those that the framework adds."""
    if isinstance(agent_or_tools, Agent):
        agent_or_tools = [*agent_or_tools.tools, *agent_or_tools._additional_tools]  # noqa: SLF001
    for one in agent_or_tools:
        if type(one) is Toolkit:
            yield from _registered(one.tools)
        else:
            yield one


def _callables(tool: Any) -> Iterator[tuple[Any, ...]]:
    """Return what a call of *tool* runs; of tools that we do not know, the tool itself."""
    if type(tool) is _Adopted:
        yield tool.name, tool.guarded
        return
    if spec_of(tool) is not None:
        tool = FunctionTool.ensure_tool(tool)
    if type(tool) is not FunctionTool:
        yield hosts.name_of(tool), tool
        return
    model, shown = tool.model, tool.schema.function.parameters.get("properties", {})
    yield tool.name, _inner(model.call), partial(tuple, shown)
    # What it depends on is called before it, with arguments of the model's, too.
    for one in [*model.dependencies.values(), *model.extra_dependencies]:
        needed = model.dependency_provider.get_dependant(one).call
        yield f"Depends of {tool.name}", _inner(needed)


def _inner(call: Any) -> Any:
    """Return the function that the framework has put into a coroutine function of its own."""
    if getattr(call, "__code__", None) in _IN_THREAD:
        return inspect.getclosurevars(call).nonlocals["func"]
    return call


def _plain() -> None:
    """Do nothing."""


_IN_THREAD: Final = {tool(_plain, sync_to_thread=one).model.call.__code__ for one in (True, False)}


def _unguarded(call_next: Any, context: Any) -> list[Problem]:
    """Return what a model is offered that is not one of the agent's guarded tools.

    The model is offered schemas; each is the one that its tool holds, and no copy.
    """
    while isinstance(call_next, partial) and "tools" not in call_next.keywords:
        call_next = call_next.args[0] if call_next.args else None
    if not isinstance(call_next, partial):
        return [Problem("?", "it cannot be seen which tools there are")]
    agent = context.dependencies.get("__ag2_agent__")
    ours = [] if agent is None else [one for one in _registered(agent) if not audit([one])]
    known = {id(one.schema) for one in ours if isinstance(one, FunctionTool)}
    offered = (one for one in call_next.keywords["tools"] if id(one) not in known)
    return [Problem(_name(one), "") for one in offered]


def _name(schema: Any) -> str:
    return str(getattr(getattr(schema, "function", None), "name", schema.type))


# -- tools that are not ours -----------------------------------------------------------------


class _Adopted(FunctionTool):
    """A guarded function that is shown to the model as the tool that it calls."""

    __slots__ = ("_tool", "guarded")

    def __init__(self, tool: FunctionTool, guard: Decorator, **more: Any) -> None:
        about = tool.schema.function
        super().__init__(
            tool.model,
            name=tool.name,
            description=about.description,
            schema=dict(about.parameters),
            middleware=[one.middleware for one in tool.middleware],
        )
        self._tool = tool
        self.guarded = adopted(
            self._make,
            guard,
            name=tool.name,
            description=about.description,
            schema=about.parameters,
            injected=["ag2_call"],
            **more,
        )

    async def __call__(self, event: Any, context: Any) -> Any:
        """Make the guarded call."""
        try:
            given = dict(event.serialized_arguments)
            content = await self.guarded(**given, ag2_call=(event, context))
        except HumanInputError:
            raise
        except Exception as error:  # noqa: BLE001 (as the framework does)
            return ToolErrorEvent.from_call(event, error)
        return ToolResultEvent.from_call(event, content)

    async def _make(self, arguments: dict[str, Any]) -> str:
        """Call the tool; return the text of its result, or of its error: both are its words."""
        event, context = arguments.pop("ag2_call")
        call = copy.copy(event)
        call.arguments, call.serialized_arguments = json.dumps(arguments), arguments
        result = await self._tool(call, context)
        if isinstance(result, ToolErrorEvent):
            return f"{type(result.error).__name__}: {result.error}"
        return "\n".join(_words(one) for one in result.result.parts)


def _words(part: Any) -> str:
    """Return a part of a result as text; what is none, an image for example, is only named."""
    if isinstance(part, TextInput):
        return str(part.content)
    if isinstance(part, DataInput):
        return json.dumps(serialize_value(part.data), ensure_ascii=False, default=str)
    return f"[{type(part).__name__}]"


def adopt(
    tool: FunctionTool,
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> FunctionTool:
    """Return a ready-made tool with a guard in front: same name, description and schema.

    Args:
        tool: the tool, one that has a function; of a toolkit, what its ``tools`` hold.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    if not isinstance(tool, FunctionTool):
        raise MisuseError("adopt(tool, ...) takes an AG2 tool; decorate functions of your own")
    return _Adopted(tool, guard, untrusted=untrusted, result=result)

"""Strands Agents: a plugin, an audit, guards for ready-made tools.

::

    agent = Agent(model, tools=[...], plugins=[Guard()], session_manager=sessions)
    refuse_unguarded(agent)
    with talks.run("session-7", agent="clerk", grant=grant, log=log):
        result = agent("...")

Guarded functions become tools by the framework's ``@tool``, above the guard.

A call that a person has to confirm interrupts the agent. :func:`questions` finds what is asked in
``result.interrupts``; call the agent with what :func:`reply` makes of the answers, in this process
or in another one. There ``agent([])`` asks again what is open, in the words of the desk.

The framework finds answers by the id of a call, which does not cover the arguments, and keeps them
in the saved session. So an answer counts here only if the agent was called with it just now.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (the framework is not installed where types are checked)
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from checkrein.errors import CheckreinError, Denied, MisuseError, Suspended
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted
from checkrein.integrations.hosts import Problem, answer
from checkrein.mediation import register_control_flow
from checkrein.untrusted import Untrusted

try:
    from strands import Agent
    from strands.hooks import AfterToolCallEvent
    from strands.interrupt import InterruptException
    from strands.middleware import (
        ExecuteToolStage,
        InvokeModelStage,
        ModelStopReason,
        ToolResultEvent,
    )
    from strands.plugins import Plugin
    from strands.tools.decorator import DecoratedFunctionTool
    from strands.tools.structured_output.structured_output_tool import StructuredOutputTool
    from strands.types.tools import AgentTool
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.strands needs Strands Agents: pip install 'checkrein[strands]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["Guard", "adopt", "answer", "audit", "questions", "refuse_unguarded", "reply"]

register_control_flow(InterruptException)

_VERSION: Final = hosts.installed("strands-agents")
_OURS: Final = "checkrein:"
_END: Final = object()


class Guard(Plugin):
    """Plugin that puts a run in force, says no to the model, asks people, and keeps a record.

    Put it last in ``plugins=``: middleware that stands inside of it, next to the tools, escapes it.

    Args:
        run: the run, for where the context does not carry one; the active one serves otherwise.
        abort: let the agent's run end with ``EventLoopException``, caused by the denial,
            instead of telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Example:
        >>> agent = Agent(model, tools=[send], plugins=[Guard()])  # doctest: +SKIP
    """

    name = "checkrein"

    def __init__(self, run: Run | None = None, *, abort: bool = False, texts: bool = False) -> None:
        super().__init__()
        self._run, self._abort, self._texts = run, abort, texts

    def init_agent(self, agent: Any) -> None:
        """Stand around the tool calls and the model calls of *agent*."""
        agent.add_middleware(ExecuteToolStage, self._call)
        agent.add_middleware(InvokeModelStage, self._model)
        agent.add_hook(self._end, AfterToolCallEvent)

    # -- tools -----------------------------------------------------------------------------

    async def _call(self, context: Any, call_next: Any) -> AsyncGenerator[Any, None]:
        """Make a tool call, as often as it takes until nobody has to be asked."""
        ask = _asking(context)
        try:
            while True:
                pending: Suspended | None = None
                events = call_next(context)
                while (event := await self._next(events)) is not _END:
                    no = getattr(event, "exception", None)
                    if isinstance(no, Denied):
                        raise no
                    if isinstance(no, Suspended):
                        pending = no
                    else:
                        yield _shown(event)
                if pending is None:
                    return
                with hosts.active(self._run) as run:
                    await hosts.asettle(run, pending, ask)
        except (Denied, Suspended) as no:
            if self._abort:
                raise  # the framework makes it the exception of the event below
            yield _result(context.tool_use, "error", hosts.tell(no))

    async def _next(self, events: AsyncGenerator[Any, None]) -> Any:
        """Return the next event of a call; the run is in force until then, and no longer."""
        with hosts.active(self._run):
            return await anext(events, _END)

    def _end(self, event: Any) -> None:
        """End the agent's run if a call was denied: the framework lets errors of hooks out."""
        if self._abort and isinstance(event.exception, Denied | Suspended):
            raise event.exception

    # -- the model -------------------------------------------------------------------------

    async def _model(self, context: Any, call_next: Any) -> AsyncGenerator[Any, None]:
        """Call the model."""
        run = hosts.current(self._run)
        if run is not None:
            self._take_in(run, context)
        async for event in call_next(context):
            if run is not None and isinstance(event, ModelStopReason):
                run.heard("output", hosts.text_of(event.message), keep=self._texts)
            yield event

    def _take_in(self, run: Run, context: Any) -> None:
        agent = context.agent
        run.hosted("strands", _VERSION, session_id=agent.session_id, agent=agent.name)
        history = any(
            one["role"] == "assistant" or any("toolResult" in part for part in one["content"])
            for one in context.messages
        )
        hosts.begin(run, agent.session_id, history=history)
        hosts.expose_unguarded(run, audit(agent))
        run.heard(
            "prompt", hosts.text_of([context.system_prompt, context.messages]), keep=self._texts
        )


def _result(tool_use: Mapping[str, Any], status: str, text: str) -> Any:
    return ToolResultEvent(
        {"toolUseId": tool_use["toolUseId"], "status": status, "content": [{"text": text}]}
    )


def _shown(event: Any) -> Any:
    """Return an event in which content is text: a tool may have made its result by itself."""
    if not isinstance(event, ToolResultEvent):
        return event
    return ToolResultEvent(_rendered(event.tool_result), exception=event.exception)


def _rendered(tree: Any) -> Any:
    if isinstance(tree, Untrusted):
        return str(tree)
    if isinstance(tree, dict):
        return {name: _rendered(one) for name, one in tree.items()}
    return [_rendered(one) for one in tree] if isinstance(tree, list | tuple) else tree


# -- people --------------------------------------------------------------------------------


def _asking(context: Any) -> Callable[[dict[str, Any]], Any]:
    """Return what asks about one call: it interrupts the agent, or returns an answer.

    When the agent is resumed the call begins anew, and so do the numbers of its questions: those
    that were answered in earlier turns are passed by, whatever the saved session says.
    """
    numbers: dict[str, Iterator[int]] = defaultdict(count)

    def ask(shown: dict[str, Any]) -> Any:
        about = shown["confirmation"]
        while True:
            name = f"{_OURS}{about}:{next(numbers[about])}"
            given = context.interrupt(name, reason=shown).response
            if given in _said(context):
                return given

    return ask


def _said(context: Any) -> list[Any]:
    """Return what the agent was called with in this very turn."""
    state = context._interrupt_state  # noqa: SLF001 (nowhere else is this turn told from others)
    responses = state.context.get("responses", ()) if state.activated else ()
    return [one["interruptResponse"]["response"] for one in responses]


def questions(interrupts: Iterable[Any] | None) -> dict[str, dict[str, Any]]:
    """Return the questions among the interrupts of a result, by the id of the interrupt."""
    return {one.id: one.reason for one in interrupts or () if one.name.startswith(_OURS)}


def reply(answers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what to call the agent with, to go on.

    Args:
        answers: by the id of the interrupt, as in :func:`questions`; each an :func:`answer`.
    """
    return [
        {"interruptResponse": {"interruptId": id_, "response": dict(given)}}
        for id_, given in answers.items()
    ]


# -- at start-up ---------------------------------------------------------------------------


def audit(agent_or_tools: Any) -> list[Problem]:
    """Return which tools of an agent, or of a list, are not guarded.

    An agent knows the tools of its providers; in a list a provider, a module or a path is named
    as a whole. An agent that is used as a tool is named, too.
    """
    return hosts.judge(_callable(one) for one in _registered(agent_or_tools))


def refuse_unguarded(agent_or_tools: Any) -> None:
    """Refuse an agent, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(agent_or_tools))


def _registered(agent_or_tools: Any) -> Iterator[Any]:
    """Return tools; those of an agent as it finds them: the ones loaded late come before others."""
    if isinstance(agent_or_tools, Agent):
        registry = agent_or_tools.tool_registry
        tools = [*registry.registry.values(), *registry.dynamic_tools.values()]
        own = {StructuredOutputTool}  # takes the model's own words, and returns nothing
        yield from dict.fromkeys(one for one in tools if type(one) not in own)
        return
    for one in agent_or_tools:
        if isinstance(one, list | tuple):
            yield from _registered(one)
        else:
            yield one


def _callable(tool: Any) -> tuple[Any, ...]:
    """Return what a call of *tool* runs; of tools that we do not know, the tool itself."""
    if type(tool) is DecoratedFunctionTool:
        shown = tool.tool_spec["inputSchema"]["json"].get("properties", {})
        return tool.tool_name, tool._tool_func, partial(tuple, shown)  # noqa: SLF001
    if type(tool) is _Adopted:
        return tool.tool_name, tool.guarded
    return getattr(tool, "tool_name", None) or hosts.name_of(tool), tool


# -- tools that are not ours -----------------------------------------------------------------


class _Call(NamedTuple):
    """What the framework gives to a tool, and what the tool says of how it went."""

    use: dict[str, Any]
    state: Any
    more: dict[str, Any]
    result: dict[str, Any]


class _Adopted(AgentTool):
    """A guarded function that is shown to the model as the tool that it calls."""

    def __init__(self, tool: AgentTool, guard: Decorator, **more: Any) -> None:
        super().__init__()
        self._tool = tool
        self.guarded = adopted(
            self._make,
            guard,
            name=tool.tool_name,
            description=tool.tool_spec["description"],
            schema=tool.tool_spec["inputSchema"]["json"],
            injected=["strands_call"],
            **more,
        )

    @property
    def tool_name(self) -> str:
        """The name of the tool."""
        return str(self._tool.tool_name)

    @property
    def tool_spec(self) -> Any:
        """What the model is shown of the tool."""
        return self._tool.tool_spec

    @property
    def tool_type(self) -> str:
        """The type of the tool."""
        return str(self._tool.tool_type)

    async def stream(self, tool_use: Any, invocation_state: Any, **more: Any) -> Any:
        """Make the guarded call; what the tool streams before its result is dropped."""
        call = _Call(tool_use, invocation_state, more, {})
        content = await self.guarded(**tool_use["input"], strands_call=call)
        yield _result(tool_use, call.result.get("status", "error"), str(content))

    async def _make(self, arguments: dict[str, Any]) -> str:
        """Call the tool; return the text of its result, or of its error: both are its words."""
        call: _Call = arguments.pop("strands_call")
        last: Any = {}
        interrupts: Sequence[Any] = ()
        use = {**call.use, "input": arguments}
        try:
            async for event in self._tool.stream(use, call.state, **call.more):
                last, interrupts = event, getattr(event, "interrupts", ())
        except (InterruptException, CheckreinError):
            raise
        except Exception as error:  # noqa: BLE001 (the framework would quote it to the model)
            return f"{type(error).__name__}: {error}"
        if interrupts:
            raise InterruptException(interrupts[0])  # the others come when this one is answered
        call.result.update(last.tool_result if isinstance(last, ToolResultEvent) else last)
        return "\n".join(_words(one) for one in call.result.get("content", ()))


def _words(block: Mapping[str, Any]) -> str:
    """Return a piece of a result as text; what is none, an image for example, is only named."""
    if "text" in block:
        return str(block["text"])
    if "json" in block:
        return json.dumps(block["json"], ensure_ascii=False, sort_keys=True, default=str)
    return f"[{', '.join(block)}]"


def adopt(
    tool: AgentTool,
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> AgentTool:
    """Return a ready-made tool with a guard in front: same name, description and schema.

    Args:
        tool: the tool; of a provider, what ``load_tools`` returns.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    if not isinstance(tool, AgentTool):
        raise MisuseError("adopt(tool, ...) takes a Strands tool; decorate functions of your own")

    return _Adopted(tool, guard, untrusted=untrusted, result=result)

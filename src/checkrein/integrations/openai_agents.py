"""The OpenAI Agents SDK: an agent whose tools are guarded, an audit, guards for ready-made tools.

::

    agent = guarded(Agent(name="clerk", tools=[...], model=...))
    refuse_unguarded(agent)
    with talks.run("thread-7", agent="clerk", grant=grant, log=log):
        result = await Runner.run(agent, "...")
        asked = await questions(result)

A call that a person has to confirm interrupts the run: ``result.interruptions``. The SDK decides
about that before the call (``needs_approval``), so it is foreseen there
(:mod:`checkrein.integrations.foresight`), and decided anew when the call is made. Keep
``result.to_state().to_string()``; then, in this process or in another one::

    with talks.run("thread-7", agent="clerk", grant=grant, log=log):
        state = await RunState.from_string(agent, saved)
        await resume(state, answer(asked[0], True, by="dana"))
        result = await Runner.run(agent, state)

``state.approve(...)`` alone is no answer: the call waits still when it is made, and the model is
told so.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, final

from checkrein.errors import ConfigurationError, Denied, MisuseError, Suspended
from checkrein.frames import spec_of
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted, fits
from checkrein.integrations.foresight import foresee
from checkrein.integrations.hosts import Problem, answer
from checkrein.untrusted import Untrusted
from checkrein.waiting import off_loop

try:
    from agents import Agent, AgentHooks, FunctionTool, ModelBehaviorError, function_tool
    from agents.tool import (
        resolve_function_tool_failure_error_function,
        set_function_tool_failure_error_function,
    )
    from agents.tool_context import ToolContext
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.openai_agents needs the OpenAI Agents SDK: "
        "pip install 'checkrein[openai_agents]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["adopt", "answer", "audit", "guarded", "questions", "refuse_unguarded", "resume"]

_VERSION = hosts.installed("openai-agents")


def guarded(
    agent: Agent[Any], run: Run | None = None, *, abort: bool = False, texts: bool = False
) -> Agent[Any]:
    """Return a copy of an agent that works under a run: its guarded tools, and its model calls.

    Args:
        agent: the agent. Its tools may be guarded functions, and ``function_tool``s of such. What
            is not guarded stays as it is, and exposes the run. Its ``hooks`` go on to be called.
        run: the run, for where the context does not carry one; the active one serves otherwise.
        abort: let ``Denied`` end the SDK's run, as the cause of a ``UserError``, instead of
            telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Raises:
        ConfigurationError: a guarded tool says ``needs_approval=`` for itself, or the agent is
            guarded already.

    Example:
        >>> agent = guarded(Agent(name="clerk", tools=[send]))  # doctest: +SKIP
    """
    tools = [_under(one, run, abort=abort) for one in agent.tools]
    return agent.clone(tools=tools, hooks=_Hooks(agent.hooks, run, texts=texts))


# -- tools -----------------------------------------------------------------------------------


def _under(tool: Any, run: Run | None, *, abort: bool) -> Any:
    if spec_of(tool) is not None:
        tool = function_tool(tool)
    function = _function_of(tool)
    if function is None:
        return tool
    if tool.needs_approval is not False:
        raise ConfigurationError(
            f"{tool.name}: it is asked about because of its guard; leave needs_approval= out, "
            "and guard an agent once"
        )
    call = _Call(tool, function, run, abort=abort)
    return dataclasses.replace(tool, on_invoke_tool=call, needs_approval=call.waits)


def _function_of(tool: Any) -> Callable[..., Any] | None:
    """Return the guarded function that a tool calls, ``None`` for any other tool."""
    if not isinstance(tool, FunctionTool):
        return None
    invoke = tool.on_invoke_tool
    if isinstance(invoke, _Call | _Adopted):
        return invoke.function
    function = getattr(tool, "__wrapped__", None)
    return None if spec_of(function) is None else function


@final
class _Call:
    """Makes the calls of one tool, and says beforehand which of them would wait for a person."""

    def __init__(
        self, tool: Any, function: Callable[..., Any], run: Run | None, *, abort: bool
    ) -> None:
        self.function = function
        self._run, self._abort, self._name = run, abort, tool.name
        if isinstance(tool.on_invoke_tool, _Adopted):
            self._invoke: Any = tool.on_invoke_tool
            self._foresee: Any = tool.on_invoke_tool.foresee
        else:
            self._invoke = _frank(tool).on_invoke_tool
            self._foresee = _foreseeing(tool, function).on_invoke_tool

    async def __call__(self, context: ToolContext[Any], given: str) -> Any:
        """Make a call."""
        try:
            with hosts.active(self._run):
                return _rendered(await self._invoke(context, given))
        except (Denied, Suspended) as no:
            if self._abort:
                raise
            return hosts.tell(no)

    async def waits(self, context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        """Say whether the framework has to be paused before a call."""
        return await self.question(json.dumps(arguments), context.context, call_id) is not None

    async def question(
        self, given: str, context: Any = None, call_id: str = ""
    ) -> dict[str, Any] | None:
        """Return the question that a call waits for, ``None`` if it does not wait."""
        here = ToolContext(
            context, tool_name=self._name, tool_call_id=call_id, tool_arguments=given
        )
        try:
            with hosts.active(self._run):
                found: dict[str, Any] | None = await self._foresee(here, given)
        except (Denied, ModelBehaviorError):  # the call itself will say so
            return None
        return found


def _frank(tool: Any) -> Any:
    """Return a copy of *tool* whose way to tell errors to the model lets ours out."""
    tell = resolve_function_tool_failure_error_function(tool)

    def frank(context: Any, error: Exception) -> Any:
        if tell is None or isinstance(error, Denied | Suspended):
            raise error
        return tell(context, error)

    return set_function_tool_failure_error_function(dataclasses.replace(tool), frank)


def _foreseeing(tool: Any, function: Callable[..., Any]) -> Any:
    """Return a tool that reads arguments as *tool* does, and foresees what becomes of the call."""

    @functools.wraps(function)
    async def ahead(*args: Any, **kwargs: Any) -> Any:
        return await off_loop(partial(foresee, hosts.current(), function, args, kwargs))

    return function_tool(ahead, failure_error_function=None, strict_mode=tool.strict_json_schema)


def _rendered(result: Any) -> Any:
    """Return content as the text that the model reads, so that no live value stays behind."""
    return str(result) if isinstance(result, Untrusted) else result


async def questions(paused: Any) -> list[dict[str, Any]]:
    """Return what a paused run waits for, while its run of ours is in force.

    Args:
        paused: a result, or a ``RunState``.
    """
    found = [await _question(one) for one in _interruptions(paused)]
    return [one for one in found if one is not None]


async def resume(state: Any, *answers: Any) -> None:
    """Take answers, and let the calls go on that do not wait any more.

    A question that is not answered here goes on being asked; one that was answered at the
    desk is not asked any more. Afterwards ``Runner.run(agent, state)``.

    Args:
        state: a ``RunState``.
        answers: made by ``answer``, from the questions.
    """
    run = hosts.current()
    if run is None:
        raise MisuseError("resume(state, ...) is called where the run is active")
    asked = [one["confirmation"] for one in await questions(state)]
    for given in answers:
        named = hosts.meant(given)
        await off_loop(partial(hosts.take, run, named if named in asked else "", given))
    for item in _interruptions(state):
        if _call_of(item) is not None and await _question(item) is None:
            state.approve(item)


def _interruptions(paused: Any) -> list[Any]:
    get = getattr(paused, "get_interruptions", None)
    return list(paused.interruptions if get is None else get())


def _call_of(item: Any) -> _Call | None:
    for one in item.agent.tools:
        if isinstance(one, FunctionTool) and one.name == item.name:
            return one.on_invoke_tool if isinstance(one.on_invoke_tool, _Call) else None
    return None


async def _question(item: Any) -> dict[str, Any] | None:
    call = _call_of(item)
    return None if call is None else await call.question(item.arguments or "")


# -- the model -------------------------------------------------------------------------------


class _Hooks(AgentHooks[Any]):
    """Says what the run cannot know about model calls."""

    def __init__(self, others: Any, run: Run | None, *, texts: bool) -> None:
        self._others = others or AgentHooks()
        self._run, self._texts = run, texts
        for name in ("on_start", "on_end", "on_handoff", "on_tool_start", "on_tool_end"):
            setattr(self, name, getattr(self._others, name))

    async def on_llm_start(
        self, context: Any, agent: Any, system_prompt: str | None, input_items: list[Any]
    ) -> None:
        run = hosts.current(self._run)
        if run is not None:
            run.hosted("openai_agents", _VERSION, agent=agent.name)
            hosts.begin(run, None, history=any(map(_is_history, input_items)))
            hosts.expose_unguarded(run, audit(agent))
            run.heard("prompt", hosts.text_of([system_prompt, *input_items]), keep=self._texts)
        await self._others.on_llm_start(context, agent, system_prompt, input_items)

    async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
        run = hosts.current(self._run)
        if run is not None:
            run.heard("output", hosts.text_of(response.output), keep=self._texts)
        await self._others.on_llm_end(context, agent, response)


def _is_history(item: Any) -> bool:
    role = item.get("role") if isinstance(item, Mapping) else None
    return role not in {"user", "system", "developer"}


# -- at start-up -----------------------------------------------------------------------------


def audit(tools: Any) -> list[Problem]:
    """Return which tools of an agent, or of a list, are not guarded.

    Tools that a provider runs are among them, MCP servers, and the tools of agents that an
    agent hands over to; a ``handoff(...)`` object is not looked into.
    """
    return hosts.judge(_callables(tools, set()))


def refuse_unguarded(tools: Any) -> None:
    """Refuse an agent, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(tools))


def _callables(tools: Any, seen: set[int]) -> Iterator[tuple[Any, ...]]:
    if isinstance(tools, Agent):
        if id(tools) in seen:
            return
        seen.add(id(tools))
        for handed in tools.handoffs:
            if isinstance(handed, Agent):
                yield from _callables(handed, seen)
        yield from ((f"MCP server {one.name}", one) for one in tools.mcp_servers)
        brought = getattr(tools, "capabilities", ())  # of a sandbox: they bring tools of their own
        yield from ((f"capability {type(one).__name__}", one) for one in brought)
        tools = tools.tools
    for one in tools:
        shown = getattr(one, "params_json_schema", {}).get("properties", {})
        yield hosts.name_of(one), _function_of(one) or one, partial(tuple, shown)


# -- tools that are not ours -----------------------------------------------------------------


@final
class _Adopted:
    """Calls a guarded function by the names that a tool's schema gives."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.function, self._name = function, name

    async def __call__(self, context: ToolContext[Any], given: str) -> Any:
        named = self._named(context, given)
        try:
            return _rendered(await self.function(**named))
        except MisuseError as error:
            if fits(self.function, named):
                raise
            return str(error)  # as the framework tells it of its own tools

    async def foresee(self, context: ToolContext[Any], given: str) -> Any:
        """Foresee what becomes of a call."""
        named = self._named(context, given)
        return await off_loop(partial(foresee, hosts.current(), self.function, (), named))

    def _named(self, context: Any, given: str) -> dict[str, Any]:
        try:
            named = json.loads(given or "{}")
        except ValueError:
            named = None
        if not isinstance(named, dict):
            raise ModelBehaviorError(f"Invalid JSON input for tool {self._name}")
        return {**named, _CONTEXT: context}


_CONTEXT = "checkrein_context"


def adopt(
    tool: FunctionTool,
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> FunctionTool:
    """Return a ready-made tool with a guard in front: same name, description and schema.

    Args:
        tool: the tool; ``agent.as_tool(...)`` makes one, too.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    if not isinstance(tool, FunctionTool):
        raise MisuseError("adopt(tool, ...) takes a FunctionTool; decorate functions of your own")

    shown = tool.params_json_schema
    known = shown.get("properties", {})
    required = [one for one in shown.get("required", ()) if "default" not in known.get(one, {})]

    async def call(arguments: dict[str, Any]) -> Any:
        context = arguments.pop(_CONTEXT)
        return await tool.on_invoke_tool(context, json.dumps(arguments))

    function = adopted(
        call,
        guard,
        name=tool.name,
        description=tool.description,
        schema={**shown, "required": required},  # a strict schema requires what has a default
        untrusted=untrusted,
        injected=(_CONTEXT,),
        result=result,
    )
    return dataclasses.replace(tool, on_invoke_tool=_Adopted(tool.name, function))

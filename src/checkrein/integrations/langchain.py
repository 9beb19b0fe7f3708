"""LangChain's ``create_agent`` and LangGraph: a middleware, an audit, guards for ready-made tools.

::

    agent = create_agent(model, tools=[...], middleware=[Guard()], checkpointer=saver)
    refuse_unguarded(agent)
    with talks.run("thread-7", agent="clerk", grant=grant, log=log):
        state = agent.invoke({"messages": [...]}, {"configurable": {"thread_id": "thread-7"}})

A call that a person has to confirm interrupts the graph. Each interrupt's value is a
:func:`~checkrein.integrations.hosts.question`; resume with
``Command(resume={interrupt.id: answer(interrupt.value, True, by="dana")})``, in this process or in
another one. The graph needs a checkpointer for that: without one LangGraph ends the
run, and the question can only be answered at the desk.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (LangChain is not installed where types are checked)
from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from checkrein.errors import Denied, MisuseError, Suspended
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted
from checkrein.integrations.hosts import Problem, answer
from checkrein.mediation import register_control_flow
from checkrein.untrusted import Untrusted

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
    from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
    from langchain_core.tools import BaseTool, StructuredTool, Tool
    from langgraph.config import get_config
    from langgraph.errors import GraphBubbleUp
    from langgraph.types import interrupt
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.langchain needs LangChain: pip install 'checkrein[langchain]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["Guard", "adopt", "answer", "audit", "refuse_unguarded"]

register_control_flow(GraphBubbleUp)  # how LangGraph pauses, and steers

_VERSION = hosts.installed("langchain")


class Guard(AgentMiddleware[Any, Any, Any]):
    """Middleware that puts a run in force, says no to the model, asks people, and keeps a record.

    Put it last in ``middleware=``, next to the tools: what stands inside of it escapes it.

    Args:
        run: the run, for where the context does not carry one; the active one serves otherwise.
        abort: let ``Denied`` end the graph, instead of telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Example:
        >>> agent = create_agent(model, tools=[send], middleware=[Guard()])  # doctest: +SKIP
    """

    def __init__(self, run: Run | None = None, *, abort: bool = False, texts: bool = False) -> None:
        super().__init__()
        self._run, self._abort, self._texts = run, abort, texts

    # -- tools -----------------------------------------------------------------------------

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Make a tool call."""
        try:
            with hosts.active(self._run) as run:
                while True:
                    try:
                        return handler(request)
                    except Suspended as pending:
                        hosts.settle(run, pending, interrupt)
        except (Denied, Suspended) as no:
            return self._told(request, no)

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Make a tool call."""
        try:
            with hosts.active(self._run) as run:
                while True:
                    try:
                        return await handler(request)
                    except Suspended as pending:
                        await hosts.asettle(run, pending, interrupt)
        except (Denied, Suspended) as no:
            return self._told(request, no)

    def _told(self, request: Any, no: Denied | Suspended) -> ToolMessage:
        if self._abort:
            raise no
        call = request.tool_call
        return ToolMessage(
            hosts.tell(no), tool_call_id=call["id"], name=call["name"], status="error"
        )

    # -- the model -------------------------------------------------------------------------

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]
    ) -> Any:
        """Call the model."""
        run = self._before(request)
        return self._after(run, handler(request))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """Call the model."""
        run = self._before(request)
        return self._after(run, await handler(request))

    def _before(self, request: ModelRequest[Any]) -> Run | None:
        run = hosts.current(self._run)
        if run is None:
            return None
        config = get_config()
        thread = config.get("configurable", {}).get("thread_id")
        agent = config.get("metadata", {}).get("lc_agent_name")
        run.hosted("langchain", _VERSION, thread_id=thread, agent=agent)
        history = not all(isinstance(one, HumanMessage | SystemMessage) for one in request.messages)
        hosts.begin(run, thread, history=history)
        hosts.expose_unguarded(run, audit(request.tools))
        system = [] if request.system_message is None else [request.system_message]
        run.heard("prompt", hosts.text_of([*system, *request.messages]), keep=self._texts)
        return run

    def _after(self, run: Run | None, response: Any) -> Any:
        if run is not None and isinstance(response, ModelResponse):
            run.heard("output", hosts.text_of(response.result), keep=self._texts)
        return response


# -- at start-up ---------------------------------------------------------------------------


def audit(tools: Any) -> list[Problem]:
    """Return which tools of an agent, or of a list, are not guarded.

    Tools that a provider runs are among them where they can be seen: in a list, not in an
    agent. The middleware sees them when the model is called, and exposes the run.
    """
    return hosts.judge(pair for one in _registered(tools) for pair in _callables(one))


def refuse_unguarded(tools: Any) -> None:
    """Refuse an agent, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(tools))


def _registered(tools: Any) -> Iterator[Any]:
    """Return the tools of a list, of a node, or of a graph and those within it."""
    tools = getattr(tools, "bound", tools)
    if hasattr(tools, "tools_by_name"):
        yield from tools.tools_by_name.values()
    elif hasattr(tools, "nodes"):
        for one in (getattr(node, "bound", None) for node in tools.nodes.values()):
            if hasattr(one, "tools_by_name") or hasattr(one, "nodes"):
                yield from _registered(one)
    else:
        yield from tools


def _arguments(tool: Any) -> Collection[str]:
    """Return the names of the arguments that a model is shown."""
    shown = tool.tool_call_schema
    names: Collection[str] = (
        shown.get("properties", {}) if isinstance(shown, dict) else shown.model_fields
    )
    return names


def _callables(tool: Any) -> Iterator[tuple[Any, ...]]:
    """Return what a call of *tool* may run: of a structured tool up to two functions."""
    if type(tool) in {StructuredTool, Tool}:
        functions = [one for one in (tool.func, tool.coroutine) if one is not None]
        yield from ((tool.name, one, partial(_arguments, tool)) for one in functions)
    elif isinstance(tool, dict):
        yield str(tool.get("name") or tool.get("type")), tool
    else:
        yield hosts.name_of(tool), tool


# -- tools that are not ours -----------------------------------------------------------------


def adopt(
    tool: BaseTool,
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> StructuredTool:
    """Return a ready-made tool with a guard in front: same name, description and schema.

    Args:
        tool: the tool. It is called through its own ``run``; an artifact is dropped.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    if not isinstance(tool, BaseTool):
        raise MisuseError("adopt(tool, ...) takes a LangChain tool; decorate functions of your own")
    shown: Any = tool.tool_call_schema
    takes: Any = tool.args_schema if isinstance(tool.args_schema, dict) else tool.get_input_schema()
    schema = shown if isinstance(shown, dict) else shown.model_json_schema()
    known = schema.get("properties", {})
    given = (
        () if isinstance(takes, dict) else [one for one in takes.model_fields if one not in known]
    )
    about: Any = {
        "name": tool.name,
        "description": tool.description,
        "schema": schema,
        "untrusted": untrusted,
        "injected": given,
        "result": result,
    }

    async def acall(arguments: dict[str, Any]) -> Any:
        return await tool.arun(arguments)

    plain = not isinstance(tool, StructuredTool) or tool.func is not None
    return StructuredTool(
        name=tool.name,
        description=tool.description,
        args_schema=takes,
        # Its invoke() would take arguments that look like a call of a tool for one.
        func=adopted(tool.run, guard, **about) if plain else None,
        coroutine=adopted(acall, guard, **about),
        return_direct=tool.return_direct,
        metadata=tool.metadata,
        tags=tool.tags,
    )

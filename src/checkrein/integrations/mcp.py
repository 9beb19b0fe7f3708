"""An MCP server whose tools are guarded: a server class, an audit, guards for ready-made tools.

::

    server = GuardedServer("notes", run=run, confirm="client")

    @server.tool()
    @irreversible("notes.delete")
    def delete(name: str) -> str: ...

    refuse_unguarded(server)
    server.run()

It is the SDK's ``MCPServer`` with another ``call_tool``: by the time that a middleware of the
SDK sees the result of a call, what the guard has said is gone. The SDK hands every
call to ``call_tool``; calls of one server may be of different clients, so *run* may be a function.

A call that a person has to confirm waits at the desk, and the client is told so; with
``confirm="client"`` the client is asked (:mod:`checkrein.integrations.elicitation`).
A server sees neither prompts nor outputs of a model: they are not in its log.

For tools of a server that is not yours see :mod:`checkrein.integrations.mcp_client`.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from checkrein.errors import ConfigurationError, Denied, MisuseError, Suspended
from checkrein.facts import Effect, Returns
from checkrein.frames import spec_of
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted
from checkrein.integrations.elicitation import Client, settled
from checkrein.integrations.hosts import Problem, answer
from checkrein.untrusted import Untrusted

try:
    from mcp.server.mcpserver import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.server.mcpserver.tools import Tool
    from mcp.types import CallToolResult, TextContent, ToolAnnotations
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.mcp needs the MCP SDK: pip install 'checkrein[mcp]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.facts import ToolFacts
    from checkrein.runs import Run

__all__ = ["GuardedServer", "adopt", "answer", "audit", "hints_of", "refuse_unguarded"]


class GuardedServer(MCPServer):
    """A server that puts a run in force around each call, says no in words, and asks people.

    Args:
        name: as of ``MCPServer``, like all that is not named here.
        run: the run, or a function that returns the one of a call, given the SDK's ``Context``
            (or ``None``, outside of a request); the active one serves if left out.
        confirm: ``"client"`` asks the user of the client, ``"desk"`` leaves it to the run's gate.
        by: who answers, for the log, where the client does not say.
        more: the other arguments of ``MCPServer``.

    Example:
        >>> server = GuardedServer("notes", run=run)  # doctest: +SKIP
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        run: Run | Callable[[Any], Run | None] | None = None,
        confirm: Literal["desk", "client"] = "desk",
        by: str = "the client's user",
        **more: Any,
    ) -> None:
        if confirm not in {"desk", "client"}:
            raise ConfigurationError('GuardedServer(confirm=...) takes "desk" or "client"')
        super().__init__(name, **more)
        self._run, self._confirm, self._by = run, confirm, by

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool; what the guard says no to is told to the client as an error of the tool."""
        client = self._client_of(context) if self._confirm == "client" else None

        async def make() -> Any:
            try:
                return await super(GuardedServer, self).call_tool(name, arguments, context)
            except ToolError as error:
                raise no_in(error) or error from None

        try:
            with hosts.active(self._run_for(context)) as run:
                if context is not None:
                    note_client(run, context.request_context.session)
                return await settled(run, client, make)
        except (Denied, Suspended) as no:
            return told(no)

    def add_tool(self, fn: Callable[..., Any], *about: Any, **more: Any) -> None:
        """Register a function, with hints that say what its guard says.

        What is mostly content goes out as text: the SDK checks structured content against a
        schema of the bare value, and fences are not in that.
        """
        spec = spec_of(fn)
        if spec is not None and not about:
            if more.get("annotations") is None:
                more["annotations"] = hints_of(spec.facts)
            if more.get("structured_output") is None and spec.facts.returns is Returns.UNTRUSTED:
                more["structured_output"] = False
        super().add_tool(fn, *about, **more)

    async def read_resource(self, uri: Any, context: Any = None) -> Any:
        """Read a resource, whose function may be guarded."""
        with hosts.active(self._run_for(context)):
            return await super().read_resource(uri, context)

    async def get_prompt(
        self, name: str, arguments: dict[str, Any] | None = None, context: Any = None
    ) -> Any:
        """Make a prompt, whose function may be guarded."""
        with hosts.active(self._run_for(context)):
            return await super().get_prompt(name, arguments, context)

    def _run_for(self, context: Any) -> Run | None:
        found: Run | None = self._run(context) if callable(self._run) else self._run
        return found

    def _client_of(self, context: Any) -> Client | None:
        if context is None:
            return None
        request = context.request_context
        given, state = context.input_responses, context.request_state
        return Client(request.session, request.request_id, state, given, self._by)


def hints_of(facts: ToolFacts) -> ToolAnnotations:
    """Return what a guard says about a tool, in the words of MCP."""
    return ToolAnnotations(
        read_only_hint=facts.effect is Effect.READS,
        destructive_hint=facts.effect is Effect.IRREVERSIBLE,
        open_world_hint=facts.external,
    )


def note_client(run: Run | None, session: Any, *, framework: str = "mcp", **more: str) -> None:
    """Write down which client a run serves, by its own word."""
    if run is not None:
        params = session.client_params
        client = "" if params is None else f"{params.client_info.name} {params.client_info.version}"
        ids = {"client": client, "protocol": session.protocol_version, **more}
        run.hosted(framework, hosts.installed(framework), **ids)


def no_in(error: BaseException) -> Denied | Suspended | None:
    """Return what a guard has raised below the SDK's own errors."""
    below: BaseException | None = error
    while below is not None and not isinstance(below, Denied | Suspended):
        below = below.__cause__
    return below


def told(no: Denied | Suspended) -> CallToolResult:
    """Return the result of a call that did not run."""
    return CallToolResult(content=[TextContent(type="text", text=hosts.tell(no))], is_error=True)


# -- at start-up ---------------------------------------------------------------------------


def audit(tools: Any) -> list[Problem]:
    """Return which tools of a server, or of a list, are not guarded.

    Args:
        tools: an ``MCPServer``, or functions and the SDK's ``Tool`` objects.
    """
    if isinstance(tools, MCPServer):
        tools = tools._tool_manager.list_tools()  # noqa: SLF001 (the SDK shows no functions)
    return hosts.judge(map(_registered, tools))


def _registered(tool: Any) -> tuple[Any, ...]:
    if not isinstance(tool, Tool):
        return hosts.name_of(tool), tool
    return tool.name, tool.fn, partial(tuple, tool.parameters.get("properties", {}))


def refuse_unguarded(tools: Any) -> None:
    """Refuse a server, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(tools))


# -- tools that are not ours -----------------------------------------------------------------


def adopt(
    tool: Tool, guard: Decorator, *, untrusted: Collection[str] = (), result: Any = Untrusted[Any]
) -> Tool:
    """Return a ready-made tool with a guard in front: same name, description and arguments.

    What it returns is shown as text, without structured content, which has no room for fences.

    Args:
        tool: the SDK's server-side ``Tool``; register what comes back with
            ``MCPServer(tools=[...])``.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    if not isinstance(tool, Tool):
        raise MisuseError("adopt(tool, ...) takes the SDK's server-side Tool; see mcp_client, too")

    async def call(arguments: dict[str, Any]) -> Any:
        if tool.is_async:
            return await tool.fn(**arguments)
        return await asyncio.to_thread(tool.fn, **arguments)

    guarded = adopted(
        call,
        guard,
        name=tool.name,
        description=tool.description,
        schema=tool.parameters,
        untrusted=untrusted,
        injected=[] if tool.context_kwarg is None else [tool.context_kwarg],
        result=result,
    )
    unstructured = {"output_schema": None, "output_model": None, "wrap_output": False}
    told = tool.fn_metadata.model_copy(update=unstructured)
    return tool.model_copy(update={"fn": guarded, "is_async": True, "fn_metadata": told})

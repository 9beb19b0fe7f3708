"""A FastMCP server whose tools are guarded: a middleware, an audit, guards for ready-made tools.

::

    server = FastMCP("notes", middleware=[Guard(run, confirm="client")])

    @server.tool
    @irreversible("notes.delete")
    def delete(name: str) -> str: ...

    refuse_unguarded(server)
    server.run()

What is said of :mod:`checkrein.integrations.mcp` holds here: a call that a person has to
confirm waits at the desk, or the client is asked; prompts and outputs of a model are not seen.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (FastMCP is not installed where types are checked)
from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter

from checkrein.errors import ConfigurationError, Denied, MisuseError, Suspended
from checkrein.frames import spec_of
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted, fenced
from checkrein.integrations.elicitation import Client, settled
from checkrein.integrations.hosts import Problem, answer
from checkrein.integrations.mcp import hints_of, no_in, note_client, told
from checkrein.untrusted import Untrusted

try:
    from fastmcp import Context, FastMCP
    from fastmcp.server.dependencies import without_injected_parameters
    from fastmcp.server.middleware import Middleware
    from fastmcp.server.middleware.caching import ResponseCachingMiddleware
    from fastmcp.tools import FunctionTool, ToolResult
    from fastmcp.tools.base import InputRequiredToolResult
    from mcp.types import InputRequiredResult
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.fastmcp needs FastMCP: pip install 'checkrein[fastmcp]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["Guard", "adopt", "answer", "audit", "refuse_unguarded"]


class Guard(Middleware):
    """Middleware that puts a run in force, says no in words, and asks people.

    Put it last in ``middleware=``, next to the tools: what stands inside of it escapes it.

    Args:
        run: the run, or a function that returns the one of a call, given FastMCP's ``Context``
            (or ``None``); the active one serves if left out.
        confirm: ``"client"`` asks the user of the client, ``"desk"`` leaves it to the run's gate.
        by: who answers, for the log, where the client does not say.

    Example:
        >>> server = FastMCP("notes", middleware=[Guard(run)])  # doctest: +SKIP
    """

    def __init__(
        self,
        run: Run | Callable[[Any], Run | None] | None = None,
        *,
        confirm: Literal["desk", "client"] = "desk",
        by: str = "the client's user",
    ) -> None:
        if confirm not in {"desk", "client"}:
            raise ConfigurationError('Guard(confirm=...) takes "desk" or "client"')
        self._run, self._confirm, self._by = run, confirm, by

    async def on_call_tool(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
        """Make a tool call; what the guard says no to is told as an error of the tool."""
        within = context.fastmcp_context
        connected = within is not None and within.request_context is not None

        async def make() -> Any:
            try:
                return await call_next(context)
            except Exception as error:  # FastMCP wraps what a tool raises
                no = no_in(error)
                if no is None:
                    raise
                raise no from None

        try:
            with hosts.active(self._run_for(within)) as run:
                if within is not None and connected:
                    note_client(run, within.session, framework="fastmcp")
                asks = connected and self._confirm == "client"
                found = await settled(run, self._client_of(within) if asks else None, make)
        except (Denied, Suspended) as no:
            return ToolResult(content=told(no).content, is_error=True)
        if isinstance(found, InputRequiredResult):
            return InputRequiredToolResult(found)
        return found

    async def on_read_resource(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
        """Read a resource, whose function may be guarded."""
        with hosts.active(self._run_for(context.fastmcp_context)):
            return await super().on_read_resource(context, call_next)

    async def on_get_prompt(self, context: Any, call_next: Callable[[Any], Any]) -> Any:
        """Make a prompt, whose function may be guarded."""
        with hosts.active(self._run_for(context.fastmcp_context)):
            return await call_next(context)

    async def on_list_tools(self, context: Any, call_next: Callable[[Any], Any]) -> Sequence[Any]:
        """Show tools with hints that say what their guards say."""
        return [_shown(one) for one in await call_next(context)]

    def _run_for(self, context: Any) -> Run | None:
        found: Run | None = self._run(context) if callable(self._run) else self._run
        return found

    def _client_of(self, context: Any) -> Client:
        given, state = context.input_responses, context.request_state
        return Client(context.session, context.request_id, state, given, self._by)


def _shown(tool: Any) -> Any:
    spec = spec_of(_function_of(tool))
    if spec is None or tool.annotations is not None:
        return tool
    return tool.model_copy(update={"annotations": hints_of(spec.facts)})


# -- at start-up ---------------------------------------------------------------------------


def audit(tools: Any) -> list[Problem]:
    """Return which tools of a server, or of a list, are not guarded.

    Those of a mounted or a remote server are among them, and those that are hidden or that some
    clients may not see. A cache of results is named, too: what it holds it gives to any run. It
    may be called in an event loop.
    """
    caches: list[Problem] = []
    if isinstance(tools, FastMCP):
        caches = [
            Problem(type(one).__name__, "gives results without a call: no cache beside guards")
            for one in tools.middleware
            if isinstance(one, ResponseCachingMiddleware)
            and one._call_tool_settings.get("enabled", True)  # noqa: SLF001 (shown nowhere else)
        ]
        with ThreadPoolExecutor(1) as apart:  # the list is made by coroutines
            tools = apart.submit(asyncio.run, _all_of(tools)).result()
    return [*hosts.judge(map(_registered, tools)), *caches]


def _registered(tool: Any) -> tuple[Any, ...]:
    shown = getattr(tool, "parameters", None) or {}
    return hosts.name_of(tool), _function_of(tool), partial(tuple, shown.get("properties", {}))


async def _all_of(server: FastMCP[Any]) -> list[Any]:
    """Return the tools that a server shows, and those of its providers that it leaves out."""
    shown = await server.list_tools(run_middleware=False)
    async with Context(fastmcp=server):
        found = [*shown, *await super(FastMCP, server).list_tools()]
    return list({(one.name, id(getattr(one, "fn", None))): one for one in found}.values())


def refuse_unguarded(tools: Any) -> None:
    """Refuse a server, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(tools))


def _function_of(tool: Any) -> Any:
    return tool.fn if type(tool) is FunctionTool else tool


# -- tools that are not ours -----------------------------------------------------------------


def adopt(
    tool: FunctionTool,
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> FunctionTool:
    """Return a ready-made tool with a guard in front: same name, description and arguments.

    What it returns is shown as text, without structured content, which has no room for fences.

    Args:
        tool: a ``FunctionTool``; register what comes back with ``server.add_tool``.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    if type(tool) is not FunctionTool:
        raise MisuseError(
            "adopt(tool, ...) takes a FunctionTool; for a remote server see "
            "checkrein.integrations.mcp_client"
        )

    checked = TypeAdapter(without_injected_parameters(tool.fn))  # as the framework's own run()

    async def call(arguments: dict[str, Any]) -> Any:
        made = await asyncio.to_thread(checked.validate_python, arguments)
        return await made if inspect.isawaitable(made) else made

    guarded = adopted(
        fenced(call, tool.name),
        guard,
        name=tool.name,
        description=tool.description or "",
        schema=tool.parameters,
        untrusted=untrusted,
        result=result,
    )
    return tool.model_copy(update={"fn": guarded, "output_schema": None, "return_type": Any})

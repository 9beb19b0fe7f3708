"""The scripted client of the MCP SDK, and a FastMCP server, without and with the integration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastmcp import FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.middleware import Middleware
from fastmcp.tools import FunctionTool
from mcp import Client

from checkrein.errors import Denied, MisuseError
from checkrein.integrations.fastmcp import Guard
from frameworks.hosts.mcp import MCP


class _Listening(Middleware):
    """Remembers what tools have raised: FastMCP tells it to the client."""

    def __init__(self, tell: bool, raised: list[BaseException]) -> None:
        self.tell, self.raised = tell, raised

    async def on_call_tool(self, context: Any, call_next: Any) -> Any:
        try:
            return await call_next(context)
        except Exception as error:
            cause = error.__cause__ or error
            if self.tell and isinstance(cause, Denied):
                raise ToolError(str(cause)) from cause
            self.raised.append(cause)
            raise


def _filled(server: FastMCP, offered: Sequence[Any]) -> FastMCP:
    for one in offered:
        if isinstance(one, FunctionTool):
            server.add_tool(one)
        else:
            plain = one.__name__ in {"bare", "structured"}
            more: dict[str, Any] = {"output_schema": None} if plain else {}
            server.add_tool(
                FunctionTool.from_function(one, **more)
            )  # @tool would mark the function
    return server


class Fast(MCP):
    """Runs a FastMCP server with a scripted client, in one process."""

    framework = "fastmcp"
    distribution = "fastmcp"

    def plain(self, offered: Sequence[Any], tell: bool, raised: list[BaseException]) -> Any:
        """Return a server without the integration."""
        return _filled(FastMCP("desk", middleware=[_Listening(tell, raised)]), offered)

    def guarded(self, offered: Sequence[Any], **more: Any) -> Any:
        """Return a server with the integration."""
        ours = {name: more.pop(name) for name in ("run", "confirm") if name in more}
        return _filled(FastMCP("desk", middleware=[Guard(**ours)], **more), offered)

    def client(self, server: Any, **more: Any) -> Client:
        """Return the official client of a server, in this process."""
        return Client(server._mcp_server, **more)

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above FastMCP's decorator, which registers what is below."""
        server = FastMCP("desk")
        made = server.tool(function)
        try:
            guard(made)
        except MisuseError:
            pass  # found even earlier; the server has the bare function all the same
        return server

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a ``FunctionTool``."""
        return FunctionTool.from_function(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return a server with these tools."""
        return _filled(FastMCP("desk"), offered)


HOST = Fast()

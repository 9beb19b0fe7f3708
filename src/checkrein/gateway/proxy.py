"""What the gateway answers a client: the tools of a guarded session, and nothing else.

A prompt of the server would speak with the user's voice, its instructions with the
system's, a sampling request would spend the user's model on the server's words, and an
elicitation would ask the user in the client's name: none of them passes. Progress
passes as numbers.
"""

# pyright: reportMissingImports=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakValueDictionary

from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)

from checkrein.errors import Denied, InDoubt, Suspended
from checkrein.integrations import hosts
from checkrein.integrations.elicitation import Client, settled
from checkrein.integrations.mcp import note_client, told
from checkrein.setups import installed_version

if TYPE_CHECKING:
    from checkrein.integrations.mcp_client import GuardedSession
    from checkrein.runs import Run

Context: TypeAlias = Any
"""The SDK's ``ServerRequestContext``."""

RunOf = Callable[[Context], "Run | None"]

_LOGGER: Final = logging.getLogger("checkrein.gateway")


class Gateway:
    """The server that a client sees.

    Args:
        session: the guarded tools of the server behind it.
        run_of: returns the run of whoever makes a request, ``None`` for a stranger.
        by_client: ask the client's user, where somebody has to confirm a call.
    """

    def __init__(self, session: GuardedSession, run_of: RunOf, *, by_client: bool) -> None:
        self._session, self._run_of, self._by_client = session, run_of, by_client
        self._turns: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()
        self.server: Server[Any] = Server(
            "checkrein-gateway",
            version=installed_version(),
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )
        sealed = RequestStateSecurity.ephemeral()  # as long as the runs live
        self.server.middleware.append(
            RequestStateBoundary(sealed, default_audience="checkrein-gateway")
        )

    async def _list_tools(
        self, context: Context, params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        self._known(context)
        try:
            listed = await self._session.list_tools()
        except Exception as error:
            _LOGGER.exception("the tools of the server cannot be listed")
            words = f"the server did not answer ({type(error).__name__})"
            raise MCPError(code=INTERNAL_ERROR, message=words) from None
        for one in self._session.problems:
            _LOGGER.warning("the tool %s is not offered: %s", one.tool, one.problem)
        return listed

    async def _call_tool(self, context: Context, params: CallToolRequestParams) -> Any:
        known = self._known(context)
        given: Mapping[str, Any] = params.arguments or {}

        async def make() -> CallToolResult:
            return await self._session.call(
                params.name, given, progress=context.session.report_progress
            )

        try:
            with hosts.active(known) as run:
                note_client(run, context.session, server=self._session.server)
                client = self._client_of(context, params)
                async with self._turn(known, params) if client else nullcontext():
                    return await settled(run, client, make)
        except (Denied, Suspended) as no:
            return told(no)
        except InDoubt as error:
            _LOGGER.warning("the call of %s: %s", params.name, error)
            words = str(error)
        except Exception as error:  # of whatever kind: its words are the server's
            _LOGGER.exception("the call of %s has failed", params.name)
            words = f"the server did not answer ({type(error).__name__}); it may have done it"
        return CallToolResult(content=[TextContent(type="text", text=words)], is_error=True)

    def _turn(self, run: Run, params: CallToolRequestParams) -> asyncio.Lock:
        """Return what lets equal calls ask one after the other: each asks for itself, and once."""
        arguments = json.dumps(params.arguments, sort_keys=True)
        lock = self._turns.get(key := (run.id, params.name, arguments))
        if lock is None:
            lock = self._turns[key] = asyncio.Lock()
        return lock

    def _known(self, context: Context) -> Run:
        run = self._run_of(context)
        if run is None:
            raise MCPError(code=INVALID_REQUEST, message="no such client")
        return run

    def _client_of(self, context: Context, params: CallToolRequestParams) -> Client | None:
        if not self._by_client:
            return None
        return Client(
            context.session,
            context.request_id,
            params.request_state,
            params.input_responses,
            "the client's user",
        )

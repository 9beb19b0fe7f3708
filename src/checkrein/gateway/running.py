"""Starts a gateway: the server behind it, the log, the store, the runs, and a transport."""

# pyright: reportMissingImports=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import contextvars
import os
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mcp import Client, StdioServerParameters
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.server.stdio import stdio_server
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import Implementation, ToolListChangedNotification

from checkrein.errors import ConfigurationError
from checkrein.gates.queue import QueueGate
from checkrein.gateway.http import application, clients_by_token, serve
from checkrein.gateway.pipe import lines_of_stdin
from checkrein.gateway.proxy import Gateway
from checkrein.integrations.mcp_client import GuardedSession, Policy
from checkrein.log import AuditLog
from checkrein.log.keys import load_signer
from checkrein.runs import Run
from checkrein.setups import installed_version
from checkrein.store import open_store
from checkrein.visible import visible

if TYPE_CHECKING:
    from checkrein.gateway.config import Config


async def over_stdio(config: Config, command: Sequence[str]) -> None:
    """Serve one client over standard input and output, until it goes away."""
    with runs(config, [""]) as opened:
        async with (
            guarded(config, command) as session,
            stdio_server(lines_of_stdin()) as (read, write),
        ):
            by_client = config.confirm.by == "client"
            server = Gateway(session, lambda _: opened[""], by_client=by_client).server
            await server.run(read, write, server.create_initialization_options())


async def over_http(config: Config, command: Sequence[str], host: str, port: int) -> None:
    """Serve the clients of the configuration over streamable HTTP.

    Raises:
        ConfigurationError: nobody may come.
    """
    if not config.clients:
        raise ConfigurationError(
            "over HTTP each client shows a token: name it under [clients.<name>]"
        )
    by_token = clients_by_token(config)
    with runs(config, config.clients) as opened:
        async with guarded(config, command) as session:
            gateway = Gateway(
                session,
                lambda context: opened.get(by_token(context.request)),
                by_client=config.confirm.by == "client",
            )
            app = application(gateway.server, by_token, config, host)
            await serve(app, host, port)


@asynccontextmanager
async def connected(config: Config, command: Sequence[str], **more: Any) -> AsyncGenerator[Client]:
    """Connect to the server behind the gateway.

    Raises:
        ConfigurationError: there is a command and a URL, or neither; or nothing there speaks MCP.
    """
    async with AsyncExitStack() as stack:
        about: dict[str, Any] = {
            "read_timeout_seconds": config.server.timeout,
            "client_info": Implementation(
                name="checkrein-gateway", version=installed_version() or "0"
            ),
            "cache": None,
            **more,
        }
        made = Client(await _behind(config, command, stack), **about)
        try:
            client = await stack.enter_async_context(made)
        except Exception as error:  # noqa: BLE001 (the SDK wraps what went wrong in groups)
            what = command[0] if command else config.server.url
            raise ConfigurationError(
                f"{what} does not answer as an MCP server does: {_reason(error)}"
            ) from None
        yield client


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return visible(str(error) or type(error).__name__)


async def _behind(config: Config, command: Sequence[str], stack: AsyncExitStack) -> Any:
    behind = config.server
    if bool(command) == bool(behind.url):
        raise ConfigurationError(
            "name the server: its command after --, or server.url in the file, not both"
        )
    if command:
        inherited = {name: os.environ[name] for name in behind.pass_env if name in os.environ}
        environment = {**get_default_environment(), **inherited, **behind.env}
        return StdioServerParameters(command=command[0], args=list(command[1:]), env=environment)
    token = os.environ.get(behind.bearer_env, "") if behind.bearer_env else ""
    if behind.bearer_env and not token:
        raise ConfigurationError(f"server.bearer_env names {behind.bearer_env}, which is not set")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    http = await stack.enter_async_context(create_mcp_http_client(headers=headers))
    return streamable_http_client(behind.url, http_client=http)


def policies(config: Config) -> dict[str, Policy]:
    """Return what is declared about each tool."""
    return {
        name: Policy(one.guard, one.pinned, one.untrusted) for name, one in config.tools.items()
    }


@asynccontextmanager
async def guarded(config: Config, command: Sequence[str]) -> AsyncGenerator[GuardedSession]:
    """Connect, and look at the tools; those that are not as pinned are left out."""
    sessions: list[GuardedSession] = []

    async def hear(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            for one in sessions:
                one.stale = True

    async with connected(config, command, message_handler=hear) as client:
        session = GuardedSession(client, policies(config))
        sessions.append(session)
        await session.refresh()
        _check_names(config, session)
        yield session


def _check_names(config: Config, session: GuardedSession) -> None:
    """Refuse a constraint on an argument that the tool does not have: it limits nothing.

    Raises:
        ConfigurationError: it names the first one.
    """
    for name, tool in session.tools.items():
        known = list(tool.input_schema.get("properties", {}))
        for one in config.tools[name].arguments:
            if one not in known:
                raise ConfigurationError(
                    f"tools.{name}.arguments names {one!r}, and the tool has {', '.join(known)}"
                )


@contextmanager
def runs(config: Config, clients: Any) -> Generator[dict[str, Run]]:
    """Open a run for each client, which lasts as long as the gateway."""
    by_client = config.confirm.by == "client"
    with ExitStack() as stack:
        signer = None if config.log.key is None else load_signer(config.log.key)
        log = stack.enter_context(AuditLog.open(config.log.directory, signer=signer))
        store = open_store(config.confirm.store)
        gate = QueueGate(store, wait=timedelta(seconds=0 if by_client else config.confirm.wait))
        stack.callback(gate.close)
        opened = {}
        for name in clients:
            run = Run(
                agent=f"{config.agent}/{name}" if name else config.agent,
                grant=config.grant(name),
                gate=gate,
                log=log,
                store=store,
                exposed=config.exposed,
            )
            apart = contextvars.Context()  # a run that is entered here would enclose the next one
            apart.run(run.__enter__)
            stack.callback(apart.run, run.__exit__, None, None, None)
            opened[name] = run
        yield opened

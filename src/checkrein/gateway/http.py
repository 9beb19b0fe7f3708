"""The gateway over streamable HTTP: who comes is told by a bearer token, at each request.

Only digests of tokens are kept. A session id is no proof of anything: a session of somebody
else's is not found, or one client could answer the questions that another one is asked.
"""

# pyright: reportMissingImports=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from checkrein.errors import ConfigurationError

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

    from checkrein.gateway.config import Config

ByToken = Callable[[Any], str]
"""Takes a request, and returns the name of the client, ``""`` for a stranger."""

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_LONGEST: Final = 4096
_PATIENCE: Final = 5  # seconds for calls and open streams, when the process is told to end


def clients_by_token(config: Config) -> ByToken:
    """Return what tells the client of a request.

    Raises:
        ConfigurationError: two clients have one token.
    """
    known = {one.token_sha256: name for name, one in config.clients.items()}
    if len(known) != len(config.clients):
        raise ConfigurationError("two clients have the same token")

    def by_token(request: Any) -> str:
        shown = "" if request is None else request.headers.get("authorization", "")
        scheme, _, token = shown.partition(" ")
        if scheme.lower() != "bearer" or not token.strip() or len(token) > _LONGEST:
            return ""
        digest = hashlib.sha256(token.strip().encode()).hexdigest()
        found = ""
        for one, name in known.items():  # all of them: how long it takes tells nothing
            found = name if hmac.compare_digest(one, digest) else found
        return found

    return by_token


class Doorkeeper:
    """Turns strangers away before the SDK reads what they have sent.

    Args:
        app: the SDK's application.
        by_token: tells the client.
    """

    def __init__(self, app: Any, by_token: ByToken) -> None:
        self._app, self._by_token = app, by_token

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]
    ) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            name = self._by_token(Request(scope))
            if not name:
                refused = PlainTextResponse(
                    "show a bearer token\n", 401, {"WWW-Authenticate": 'Bearer realm="checkrein"'}
                )
                await refused(scope, receive, send)
                return
            # The SDK binds a session to who has opened it: by the name, no token is kept.
            known = AccessToken(token="", client_id=name, scopes=[])
            scope = {**scope, "user": AuthenticatedUser(known)}
        await self._app(scope, receive, send)


def application(server: Server[Any], by_token: ByToken, config: Config, host: str) -> Doorkeeper:
    """Return the ASGI application.

    Raises:
        ConfigurationError: it would be reached from elsewhere, and under which name is not said.
    """
    security = None  # the SDK's own, for the loopback interface
    if config.allowed_hosts:
        security = TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=config.allowed_hosts,
            allowed_origins=[f"https://{one}" for one in config.allowed_hosts],
        )
    elif host not in _LOOPBACK:
        raise ConfigurationError(
            f"say under which names {host} is reached: allowed_hosts = [...] in the file"
        )
    app = server.streamable_http_app(transport_security=security, host=host)
    return Doorkeeper(app, by_token)


async def serve(app: Doorkeeper, host: str, port: int) -> None:
    """Serve until the process is told to end."""
    settings = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,  # as everything else here
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_PATIENCE,
    )
    await uvicorn.Server(settings).serve()

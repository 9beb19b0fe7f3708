"""What every request has to pass, and what every response carries."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final, final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from checkrein.errors import ConfigurationError

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_SAFE: Final = frozenset({"GET", "HEAD"})
_PORTS: Final = {"http": 80, "https": 443}


def origin_of(url: str) -> str:
    """Return the origin of *url* as browsers spell it: without path, and without a usual port.

    Raises:
        ConfigurationError: it is no address of a web server.

    Example:
        >>> origin_of("https://Inbox.example:443/")
        'https://inbox.example'
    """
    parts, host, port = urlsplit("//"), "", None
    with suppress(ValueError):  # no URL at all, or no port
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    if not host or parts.scheme not in _PORTS or parts.path not in {"", "/"} or "@" in url:
        raise ConfigurationError("a URL here is https://name or http://name:port, and no more")
    name = f"[{host}]" if ":" in host else host
    usual = port is None or port == _PORTS[parts.scheme]
    return f"{parts.scheme}://{name}" + ("" if usual else f":{port}")


@final
class Protected:
    """Refuses what is not from our own pages; see the docstring of :mod:`checkrein.web`.

    Args:
        app: what is protected.
        origins: under which the pages are reached.
    """

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(map(origin_of, origins))
        self._hosts = frozenset(one.partition("://")[2] for one in self._origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            return  # there is nothing else here; the server closes it

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        status, problem = self._problem(scope["method"], Headers(scope=scope))
        app = PlainTextResponse(problem, status) if problem else self._app
        await app(scope, receive, send_protected)

    def _problem(self, method: str, headers: Headers) -> tuple[int, str]:
        """Return status and reason to refuse a request, ``""`` if there is none."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421, "This inbox is not reached under that name; see its option --url.\n"
        if method not in _SAFE and not self._is_ours(headers):
            return 403, "This request does not come from a page of the inbox.\n"
        return 200, ""

    def _is_ours(self, headers: Headers) -> bool:
        origins = headers.getlist("origin")
        if origins == ["null"]:  # our pages send no referrer, and so no origin with their forms
            return headers.getlist("sec-fetch-site") == ["same-origin"]
        return len(origins) == 1 and origins[0] in self._origins

"""The server of the inbox, and the links that let people in."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread
from typing import TextIO

import uvicorn
from starlette.types import ASGIApp

from checkrein.errors import ConfigurationError
from checkrein.gates.inbox import Inbox
from checkrein.web.app import inbox_app
from checkrein.web.protection import origin_of
from checkrein.web.session import Sessions


def serve(
    inbox: Inbox,
    names: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    url: str = "",
    say: Callable[[str], None] = print,
) -> None:
    """Serve the inbox until it is interrupted.

    Args:
        inbox: the questions.
        names: who may answer; each gets a link.
        host: the address to listen on; another one than this machine's own needs *url*.
        port: the port to listen on, 0 for a free one.
        url: how people reach it, if there is a proxy in front.
        say: prints a line.

    Raises:
        ConfigurationError: there are no names, or it cannot listen there.
    """
    if not names:
        raise ConfigurationError("who may answer? --by dana, once for each person")
    sessions = Sessions(inbox.now)
    with listening(host, port) as listener:
        origins = origins_of(host, listener.getsockname()[1], url)

        def invite() -> None:
            for line in invitations(sessions, names, origins[0]):
                say(line)

        invite()
        if sys.stdin is not None and sys.stdin.isatty():
            say("Press return for new links, Ctrl-C to end.")
            Thread(target=_at_each_line, args=(sys.stdin, invite), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server_of(inbox_app(inbox, sessions, origins)).run(sockets=[listener])


def invitations(sessions: Sessions, names: Sequence[str], origin: str) -> list[str]:
    """Return a line with a new link for each of *names*.

    Raises:
        ConfigurationError: one of them is no name.
    """
    links = [(one, f"{origin}/enter/{sessions.invite(one)}") for one in dict.fromkeys(names)]
    told = [f"{name}: {link}" for name, link in links]
    return [*told, "Each link signs in once, within ten minutes. Give it to nobody else."]


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigurationError: there is no such address, or it is taken.
    """
    if not 0 <= port < 1 << 16:
        raise ConfigurationError("there is no such port: --port takes a number up to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError("it cannot listen at that address: see --host, --port") from error


def origins_of(host: str, port: int, url: str) -> list[str]:
    """Return under which origins the inbox is reached, the one for links first.

    Raises:
        ConfigurationError: other machines reach it, and nobody says how.

    Example:
        >>> origins_of("127.0.0.1", 8000, "")
        ['http://127.0.0.1:8000', 'http://localhost:8000']
    """
    if url:
        return [origin_of(url)]
    if not _is_loopback(host):
        raise ConfigurationError(
            "for other machines put a proxy with TLS in front, and say how people reach it:"
            " --url https://inbox.example"
        )
    name = f"[{host}]" if ":" in host else host
    return list(dict.fromkeys(origin_of(f"http://{one}:{port}") for one in (name, "localhost")))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def server_of(app: ASGIApp) -> uvicorn.Server:
    """Return a server that writes no addresses down (they hold links) and ends at once."""
    config = uvicorn.Config(
        app,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


def _at_each_line(file: TextIO, act: Callable[[], None]) -> None:
    for _ in file:
        act()

"""A mail server on this machine, and how one sends to it.

It is a real SMTP server, on a free port of the loopback interface, and keeps
what it gets. What it kept at the end is what the agent really did.
"""

from __future__ import annotations

import smtplib
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any, Self

from aiosmtpd.controller import Controller

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

_HOST = "127.0.0.1"
SENDER = "support@example.com"


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail as the server got it: the envelope, and the message as it came."""

    to: tuple[str, ...]
    message: bytes

    @property
    def body(self) -> str:
        """The text of the message."""
        parsed: Any = message_from_bytes(self.message, policy=policy.default)
        return str(parsed.get_content()).replace("\r\n", "\n")


class Post:
    """The mail server; it runs inside a ``with`` block.

    Attributes:
        received: every letter, in the order in which they came.
    """

    def __init__(self) -> None:
        self.received: list[Letter] = []
        self._server = _Loopback(
            self, hostname=_HOST, port=0, server_hostname="localhost", ready_timeout=30
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.port

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 (the server's word)
        """Take a letter in."""
        self.received.append(Letter(tuple(envelope.rcpt_tos), bytes(envelope.content)))
        return "250 taken"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop()


class _Loopback(Controller):
    """Listens on whichever port is free, and then knows which one that is."""

    async def _create_server(self) -> asyncio.Server:
        server = await self.loop.create_server(self._factory_invoker, self.hostname, self.port)
        address: tuple[str, int] = server.sockets[0].getsockname()
        self.port = address[1]
        return server


def send(port: int, to: str, subject: str, text: str) -> None:
    """Send a mail to the server on *port*."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, to, subject
    message.set_content(text)
    with smtplib.SMTP(_HOST, port, local_hostname="localhost", timeout=30) as client:
        client.send_message(message, SENDER, [to])

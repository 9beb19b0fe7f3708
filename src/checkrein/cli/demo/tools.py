"""What the agent can do: three guarded tools, and how a mailbox is read.

The decorators say what each tool is. Nothing here knows what is allowed, who
is asked, or that a log is kept.
"""

from __future__ import annotations

import mailbox
from email import message_from_bytes, policy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from checkrein import Origin, Untrusted, irreversible, reads, writes
from checkrein.cli.demo import post

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import EmailMessage

SUBJECT = "Today's mail"


class Tools(NamedTuple):
    """The tools of the support desk."""

    read_inbox: Callable[..., Any]
    save_report: Callable[..., Any]
    send_email: Callable[..., Any]


def make_tools(inbox: Path, port: int) -> Tools:
    """Return the tools for one mailbox file and one mail server.

    Args:
        inbox: a file in mbox format.
        port: where the mail server listens on this machine.
    """

    @reads("mail.inbox", private=True)
    def read_inbox() -> Untrusted[str]:
        """Read all mail in the inbox."""
        text = "\n\n".join(mail_text(mail) for mail in read_mbox(inbox))
        return Untrusted(text, "mail.inbox", origin=Origin.TOOL_OUTPUT)

    @writes("files.reports")
    def save_report(path: str, text: Untrusted[str]) -> str:
        """Write a report to a file."""
        Path(path).write_text(text.reveal(), encoding="utf-8")
        return f"saved as {Path(path).name}"

    @irreversible("mail.send", external=True)
    def send_email(to: str, body: Untrusted[str]) -> None:
        """Send a mail."""
        post.send(port, to, SUBJECT, body.reveal())

    return Tools(read_inbox, save_report, send_email)


def read_mbox(path: Path) -> list[EmailMessage]:
    """Return the messages in the mbox file *path*."""
    box = mailbox.mbox(path, create=False)
    try:
        return [
            message_from_bytes(raw, policy=policy.default)
            for raw in map(box.get_bytes, box.iterkeys())
        ]
    finally:
        box.close()


def mail_text(mail: EmailMessage) -> str:
    """Return one message as text: who, about what, the plain body, names of attachments."""
    body = mail.get_body(("plain", "html"))
    lines = [f"From: {mail['From']}", f"Subject: {mail['Subject']}"]
    for one in mail.iter_attachments():
        size = len(one.get_payload(decode=True) or b"")
        lines.append(f"Attachment: {one.get_filename()} ({one.get_content_type()}, {size} bytes)")
    return "\n".join([*lines, "", body.get_content().strip() if body else "(no text)"])

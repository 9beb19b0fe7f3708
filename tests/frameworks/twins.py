"""The same tools as in :mod:`frameworks.tools`, unguarded and with plain types.

A framework must show a model the same schema for a guarded tool as for its twin.
"""

from __future__ import annotations


def read_inbox(folder: str = "INBOX") -> str:
    """Read the newest letter in a folder."""
    return folder


def save_report(path: str, text: str) -> str:
    """Save a report under its path."""
    return path + text


def send_mail(to: str, body: str, copies: int = 1) -> None:
    """Send a mail to one address."""


async def aread_inbox(folder: str = "INBOX") -> str:
    """Read the newest letter in a folder."""
    return folder


async def asave_report(path: str, text: str) -> str:
    """Save a report under its path."""
    return path + text


async def asend_mail(to: str, body: str, copies: int = 1) -> None:
    """Send a mail to one address."""


class Desk:
    """A desk whose method is a tool."""

    def note(self, text: str) -> None:
        """Write a note into the notebook."""


SYNC = (read_inbox, save_report, send_mail)
ASYNC = (aread_inbox, asave_report, asend_mail)

"""Bytes as text: base64url without padding (RFC 4648 section 5), and one spelling of it only."""

from __future__ import annotations

import base64


def to_text(data: bytes) -> str:
    """Return *data* as text."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """Return what :func:`to_text` has made text.

    Raises:
        ValueError: it is no such text, or a second spelling.
    """
    data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
    if to_text(data) != text:
        raise ValueError("a second spelling")
    return data

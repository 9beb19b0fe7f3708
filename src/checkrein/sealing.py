"""Sealed values: content and its label as one text, for memories, queues, databases.

A label that is kept beside its value is lost when somebody copies the value. A
sealed value is one text that nobody reads as content by mistake, and that
cannot be changed, cut, or taken for another one unnoticed::

    cs1.<body>.<mac>

Both parts are base64url without padding (RFC 4648 section 5). The body is JSON:
``value``; ``form``, how it is written (``text``, ``bytes`` as base64, or ``json``);
``sources``, arrays of origin, name and call; ``private``. The mac is HMAC-SHA256
(RFC 2104) under the key over ``checkrein/seal/v1``, LF, the length of the context
as 8 bytes, the context, and the body.

Sealing is no encryption: who reads the text can decode the content.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from pydantic_core import to_json

from checkrein.encodings import from_text, to_text
from checkrein.errors import ConfigurationError, MisuseError, TamperedError
from checkrein.labels import Label, Origin, Source

_VERSION: Final = "cs1"
_PREFIX: Final = b"checkrein/seal/v1\n"
_SHORTEST_KEY: Final = 32
_MEMBERS: Final = frozenset({"value", "form", "sources", "private"})


def sealed(value: Any, label: Label, key: bytes, context: str) -> str:
    """Return *value* and *label* as one sealed text.

    Raises:
        ConfigurationError: the key has fewer than 32 bytes.
        MisuseError: the value cannot be written as JSON.
    """
    form = "text" if isinstance(value, str) else "json"
    try:
        if isinstance(value, bytes):
            form, plain = "bytes", base64.b64encode(value).decode()
        else:
            plain = json.loads(to_json(value, bytes_mode="base64"))
        body = json.dumps(
            {
                "value": plain,
                "form": form,
                "sources": sources_tree(label),
                "private": label.private,
            },
            separators=(",", ":"),
            allow_nan=False,
        ).encode()
    except Exception as error:  # noqa: BLE001 (its text may hold content)
        failure = type(error).__name__
    else:
        return ".".join((_VERSION, to_text(body), to_text(_mac(key, context, body))))
    raise MisuseError(f"the value cannot be sealed: it is not plain data ({failure})")


def unsealed(text: str, key: bytes, context: str) -> tuple[Any, Label]:
    """Return what was sealed.

    Raises:
        TamperedError: the text was not sealed under this key for this context.
    """
    version, _, rest = text.partition(".") if isinstance(text, str) else ("", "", "")
    body, _, mac = rest.partition(".")
    try:
        data, given = from_text(body), from_text(mac)
    except ValueError:
        data, given = b"", b""
    import hmac  # noqa: PLC0415 (as in _mac)

    if version != _VERSION or not hmac.compare_digest(given, _mac(key, context, data)):
        raise TamperedError("the text is not sealed, or was changed, or is for another place")
    tree = json.loads(data)
    if tree.keys() != _MEMBERS:
        raise TamperedError("the sealed text is of a form that is not known here")
    value = tree["value"]
    if tree["form"] == "bytes":
        value = base64.b64decode(value)
    return value, label_of(tree["sources"], private=tree["private"])


def sources_tree(label: Label) -> list[list[str]]:
    """Return the sources of *label* as JSON data: arrays of origin, name and call, in order."""
    return sorted([one.origin.value, one.name, one.call] for one in label.sources)


def label_of(sources: list[list[str]], *, private: bool) -> Label:
    """Return the label with these sources; see :func:`sources_tree`."""
    return Label(frozenset(Source(Origin(one[0]), one[1], one[2]) for one in sources), private)


def check_key(key: bytes) -> None:
    """Refuse a key that is too short to seal with.

    Raises:
        ConfigurationError: it has fewer than 32 bytes.
    """
    if not isinstance(key, bytes) or len(key) < _SHORTEST_KEY:
        raise ConfigurationError("a key for sealing is at least 32 random bytes")


def _mac(key: bytes, context: str, body: bytes) -> bytes:
    check_key(key)
    import hmac  # noqa: PLC0415 (loads hashlib, and few programs seal)

    place = context.encode("utf-8", "surrogatepass")
    return hmac.digest(key, _PREFIX + len(place).to_bytes(8) + place + body, "sha256")

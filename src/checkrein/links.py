r"""Links in text: what a reader, or a program that shows the text, may follow.

The wording of a payload is the model's. A link in it is not wording: it sends
whoever reads it somewhere, and an image link tells that place what it carries.
So the rule on trusted origin looks at links in payload that leaves the house as
it looks at arguments.

Programs differ in what they make a link of, so a link is here whatever one of
them may take for one, and as long as the longest of them reads it:

* a scheme and ``://``, in any spelling that browsers take for it, whatever stands
  before; and the schemes that need no slashes, ``mailto:`` for example;
* ``//host`` and ``\\host``, whose scheme is that of the page around;
* a name that ends in a top-level domain (:mod:`checkrein.toplevel`), and an address of
  four numbers with a port or a path;
* each of these behind HTML's entities, or broken by line ends within a tag.

A quotation mark ends a link only if one stands right before it: in a host, and in what
stands before ``@``, it is a letter like others.

What only a person can put together again ("acme dot com") is not found, nor what is
compressed or encoded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from html import unescape
from typing import Final

from checkrein.lazy import pattern
from checkrein.sanitising import sanitise

_WEB: Final = "https?|wss?|ftps?|file"
_BARE: Final = (
    "mailto|tel|sms|smsto|tg|data|blob|javascript|vbscript|intent|market|callto|skype|facetime|"
    "sips?|xmpp|magnet|whatsapp|slack|msteams|geo|view-source"
)
_START: Final = pattern(
    rf"""
      [a-z][a-z0-9+.-]{{0,31}}:[/\\]{{2}}
    | (?:{_WEB}|{_BARE}):(?=[^\s<>])
    | //(?=[^\s<>/\\]{{0,255}}[.:@%\[0-9])
    | \\\\(?=[\w\[])
    """,
    re.IGNORECASE | re.VERBOSE,
)
_REST: Final = pattern(r"[^\s<>]*")
_QUOTED_REST: Final = {
    '"': pattern(r"[^\s<>\"]*"),
    "'": pattern(r"[^\s<>']*"),
    "`": pattern(r"[^\s<>`]*"),
}
_RUN: Final = pattern(r"[\w.-]+")
_PATH: Final = pattern(r"[:/?#\\][^\s<>]*")
_ADDRESS: Final = pattern(r"\d{1,3}(?:\.\d{1,3}){3}", re.ASCII)
_TAG: Final = pattern(r"<[a-z!/][^<>]*", re.IGNORECASE)
_QUOTED: Final = pattern(r"""=\s*(?:"([^"]*)"|'([^']*)')""")
_BREAKS: Final = dict.fromkeys(map(ord, "\t\r\n"))
_DOTS: Final = dict.fromkeys(map(ord, "\u3002\uff0e\uff61\u2024"), ".")  # as IDNA reads them
_NOWHERE: Final = ".,;:!?)]}>\"'`*_~|/\\"
_CLOSING: Final = ".,;:!?)]}>\"'`*_~|\u201d\u2019\u00bb"


def links_in(text: str) -> Iterator[str]:
    """Yield the links in *text*, as they stand there.

    Example:
        >>> list(links_in("See https://acme.com/a, or acme.com."))
        ['https://acme.com/a', 'acme.com']
    """
    found: dict[str, None] = {}
    for reading in _readings(text):
        found |= dict.fromkeys(_links(reading))
    yield from found


def _readings(text: str) -> Iterator[str]:
    """Yield *text* as a person's program may read it: plain, as HTML, and the values in tags."""
    yield _plain(text)
    html = unescape(text) if "&" in text else text
    if html != text:
        yield _plain(html)
    for tag in _TAG().finditer(text):
        if not tag[0].isprintable():  # there are line ends in it, and a browser leaves them out
            for value in _QUOTED().finditer(tag[0]):
                yield _plain(unescape(value[1] or value[2] or "").translate(_BREAKS))


def _plain(text: str) -> str:
    """Return *text* without what nobody sees; full-width letters read the same to a program."""
    text = sanitise(text)[0]
    if text.isascii():
        return text
    return sanitise(unicodedata.normalize("NFKC", text))[0].translate(_DOTS)


def _links(text: str) -> Iterator[str]:
    end = 0
    while match := _START().search(text, end):
        yield from _names(text, end, match.start())
        before = text[match.start() - 1 : match.start()]
        rest = _QUOTED_REST.get(before, _REST)().match(text, match.end())
        end = match.end() if rest is None else rest.end()
        if text[match.end() : end].strip(_NOWHERE):
            yield text[match.start() : end].rstrip(_CLOSING)
    yield from _names(text, end, len(text))


def _names(text: str, start: int, stop: int) -> Iterator[str]:
    """Yield the names of hosts between two places of *text*, each with the path after it."""
    while match := _RUN().search(text, start, stop):
        start = match.end()
        before, after = text[match.start() - 1 : match.start()], text[start : start + 1]
        length = _host(match[0], after) if before != "@" or after == "/" else 0
        if not length:
            continue
        begin = match.start()
        if length == len(match[0]) and (path := _PATH().match(text, start, stop)):
            start = path.end()
            length = start - begin
        yield text[begin : begin + length].lstrip("._-").rstrip(_CLOSING)


def _host(run: str, after: str) -> int:
    """Return how much of a run of letters, dots and hyphens names a host, 0 for nothing."""
    if "." not in run or after == "@":  # what stands before @ is a name of somebody
        return 0
    if _ADDRESS().fullmatch(run):
        return len(run) if after and after in ":/?#\\" else 0
    from checkrein.toplevel import TOP_LEVEL  # noqa: PLC0415 (few programs look for links)

    labels = run.split(".")
    for last in range(len(labels) - 1, 0, -1):
        whole = labels[last].strip("_-").lower()
        if whole in TOP_LEVEL and labels[last - 1].strip("_-"):
            return len(".".join(labels[: last + 1]))
    known = len(labels[-1]) > 1 and labels[-1].isalpha()
    return len(run) if known and after == "/" else 0

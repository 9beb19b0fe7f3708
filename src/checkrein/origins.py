"""Trusted origin: which values somebody trusted has said.

The question is never "does this value occur in untrusted text?", which base64,
a look-alike letter or a paraphrase evades. It is the reverse: can this value be
found in something *trusted*? An unknown value is an untrusted value.

Trusted text is cut into tokens once, when it arrives. A value is evidenced

* as a *token by kind*: an address, a URL, a number or a date counts by what it
  means (``1,200.50`` is ``1200.5``), and only as a whole: ``13`` is not
  evidenced by "June 13", nor ``acme.com`` by ``acme.com.evil.net``;
* or *literally*, if it stands in trusted text letter by letter (white space
  apart) from the beginning of one token to the end of another.

Lists and dicts are evidenced if everything in them is. Empty values need no
evidence; ``True`` and ``False`` cannot have any.

Evidence is per value, not per role: which trusted value goes where is still
the model's choice, and so may be an attacker's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from checkrein.freezing import FrozenObject
from checkrein.lazy import pattern
from checkrein.untrusted import Untrusted


class Trust:
    """Whose word stands behind a piece of evidence, as bits that may be joined."""

    NONE: Final = 0
    USER: Final = 1
    SYSTEM: Final = 2
    TOOL: Final = 4
    ALL: Final = 7


_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTH: Final = "|".join(f"{name}|{name[:3]}" for name in _MONTHS)

# The first alternative that fits takes the text, so that a date's digits are never a number.
_TOKEN: Final = pattern(
    rf"""
      (?P<url>[a-z][a-z0-9+.-]*://[^\s<>"'`{{}}|\\^]+)
    | (?P<email>[a-z0-9#$&'*+/=?^_`{{|}}~.-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)+)
    | (?P<date>
          (?<![\w./-])[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}
          (?:[T ][0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}})?)?(?![\w-])
        | \b(?:{_MONTH})\.?\s[0-9]{{1,2}}(?:st|nd|rd|th)?(?:,?\s[0-9]{{4}})?(?!\w)
        | (?<!\w)[0-9]{{1,2}}(?:st|nd|rd|th)?\s(?:of\s)?(?:{_MONTH})\b(?:,?\s[0-9]{{4}})?(?!\w)
      )
    | (?P<number>
          (?<![\w.-])[+-]?(?:[0-9]{{1,3}}(?:,[0-9]{{3}})+|[0-9]+)(?:\.[0-9]+)?
          (?![\w@]|[-./:]\w)
      )
    | (?P<word>[\w~/](?:[\w~/.:+#@%-]*[\w/~])?)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ISO_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_SPACE: Final = re.compile(r"\s+")


def _canonical(kind: str, text: str) -> str:
    """Return one spelling for all spellings of the same value, prefixed by its kind."""
    if kind == "email":
        return "@" + text.lower().rstrip(".")
    if kind == "url":
        scheme, _, rest = text.rstrip(".,;:!?)]").partition("://")
        authority = re.match(r"[^/?#]*", rest)
        host = authority[0] if authority else ""
        return f"u{scheme.lower()}://{host.lower()}{rest[len(host) :]}"
    if kind == "date":
        return "d" + _date_text(text)
    if kind == "number":
        return "n" + _number_text(text.replace(",", ""))
    return "w" + text


def _number_text(text: str) -> str:
    # Exactly: Decimal.normalize() would round to the precision of the context.
    exact = format(Decimal(text), "f")
    if "." in exact:
        exact = exact.rstrip("0").rstrip(".")
    return "0" if exact in {"-0", ""} else exact


def _date_text(text: str) -> str:
    if match := _ISO_DATE.match(text):
        return match[0] + text[match.end() :].replace(" ", "T")
    day, month, year = 0, 0, 0
    for part in re.findall(r"[0-9]+|[a-z]{3,}", text.lower()):
        if not part.isdecimal():
            month = next((i for i, m in enumerate(_MONTHS, 1) if m[:3] == part[:3]), month)
        elif len(part) == 4:
            year = int(part)
        else:
            day = int(part)
    return f"{year:04}-{month:02}-{day:02}" if year else f"-{month:02}-{day:02}"


def _spaced(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


@dataclass(slots=True)
class _Text:
    """One trusted text, with the places where its tokens begin and end."""

    text: str
    ends: set[int]
    trust: int


class Piece:
    """What one trusted value evidences. Built outside any lock, then added.

    Args:
        values: the trusted values; texts, numbers, dates, and containers of them.
        trust: whose word it is.
    """

    __slots__ = ("places", "spellings", "tokens", "trust")

    def __init__(self, values: Iterable[Any], trust: int) -> None:
        self.trust = trust
        self.tokens: set[str] = set()
        self.spellings: set[str] = set()
        self.places: list[tuple[_Text, list[tuple[str, int]]]] = []
        for value in values:
            for leaf in _leaves(value):
                self._take(leaf)

    def _take(self, leaf: Any) -> None:
        if not isinstance(leaf, str):
            if token := _leaf_token(leaf):
                self.tokens.add(token)
            return
        text = _spaced(leaf)
        starts: list[tuple[str, int]] = []
        ends: set[int] = set()
        for match in _TOKEN().finditer(text):
            canonical = _canonical(match.lastgroup or "word", match[0])
            self.tokens.add(canonical)
            self.spellings.add(match[0])
            starts.append((canonical, match.start()))
            ends.add(match.end())
        if len(starts) > 1:  # a single token is evidenced by kind
            self.places.append((_Text(text, ends, self.trust), starts))


class Evidence:
    """Everything trusted that a run has seen, indexed for looking up values.

    Looking up costs what the value is long, not what the evidence is.
    """

    __slots__ = ("_endorsed", "_places", "_spellings", "_tokens")

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {}
        self._spellings: dict[str, int] = {}  # tokens as written: the quick way to the usual yes
        self._places: dict[str, list[tuple[_Text, int]]] = {}
        self._endorsed: set[tuple[str, str, bytes]] = set()

    def add(self, piece: Piece) -> None:
        """Take *piece* in."""
        for token in piece.tokens:
            self._tokens[token] = self._tokens.get(token, Trust.NONE) | piece.trust
        for spelling in piece.spellings:
            self._spellings[spelling] = self._spellings.get(spelling, Trust.NONE) | piece.trust
        for text, starts in piece.places:
            for token, start in starts:
                self._places.setdefault(token, []).append((text, start))

    def endorse(self, tool: str, parameter: str, encoded: bytes) -> None:
        """Take in that one value is trusted for one parameter of one tool."""
        self._endorsed.add((tool, parameter, encoded))

    def is_endorsed(self, tool: str, parameter: str, encoded: bytes) -> bool:
        """Say whether this value was endorsed for this parameter of this tool."""
        return (tool, parameter, encoded) in self._endorsed

    @property
    def has_endorsements(self) -> bool:
        """Whether any value was endorsed at all."""
        return bool(self._endorsed)

    def trust(self, value: Any) -> int:
        """Return whose word stands behind all of *value*, ``Trust.NONE`` for nobody's.

        A container is trusted by those who trust every part of it.
        """
        kind = type(value)
        if kind is str:
            return self._text_trust(value)
        if kind is int:
            return self._tokens.get(f"n{value}", Trust.NONE)
        together = Trust.ALL
        for leaf in _leaves(value):
            if isinstance(leaf, str):
                together &= self._text_trust(leaf)
            else:
                token = _leaf_token(leaf)
                together &= self._tokens.get(token, Trust.NONE) if token else Trust.NONE
            if not together:
                return Trust.NONE
        return together

    def _text_trust(self, value: str) -> int:
        known = self._spellings.get(value)
        if known is not None:
            return known
        text = _spaced(value)
        if not text:
            return Trust.ALL
        first = _TOKEN().search(text)
        if first is None:
            return Trust.NONE  # punctuation alone is nobody's value
        canonical = _canonical(first.lastgroup or "word", first[0])
        if first.start() == 0 and first.end() == len(text):
            known = self._tokens.get(canonical, Trust.NONE)
            if known:
                return known
        return self._literal_trust(text, canonical, first.start())

    def _literal_trust(self, text: str, canonical: str, prefix: int) -> int:
        found = Trust.NONE
        for trusted, start in self._places.get(canonical, ()):
            begin = start - prefix
            if begin < 0 or not trusted.text.startswith(text, begin):
                continue
            end = begin + len(text)
            # What follows the last token in the value must not end inside a trusted token.
            if end in trusted.ends or not _joins(trusted.text, end):
                found |= trusted.trust
        return found


def _joins(text: str, end: int) -> bool:
    """Say whether the letters on both sides of *end* belong together."""
    if end >= len(text):
        return False
    return (
        not text[end].isspace()
        and not text[end - 1].isspace()
        and (text[end].isalnum() or text[end - 1].isalnum())
    )


def _leaf_token(leaf: Any) -> str:
    """Return the canonical token of a value that is no text, ``""`` if it cannot be evidenced."""
    if isinstance(leaf, bool):
        return ""
    if isinstance(leaf, int | float | Decimal):
        return "n" + _number_text(str(leaf))
    if isinstance(leaf, date):  # a datetime is one
        return "d" + leaf.isoformat()
    if isinstance(leaf, bytes):
        return "b" + leaf.hex()
    if isinstance(leaf, Enum):
        return f"e{type(leaf).__qualname__}.{leaf.name}"
    return "w" + str(leaf)


def _leaves(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield what is in *value*; nothing for empty containers and ``None``."""
    if value is None or isinstance(value, Untrusted):
        return
    if isinstance(value, Enum) or depth > 32:
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(key, depth + 1)
            yield from _leaves(item, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _leaves(item, depth + 1)
    elif isinstance(value, FrozenObject):
        yield from _leaves(MappingProxyType({**value.fields}), depth + 1)
    elif isinstance(value, BaseModel):
        yield from _leaves(dict(value.__dict__), depth + 1)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _leaves(getattr(value, field.name), depth + 1)
    elif value != b"":
        yield value


def untrusted_in(value: Any, depth: int = 0) -> Iterator[Untrusted[Any]]:
    """Yield the untrusted values inside a tool's result."""
    if isinstance(value, Untrusted):
        yield value
    elif isinstance(value, str | bytes | int | float) or value is None or depth > 32:
        return
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from untrusted_in(item, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from untrusted_in(item, depth + 1)
    elif isinstance(value, BaseModel):
        yield from untrusted_in(dict(value.__dict__), depth + 1)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from untrusted_in(getattr(value, field.name), depth + 1)

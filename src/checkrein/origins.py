"""Trusted origin: which values somebody trusted has said.

The question is never "does this value occur in untrusted text?", which base64,
a look-alike letter or a paraphrase evades. It is the reverse: can this value be
found in something *trusted*? An unknown value is an untrusted value.

A value is evidenced

* *by kind*, if all of it is an address, a URL, an IBAN, a phone number, a
  number, a date or a time of day: then it counts by what it means (``1,200.50``
  is ``1200.5``), and only as a whole: ``13`` is not evidenced by "June 13", nor
  ``dana@acme.com`` by ``dana@acme.com.evil.net``. A moment counts if its parts do:
  "at 12:00 on May 19th" evidences ``2024-05-19 12:00`` where a year was named,
  too, by itself or as today's, and a day evidences the midnight with which it begins;
* *by reference*, for a parameter that is declared to name an entry of some
  directory (:mod:`checkrein.directories`), if a lookup has found it there;
* else *literally*: it stands in trusted text letter by letter (white space
  apart), from the beginning of one word to the end of another. Words are what
  white space parts; quotes, brackets and the punctuation around a word may be
  left out, what is inside a word may not.

Lists and dicts are evidenced if everything in them is. Empty values need no
evidence; ``True`` and ``False`` cannot have any.

Evidence is per value, not per role: which trusted value goes where is still
the model's choice, and so may be an attacker's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

from checkrein.freezing import MAX_BITS, FrozenObject, encode, is_finite
from checkrein.lazy import pattern
from checkrein.untrusted import Untrusted

_MAX_DEPTH: Final = 32
_SMALL: Final = 1 << 63


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

# What must not stand before or after a token: letters, also those that are not ASCII, and what
# joins. All in ASCII: some foreign letters fold to ASCII ones where case is ignored.
_BEFORE: Final = r"(?<![\w.+%@-])(?<![^\x00-\x7f])"
_AFTER: Final = r"(?![\w@-])(?![^\x00-\x7f])"
_LABEL: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# All of these may stand in what is before @ (RFC 5322), so what follows them is half a name.
_HALF: Final = r"(?<!/)(?<!\w[!#$&'*?^`{|}~])(?<![!#$&?^{|}~]{2})"

# The first alternative that fits takes the text, so that a date's digits are never a number.
_KIND: Final = pattern(
    rf"""
      (?P<url>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://[^\s<>"]+
        | {_BEFORE}(?<!/)www\.{_LABEL}(?:\.{_LABEL})+(?:[/?#][^\s<>"]*|{_AFTER}(?!\.\w)))
    | (?P<email>
          {_BEFORE}{_HALF}[a-z0-9_][a-z0-9_.+%'-]{{0,63}}@{_LABEL}(?:\.{_LABEL})+{_AFTER}(?!\.\w)
      )
    | (?P<date>
          {_BEFORE}(?<!/)[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}
          (?:[T ][0-9]{{2}}:[0-9]{{2}}(?::[0-9]{{2}})?)?{_AFTER}(?!:\w)
        | {_BEFORE}(?:{_MONTH})\.?\s[0-9]{{1,2}}(?:st|nd|rd|th)?(?:,?\s[0-9]{{4}})?{_AFTER}
        | {_BEFORE}[0-9]{{1,2}}(?:st|nd|rd|th)?\s(?:of\s)?(?:{_MONTH})(?:,?\s[0-9]{{4}})?{_AFTER}
      )
    | (?P<time>
          {_BEFORE}(?<![:/])(?:
              (?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?(?:\s?[ap]\.?m)?
            | (?:1[0-2]|0?[1-9])\s?[ap]\.?m
          ){_AFTER}(?!:\w)
      )
    | (?P<iban>
          {_BEFORE}(?-i:[A-Z]{{2}}[0-9]{{2}}(?:
              [A-Z0-9]{{11,30}} | (?:[ ][A-Z0-9]{{4}}){{2,7}}(?:[ ][A-Z0-9]{{1,3}})?
          )){_AFTER}
      )
    | (?P<phone>
          (?<![\w.,+-])(?<![^\x00-\x7f])\+(?:
              [17](?:[ ().-]{{0,2}}[0-9]){{10}} | [2-689](?:[ ().-]{{0,2}}[0-9]){{6,14}}
          ){_AFTER}
      )
    | (?P<number>
          (?<![\w.,-])(?<![^\x00-\x7f])
          [+-]?(?:[1-9][0-9]{{0,2}}(?:,[0-9]{{3}})+|0|[1-9][0-9]{{0,299}})(?:\.[0-9]{{1,300}})?
          {_AFTER}(?![-./:,]\w)
      )
    """,
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)
# Not \s and not str.split(): those take some control characters for spaces.
_SPACES: Final = pattern("[ \t\n\r\f\v\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_OF_SEVERAL_WORDS: Final = frozenset({"date", "time", "iban", "phone"})
_RANGES: Final = frozenset(
    {" to ", " - ", "-", " \u2013 ", "\u2013", " until ", " till ", " through ", " and "}
)
_YEAR: Final = pattern(r"n[12][0-9]{0,3}e[0-3]")
# A short group after long ones may be the next number: +49 30 1234 5678 10 minutes.
_RUNS_ON: Final = pattern(r"[0-9]{3}[ ().-]+[0-9]{1,2}$")
_ISO_DATE: Final = pattern(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_OPENING: Final = "([{<\"'`*\u201c\u2018\u00ab"
_CLOSING: Final = ".,;:!?)]}>\"'`*\u201d\u2019\u00bb"


def _canonical(kind: str, text: str) -> str:
    """Return one spelling for all spellings of the same value, prefixed by its kind."""
    if kind == "email":
        return "@" + text.lower()
    if kind == "url":
        scheme, _, rest = text.rpartition("://") if "://" not in text else text.partition("://")
        authority = rest[: next((i for i, one in enumerate(rest) if one in "/?#\\"), len(rest))]
        user, at, host = authority.rpartition("@")
        return f"u{scheme.lower()}://{user}{at}{host.lower()}{rest[len(authority) :]}"
    if kind == "date":
        return "d" + _date_text(text)
    if kind == "time":
        return "t" + _time_text(text)
    if kind == "iban":
        return "i" + text.replace(" ", "")
    if kind == "phone":
        return "p" + "".join(filter(str.isdecimal, text))
    return "n" + _number_text(Decimal(text.replace(",", "")))


def _number_text(number: Decimal) -> str:
    """Return the number exactly; Decimal.normalize() would round it to some context's precision."""
    sign, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    if not text or not isinstance(exponent, int):
        return "0"
    short = text.rstrip("0")
    return f"{'-' * sign}{short}e{exponent + len(text) - len(short)}"


def _year_of(token: str) -> str:
    digits, _, zeros = token[1:].partition("e")
    return digits + "0" * int(zeros)


def _begins(yearless: str, end: str) -> str:
    """Return the day on which a range begins that ends on a day of some year, or on none."""
    day, year = end.removeprefix("d"), end[1:5]
    if year.isdecimal() and yearless > day[4:10]:
        year = f"{int(year) - 1:04}"  # December 30 to January 2 2026
    return f"d{year}{yearless}" if year.isdecimal() else f"d{yearless}"


def _integer_text(number: int) -> str:
    text = str(number)
    short = text.rstrip("0")
    return f"{short}e{len(text) - len(short)}" if number else "0"


def _date_text(text: str) -> str:
    if match := _ISO_DATE().match(text):
        clock = text[match.end() + 1 :]
        return match[0] + ("T" + _time_text(clock) if clock else "")
    day, month, year = 0, 0, 0
    for part in re.findall(r"[0-9]+|[a-z]{3,}", text.lower()):
        if not part.isdecimal():
            month = next((i for i, m in enumerate(_MONTHS, 1) if m[:3] == part[:3]), month)
        elif len(part) == 4:
            year = int(part)
        else:
            day = int(part)
    return f"{year:04}-{month:02}-{day:02}" if year else f"-{month:02}-{day:02}"


def _time_text(text: str) -> str:
    """Return a time of day as ``13:00``; seconds only where there are any."""
    numbers = [int(one) for one in re.findall(r"[0-9]+", text)]
    hour, minute, second = (*numbers, 0, 0)[:3]
    half = text.lower().replace(".", "")[-2:]
    if half in {"am", "pm"} and hour <= 12:
        hour = hour % 12 + 12 * (half == "pm")
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")


def _spaced(text: str) -> str:
    return _SPACES().sub(" ", text).strip(" ")


def _trimmed(word: str) -> tuple[int, str]:
    """Return a word without the punctuation around it, and how much stood before."""
    bare = word.lstrip(_OPENING)
    return len(word) - len(bare), bare.rstrip(_CLOSING)


class _Text:
    """One trusted text, with the places where a value may end."""

    __slots__ = ("ends", "text", "trust")

    def __init__(self, text: str, trust: int) -> None:
        self.text = text
        self.trust = trust
        self.ends: set[int] = set()


class Piece:
    """What trusted values evidence. Built outside any lock, then added.

    Args:
        values: the trusted values; texts, numbers, dates, and containers of them.
        trust: whose word it is.
    """

    __slots__ = ("places", "tokens", "trust", "words")

    def __init__(self, values: Iterable[Any], trust: int) -> None:
        self.trust = trust
        self.tokens: set[str] = set()
        self.words: set[str] = set()
        self.places: list[tuple[str, _Text, int, int]] = []
        for value in values:
            for leaf in leaves(value):
                if isinstance(leaf, str):
                    self._read(_spaced(leaf))
                elif token := _leaf_token(leaf):
                    self._take(token)

    def _take(self, token: str, *, alone: bool = True) -> None:
        self.tokens.add(token)
        if token[0] == "d" and token[1] != "-":
            self.tokens.add(token[:11])  # who names a moment names its day
            if alone:  # a day among other words lends no other day its year
                self.tokens.add("y" + token[1:5])
        elif token[0] == "n" and _YEAR().fullmatch(token) and "1900" <= _year_of(token) < "2200":
            self.tokens.add("y" + _year_of(token))

    def _read(self, text: str) -> None:
        inside: set[int] = set()
        yearless, ended = "", 0
        for match in _KIND().finditer(text):
            kind = match.lastgroup or ""
            said = match[0].rstrip(_CLOSING) if kind == "url" else match[0]
            token = _canonical(kind, said)
            if kind != "phone" or not _RUNS_ON().search(said):
                self._take(token, alone=said == text)
            self.words.add(said)
            if yearless and kind == "date" and text[ended : match.start()] in _RANGES:
                self._take(_begins(yearless, token), alone=False)  # January 11th to 15th 2026
            yearless = token[1:] if token.startswith("d-") else ""
            ended = match.end()
            if kind in _OF_SEVERAL_WORDS:
                inside.update(range(*match.span()))
        place = _Text(text, self.trust)
        start = 0
        for word in text.split(" "):
            before, bare = _trimmed(word)
            begin, end = start + before, start + len(word)
            place.ends.update(range(begin + len(bare), end + 1))
            if bare:
                self.places.append((bare, place, start, begin))
                # What has a kind counts by kind alone, and "June" is no part of "June 13".
                if begin not in inside and not _KIND().fullmatch(bare):
                    self.words.add(bare)
            start = end + 1


class Evidence:
    """Everything trusted that a run has seen, indexed for looking up values.

    Looking up costs what the value is long, not what the evidence is.
    """

    __slots__ = ("_endorsed", "_places", "_references", "_tokens", "_words")

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {}
        self._words: dict[str, int] = {}  # the quick way to the usual yes
        self._places: dict[str, list[tuple[_Text, int, int]]] = {}
        self._endorsed: set[tuple[bytes, str, bytes]] = set()
        self._references: dict[tuple[str, bytes], int] = {}

    def add(self, piece: Piece) -> None:
        """Take *piece* in."""
        for token in piece.tokens:
            self._tokens[token] = self._tokens.get(token, Trust.NONE) | piece.trust
        for word in piece.words:
            self._words[word] = self._words.get(word, Trust.NONE) | piece.trust
        for word, text, start, begin in piece.places:
            self._places.setdefault(word, []).append((text, start, begin))

    def endorse(self, tool: bytes, parameter: str, encoded: bytes) -> None:
        """Take in that one value is trusted for one parameter of one tool."""
        self._endorsed.add((tool, parameter, encoded))

    def is_endorsed(self, tool: bytes, parameter: str, encoded: bytes) -> bool:
        """Say whether this value was endorsed for this parameter of this tool."""
        return (tool, parameter, encoded) in self._endorsed

    def refer(self, kind: str, encoded: bytes, trust: int) -> None:
        """Take in that a value names an entry of the directories of one kind.

        Args:
            kind: what the directory lists.
            encoded: the value.
            trust: whose word has led to the entry.
        """
        key = (kind, encoded)
        self._references[key] = self._references.get(key, Trust.NONE) | trust

    def reference_trust(self, kind: str, value: Any) -> int:
        """Return whose word stands behind all of *value*, entries of *kind* included."""
        together = Trust.ALL
        for leaf in leaves(value):
            found = self._references.get((kind, encode(leaf)), Trust.NONE) | self.trust(leaf)
            together = weakest(together, found)
            if not together:
                return Trust.NONE
        return together

    def kept(self) -> dict[str, list[Any]]:
        """Return all of it as texts and numbers, for another process."""
        texts = {
            (place.text, place.trust) for found in self._places.values() for place, *_ in found
        }
        return {
            "texts": sorted([text, trust] for text, trust in texts),
            "tokens": sorted([token, trust] for token, trust in self._tokens.items()),
            "references": sorted(
                [kind, encoded.hex(), trust] for (kind, encoded), trust in self._references.items()
            ),
            "endorsed": sorted([one.hex(), name, two.hex()] for one, name, two in self._endorsed),
        }

    def keep(self, kept: Mapping[str, list[Any]]) -> None:
        """Take in what :meth:`kept` has returned."""
        for text, trust in kept["texts"]:
            self.add(Piece([text], trust))
        for token, trust in kept["tokens"]:
            self._tokens[token] = trust
        for kind, encoded, trust in kept["references"]:
            self.refer(kind, bytes.fromhex(encoded), trust)
        for one, name, two in kept["endorsed"]:
            self.endorse(bytes.fromhex(one), name, bytes.fromhex(two))

    @property
    def has_endorsements(self) -> bool:
        """Whether any value was endorsed at all."""
        return bool(self._endorsed)

    def trust(self, value: Any) -> int:
        """Return whose word stands behind all of *value*, ``Trust.NONE`` for nobody's.

        A container is trusted by those who trust every part of it; where each part is
        somebody else's word, it counts as a tool's.
        """
        kind = type(value)
        if kind is str:
            return self._text_trust(value)
        if kind is int and -_SMALL < value < _SMALL:
            return self._tokens.get("n" + _integer_text(value), Trust.NONE)
        together = Trust.ALL
        for leaf in leaves(value):
            if isinstance(leaf, str):
                together = weakest(together, self._text_trust(leaf))
            else:
                token = _leaf_token(leaf)
                together = weakest(together, self._token_trust(token) if token else Trust.NONE)
            if not together:
                return Trust.NONE
        return together

    def _token_trust(self, token: str) -> int:
        known = self._tokens.get(token, Trust.NONE)
        if known or token[0] != "d" or token[1] == "-":
            return known
        day, _, clock = token.partition("T")
        found = self._tokens.get(day, Trust.NONE)
        if not found:
            yearless, year = self._tokens.get("d" + day[5:]), self._tokens.get("y" + day[1:5])
            found = weakest(yearless or Trust.NONE, year or Trust.NONE)
        if clock in {"", "00:00"}:
            return found
        return weakest(found, self._tokens.get("t" + clock, Trust.NONE))

    def _text_trust(self, value: str) -> int:
        known = self._words.get(value)
        if known is not None:
            return known
        text = _spaced(value)
        if not text:
            return Trust.ALL
        match = _KIND().fullmatch(text)
        if match is not None:
            return self._token_trust(_canonical(match.lastgroup or "", text))
        return self._literal_trust(text)

    def _literal_trust(self, text: str) -> int:
        before, first = _trimmed(text.split(" ", 1)[0])
        if " " not in text and first not in self._words:
            return Trust.NONE
        found = Trust.NONE
        for place, start, begin in self._places.get(first, ()):
            at = begin - before
            if at >= start and place.text.startswith(text, at) and at + len(text) in place.ends:
                found |= place.trust
        return found


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in *value*."""
    return (leaf for leaf in leaves(value) if isinstance(leaf, str))


def readable_in(value: Any) -> Iterator[str]:
    """Yield the texts in *value*, and bytes as a program may read them for text."""
    for leaf in leaves(value):
        if isinstance(leaf, str):
            yield leaf
        elif isinstance(leaf, bytes):
            yield leaf.decode("utf-8", "replace")
            if b"\0" in leaf:
                yield leaf.decode("utf-16-le", "replace")
                yield leaf.decode("utf-16-be", "replace")


def weakest(one: int, other: int) -> int:
    """Return whose word stands behind two things together, where each has somebody's."""
    return (one & other or Trust.TOOL) if one and other else Trust.NONE


def is_blank(value: Any) -> bool:
    """Say whether there is nothing in *value* that could name anything."""
    return not any(leaf.strip() if isinstance(leaf, str) else True for leaf in leaves(value))


def _leaf_token(leaf: Any) -> str:
    """Return the canonical token of a value that is no text, ``""`` if it cannot be evidenced."""
    if isinstance(leaf, bool) or (isinstance(leaf, float | Decimal) and not is_finite(leaf)):
        return ""
    if isinstance(leaf, int) and leaf.bit_length() > MAX_BITS:
        return ""
    if isinstance(leaf, int | float):
        return "n" + _number_text(Decimal(str(leaf)))
    if isinstance(leaf, Decimal):
        return "n" + _number_text(leaf)
    if isinstance(leaf, datetime) and leaf.tzinfo is None and not leaf.microsecond:
        return f"d{leaf.date().isoformat()}T{_time_text(leaf.isoformat()[11:])}"
    if isinstance(leaf, date):  # a datetime with a time zone, too
        return "d" + leaf.isoformat()
    if isinstance(leaf, time) and leaf.tzinfo is None and not leaf.microsecond:
        return "t" + _time_text(leaf.isoformat())
    if isinstance(leaf, bytes):
        return "b" + leaf.hex()
    if isinstance(leaf, Enum):
        return f"e{type(leaf).__module__}.{type(leaf).__qualname__}.{leaf.name}={leaf.value!r}"
    return f"o{type(leaf).__name__}={leaf!s}"


def leaves(value: Any, depth: int = 0) -> Iterator[Any]:
    """Yield what is in *value*, no containers; nothing for empty containers and ``None``.

    Names of fields are the developer's and no leaves; keys of dicts are, and
    names of fields that a model does not declare.
    """
    if value is None or isinstance(value, Untrusted):
        return
    inside = _parts(value)
    if inside is None or depth > _MAX_DEPTH:
        if isinstance(value, PurePath | UUID):
            yield str(value)
        elif not (isinstance(value, bytes) and not value):
            yield value
        return
    for part in inside:
        yield from leaves(part, depth + 1)


def _parts(value: Any) -> Iterable[Any] | None:
    """Return what a container holds, ``None`` for what is no container."""
    if isinstance(value, str | bytes | int | float | Enum):
        return None
    if isinstance(value, Mapping):
        return (*value.keys(), *value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if isinstance(value, FrozenObject):
        return (*value.fields.values(), value.extra)
    if isinstance(value, BaseModel):
        return (*value.__dict__.values(), value.__pydantic_extra__)
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in fields(value)]
    return None

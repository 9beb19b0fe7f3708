r"""Texts that match a pattern, and the length of things.

``matches`` runs on the engine that pydantic brings, Rust's ``regex``, whose
time grows linearly with the text, whatever the pattern. Its syntax is that of
:mod:`re` for what is taken here: letters, classes, groups, alternatives,
repetition, and ``\d \w \s \D \W \S \b \B`` in their ASCII meaning. What would
mean something else there, or is not supported, is refused when the permission
is written: look-around, backreferences, inline flags, ``\p``, possessive
repetition, and set operations or brackets within classes.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from checkrein.conditions import Refused
from checkrein.constraints.words import check, text_of
from checkrein.errors import ConfigurationError
from checkrein.freezing import FrozenDict, FrozenList, FrozenSet

if TYPE_CHECKING:
    from pydantic_core import SchemaValidator

_MAX_PATTERN: Final = 1000
_INSIDE: Final = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\x0b\f\r\x20"}
_PLAIN_ESCAPES: Final = frozenset("tnrfv") | frozenset("\\.+*?()|[]{}^$#&-~/ !\"%',:;<=>@_`")
_ANCHORS: Final = {"A": r"\A", "Z": r"\z", "b": r"(?-u:\b)", "B": r"(?-u:\B)"}


@dataclass(frozen=True, slots=True, repr=False)
class Matches:
    """A text of at most 1,024 letters that a pattern matches from its first to its last letter."""

    pattern: str
    pins: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(type(self.pattern) is str, "matches(pattern) takes a text")
        check(len(self.pattern) <= _MAX_PATTERN, "matches(pattern) takes at most 1,000 letters")
        _engine(self.pattern)

    def normalise(self, value: Any) -> str:
        """Return *value* if the pattern matches all of it."""
        text = text_of(value)
        if not _engine(self.pattern).isinstance_python(text):
            raise Refused("must match the pattern that the permission states")
        return text

    def __repr__(self) -> str:
        return f"matches({self.pattern!r})"


@functools.lru_cache(maxsize=1024)
def _engine(pattern: str) -> SchemaValidator:
    from pydantic_core import (  # noqa: PLC0415 (loaded when a pattern is first used)
        SchemaError,
        SchemaValidator,
        core_schema,
    )

    anchored = rf"\A(?:{_translated(pattern)})\z"
    try:
        re.compile(pattern, re.ASCII)  # for its better messages, and for what only it refuses
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"matches(pattern) needs a valid pattern: {error}") from None
    schema = core_schema.str_schema(pattern=anchored, regex_engine="rust-regex", strict=True)
    try:
        return SchemaValidator(schema)
    except SchemaError:
        raise ConfigurationError(
            "matches(pattern) needs a valid pattern without look-around and backreferences"
        ) from None


def _translated(pattern: str) -> str:
    """Return *pattern* with its classes in their ASCII meaning; refuse what is read otherwise."""
    parts: list[str] = []
    place, inside = 0, False
    while place < len(pattern):
        letter = pattern[place]
        if letter == "\\":
            parts.append(_escape(pattern[place + 1 : place + 2], inside=inside))
            place += 2
            continue
        if inside:
            _refuse_in_class(pattern, place)
        elif letter == "[":
            # A bracket that follows at once is a member for one engine and the end for another.
            start = place + 1 + pattern.startswith("^", place + 1)
            check(not pattern.startswith("]", start), _HINT.format("an empty class"))
        elif pattern.startswith("(?", place):
            check(pattern.startswith("(?:", place), _HINT.format("a (?...) group but (?:...)"))
        elif letter == "+" and parts:
            check(parts[-1] not in {"*", "+", "?", "}"}, _HINT.format("possessive repetition"))
        inside = letter == "[" if not inside else letter != "]"
        parts.append(letter)
        place += 1
    return "".join(parts)


_HINT: Final = "matches(pattern) does not take {}; see the module's docstring"


def _refuse_in_class(pattern: str, place: int) -> None:
    check(pattern[place] != "[", _HINT.format("a bracket in a class; escape it"))
    for sign in ("&&", "--", "~~"):
        check(not pattern.startswith(sign, place), _HINT.format(f"{sign} in a class"))


def _escape(letter: str, *, inside: bool) -> str:
    if letter and letter in "dws":
        return _INSIDE[letter] if inside else f"[{_INSIDE[letter]}]"
    if letter and letter in "DWS" and not inside:
        return f"[^{_INSIDE[letter.lower()]}]"
    if letter in _ANCHORS and not inside:
        return _ANCHORS[letter]
    if letter in _PLAIN_ESCAPES:
        return "\\" + letter if letter not in " !\"%',:;<=>@_`/" else letter
    raise ConfigurationError(_HINT.format(f"the escape \\{letter}"))


_SIZED: Final = frozenset({str, bytes, tuple, FrozenList, FrozenSet, frozenset, FrozenDict})


@dataclass(frozen=True, slots=True, repr=False)
class Length:
    """A text, bytes, a list, a set or a dict of a bounded length."""

    high: int
    low: int = 0
    pins: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole = type(self.high) is int and type(self.low) is int
        check(
            whole and 0 <= self.low <= self.high,
            "length(at_most, at_least=...) takes whole numbers, at_most the greater",
        )

    def normalise(self, value: Any) -> Any:
        """Return *value* if it has neither too many nor too few letters or members."""
        if type(value) not in _SIZED:
            raise Refused("must be a text, bytes, a list, a set or a dict")
        if not self.low <= len(value) <= self.high:
            raise Refused(f"must have a length from {self.low} to {self.high}")
        return value

    def __repr__(self) -> str:
        least = f", at_least={self.low}" if self.low else ""
        return f"length({self.high}{least})"


def matches(pattern: str) -> Matches:
    r"""Allow a text that *pattern* matches whole, in time that grows with the text only.

    Raises:
        ConfigurationError: the pattern is none, or asks for what is not taken.

    Example:
        >>> matches("[A-Z]{2}-[0-9]{4}").normalise("AB-1234")
        'AB-1234'
    """
    return Matches(pattern)


def length(at_most: int, *, at_least: int = 0) -> Length:
    """Allow what has at most *at_most*, and at least *at_least*, letters or members.

    Example:
        >>> length(3).normalise("abc")
        'abc'
    """
    return Length(at_most, at_least)

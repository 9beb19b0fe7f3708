"""Characters that a person does not see and a model may obey, taken out of text.

Controls other than tab and line feed, soft hyphens, fillers, zero-width and bidi
controls, variation selectors, interlinear marks, and the tag block. Two scripts of
everyday life need some of them; ``keep`` names them:

* ``"emoji"``: variation selector 16, the zero-width joiner between two emoji, and
  the tags of a flag, where an emoji stands before them;
* ``"joiners"``: the zero-width joiner and non-joiner between letters of scripts
  that join, Arabic and those of India for example.

What is kept can carry a bit or two each; nothing is kept by default.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from checkrein.lazy import pattern

_INVISIBLE: Final = pattern(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SURROGATE: Final = pattern("[\ud800-\udfff]")
_EMOJI: Final = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u24c2\u25aa-\u27bf\u2934\u2935"
    "\u2b05-\u2b55\u3030\u303d\u3297\u3299#*0-9\U0001f000-\U0001faff"
)
_FLAG: Final = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f"
_EMOJI_SEQUENCE: Final = pattern(
    f"{_FLAG}|[{_EMOJI}]\ufe0f?(?:\u20e3|(?:\u200d[{_EMOJI}]\ufe0f?){{1,6}})?"
)
_JOINED: Final = pattern("(?<=(.))[\u200c\u200d](?=(.))", re.DOTALL)
_JOINING: Final = frozenset(
    {
        *("ARABIC", "SYRIAC", "MONGOLIAN", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI"),
        *("ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "KHMER", "MYANMAR"),
    }
)
KINDS: Final = frozenset({"emoji", "joiners"})
"""What :func:`sanitise` can be told to keep."""


def sanitise(text: str, keep: frozenset[str] = frozenset()) -> tuple[str, int]:
    r"""Return *text* without characters that only a machine sees, and how many there were.

    Args:
        text: any text; line ends become line feeds, lone surrogates question marks.
        keep: of :data:`KINDS`.

    Example:
        >>> sanitise("pay\u200b now\u202e")
        ('pay now', 2)
        >>> sanitise("\U0001f469\u200d\U0001f52c\u200b", frozenset({"emoji"}))[1]
        1
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, surrogates = _SURROGATE().subn("\N{REPLACEMENT CHARACTER}", text)
    kept = _kept(text, keep) if keep else ()
    if not kept:
        text, invisible = _INVISIBLE().subn("", text)
        return text, invisible + surrogates
    parts = [one for i, one in enumerate(text) if i in kept or not _INVISIBLE().match(one)]
    return "".join(parts), len(text) - len(parts) + surrogates


def _kept(text: str, keep: frozenset[str]) -> set[int]:
    """Return the places of invisible letters that a script needs."""
    kept: set[int] = set()
    if "emoji" in keep:
        for match in _EMOJI_SEQUENCE().finditer(text):
            kept.update(range(*match.span()))
    if "joiners" in keep:
        kept.update(
            match.start()
            for match in _JOINED().finditer(text)
            if _joins(match[1]) and _joins(match[2])
        )
    return kept


def _joins(letter: str) -> bool:
    return unicodedata.name(letter, "").partition(" ")[0] in _JOINING

r"""Text made visible: what a person approves must be what they see.

Every character that a terminal may act on, or that shows nothing, or that
turns the direction of writing, is written as an escape: ``\x1b``, ``\u202e``.
Backslashes are doubled, so that an escape cannot be forged. Letters, accents,
punctuation and line breaks inside quotes stay readable.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from checkrein.freezing import FrozenObject, FrozenSet
from checkrein.lazy import pattern
from checkrein.untrusted import Untrusted, content

# Letters, marks, numbers, punctuation and symbols show; plain space is the one blank.
_SHOWN = frozenset("LMNPS")


_WORD = pattern(r"[\w.@-]+")
_LIKE_LATIN = frozenset({"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "LISU"})


def visible(text: str) -> str:
    r"""Return *text* with everything that does not show written as an escape.

    Example:
        >>> print(visible("a\x1b[2Jb\u202ec\n"))
        a\x1b[2Jb\u202ec\n
    """
    return "".join(_shown(letter) for letter in text)


def _shown(letter: str) -> str:
    if letter == "\\":
        return "\\\\"
    if " " <= letter <= "~":
        return letter
    if unicodedata.category(letter)[0] in _SHOWN and not _fills(letter):
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def _fills(letter: str) -> bool:
    """Say whether a letter or mark shows nothing: fillers and variation selectors."""
    point = ord(letter)
    return (
        letter in "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800"
        or 0xFE00 <= point <= 0xFE0F
        or 0x180B <= point <= 0x180F
        or 0xE0000 <= point <= 0xE0FFF
    )


def lookalikes(text: str) -> list[str]:
    """Return the letters of *text* that a reader may take for ASCII ones, by name, each once.

    Letters of scripts that look like Latin in a word that has Latin ones as well, and
    letters that are ASCII in another form, full-width ones for example. Not a whole word
    in another script, which is how most people write.

    Example:
        >>> lookalikes("dana@\u0430cme.com")
        ['U+0430 CYRILLIC SMALL LETTER A']
    """
    found: dict[str, None] = {}
    for word in () if text.isascii() else _WORD().findall(text):
        mixed = any("a" <= letter <= "z" for letter in word.lower())
        for letter in word:
            if letter > "\x7f" and (_is_other_form(letter) or (mixed and _is_like_latin(letter))):
                found[f"U+{ord(letter):04X} {unicodedata.name(letter, 'without a name')}"] = None
    return list(found)


def _is_other_form(letter: str) -> bool:
    return letter.isalpha() and unicodedata.normalize("NFKC", letter).isascii()


def _is_like_latin(letter: str) -> bool:
    return unicodedata.name(letter, "").partition(" ")[0] in _LIKE_LATIN


def shown(value: Any) -> str:
    """Return a frozen value in full, in Python's spelling, every character visible."""
    if isinstance(value, Untrusted):
        return shown(content(value))
    if isinstance(value, str) and type(value) is str:
        return '"' + visible(value).replace('"', '\\"') + '"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{shown(k)}: {shown(v)}" for k, v in value.items()) + "}"
    if isinstance(value, FrozenObject):
        fields = {**value.fields, **(value.extra or {})}
        inside = ", ".join(f"{visible(str(k))}={shown(v)}" for k, v in fields.items())
        return f"{value.kind.__name__}({inside})"
    if isinstance(value, tuple):
        inside = ", ".join(shown(item) for item in value)
        return f"({inside})" if type(value) is tuple else f"[{inside}]"
    if isinstance(value, frozenset):
        inside = ", ".join(sorted(shown(item) for item in value))
        return f"{{{inside}}}" if isinstance(value, FrozenSet) else f"frozenset({{{inside}}})"
    return visible(repr(value))

"""Untrusted text as a model may see it, and the way back.

Rendered text stands between two markers that carry a random nonce::

    <untrusted-k3v9…-1 from tool_output:mail.inbox>
    the text, without invisible characters
    </untrusted-k3v9…-1>

* The nonce has 80 random bits and belongs to one run. Content was written
  before the nonce existed, so it cannot close its own fence. Content that holds
  the nonce all the same (an echo of an earlier rendering) is neutralised.
* The number after the nonce names the label of the text. When a model copies a
  marker into an argument, :func:`read_back` removes it and returns the label.
  A piece of a marker, or a number that was never issued, is :class:`Forged`.
* Markers hold no quotes, so that they survive JSON and ``repr``.

This helps a model to tell data from instructions. No guarantee rests on it:
the guarantee is the origin check at the tool.
"""

from __future__ import annotations

import re
import unicodedata
from threading import Lock
from typing import TYPE_CHECKING

from pydantic_core import to_json

from checkrein.labels import Label, join
from checkrein.ports import entropy

if TYPE_CHECKING:
    from checkrein.ports import Marks as MarksPort

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"  # 32 letters: 5 bits each
_NONCE_LETTERS = 16
SHORTEST_MARKED = _NONCE_LETTERS  # a shorter text holds no nonce

# What a person does not see and a model may obey: controls other than tab and
# line feed, soft hyphens, fillers, zero-width and bidi controls, variation
# selectors, interlinear marks, and the tag block.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNSAFE_IN_NAME = re.compile(r"[^\w.:/@ -]")
_NAME_LETTERS = 80


class Forged(Exception):
    """An argument holds part of a marker, or a marker that was never issued."""


class RunMarks:
    """The markers of one run. Safe to share between threads.

    Args:
        nonce: the random part; for tests only, leave it out otherwise.
    """

    __slots__ = ("_labels", "_lock", "_pattern", "_tokens", "nonce")

    def __init__(self, nonce: str = "") -> None:
        self.nonce = nonce or "".join(_ALPHABET[byte % 32] for byte in entropy(_NONCE_LETTERS))
        self._labels: list[Label] = []
        self._tokens: dict[Label, str] = {}
        self._lock = Lock()
        self._pattern: re.Pattern[str] | None = None  # most runs never read a marker back

    def token(self, label: Label) -> str:
        """Return the marker token for *label*; the same label gets the same token."""
        with self._lock:
            token = self._tokens.get(label)
            if token is None:
                self._labels.append(label)
                token = self._tokens[label] = f"{self.nonce}-{len(self._labels)}"
            return token

    def label(self, token: str) -> Label | None:
        """Return the label that *token* stands for, ``None`` if it was never issued."""
        nonce, _, number = token.rpartition("-")
        if nonce != self.nonce or not number.isdecimal() or number.startswith("0"):
            return None
        index = int(number) - 1
        return self._labels[index] if index < len(self._labels) else None

    def strip(self, text: str) -> tuple[str, Label]:
        """Return *text* without this run's markers, and the labels that they carried.

        Raises:
            Forged: a marker was never issued, or a piece of one is left.
        """
        found: list[Label] = []

        def collect(match: re.Match[str]) -> str:
            label = self.label(match[1] or match[2])
            if label is None:
                raise Forged
            found.append(label)
            return ""

        if self._pattern is None:
            self._pattern = re.compile(
                rf"<untrusted-({self.nonce}-\d+)(?: from [^<>\n]*)?>\n?"
                rf"|\n?</untrusted-({self.nonce}-\d+)>"
            )
        stripped = self._pattern.sub(collect, text)
        if self.nonce in stripped:
            raise Forged
        return stripped, join(*found)


PROCESS_MARKS = RunMarks()
"""Serves where no run is active."""


def sanitise(text: str) -> tuple[str, int]:
    r"""Return *text* without characters that only a machine sees, and how many there were.

    Example:
        >>> sanitise("pay\u200b now\u202e")
        ('pay now', 2)
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, invisible = _INVISIBLE.subn("", text)
    text, surrogates = _SURROGATE.subn("\N{REPLACEMENT CHARACTER}", text)
    return text, invisible + surrogates


def render(value: object, label: Label, marks: MarksPort) -> str:
    """Return *value* as text that is safe to show a model, fenced by *marks*.

    Text is sanitised; other values are shown as JSON.
    """
    text = value if isinstance(value, str) else _as_json(value)
    text = _neutralise(sanitise(text)[0], marks.nonce)
    token = marks.token(label)
    names = ", ".join(
        _UNSAFE_IN_NAME.sub("?", sanitise(name)[0])[:_NAME_LETTERS] for name in label.names
    )
    origin = _neutralise(f" from {names}" if names else "", marks.nonce)
    return f"<untrusted-{token}{origin}>\n{text}\n</untrusted-{token}>"


def any_nonce_in(text: str, marks: tuple[RunMarks, ...]) -> bool:
    """Say whether *text* may hold a marker of one of *marks*. Quick: asked of every argument."""
    for one in marks:  # noqa: SIM110 (a generator would cost more than the search)
        if one.nonce in text:
            return True
    return False


def read_back(text: str, *marks: RunMarks) -> tuple[str, Label | None]:
    """Return *text* without the markers of *marks*, and the joined label of those found.

    Raises:
        Forged: a live nonce stands in *text* other than in a whole, issued marker.
    """
    label: Label | None = None
    for one in marks:
        if one.nonce in text:
            text, found = one.strip(text)
            label = found if label is None else label | found
    if label is not None and any(one.nonce in text for one in marks):
        raise Forged
    return text, label


def _as_json(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "backslashreplace")
    # The fallback is repr(): whatever it gives is fenced and sanitised like the rest.
    try:
        return to_json(value, fallback=repr, inf_nan_mode="strings", bytes_mode="base64").decode()
    except Exception:  # noqa: BLE001 (text that UTF-8 cannot hold, or a repr that raises)
        return _as_repr(value)


def _as_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 (a value that cannot even be shown is named by its type)
        return f"a {type(value).__name__} that cannot be shown"


def _neutralise(text: str, nonce: str) -> str:
    # A nonce in other letters (full width, capitals) reads the same to a model.
    if not text.isascii() and nonce in unicodedata.normalize("NFKC", text).lower():
        text = unicodedata.normalize("NFKC", text)
    return re.sub(nonce, "[marker removed]", text, flags=re.IGNORECASE)

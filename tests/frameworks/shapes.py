"""The shapes in which tools return untrusted content, and the test that it stayed fenced."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from checkrein import Untrusted, reads
from frameworks.tools import LETTER, SECRET


class Page(BaseModel):
    """A model with an untrusted field."""

    number: int
    text: Untrusted[str]


@dataclass
class Card:
    """A dataclass with an untrusted field."""

    number: int
    text: Untrusted[str]


def letter() -> Untrusted[str]:
    """Return what somebody else wrote."""
    return Untrusted(LETTER, source="shapes")


@reads("frameworks.shapes")
def bare() -> Untrusted[str]:
    """Return the content itself."""
    return letter()


@reads("frameworks.shapes")
def unannotated():
    """Return the content where no annotation says so."""
    return letter()


@reads("frameworks.shapes")
def plain_text() -> Untrusted[str]:
    """Return text that the body left unwrapped and the annotation declares untrusted."""
    return LETTER  # type: ignore[return-value]


@reads("frameworks.shapes")
def in_dict() -> dict[str, Any]:
    """Return the content beside other fields."""
    return {"number": 1, "text": letter()}


@reads("frameworks.shapes")
def in_list() -> list[Any]:
    """Return the content beside other items."""
    return [letter(), "x"]


@reads("frameworks.shapes")
def in_model() -> Page:
    """Return the content as a field of a model."""
    return Page(number=1, text=letter())


@reads("frameworks.shapes")
def in_dataclass() -> Card:
    """Return the content as a field of a dataclass."""
    return Card(1, letter())


@reads("frameworks.shapes")
def formatted() -> str:
    """Return the content formatted into other text."""
    return f"The letter says: {letter()} That is all."


@reads("frameworks.shapes")
def by_name() -> dict[str, Untrusted[str]]:
    """Return several contents by name."""
    return {"first": letter(), "second": letter()}


@reads("frameworks.shapes")
def models() -> dict[str, list[Page]]:
    """Return models in a list in a dict."""
    return {"pages": [Page(number=1, text=letter()), Page(number=2, text=letter())]}


@reads("frameworks.shapes")
def structured() -> Untrusted[dict[str, Any]]:
    """Return a whole structure that somebody else wrote."""
    return Untrusted({"subject": LETTER, "n": [1, None, LETTER]}, source="shapes")


@reads("frameworks.shapes")
def in_tuple() -> tuple[int, Untrusted[str] | None]:
    """Return a pair with the content in it."""
    return 1, letter()


SHAPES: Final[dict[str, Callable[[], Any]]] = {
    tool.__name__: tool
    for tool in (
        bare, unannotated, plain_text, in_dict, in_list, in_model, in_dataclass, formatted,
        by_name, models, structured, in_tuple,
    )
}  # fmt: skip

_FENCED = re.compile(
    r"<untrusted-(?P<token>[a-z2-7]{16}-\d+)[^<>]*>(?P<text>.*?)</untrusted-(?P=token)>", re.DOTALL
)


def fences(text: str) -> list[str]:
    """Return the fenced parts of *text*, with their markers, as a model would copy them."""
    return [match[0] for match in _FENCED.finditer(text)]


def assert_fenced(text: str) -> None:
    """Fail unless the letter is in *text*, and nowhere outside of markers."""
    assert SECRET in "".join(fences(text)), text
    outside = _FENCED.sub("", text)
    assert SECRET not in outside, text
    assert "untrusted-" not in outside, text  # no fence inside a fence, and none left open
    assert "_value" not in outside, text

"""What the constraints share: reading texts and checking their own parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from checkrein.conditions import Refused, is_constraint
from checkrein.errors import ConfigurationError
from checkrein.spelling import spelled

MAX_TEXT: Final = 1024


def text_of(value: Any, limit: int = MAX_TEXT) -> str:
    """Return *value* if it is a text, no subclass of one, and not too long."""
    if type(value) is not str:
        raise Refused("must be a text")
    if len(value) > limit:
        raise Refused(f"must have at most {limit} letters")
    return value


def spelled_or_repr(value: Any) -> str:
    """Return the Python expression for *value*, or the best there is."""
    return spelled(value) or repr(value)


def check(holds: bool, problem: str) -> None:
    """Refuse parameters of a constraint that do not hold.

    Raises:
        ConfigurationError: they do not.
    """
    if not holds:
        raise ConfigurationError(problem)


def check_texts(values: Any, name: str) -> None:
    """Refuse what is not a tuple of texts with at least one."""
    texts = type(values) is tuple and all(type(one) is str for one in values)
    check(texts and bool(values), f"{name}() takes texts, and at least one")


def check_constraint(value: Any, name: str) -> None:
    """Refuse what is no constraint."""
    hint = f"{name}() takes constraints, exactly({type(value).__name__}) for example"
    check(is_constraint(value), hint)


def several(values: Iterable[Any], name: str) -> tuple[Any, ...]:
    """Return *values* as a tuple; a constraint that lets nothing through is a mistake."""
    found = tuple(values)
    check(bool(found), f"{name}() without values would allow nothing; leave it out")
    return found

"""What the tests of values share: what an exception tells, and short ids for odd parameters."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import Any

import pytest


def told_by(error: BaseException) -> str:
    """Return all texts of *error*, of what it came from, and of what was going on meanwhile."""
    texts: list[str] = []
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        texts += [str(one), repr(one), repr(one.args), repr(vars(one))]
        texts += getattr(one, "__notes__", [])
        todo += [one.__cause__, one.__context__]
    texts += traceback.format_exception(error)
    return "\n".join(texts)


def each(values: Iterable[Any]) -> list[Any]:
    """Return *values* as parameters with short ids, each its own."""
    return [
        pytest.param(value, id=f"{place}-{_short(value)}") for place, value in enumerate(values)
    ]


def each_pair(pairs: Iterable[tuple[Any, Any]]) -> list[Any]:
    """Return *pairs* as two parameters with short ids, each its own."""
    return [
        pytest.param(one, other, id=f"{place}-{_short(one)}-{_short(other)}")
        for place, (one, other) in enumerate(pairs)
    ]


def _short(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 64:
        return "huge"
    plain = isinstance(value, str | bytes | int | float) or value is None
    return ascii(value)[:30] if plain else type(value).__name__

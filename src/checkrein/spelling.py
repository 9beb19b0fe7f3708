"""Writing values and permissions as the Python that makes them.

For people who read an explanation, and for proposals that are pasted into a
program. Values may have been chosen by anybody, so the text is ASCII and holds
no control characters, and what has no literal is not guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from checkrein.conditions import is_constraint
from checkrein.freezing import FrozenDict, FrozenList, FrozenSet
from checkrein.untrusted import Untrusted, content

if TYPE_CHECKING:
    from checkrein.facts import Claim

_LITERAL: Final = frozenset({str, int, bool, bytes, type(None)})
_DATES: Final = frozenset({date, timedelta})


def spelled(value: Any) -> str | None:
    """Return the Python expression for a frozen value, ``None`` if it has none."""
    kind = type(value)
    if kind is Untrusted:
        return spelled(content(value))
    if kind in _LITERAL:
        return ascii(value)
    if kind is float:
        return repr(value)
    if kind is Decimal or kind in _DATES:
        return repr(value).replace("datetime.", "")
    if kind in {FrozenList, tuple, FrozenSet}:
        return _spelled_items(value, kind)
    if kind is FrozenDict:
        pairs = [(spelled(key), spelled(item)) for key, item in value.items()]
        if any(key is None or item is None for key, item in pairs):
            return None
        return "{" + ", ".join(f"{key}: {item}" for key, item in pairs) + "}"
    return None


def _spelled_items(value: Any, kind: type[Any]) -> str | None:
    items = [spelled(item) for item in value]
    texts = [item for item in items if item is not None]
    if len(texts) < len(items):
        return None
    inside = ", ".join(texts)
    if kind is FrozenList:
        return f"[{inside}]"
    if kind is FrozenSet:
        return f"{{{inside}}}" if texts else "set()"
    return f"({inside},)" if len(texts) == 1 else f"({inside})"


def spelled_constraint(values: Sequence[Any]) -> tuple[str, str]:
    """Return the constraint that lets just *values* through, and a remark if there is none.

    Args:
        values: frozen values; or the one constraint that opens a file.
    """
    if len(values) == 1 and is_constraint(values[0]):
        return repr(values[0]), ""
    texts = [spelled(value) for value in values]
    if any(text is None for text in texts):
        return "anything", "a value has no literal: confine it by hand"
    known = [text for text in texts if text is not None]
    if len(known) == 1:
        return f"exactly({known[0]})", ""
    return f"one_of([{', '.join(known)}])", ""


def spelled_permission(
    claim: Claim, constraints: Mapping[str, Sequence[Any]], options: Sequence[str] = ()
) -> tuple[str, tuple[str, ...]]:
    """Return an ``allow(...)`` for *claim* with just these values, and remarks on it."""
    parts = [repr(claim.resource), *options]
    remarks: list[str] = []
    for name, values in constraints.items():
        text, remark = spelled_constraint(values)
        parts.append(f"{name}={text}")
        if remark:
            remarks.append(f"{name}: {remark}")
    return f"allow({', '.join(parts)})", tuple(remarks)

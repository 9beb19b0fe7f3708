"""Standing approvals: a person's yes to this call and to a few more just like it.

``confirmation.approve(by="dana", standing=standing(uses=5, within=timedelta(hours=1),
amount=at_most(50)))`` allows the call that was shown and, in the same run, up to five more
that

* are of the same tool, in the same definition, under the same grants;
* have the same arguments, letter by letter, but for those named here, which meet the
  constraint;
* are asked about for no other reason than the one that was shown.

Each call that uses it names it in the log. A no to any call of the tool ends it, and so
does the end of the run. It widens nothing: what the grants or the rules deny stays denied.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from checkrein.conditions import Constraint, Refused, is_constraint
from checkrein.confirmations import Standing
from checkrein.errors import ConfigurationError, GrantError, MisuseError
from checkrein.freezing import encode
from checkrein.untrusted import bare

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from checkrein.calls import Call
    from checkrein.confirmations import Confirmation, Verdict
    from checkrein.rules import Finding

_MOST_USES: Final = 1000
_LONGEST: Final = 7 * 86_400.0


def standing(*, uses: int, within: timedelta, **arguments: Constraint) -> Standing:
    """Return a standing approval, for ``confirmation.approve(..., standing=...)``.

    Args:
        uses: how many more calls it allows, 1 to 1000.
        within: for how long, at most a week.
        arguments: which arguments may differ from what was shown, and how far.

    Raises:
        ConfigurationError: it would be endless, or a constraint has no text.

    Example:
        >>> from checkrein.constraints import at_most
        >>> standing(uses=5, within=timedelta(hours=1), amount=at_most(50)).uses
        5
    """
    if type(uses) is not int or not 1 <= uses <= _MOST_USES:
        raise ConfigurationError(f"standing(uses=...) takes 1 to {_MOST_USES} calls")
    if not isinstance(within, timedelta) or not 0 < within.total_seconds() <= _LONGEST:
        raise ConfigurationError("standing(within=...) takes a timedelta of at most a week")
    if not all(map(is_constraint, arguments.values())):
        raise ConfigurationError("standing(amount=...) takes constraints: amount=at_most(50)")
    from checkrein.wire import constraint_tree, to_bytes  # noqa: PLC0415 (few answers stand)

    try:
        text = to_bytes({name: constraint_tree(one) for name, one in arguments.items()}).decode()
    except GrantError as problem:
        raise ConfigurationError(f"standing(...): {problem}") from None
    return Standing(uses, within.total_seconds(), text)


_UNREADABLE: Final = (
    GrantError,
    ConfigurationError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
)


def _read(given: Standing) -> Mapping[str, Constraint]:
    """Return the constraints of a standing approval, which may have come over a wire."""
    from checkrein.wire import constraint_of, from_bytes  # noqa: PLC0415 (as above)

    try:
        tree = from_bytes(given.arguments.encode())
        found = {name: constraint_of(one) for name, one in tree.items()}
        within = timedelta(seconds=given.seconds)
        if standing(uses=given.uses, within=within, **found) != given:
            raise MisuseError("the standing approval is not in its own form")
    except _UNREADABLE as problem:
        raise MisuseError(f"the standing approval cannot be read: {problem}") from None
    return found


class Leave:
    """A standing approval that was given, and what is left of it.

    Args:
        kept: all of it as plain data; see :meth:`of`.
    """

    __slots__ = ("_base", "_constraints", "_kept", "_lock", "by", "id", "tool")

    def __init__(self, kept: dict[str, Any]) -> None:
        self._kept = kept
        self._lock = Lock()
        given = Standing(kept["uses"], kept["seconds"], kept["arguments"])
        self._constraints = _read(given)
        self._base: dict[str, str] = kept["base"]
        self.id: str = kept["id"]
        self.by: str = kept["by"]
        self.tool: str = kept["tool"]

    @classmethod
    def of(
        cls,
        question: Confirmation,
        answer: Verdict,
        call: Call,
        approved: Iterable[Finding],
        now: float,
    ) -> Leave | None:
        """Return what *answer* allows beyond the call it was asked about, ``None`` for nothing.

        Raises:
            MisuseError: it names no plain data, or an argument that the tool has not.
        """
        given = answer.standing
        if given is None:
            return None
        if not isinstance(given, Standing):
            raise MisuseError("the standing approval is none")
        made = cls(
            {
                "id": question.id,
                "by": answer.by,
                "tool": call.facts.definition.hex(),
                "grants": list(question.grants),
                "reasons": sorted([one.rule, one.argument, one.message] for one in approved),
                "base": {name: _bytes(value) for name, value in call.arguments.items()},
                "uses": given.uses,
                "seconds": given.seconds,
                "arguments": given.arguments,
                "left": given.uses,
                "ends": now + given.seconds,
            }
        )
        unknown = made._constraints.keys() - call.arguments.keys()
        if unknown:
            raise MisuseError(f"the standing approval names {min(unknown)!r}, no argument")
        return made

    def kept(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        with self._lock:
            return dict(self._kept)

    def take(
        self, call: Call, grants: Sequence[str], findings: Iterable[Finding], now: float
    ) -> bool:
        """Use it for *call* if it covers that; say whether it does."""
        kept = self._kept
        if call.facts.definition.hex() != self.tool or list(grants) != kept["grants"]:
            return False
        reasons = [[one.rule, one.argument, one.message] for one in findings]
        if any(one not in kept["reasons"] for one in reasons):
            return False
        if call.arguments.keys() != self._base.keys():
            return False
        if not all(self._covers(name, value) for name, value in call.arguments.items()):
            return False
        with self._lock:
            if now >= kept["ends"] or kept["left"] <= 0:
                return False
            kept["left"] -= 1
            return True

    def _covers(self, name: str, value: Any) -> bool:
        constraint = self._constraints.get(name)
        if constraint is None:
            return _bytes(value) == self._base[name]
        plain = bare(value)
        try:
            return encode(constraint.normalise(plain)) == encode(plain)
        except Refused:
            return False
        except Exception:  # noqa: BLE001 (a value of another kind than the constraint is for)
            return False


def _bytes(value: Any) -> str:
    return encode(bare(value)).hex()

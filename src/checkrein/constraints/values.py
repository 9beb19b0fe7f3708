"""Single values: one of a few, a number in an interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from checkrein.conditions import Refused
from checkrein.constraints.words import check, several, spelled_or_repr
from checkrein.errors import ConfigurationError
from checkrein.freezing import ATOMS, Unfreezable, encode, freeze, is_finite

Number = int | float | Decimal


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class OneOf:
    """One of a few values; ``1``, ``1.0``, ``True`` and ``"1"`` are four different ones."""

    options: tuple[Any, ...]
    pins: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check(
            type(self.options) is tuple and bool(self.options),
            "one_of() without values would allow nothing; leave it out",
        )
        object.__setattr__(self, "options", tuple(_frozen(one) for one in self.options))

    def normalise(self, value: Any) -> Any:
        """Return *value* if it is one of the options."""
        kind = type(value)
        for option in self.options:
            # In a list 1 equals True; in their encoding they differ.
            if (
                type(option) is kind
                and option == value
                and (kind in ATOMS or encode(option) == encode(value))
            ):
                return option
        raise Refused("must be one of the values that the permission lists")

    def __eq__(self, other: object) -> bool:
        # 1 == 1.0 == True, and these are three options.
        return type(other) is OneOf and self._encoded() == other._encoded()

    def __hash__(self) -> int:
        return hash(self._encoded())

    def _encoded(self) -> tuple[bytes, ...]:
        return tuple(encode(one) for one in self.options)

    def __repr__(self) -> str:
        texts = [spelled_or_repr(one) for one in self.options]
        return f"exactly({texts[0]})" if len(texts) == 1 else f"one_of([{', '.join(texts)}])"


def _frozen(value: Any) -> Any:
    try:
        frozen = freeze(value)
        encode(frozen)
    except Unfreezable as refusal:
        raise ConfigurationError(f"an allowed value {refusal}") from None
    return frozen


@dataclass(frozen=True, slots=True, repr=False)
class Between:
    """A finite number from ``low`` to ``high``, both included; ``None`` leaves a side open."""

    low: Number | None
    high: Number | None
    pins: ClassVar[bool] = False

    def __post_init__(self) -> None:
        low, high = self.low, self.high
        for name, limit in (("low", low), ("high", high)):
            check(
                limit is None or (type(limit) in {int, float, Decimal} and is_finite(limit)),
                f"{name} must be a finite number, not {type(limit).__name__}",
            )
        check(low is not None or high is not None, "between() needs a limit")
        check(
            low is None or high is None or low <= high,
            "between(low, high) needs low <= high; no number fits these",
        )

    def normalise(self, value: Any) -> Any:
        """Return *value* if it is a number in the interval."""
        kind = type(value)
        if kind is not int and (kind not in {float, Decimal} or not is_finite(value)):
            raise Refused("must be a finite number")
        # Asked positively, so that what compares to nothing is outside.
        inside = (self.low is None or self.low <= value) and (
            self.high is None or value <= self.high
        )
        if not inside:
            raise Refused(f"must be a number {self._limits()}")
        return value

    def _limits(self) -> str:
        if self.low is None:
            return f"of at most {self.high}"
        if self.high is None:
            return f"of at least {self.low}"
        return f"from {self.low} to {self.high}"

    def __repr__(self) -> str:
        if self.low is None:
            return f"at_most({self.high!r})"
        if self.high is None:
            return f"at_least({self.low!r})"
        return f"between({self.low!r}, {self.high!r})"


def one_of(options: Iterable[Any]) -> OneOf:
    """Allow one of *options*, compared with their types.

    Raises:
        ConfigurationError: no options, a bare text, or an option that is not plain data.

    Example:
        >>> one_of(["read", "list"]).normalise("read")
        'read'
    """
    check(not isinstance(options, str | bytes), 'one_of() takes a list: one_of(["read", "list"])')
    return OneOf(several(options, "one_of"))


def exactly(value: Any) -> OneOf:
    """Allow *value* and nothing else.

    Example:
        >>> exactly("INBOX").normalise("INBOX")
        'INBOX'
    """
    return OneOf((value,))


def between(low: Number, high: Number) -> Between:
    """Allow a number from *low* to *high*, both included.

    Raises:
        ConfigurationError: a limit is no finite number, or no number lies between them.

    Example:
        >>> between(1, 100).normalise(50)
        50
    """
    for name, limit in (("low", low), ("high", high)):
        check(limit is not None, f"{name} must be a finite number; see at_most and at_least")
    return Between(low, high)


def at_most(high: Number) -> Between:
    """Allow a number of at most *high*; negative ones too, so see :func:`between`."""
    check(high is not None, "high must be a finite number")
    return Between(None, high)


def at_least(low: Number) -> Between:
    """Allow a number of at least *low*."""
    check(low is not None, "low must be a finite number")
    return Between(low, None)

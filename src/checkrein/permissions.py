"""What a permission is, and how one writes it.

A permission names a resource and what it asks of the arguments. The rules:

* Deny by default: what no permission covers is not allowed.
* A resource is dotted text; ``*`` stands for one segment, ``**``, at the end,
  for one or more. A wildcard covers reads that stay inside; it covers state
  changes only where ``effects(...)`` says so, and external reads never.
* Closed world: a permission that constrains one argument must mention every
  plain argument that is not left at the tool's default. ``others(anything)``
  opts out, visibly. ``Untrusted[...]`` parameters are payload and need no
  mention; one may constrain them all the same.
* A constraint meets defaults too, and hands over the value to use.
* Every budget of a permission must have room for the call.

The text of a permission is the Python that makes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from checkrein.conditions import Constraint, is_constraint
from checkrein.confirmations import NO_CARE, Care, check_care
from checkrein.errors import ConfigurationError
from checkrein.facts import Claim, Effect
from checkrein.freezing import is_finite
from checkrein.ports import MOST

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_COST_UNIT: Final = 1_000_000


# -- the parts of a permission -------------------------------------------------------------


class Budget(NamedTuple):
    """How much use a permission has. See :func:`budget`.

    Attributes:
        times: how many uses there are, or how much they may cost together.
        per: the window in seconds within which that holds; 0.0 for ever.
        cost: the argument that says what a use costs; ``""``: each use is one.
    """

    times: int | float | Decimal
    per: float = 0.0
    cost: str = ""

    @property
    def limit(self) -> int:
        """The budget in the units in which a store counts: uses, or millionths of a cost."""
        return _units(self.times, ROUND_FLOOR) if self.cost else int(self.times)

    def amount(self, value: Any) -> int | None:
        """Return what a use takes whose cost argument is *value*; ``None`` if it is no cost."""
        return _units(value, ROUND_CEILING) if _is_amount(value) else None

    def __repr__(self) -> str:
        per = f", per=timedelta(seconds={self.per:g})" if self.per else ""
        cost = f", cost={self.cost!r}" if self.cost else ""
        return f"budget(times={self.times!r}{per}{cost})"


class Effects(NamedTuple):
    """Which effects a permission covers. See :func:`effects`."""

    allowed: frozenset[Effect]

    def __repr__(self) -> str:
        return f"effects({', '.join(repr(one.value) for one in Effect if one in self.allowed)})"


class Preapproved(NamedTuple):
    """When an irreversible call is not asked about. See :func:`preapproved`."""

    when: Literal["unexposed", "always"]

    def __repr__(self) -> str:
        return f"preapproved({self.when!r})"


class Others(NamedTuple):
    """What holds for arguments that a permission does not name. See :func:`others`."""

    constraint: Constraint

    def __repr__(self) -> str:
        return f"others({self.constraint!r})"


Option = Budget | Effects | Preapproved | Others | Care


def budget(*, times: float | Decimal, per: timedelta | None = None, cost: str = "") -> Budget:
    """Limit the use of a permission, across all threads, runs and processes that share the grant.

    A use is reserved when the call is allowed and spent when its body starts.
    A call that is denied, suspended or cancelled before that gives it back. A
    permission may have several budgets; a call needs room in each.

    Args:
        times: how many uses there are; with ``cost``, how much they may cost together.
        per: a window: so many uses within any stretch of time of this length.
        cost: the name of an argument, a number of at least 0, that says what a
            use costs. Counted in millionths, rounded up.

    Raises:
        ConfigurationError: an impossible number, window or name.

    Example:
        >>> budget(times=500, cost="amount", per=timedelta(days=1))
        budget(times=500, per=timedelta(seconds=86400), cost='amount')
    """
    if not isinstance(cost, str) or not (cost == "" or cost.isidentifier()):
        raise ConfigurationError("budget(cost=...) takes the name of an argument of the tool")
    whole = type(times) is int and times >= 0
    if not (whole or (cost and _is_amount(times))):
        raise ConfigurationError(
            "budget(times=...) takes a whole number of at least 0; "
            "with cost= it may be a float or a Decimal"
        )
    seconds = 0.0
    if per is not None:
        if not isinstance(per, timedelta) or per <= timedelta():
            raise ConfigurationError("budget(per=...) takes a positive timedelta")
        seconds = per.total_seconds()
    made = Budget(times, seconds, cost)
    if made.limit > MOST:
        raise ConfigurationError("budget(times=...) is more than can be counted; leave it out")
    return made


def _is_amount(value: Any) -> bool:
    return type(value) in {int, float, Decimal} and is_finite(value) and value >= 0


def _units(value: float | Decimal, rounding: str) -> int:
    """Return *value* in millionths. The shortest text of a float is the number that was meant."""
    if type(value) is int:
        return value * _COST_UNIT
    sign, digits, exponent = Decimal(repr(value) if type(value) is float else value).as_tuple()
    assert sign == 0 or not any(digits)
    assert isinstance(exponent, int)
    number = int("".join(map(str, digits)) or "0")
    places: int = exponent + 6
    if places >= 0:
        # A few letters can spell a number of a million digits: more than can be counted is enough.
        zeros: int = 10 ** min(places, 40)
        return number * zeros
    if -places > len(digits):
        return int(rounding == ROUND_CEILING and number > 0)
    small: int = 10**-places
    whole, rest = divmod(number, small)
    return whole + int(rounding == ROUND_CEILING and rest > 0)


def effects(*allowed: str | Effect) -> Effects:
    """Say which effects the permission covers: ``"reads"``, ``"writes"``, ``"irreversible"``.

    This is how a wildcard comes to cover more than reading.
    """
    try:
        named = frozenset(Effect(one) for one in allowed)
    except ValueError:
        raise ConfigurationError(
            f"effects() takes {', '.join(Effect)}; each effect is named"
        ) from None
    if not named:
        raise ConfigurationError("effects() without names would allow nothing; leave it out")
    return Effects(named)


def preapproved(when: Literal["unexposed", "always"]) -> Preapproved:
    """Skip the question that an irreversible call asks.

    Args:
        when: ``"unexposed"``, while the run has seen nothing untrusted, or
            ``"always"``. Questions about origins are asked all the same.
    """
    if when not in {"unexposed", "always"}:
        raise ConfigurationError('preapproved() takes "unexposed" or "always"')
    return Preapproved(when)


def others(constraint: Constraint) -> Others:
    """Say what holds for the arguments that the permission does not name."""
    return Others(_constraint(constraint, "others(...)"))


# -- permissions ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Permission:
    """Leave to use one resource, or those that a pattern names. Made by :func:`allow`.

    Attributes:
        resource: the dotted name or pattern.
        constraints: what is asked of arguments, by name.
        others: what is asked of arguments that have no constraint of their own.
        effects: the effects covered; ``None``: all for a full name, reads for a wildcard.
        budgets: how much use there is; empty for no limit.
        preapproved: when an irreversible call is not asked about, ``""`` for never.
        care: how much care a confirmation takes, beyond what the tool asks for.
    """

    resource: str
    constraints: Mapping[str, Constraint] = field(default_factory=lambda: MappingProxyType({}))
    others: Constraint | None = None
    effects: frozenset[Effect] | None = None
    budgets: tuple[Budget, ...] = ()
    preapproved: Literal["", "unexposed", "always"] = ""
    care: Care = NO_CARE
    unlimited: bool = False  # only everything() sets this

    @property
    def wildcard(self) -> bool:
        """Whether the resource is a pattern."""
        return "*" in self.resource

    def covers(self, claim: Claim) -> bool:
        """Say whether the permission is about what *claim* states."""
        if self.unlimited:
            return True
        if self.effects is not None and claim.effect not in self.effects:
            return False
        if not self.wildcard:
            return self.resource == claim.resource
        if claim.effect is Effect.READS:
            if claim.external:
                return False
        elif self.effects is None:
            return False
        return self.names(claim.resource)

    def names(self, resource: str) -> bool:
        """Say whether the resource of the permission is, or stands for, *resource*."""
        return _pattern_fits(self.resource.split("."), resource.split("."))

    def constraint_for(self, name: str) -> Constraint | None:
        """Return what is asked of the argument *name*."""
        return self.constraints.get(name, self.others)

    @property
    def options(self) -> tuple[Option, ...]:
        """What :func:`allow` was given beside the resource and the constraints."""
        parts: list[Option] = list(self.budgets)
        if self.effects is not None:
            parts.append(Effects(self.effects))
        if self.preapproved:
            parts.append(Preapproved(self.preapproved))
        if self.others is not None:
            parts.append(Others(self.others))
        if self.care != NO_CARE:
            parts.append(self.care)
        return tuple(parts)

    def __str__(self) -> str:
        if self.unlimited:
            return "everything()"
        asked = [f"{name}={constraint!r}" for name, constraint in self.constraints.items()]
        return f"allow({', '.join([repr(self.resource), *map(repr, self.options), *asked])})"


def _pattern_fits(pattern: list[str], name: list[str]) -> bool:
    if pattern[-1] == "**":
        pattern = pattern[:-1]
        if len(name) <= len(pattern):
            return False
        name = name[: len(pattern)]
    return len(pattern) == len(name) and all(
        one in {"*", other} for one, other in zip(pattern, name, strict=True)
    )


def allow(resource: str, /, *options: Option, **constraints: Constraint) -> Permission:
    """Allow the use of *resource*.

    What is positional speaks of the permission, what is a keyword speaks of
    the tool's arguments, so that a tool may have a parameter called ``times``.

    Args:
        resource: a dotted name, ``mail.send``, or a pattern, ``mail.*``.
        options: ``budget(...)``, also several, ``effects(...)``, ``preapproved(...)``,
            ``others(...)``, ``Care(...)``.
        constraints: what is asked of arguments; see :mod:`checkrein.constraints`.

    Raises:
        ConfigurationError: an impossible resource, an option twice, or a plain
            value where a constraint belongs.

    Example:
        >>> from checkrein.constraints import email_domain
        >>> print(allow("mail.send", budget(times=5), to=email_domain("acme.com")))
        allow('mail.send', budget(times=5), to=email_domain('acme.com'))
    """
    _check_pattern(resource)
    budgets: list[Budget] = []
    chosen: dict[type[Option], Option] = {}
    for option in options:
        if not isinstance(option, Option):
            raise ConfigurationError(
                f"allow({resource!r}): {type(option).__name__} is no option; positional are "
                "budget(...), effects(...), preapproved(...), others(...), Care(...); "
                "constraints on arguments are keywords"
            )
        if isinstance(option, Budget):
            budgets.append(option)
        elif type(option) in chosen:
            raise ConfigurationError(f"allow({resource!r}) has {type(option).__name__} twice")
        else:
            chosen[type(option)] = option
    covered, skipped, rest = (chosen.get(kind) for kind in (Effects, Preapproved, Others))
    care = chosen.get(Care, NO_CARE)
    return Permission(
        resource,
        MappingProxyType(
            {name: _constraint(one, f"{name}=...") for name, one in constraints.items()}
        ),
        rest.constraint if isinstance(rest, Others) else None,
        covered.allowed if isinstance(covered, Effects) else None,
        tuple(budgets),
        skipped.when if isinstance(skipped, Preapproved) else "",
        check_care(care),
    )


def everything() -> Permission:
    """Return the permission to do all there is. For tests; see :func:`checkrein.testing.permit`."""
    return Permission("**", unlimited=True)


def _constraint(value: Any, where: str) -> Constraint:
    if not is_constraint(value):
        raise ConfigurationError(
            f"{where} takes a constraint, exactly({type(value).__name__}) for example; "
            "see checkrein.constraints"
        )
    return value


# -- resources -----------------------------------------------------------------------------


def _check_pattern(resource: object) -> None:
    plain = ""
    if isinstance(resource, str) and _is_well_starred(resource):
        plain = resource.replace("**", "x").replace("*", "x")
    check_resource(plain)


def _is_well_starred(resource: str) -> bool:
    *before, last = resource.split(".")
    return all(part == "*" or "*" not in part for part in before) and (
        last in {"*", "**"} or "*" not in last
    )


def check_resource(resource: object) -> None:
    """Refuse what is not the dotted name of one resource.

    Raises:
        ConfigurationError: it is not.
    """
    parts = resource.split(".") if isinstance(resource, str) else []
    if not parts or not all(_SEGMENT.fullmatch(part) for part in parts):
        raise ConfigurationError(
            "a resource is dotted text such as mail.send: segments of letters, digits, _ and -; "
            "in a permission * may stand for one segment and ** for the rest"
        )

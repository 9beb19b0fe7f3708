"""What is allowed: permissions, and grants made of them.

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
* Several permissions for one resource are alternatives. Several grants in a
  chain (a run inside a run) must each allow the call.
* Several decorators on one tool are several claims; each needs a permission.
"""

from __future__ import annotations

import inspect
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from checkrein.conditions import Constraint, Refused, anything
from checkrein.errors import ConfigurationError
from checkrein.facts import MISSING, Claim, Effect, ToolFacts
from checkrein.freezing import ATOMS, FrozenObject, Unfreezable, encode, freeze
from checkrein.untrusted import Untrusted, content, labelled

if TYPE_CHECKING:
    from checkrein.calls import Call
    from checkrein.ports import Clock

_AS_IT_IS: Final = ATOMS | {FrozenObject, Untrusted}
_MANY: Final = frozenset({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


# -- the parts of a permission -------------------------------------------------------------


class Budget(NamedTuple):
    """How often a permission may be used. See :func:`budget`."""

    times: int


class Effects(NamedTuple):
    """Which effects a permission covers. See :func:`effects`."""

    allowed: frozenset[Effect]


class Preapproved(NamedTuple):
    """When an irreversible call is not asked about. See :func:`preapproved`."""

    when: Literal["unexposed", "always"]


class Others(NamedTuple):
    """What holds for arguments that a permission does not name. See :func:`others`."""

    constraint: Constraint


Option = Budget | Effects | Preapproved | Others


def budget(*, times: int) -> Budget:
    """Allow *times* uses in all, across the threads, tasks and runs that share the grant.

    A use is reserved when the call is allowed and spent when its body starts.
    A call that is denied, suspended or cancelled before that gives it back.
    """
    if type(times) is not int or times < 0:
        raise ConfigurationError("budget(times=...) takes a whole number of at least 0")
    return Budget(times)


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


@dataclass(frozen=True, slots=True)
class Permission:
    """Leave to use one resource, or those that a pattern names. Made by :func:`allow`.

    Attributes:
        resource: the dotted name or pattern.
        constraints: what is asked of arguments, by name.
        others: what is asked of arguments that have no constraint of their own.
        effects: the effects covered; ``None``: all for a full name, reads for a wildcard.
        times: how many uses there are, ``None`` for no limit.
        preapproved: when an irreversible call is not asked about, ``""`` for never.
    """

    resource: str
    constraints: Mapping[str, Constraint] = field(default_factory=lambda: MappingProxyType({}))
    others: Constraint | None = None
    effects: frozenset[Effect] | None = None
    times: int | None = None
    preapproved: Literal["", "unexposed", "always"] = ""
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
        return _pattern_fits(self.resource.split("."), claim.resource.split("."))

    def constraint_for(self, name: str) -> Constraint | None:
        """Return what is asked of the argument *name*."""
        return self.constraints.get(name, self.others)

    def __str__(self) -> str:
        asked = [f"{name}={constraint!r}" for name, constraint in self.constraints.items()]
        return f"allow({', '.join([repr(self.resource), *asked])})"


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
        options: ``budget(...)``, ``effects(...)``, ``preapproved(...)``, ``others(...)``.
        constraints: what is asked of arguments; see :mod:`checkrein.constraints`.

    Raises:
        ConfigurationError: an impossible resource, an option twice, or a plain
            value where a constraint belongs.

    Example:
        >>> from checkrein.constraints import email_domain
        >>> allow("mail.send", budget(times=5), to=email_domain("acme.com")).times
        5
    """
    _check_resource(resource)
    chosen: dict[type[Option], Option] = {}
    for option in options:
        if not isinstance(option, Budget | Effects | Preapproved | Others):
            raise ConfigurationError(
                f"allow({resource!r}): {type(option).__name__} is no option; positional are "
                "budget(...), effects(...), preapproved(...), others(...); "
                "constraints on arguments are keywords"
            )
        if type(option) in chosen:
            raise ConfigurationError(f"allow({resource!r}) has {type(option).__name__} twice")
        chosen[type(option)] = option
    uses, covered, skipped, rest = (
        chosen.get(kind) for kind in (Budget, Effects, Preapproved, Others)
    )
    return Permission(
        resource,
        MappingProxyType(
            {name: _constraint(one, f"{name}=...") for name, one in constraints.items()}
        ),
        rest.constraint if isinstance(rest, Others) else None,
        covered.allowed if isinstance(covered, Effects) else None,
        uses.times if isinstance(uses, Budget) else None,
        skipped.when if isinstance(skipped, Preapproved) else "",
    )


def everything() -> Permission:
    """Return the permission to do all there is. For tests; see :func:`checkrein.testing.permit`."""
    return Permission("**", unlimited=True)


def _constraint(value: Any, where: str) -> Constraint:
    # A class has the attributes, too; only an instance is a constraint.
    if isinstance(value, type) or not isinstance(value, Constraint):
        raise ConfigurationError(
            f"{where} takes a constraint, exactly({type(value).__name__}) for example; "
            "see checkrein.constraints"
        )
    return value


def _check_resource(resource: str) -> None:
    check_resource(resource.replace("**", "x").replace("*", "x") if _well_starred(resource) else "")


def _well_starred(resource: object) -> bool:
    if not isinstance(resource, str):
        return False
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


# -- grants --------------------------------------------------------------------------------


class Grant:
    """Permissions with an expiry. Immutable.

    Args:
        permissions: made by :func:`allow`.
        expires_in: how long the grant is good for, from now.
        expires_at: until when it is good, instead.
        not_before: from when it is good.
        id: its name in the log and for its budgets; random if left out.
        clock: tells the time, for tests.

    Raises:
        ConfigurationError: something that is no permission, or an impossible time.

    Example:
        >>> grant = Grant(allow("mail.inbox"), expires_in=timedelta(minutes=30))
        >>> [permission.resource for permission in grant.permissions]
        ['mail.inbox']
    """

    __slots__ = ("_exact", "_wild", "expires", "id", "not_before", "permissions")

    def __init__(
        self,
        *permissions: Permission,
        expires_in: timedelta | None = None,
        expires_at: datetime | None = None,
        not_before: datetime | None = None,
        id: str = "",  # noqa: A002
        clock: Clock = time.time,
    ) -> None:
        for one in permissions:
            if not isinstance(one, Permission):
                raise ConfigurationError(
                    f"a grant is made of permissions, not of {type(one).__name__}: "
                    'Grant(allow("mail.inbox"), ...)'
                )
        if expires_in is not None and expires_at is not None:
            raise ConfigurationError("give expires_in or expires_at, not both")
        self.permissions = permissions
        self.expires = _instant(expires_at, "expires_at")
        if expires_in is not None:
            if not isinstance(expires_in, timedelta) or expires_in <= timedelta():
                raise ConfigurationError("expires_in takes a positive timedelta")
            self.expires = clock() + expires_in.total_seconds()
        self.not_before = _instant(not_before, "not_before")
        self.id = id or os.urandom(8).hex()
        self._exact: dict[str, list[tuple[int, Permission]]] = {}
        self._wild: list[tuple[int, Permission]] = []
        for place, one in enumerate(permissions):
            where = self._wild if one.wildcard else self._exact.setdefault(one.resource, [])
            where.append((place, one))

    def good_at(self, now: float) -> bool:
        """Say whether the grant is good at *now*, in seconds since the epoch."""
        return (self.not_before is None or self.not_before <= now) and (
            self.expires is None or now < self.expires
        )

    def steps(self, facts: ToolFacts) -> Steps:
        """Return, for each claim of a tool, what the permissions that cover it ask."""
        return tuple(
            (
                claim,
                tuple(
                    Offer(self, place, claim, one, facts)
                    for place, one in (*self._exact.get(claim.resource, ()), *self._wild)
                    if one.covers(claim)
                ),
            )
            for claim in facts.claims
        )

    def __repr__(self) -> str:
        return f"Grant({', '.join(str(one) for one in self.permissions)}, id={self.id!r})"


def _instant(moment: datetime | None, name: str) -> float | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ConfigurationError(f"{name} takes a datetime with a time zone")
    return moment.timestamp()


# -- admission -----------------------------------------------------------------------------


class Refusal(Exception):
    """Why a grant does not admit a call; the message holds no value."""

    def __init__(self, rule: str, message: str, argument: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        self.argument = argument


class Offer:
    """A permission, prepared for one claim of a tool.

    Attributes:
        claim: what the tool's decorator states.
        permission: the permission that covers it.
        key: its name among the budgets.
    """

    __slots__ = ("_checks", "_facts", "_silent", "_strange", "claim", "key", "permission")

    def __init__(
        self, grant: Grant, place: int, claim: Claim, permission: Permission, facts: ToolFacts
    ) -> None:
        self.claim = claim
        self.permission = permission
        self.key = f"{grant.id}/{place}"
        self._facts = facts
        constraints = permission.constraints
        judged = {one.name for one in facts.parameters if not one.injected}
        self._strange = next((name for name in constraints if name not in judged), "")
        asked = [
            (one.name, permission.constraint_for(one.name))
            for one in facts.parameters
            # Payload needs no mention, and others() mentions nobody.
            if not one.injected and (one.name in constraints or not one.untrusted)
        ]
        # What a constraint has to see, and what may only be the tool's default.
        self._checks = tuple(
            (name, one) for name, one in asked if one is not None and one is not anything
        )
        closed = bool(constraints) or permission.others is not None
        self._silent = tuple(name for name, one in asked if one is None) if closed else ()

    def fit(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the normalised arguments.

        Raises:
            Refusal: the permission does not let them through.
        """
        if self._strange:
            name = self._strange
            problem = f"the permission constrains {name!r}, which {self._facts.name} does not take"
            raise Refusal("permission.argument", problem, name)
        normalised = arguments
        for name, constraint in self._checks:
            value = arguments[name]
            try:
                if type(value) is Untrusted:
                    result = _normalise_content(constraint, value)
                else:
                    result = constraint.normalise(value)
                if result is value:
                    continue
                if type(result) not in _AS_IT_IS:
                    result = freeze(result)
            except Exception as error:  # noqa: BLE001 (a constraint that fails has not said yes)
                problem = _problem(error, name)
            else:
                normalised = {**normalised, name: result}
                continue
            raise Refusal("permission.argument", problem, name)
        for name in self._silent:
            if not is_default(self._facts, name, arguments[name]):
                raise Refusal(
                    "permission.argument",
                    f"argument {name!r} is not mentioned by the permission; name it there, "
                    "or add others(anything)",
                    name,
                )
        return normalised


Steps = tuple[tuple[Claim, tuple[Offer, ...]], ...]
"""The claims of a tool, each with the offers of one grant, or of a chain of them."""


def admit(steps: Steps, call: Call, has_uses: Callable[[Offer], bool]) -> list[Offer]:
    """Find an offer for every claim, and normalise the call on the way.

    The first offer normalises, the later ones meet its values, and all of them
    must let the outcome pass as it is. Constraints that look at the file system
    do so here, before anything is decided.

    Args:
        steps: what may admit the call.
        call: the call.
        has_uses: says whether the budget of an offer has a use left; one that has
            none is taken only where there is no other.

    Raises:
        Refusal: a claim finds no offer, or the offers disagree.
    """
    before = arguments = call.arguments
    used: list[Offer] = []
    for claim, offers in steps:
        refusal: Refusal | None = None
        spent: tuple[Offer, dict[str, Any]] | None = None
        for offer in offers:
            try:
                fitted = offer.fit(arguments)
            except Refusal as problem:
                refusal = refusal or problem
                continue
            if offer.permission.times is None or has_uses(offer):
                arguments = fitted
                used.append(offer)
                break
            spent = spent or (offer, fitted)
        else:
            if spent is None:
                raise refusal or _missing(claim)
            used.append(spent[0])
            arguments = spent[1]
    if arguments is not before:
        if len(used) > 1:
            _agree(used, arguments)
        call.normalise(arguments)
    return used


def _agree(used: list[Offer], arguments: dict[str, Any]) -> None:
    """Refuse values that one permission made and another would not leave as they are."""
    for offer in used:
        again = offer.fit(arguments)
        for name, value in again.items():
            if value is not arguments[name] and value != arguments[name]:
                raise Refusal(
                    "permission.argument", f"the permissions disagree about {name!r}", name
                )


def _missing(claim: Claim) -> Refusal:
    return Refusal("permission.missing", f"no permission covers {claim.effect} {claim.resource}")


def _problem(error: Exception, name: str) -> str:
    if isinstance(error, Refused):
        return f"argument {name!r} {error}"
    if isinstance(error, Unfreezable):
        return f"the constraint on {name!r} returned what is not plain data"
    return f"the constraint on {name!r} failed ({type(error).__name__})"


def _normalise_content(constraint: Constraint, box: Untrusted[Any]) -> Untrusted[Any]:
    inner = content(box)
    fresh = freeze(constraint.normalise(inner))
    return box if fresh is inner else labelled(fresh, box.label, box._marks, box._call)


def is_default(facts: ToolFacts, name: str, value: Any) -> bool:
    """Say whether *value* is the developer's own constant for the parameter."""
    one = facts.by_name[name]
    default = one.default
    if value is default:
        return True
    if one.kind in _MANY:
        return not value
    if default is MISSING:
        return False
    if type(value) in ATOMS:
        return type(default) is type(value) and bool(default == value)
    try:
        return encode(freeze(default)) == encode(value)
    except Unfreezable:
        return False

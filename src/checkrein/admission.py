"""Whether the permissions of a chain of grants let a call through, and with which values.

An *offer* is a permission, prepared for one claim of one tool. A call needs an
offer for every claim from every grant of the chain. The first offer
normalises, the later ones meet its values, and all of them must let the outcome
pass as it is. Constraints that look at the file system do so here, before
anything is decided.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from checkrein.conditions import Constraint, Opener, Refused, anything
from checkrein.facts import MISSING, Claim, ToolFacts
from checkrein.freezing import ATOMS, Unfreezable, encode, freeze, is_frozen, refreeze, thaw
from checkrein.permissions import Budget, Permission
from checkrein.ports import Use
from checkrein.untrusted import Untrusted, content, labelled

if TYPE_CHECKING:
    from checkrein.calls import Call

_MANY: Final = frozenset({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})


class Refusal(Exception):
    """Why a grant does not admit a call; the message holds no value."""

    def __init__(self, rule: str, message: str, argument: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        self.argument = argument


def permission_key(grant: str, place: int) -> str:
    """Return the name of a grant's permission in the store."""
    return f"{grant}/{place}"


class Offer:
    """A permission, prepared for one claim of a tool.

    Attributes:
        claim: what the tool's decorator states.
        permission: the permission that covers it.
        grant: the id of the grant that holds the permission.
        key: its name among the budgets.
        impossible: why no call of this tool can meet the permission, ``None`` if one can.
        counted: whether the permission has a budget.
    """

    __slots__ = (
        "_checks",
        "_facts",
        "_silent",
        "claim",
        "counted",
        "grant",
        "impossible",
        "key",
        "permission",
    )

    def __init__(
        self, grant: str, place: int, claim: Claim, permission: Permission, facts: ToolFacts
    ) -> None:
        self.grant = grant
        self.key = permission_key(grant, place)
        self.claim = claim
        self.permission = permission
        self._facts = facts
        constraints = permission.constraints
        judged = [one for one in facts.parameters if not one.injected]
        self.impossible = _impossible(permission, facts)
        self.counted = bool(permission.budgets)
        asked = [
            (one.name, permission.constraint_for(one.name))
            for one in judged
            # Payload needs no mention, and others() mentions nobody.
            if one.name in constraints or not one.untrusted
        ]
        # What a constraint has to see, and what may only be the tool's default.
        self._checks = tuple(
            (name, one) for name, one in asked if one is not None and one is not anything
        )
        closed = bool(constraints) or permission.others is not None
        counted = {one.cost for one in permission.budgets}
        self._silent = tuple(
            name for name, one in asked if closed and one is None and name not in counted
        )

    def fit(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the normalised arguments.

        Raises:
            Refusal: the permission does not let them through.
        """
        if self.impossible is not None:
            raise self.impossible
        normalised = arguments
        for name, constraint in self._checks:
            value = arguments[name]
            result = self._normalised(name, constraint, value)
            if result is not value:
                normalised = {**normalised, name: result}
        for name in self._silent:
            if not is_default(self._facts, name, arguments[name]):
                raise _unmentioned(name)
        return normalised

    def problems(self, arguments: dict[str, Any]) -> list[Refusal]:
        """Return all that the permission has against these arguments."""
        if self.impossible is not None:
            return [self.impossible]
        found: list[Refusal] = []
        for name, constraint in self._checks:
            try:
                self._normalised(name, constraint, arguments[name])
            except Refusal as problem:
                found.append(problem)
        found += (
            _unmentioned(name)
            for name in self._silent
            if not is_default(self._facts, name, arguments[name])
        )
        return found

    def _normalised(self, name: str, constraint: Constraint, value: Any) -> Any:
        try:
            if type(value) is Untrusted:
                result = _normalise_content(constraint, value)
            else:
                result = constraint.normalise(value)
            if result is value:
                return value
            if type(result) is not Untrusted:
                result = refreeze(result)
        except Exception as error:  # noqa: BLE001 (a constraint that fails has not said yes)
            problem = _problem(error, name)
        else:
            if self._is_of_its_type(name, result):
                return result
            problem = f"the constraint on {name!r} returned a value of another type"
        raise Refusal("permission.argument", problem, name)

    def _is_of_its_type(self, name: str, result: Any) -> bool:
        inner = content(result) if type(result) is Untrusted else result
        return self._facts.by_name[name].accepts(inner if is_frozen(inner) else thaw(inner))

    def uses(self, arguments: dict[str, Any]) -> list[Use]:
        """Return what a call with these arguments takes of each budget.

        Raises:
            Refusal: an argument that should say what the call costs does not.
        """
        uses: list[Use] = []
        for place, one in enumerate(self.permission.budgets):
            amount = 1 if not one.cost else _cost(one, arguments[one.cost])
            if amount:
                uses.append(Use(budget_key(self.key, place), one.limit, amount, one.per))
        return uses


def budget_key(permission: str, place: int) -> str:
    """Return the name of a permission's budget in the store."""
    return f"{permission}.{place}" if place else permission


def _impossible(permission: Permission, facts: ToolFacts) -> Refusal | None:
    """Return what makes a permission unfit for every call of a tool."""
    taken = {one.name: one for one in facts.parameters if not one.injected}
    for name in (*permission.constraints, *(one.cost for one in permission.budgets if one.cost)):
        if name not in taken:
            problem = f"the permission constrains {name!r}, which {facts.name} does not take"
            return Refusal("permission.argument", problem, name)
    for name, one in taken.items():
        constraint = permission.constraint_for(name)
        if name not in permission.constraints and not one.opens:
            continue  # others() never opens what is no file
        if isinstance(constraint, Opener) and one.opens != _kind_of_file(constraint):
            problem = (
                f"the permission opens {name!r} as a {_kind_of_file(constraint)} file, which the "
                "tool does not take: annotate the parameter as BinaryIO or TextIO, or use under()"
            )
            return Refusal("permission.argument", problem, name)
    return None


def _kind_of_file(opener: Opener) -> str:
    return "binary" if opener.binary else "text"


def _cost(one: Budget, value: Any) -> int:
    amount = one.amount(content(value) if type(value) is Untrusted else value)
    if amount is None:
        problem = f"argument {one.cost!r} says what the call costs: a number of at least 0"
        raise Refusal("permission.budget", problem, one.cost)
    if amount > one.limit:
        problem = f"argument {one.cost!r} is more than the permission's budget"
        raise Refusal("permission.budget", problem, one.cost)
    return amount


Steps = tuple[tuple[Claim, tuple[Offer, ...]], ...]
"""The claims of a tool, each with the offers of one grant, or of a chain of them."""


def admit(steps: Steps, call: Call, has_room: Callable[[list[Use]], bool]) -> None:
    """Find an offer for every claim, and normalise the call on the way.

    Args:
        steps: what may admit the call.
        call: the call; gets the offers, the uses of their budgets, and the openers
            of its files.
        has_room: says whether budgets have room for uses; an offer without room is
            taken only where there is no other.

    Raises:
        Refusal: a claim finds no offer, or the offers disagree.
    """
    before = arguments = call.arguments
    used: list[Offer] = []
    counted = False
    for claim, offers in steps:
        if len(offers) == 1:  # the usual case
            offer = offers[0]
            arguments = offer.fit(arguments)
        else:
            offer, arguments = _choose(claim, offers, arguments, has_room)
        used.append(offer)
        counted = counted or offer.counted
    if arguments is not before:
        if len(used) > 1:
            _agree(used, arguments)
        call.normalise(arguments)
    call.offers = used
    if counted:
        uses = {use.key: use for offer in used for use in offer.uses(arguments)}
        call.uses = tuple(uses.values())
    if call.facts.files:
        call.openers = {name: _opener(used, name) for name in call.facts.files}


def _choose(
    claim: Claim,
    offers: tuple[Offer, ...],
    arguments: dict[str, Any],
    has_room: Callable[[list[Use]], bool],
) -> tuple[Offer, dict[str, Any]]:
    refusal: Refusal | None = None
    spent: tuple[Offer, dict[str, Any]] | None = None
    for offer in offers:
        try:
            fitted = offer.fit(arguments)
            if offer.counted and not has_room(offer.uses(fitted)):
                spent = spent or (offer, fitted)
                continue
        except Refusal as problem:
            refusal = refusal or problem
            continue
        return offer, fitted
    if spent is None:
        raise refusal or _missing(claim)
    return spent


def _agree(used: list[Offer], arguments: dict[str, Any]) -> None:
    """Refuse values that one permission made and another would not leave as they are."""
    for offer in used:
        again = offer.fit(arguments)
        for name, value in again.items():
            if value is not arguments[name] and value != arguments[name]:
                raise Refusal(
                    "permission.argument", f"the permissions disagree about {name!r}", name
                )


def _opener(used: list[Offer], name: str) -> Opener:
    """Return what opens the file *name*: the first permission to speak of it, and the outermost."""
    asked = [offer.permission.constraint_for(name) for offer in used]
    openers = [one for one in asked if isinstance(one, Opener)]
    if not openers:
        problem = f"the tool takes {name!r} as an open file: the permission needs opened_under()"
        raise Refusal("permission.argument", problem, name)
    if len({one.mode for one in openers}) > 1:
        raise Refusal("permission.argument", f"the permissions disagree about {name!r}", name)
    return openers[0]


def _unmentioned(name: str) -> Refusal:
    problem = (
        f"argument {name!r} is not mentioned by the permission; name it there, "
        "or add others(anything)"
    )
    return Refusal("permission.argument", problem, name)


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
    fresh = refreeze(constraint.normalise(inner))
    return box if fresh is inner else labelled(fresh, box.label, box._marks, box._call)


def to_mention(call: Call) -> list[str]:
    """Return what a permission for just this call has to name: what is not left at its default.

    At least one argument, if there is any: a permission that names none lets all through.
    """
    facts = call.facts
    given = [one for one in facts.plain if not is_default(facts, one, call.arguments[one])]
    return given or list(facts.plain[:1])


HIDDEN: Final = object()
"""Stands for a secret where a value is spelled: it has no spelling."""


def mentioned(call: Call, name: str) -> Any:
    """Return the value of an argument as people who write grants may see it."""
    return HIDDEN if name in call.facts.secrets else call.arguments[name]


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

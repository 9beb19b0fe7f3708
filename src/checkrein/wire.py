"""Permissions as JSON, byte for byte the same for the same permission.

For signed grants, so it is strict: there is one spelling of everything, what
is written back differs from what was read is refused, and every constraint
checks its own parameters as if a person had just typed them.

A permission is an object with the members

* ``resource``: text;
* ``arguments``: constraints by name, if there are any;
* ``others``: a constraint; ``effects``: a sorted array of texts; ``preapproved``:
  text; ``budgets``: an array of objects with ``times``, ``per`` (seconds, as a
  value) and ``cost``; ``care``: an object with ``seconds`` (a value) and ``retype``; each
  left out where it says nothing.

A constraint is ``{"<kind>": {"<field>": value, ...}}`` with every field of its
class; ``anything`` is ``{"anything": {}}``. A value is

* a text, ``true``, ``false``, ``null``, or a whole number of less than 2**53;
* an array, for a tuple;
* an object of one member, which is the type: ``int``, ``float`` (as
  :meth:`float.hex` has it), ``decimal``, ``bytes`` (base64), ``date``,
  ``datetime``, ``time``, ``list``, ``set`` and ``frozenset`` (arrays), ``dict`` (array
  of pairs), or ``is`` (a constraint).

What refers to code, ``where(...)``, enums, dataclasses and models, has no text.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast

import orjson

from checkrein.conditions import Anything, Constraint, anything
from checkrein.confirmations import NO_CARE, Care
from checkrein.errors import ConfigurationError, GrantError
from checkrein.freezing import FrozenDict, FrozenList, FrozenSet, Unfreezable, encode, refreeze
from checkrein.permissions import (
    Budget,
    Others,
    Permission,
    allow,
    budget,
    effects,
    preapproved,
)

_EXACT: Final = 1 << 53
_DEEPEST: Final = 32
_LONGEST: Final = 1e12


# -- bytes ---------------------------------------------------------------------------------


def to_bytes(tree: Any) -> bytes:
    """Return the canonical JSON of *tree*: members sorted, no spaces, UTF-8."""
    try:
        return orjson.dumps(tree, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError, RecursionError):
        raise GrantError(
            "a grant holds a text that is not Unicode, or is nested too deeply"
        ) from None


def from_bytes(data: bytes) -> Any:
    """Return the tree of canonical JSON.

    Raises:
        GrantError: it is no JSON, or not in the one canonical spelling.
    """
    try:
        tree = orjson.loads(data)
    except ValueError:
        raise GrantError("the grant is not readable") from None
    if to_bytes(tree) != data:  # also finds members given twice
        raise GrantError("the grant is not in canonical form")
    return tree


# -- permissions ---------------------------------------------------------------------------


def permission_tree(permission: Permission) -> dict[str, Any]:
    """Return a permission as JSON data.

    Raises:
        GrantError: it is unlimited, or holds code.
    """
    if permission.unlimited:
        raise GrantError("everything() is for tests and is never signed")
    tree: dict[str, Any] = {"resource": permission.resource}
    if permission.constraints:
        tree["arguments"] = {k: constraint_tree(v) for k, v in permission.constraints.items()}
    if permission.others is not None:
        tree["others"] = constraint_tree(permission.others)
    if permission.effects is not None:
        tree["effects"] = sorted(one.value for one in permission.effects)
    if permission.preapproved:
        tree["preapproved"] = permission.preapproved
    if permission.care != NO_CARE:
        tree["care"] = {
            "seconds": value_tree(permission.care.seconds),
            "retype": permission.care.retype,
        }
    if permission.budgets:
        tree["budgets"] = [
            {"times": value_tree(one.times), "per": value_tree(one.per), "cost": one.cost}
            for one in permission.budgets
        ]
    return tree


def permission_of(tree: Any) -> Permission:
    """Return the permission that JSON data states, through :func:`checkrein.allow`.

    Raises:
        GrantError: it states none.
    """
    try:
        return _permission_of(tree)
    except RecursionError:
        raise GrantError("the grant is nested too deeply") from None


def _permission_of(tree: Any) -> Permission:
    optional = {"arguments", "others", "effects", "preapproved", "budgets", "care"}
    members = _members(tree, {"resource"}, optional)
    arguments = _mapping(members.get("arguments", {}))
    options: list[Any] = [_budget_of(one) for one in _array(members.get("budgets", []))]
    if "others" in members:
        options.append(Others(constraint_of(members["others"])))
    if "care" in members:
        care = _members(members["care"], {"seconds", "retype"})
        options.append(Care(value_of(care["seconds"]), care["retype"]))
    constraints = {name: constraint_of(one) for name, one in arguments.items()}
    try:
        if "preapproved" in members:
            options.append(preapproved(members["preapproved"]))
        if "effects" in members:
            options.append(effects(*_array(members["effects"])))
        made = allow(members["resource"], *options, **constraints)
    except (ConfigurationError, TypeError, ValueError) as error:
        raise GrantError(f"the grant holds an impossible permission: {_reason(error)}") from None
    if permission_tree(made) != tree:
        raise GrantError("the grant holds a permission that is not in canonical form")
    return made


def _budget_of(tree: Any) -> Budget:
    members = _members(tree, {"times", "per", "cost"})
    times, per = value_of(members["times"]), value_of(members["per"])
    if type(per) is not float or not 0 <= per < _LONGEST:
        raise GrantError("the grant holds an impossible budget")
    try:
        return budget(
            times=times, per=timedelta(seconds=per) if per else None, cost=members["cost"]
        )
    except ConfigurationError as error:
        raise GrantError(f"the grant holds an impossible budget: {_reason(error)}") from None


# -- constraints and their values ----------------------------------------------------------


def _kinds() -> Mapping[str, type[Any]]:
    from checkrein.constraints import KINDS  # noqa: PLC0415 (loaded when a grant is first signed)

    kinds: Mapping[str, type[Any]] = KINDS
    return kinds


def constraint_tree(constraint: Constraint) -> dict[str, Any]:
    """Return a constraint as JSON data; raises GrantError for what has no text."""
    if isinstance(constraint, Anything):
        return {"anything": {}}
    for name, kind in _kinds().items():
        if type(constraint) is kind:
            names = [one.name for one in dataclasses.fields(cast("Any", kind))]
            return {name: {one: value_tree(getattr(constraint, one)) for one in names}}
    raise GrantError(
        f"{type(constraint).__name__} holds code, or is your own, and cannot be put into a signed "
        "grant; use the constraints of checkrein.constraints, where(...) excepted"
    )


def constraint_of(tree: Any) -> Constraint:
    """Return the constraint that JSON data states; raises GrantError if it states none."""
    name, members = _only(tree)
    if name == "anything" and members == {}:
        return anything
    kind = _kinds().get(name)
    if kind is None:
        raise GrantError("the grant holds a constraint that is not known here")
    names = {one.name for one in dataclasses.fields(kind)}
    values = {key: value_of(one) for key, one in _members(members, names).items()}
    try:
        made: Constraint = kind(**values)
    except Exception as error:  # noqa: BLE001 (nothing foreign escapes a parser)
        raise GrantError(f"the grant holds an impossible constraint: {_reason(error)}") from None
    return made


def value_tree(value: Any, depth: int = 0) -> Any:
    """Return a frozen value as JSON data; raises GrantError for what has no text."""
    kind = type(value)
    if depth > _DEEPEST:
        raise GrantError("a value in a grant is nested too deeply")
    if kind in {str, bool, type(None)} or (kind is int and abs(value) < _EXACT):
        return value
    if kind is tuple:
        return [value_tree(one, depth + 1) for one in value]
    if kind in _WRITERS:
        return {_NAMES[kind]: _scalar_text(value, kind)}
    if kind is FrozenList:
        return {"list": [value_tree(one, depth + 1) for one in value]}
    if kind in _SETS:
        items = [value_tree(one, depth + 1) for one in value]
        return {_SETS[kind]: sorted(items, key=to_bytes)}
    if kind is FrozenDict:
        pairs = [[value_tree(k, depth + 1), value_tree(v, depth + 1)] for k, v in value.items()]
        return {"dict": sorted(pairs, key=to_bytes)}
    if isinstance(value, Constraint):
        return {"is": constraint_tree(value)}
    raise GrantError(f"a {kind.__name__} in a constraint cannot be put into a signed grant")


def _scalar_text(value: Any, kind: type[Any]) -> str:
    text = _WRITERS[kind](value)
    if encode(_READERS[kind](text)) != encode(value):
        raise GrantError(
            f"a {kind.__name__} in a constraint says more than its text can, a fold or the name "
            "of a time zone: give it an offset from UTC"
        )
    return text


def value_of(tree: Any, depth: int = 0) -> Any:
    """Return the value that :func:`value_tree` has made JSON data."""
    if depth > _DEEPEST:
        raise GrantError("a value in a grant is nested too deeply")
    if type(tree) in {str, bool, type(None)} or (type(tree) is int and abs(tree) < _EXACT):
        return tree
    if type(tree) is list:
        return tuple(value_of(one, depth + 1) for one in tree)
    name, inner = _only(tree)
    if name == "is":
        return constraint_of(inner)
    if name == "list":
        return FrozenList(value_of(one, depth + 1) for one in _array(inner))
    for kind, its in _SETS.items():
        if name == its:
            return _hashed(kind, [value_of(one, depth + 1) for one in _array(inner)])
    if name == "dict":
        pairs = [_array(one) for one in _array(inner)]
        if any(len(pair) != 2 for pair in pairs):
            raise GrantError("the grant holds a pair that is none")
        items = [[value_of(one, depth + 1) for one in pair] for pair in pairs]
        return _hashed(lambda found: FrozenDict(dict(found)), items)
    return _scalar_of(name, inner)


def _scalar_of(name: str, inner: Any) -> Any:
    kind = next((one for one, its in _NAMES.items() if its == name), None)
    if kind is None or type(inner) is not str:
        raise GrantError("the grant holds a value of an unknown type")
    try:
        value = _READERS[kind](inner)
    except (ValueError, InvalidOperation, OverflowError):
        raise GrantError("the grant holds a value that is not readable") from None
    if type(value) is not kind or _WRITERS[kind](value) != inner:
        raise GrantError("the grant holds a value that is not in canonical form")
    return value


def _hashed(kind: Callable[[Any], Any], items: Any) -> Any:
    try:
        made = kind(items)
        if len(made) != len(items):
            raise GrantError("the grant holds a key or a member twice")
        return refreeze(made)
    except (TypeError, Unfreezable):
        raise GrantError("the grant holds a key or a member that cannot be one") from None


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_WRITERS: Final[dict[type[Any], Callable[[Any], str]]] = {
    int: hex,
    float: float.hex,
    Decimal: str,
    bytes: lambda value: base64.b64encode(value).decode(),
    date: date.isoformat,
    datetime: datetime.isoformat,
    time: time.isoformat,
}
_READERS: Final[dict[type[Any], Callable[[str], Any]]] = {
    int: lambda text: int(text, 16),
    float: float.fromhex,
    Decimal: Decimal,
    bytes: _base64,
    date: date.fromisoformat,
    datetime: datetime.fromisoformat,
    time: time.fromisoformat,
}
_SETS: Final[Mapping[type[Any], str]] = {FrozenSet: "set", frozenset: "frozenset"}
_NAMES: Final = {kind: kind.__name__.lower() for kind in _WRITERS}


def _reason(error: Exception) -> str:
    """Return the reason for a refusal, printable: it may quote what was read."""
    text = str(error) if isinstance(error, ConfigurationError) else type(error).__name__
    return ascii(text)[1:-1]


# -- shapes --------------------------------------------------------------------------------


def _only(tree: Any) -> tuple[str, Any]:
    members = _mapping(tree)
    if len(members) != 1:
        raise GrantError("the grant holds an object that should have one member")
    return next(iter(members.items()))


def _members(
    tree: Any, needed: set[str], optional: set[str] | frozenset[str] = frozenset()
) -> dict[str, Any]:
    members = _mapping(tree)
    if not needed <= members.keys() or not members.keys() <= needed | optional:
        raise GrantError("the grant lacks a member, or has one that is not known here")
    return members


def _mapping(tree: Any) -> dict[str, Any]:
    if type(tree) is not dict:
        raise GrantError("the grant holds something else where an object belongs")
    return tree


def _array(tree: Any) -> list[Any]:
    if type(tree) is not list:
        raise GrantError("the grant holds something else where an array belongs")
    return tree

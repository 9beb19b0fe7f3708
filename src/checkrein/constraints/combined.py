"""Constraints made of constraints, and of code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, ClassVar

from checkrein.conditions import Constraint, Refused
from checkrein.constraints.words import check, check_constraint
from checkrein.freezing import (
    FrozenDict,
    FrozenList,
    FrozenObject,
    FrozenSet,
    encode,
    refreeze,
    thaw,
)


def _same(one: Any, other: Any) -> bool:
    return one is other or encode(refreeze(one)) == encode(refreeze(other))


def _settled(constraint: Constraint, value: Any) -> None:
    """Refuse a value that the constraint would read differently a second time."""
    if not _same(constraint.normalise(value), value):
        raise Refused("cannot be brought into one form")


@dataclass(frozen=True, slots=True, repr=False)
class Each:
    """A list, a tuple or a set, every member of which meets a constraint."""

    constraint: Constraint

    def __post_init__(self) -> None:
        check_constraint(self.constraint, "each")

    @property
    def pins(self) -> bool:
        """Whether every member is named by the constraint."""
        return self.constraint.pins

    def normalise(self, value: Any) -> Any:
        """Return a container of the normalised members."""
        kind = type(value)
        if kind not in {FrozenList, tuple, FrozenSet, frozenset}:
            raise Refused("must be a list, a tuple or a set")
        try:
            members = [refreeze(self.constraint.normalise(one)) for one in value]
        except Refused as refused:
            raise Refused(f"has a member that {refused}") from None
        made = kind(members)
        if len(made) != len(members):
            raise Refused("has two members that are the same in their one form")
        return made

    def __repr__(self) -> str:
        return f"each({self.constraint!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """A dict, a dataclass or a model, whose keys are all known and meet a constraint each."""

    constraints: tuple[tuple[str, Constraint], ...]
    others: Constraint | None = None
    optional: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pairs = self.constraints
        shaped = type(pairs) is tuple and all(
            type(pair) is tuple and len(pair) == 2 and type(pair[0]) is str for pair in pairs
        )
        check(shaped and bool(pairs), 'keys() takes a dict: keys({"path": under("/srv")})')
        names = [name for name, _ in pairs]
        check(len(set(names)) == len(names), "keys() has a key twice")
        for _, one in pairs:
            check_constraint(one, "keys")
        if self.others is not None:
            check_constraint(self.others, "keys(others=...)")
        known = type(self.optional) is tuple and set(self.optional) <= set(names)
        check(known, "keys(optional=...) takes names that have a constraint")

    @property
    def pins(self) -> bool:
        """Whether every value that may be there is named."""
        inner = [one for _, one in self.constraints]
        return all(one.pins for one in [*inner, *([self.others] if self.others else [])])

    def normalise(self, value: Any) -> Any:
        """Return the same mapping, or object, of normalised values."""
        if type(value) is FrozenDict:
            return FrozenDict(self._fields(value))
        if type(value) is FrozenObject:
            fields = {**value.fields, **(value.extra or {})}
            fresh = self._fields(fields)
            extra = None
            if value.extra is not None:
                extra = FrozenDict({name: fresh[name] for name in value.extra})
            ours = FrozenDict({name: fresh[name] for name in value.fields})
            return FrozenObject(value.kind, ours, value.given, extra)
        raise Refused("must be a dict, a dataclass or a model")

    def _fields(self, fields: Mapping[Any, Any]) -> dict[Any, Any]:
        known = dict(self.constraints)
        for name in known:
            if name not in fields and name not in self.optional:
                raise Refused(f"must have the key {name!r}")
        fresh: dict[Any, Any] = {}
        for name, item in fields.items():
            constraint = known.get(name, self.others) if type(name) is str else None
            if constraint is None:
                raise Refused("has a key that the permission does not name")
            try:
                fresh[name] = refreeze(constraint.normalise(item))
            except Refused as refused:
                where = f"at {name!r}" if name in known else "at another key"
                raise Refused(f"has a value {where} that {refused}") from None
        return fresh

    def __repr__(self) -> str:
        parts = ["{" + ", ".join(f"{name!r}: {one!r}" for name, one in self.constraints) + "}"]
        if self.others is not None:
            parts.append(f"others={self.others!r}")
        if self.optional:
            parts.append(f"optional={self.optional!r}")
        return f"keys({', '.join(parts)})"


@dataclass(frozen=True, slots=True, repr=False)
class Both:
    """A value that meets every one of several constraints."""

    constraints: tuple[Constraint, ...]

    def __post_init__(self) -> None:
        _check_several(self.constraints, "both")

    @property
    def pins(self) -> bool:
        """Whether one of them names the value."""
        return any(one.pins for one in self.constraints)

    def normalise(self, value: Any) -> Any:
        """Return the value in the form that all of them leave as it is."""
        for one in self.constraints:
            value = refreeze(one.normalise(value))
        for one in self.constraints:
            _settled(one, value)
        return value

    def __repr__(self) -> str:
        return f"both({', '.join(map(repr, self.constraints))})"


@dataclass(frozen=True, slots=True, repr=False)
class Either:
    """A value that meets one of several constraints."""

    constraints: tuple[Constraint, ...]

    def __post_init__(self) -> None:
        _check_several(self.constraints, "either")

    @property
    def pins(self) -> bool:
        """Whether each of them names its values."""
        return all(one.pins for one in self.constraints)

    def normalise(self, value: Any) -> Any:
        """Return what the first of them that lets the value through makes of it."""
        made = self._first(value)
        if not _same(self._first(made), made):
            raise Refused("cannot be brought into one form")
        return made

    def _first(self, value: Any) -> Any:
        reasons: list[str] = []
        for one in self.constraints:
            try:
                return refreeze(one.normalise(value))
            except Refused as refused:
                reasons.append(str(refused))
        raise Refused(", or ".join(dict.fromkeys(reasons)))

    def __repr__(self) -> str:
        return f"either({', '.join(map(repr, self.constraints))})"


def _check_several(constraints: Any, name: str) -> None:
    check(type(constraints) is tuple and len(constraints) > 1, f"{name}() takes two or more")
    for one in constraints:
        check_constraint(one, name)


@dataclass(frozen=True, slots=True, repr=False)
class Where:
    """A value of which your own code says that it may pass. Cannot be put into a signed grant."""

    predicate: Callable[[Any], bool]
    name: str
    pins: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check(callable(self.predicate), "where(predicate, name=...) takes a function")
        named = type(self.name) is str and bool(self.name) and self.name.isprintable()
        check(named, "where(..., name=...) takes a name for the log")

    def normalise(self, value: Any) -> Any:
        """Return *value* if the predicate returns ``True`` for a copy of it."""
        try:
            answer: Any = self.predicate(thaw(value))
        except Exception as error:  # noqa: BLE001 (code that fails has not said yes)
            raise Refused(
                f"could not be judged by {self.name!r} ({type(error).__name__})"
            ) from None
        if isawaitable(answer):
            getattr(answer, "close", lambda: None)()
            raise Refused(f"could not be judged by {self.name!r}, which has to be awaited")
        if answer is not True:
            raise Refused(f"must be {self.name}")
        return value

    def __repr__(self) -> str:
        return f"where(..., name={self.name!r})"


def each(constraint: Constraint) -> Each:
    """Allow a list, a tuple or a set, every member of which meets *constraint*.

    Example:
        >>> from checkrein.constraints import one_of
        >>> each(one_of(["a", "b"])).normalise(("a", "b"))
        ('a', 'b')
    """
    return Each(constraint)


def keys(
    constraints: Mapping[str, Constraint],
    /,
    *,
    others: Constraint | None = None,
    optional: Iterable[str] = (),
) -> Keys:
    """Allow a dict, a dataclass or a model, whose keys are known and whose values are judged.

    Args:
        constraints: what is asked of the value at each key.
        others: what is asked of values at other keys; by default there may be none.
        optional: keys that may be missing.

    Raises:
        ConfigurationError: no keys, or something that is no constraint.
    """
    check(isinstance(constraints, Mapping), 'keys() takes a dict: keys({"path": under("/srv")})')
    check(not isinstance(optional, str), 'keys(optional=...) takes a list: optional=["path"]')
    return Keys(tuple(constraints.items()), others, tuple(optional))


def both(*constraints: Constraint) -> Both:
    """Allow what meets all of *constraints*; the first ones hand over to the later ones."""
    return Both(constraints)


def either(*constraints: Constraint) -> Either:
    """Allow what meets one of *constraints*; the first that fits decides on the form."""
    return Either(constraints)


def where(predicate: Callable[[Any], bool], *, name: str) -> Where:
    """Allow what *predicate* returns exactly ``True`` for.

    It is code: no signed grant can hold it, and it runs at every decision, so
    it should look at its argument and at nothing else.

    Args:
        predicate: gets a copy of the value.
        name: what it asks for, for the log and for denials.

    Example:
        >>> where(lambda value: value % 2 == 0, name="an even number").normalise(4)
        4
    """
    return Where(predicate, name)

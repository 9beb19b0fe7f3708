"""What a constraint is; those that ship are in :mod:`checkrein.constraints`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any, ClassVar, Final, Protocol, TypeGuard, runtime_checkable


class Refused(Exception):
    """A value does not meet a constraint. The message completes "argument 'x' ..."."""


@runtime_checkable
class Constraint(Protocol):
    """What a permission asks of one argument."""

    pins: ClassVar[bool]
    """Whether the constraint names the value itself."""

    def normalise(self, value: Any, /) -> Any:
        """Return the value to use, or raise :class:`Refused`."""
        ...


def is_constraint(value: object) -> TypeGuard[Constraint]:
    """Say whether *value* is one; a class has the attributes, too, and is none."""
    return isinstance(value, Constraint) and not isinstance(value, type)


@runtime_checkable
class Opener(Constraint, Protocol):
    """A constraint on a path whose tool's body gets the file, opened, in its place."""

    @property
    def mode(self) -> str:
        """How the file is opened, as for :func:`open`."""
        ...

    @property
    def binary(self) -> bool:
        """Whether the body gets bytes."""
        ...

    def open(self, value: Any, /) -> IO[Any]:
        """Open the path that :meth:`normalise` returned, or raise :class:`Refused`."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Anything:
    """Every value. A permission that lets an argument through unseen says so by this name."""

    pins: ClassVar[bool] = False

    def normalise(self, value: Any) -> Any:
        """Return *value*."""
        return value

    def __repr__(self) -> str:
        return "anything"


anything: Final = Anything()
"""Lets every value through."""

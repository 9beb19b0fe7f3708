"""Values that a log must be able to forget."""

from __future__ import annotations

from typing import Any, final


@final
class Erasable:
    """A value of an event that can be erased later, and whose proof stays.

    An :class:`~checkrein.log.AuditLog` writes a commitment to it into the tree, and keeps the
    value beside it. Another log gets this object, and has to know what to do with it.

    Args:
        value: JSON data.
        subject: whose it is: all that belongs to one subject is sealed with one key, and
            erased by destroying that.

    Example:
        >>> Erasable("+49 170 1234567", subject="customer-17")
        Erasable(...)
    """

    __slots__ = ("subject", "value")

    def __init__(self, value: Any, *, subject: str = "") -> None:
        self.value, self.subject = value, subject

    def __eq__(self, other: object) -> bool:
        if type(other) is not Erasable:
            return NotImplemented
        return (self.value, self.subject) == (other.value, other.subject)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Erasable(...)"

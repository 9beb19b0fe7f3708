"""Resources that untrusted content was written to: what is read back from there is no evidence."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from checkrein.facts import ToolFacts


class Resources:
    """A growing set of resources that knows what lies inside and around each."""

    __slots__ = ("_around", "_lock", "_named")

    def __init__(self) -> None:
        self._lock = Lock()
        self._named: frozenset[str] = frozenset()
        self._around: frozenset[str] = frozenset()

    def add(self, names: Iterable[str]) -> frozenset[str]:
        """Take resources in; return those that are new."""
        with self._lock:
            new = frozenset(names) - self._named
            if new:
                self._named |= new
                self._around = self._around.union(*map(prefixes_of, new))
            return new

    def meet(self, facts: ToolFacts) -> bool:
        """Say whether the tool is about one of these, about a part of one, or around one."""
        return not (
            self._named.isdisjoint(facts.prefixes) and self._around.isdisjoint(facts.resources)
        )


def prefixes_of(resource: str) -> frozenset[str]:
    """Return a resource and all that it lies in: ``mail.send`` lies in ``mail``."""
    parts = resource.split(".")
    return frozenset(".".join(parts[:end]) for end in range(1, len(parts) + 1))


TAINTED_RESOURCES: Final = Resources()
"""What some decorated tool writes untrusted content into."""

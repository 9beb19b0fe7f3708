"""What is known about a value: where it came from, and who may see it.

Two axes, as in the classic information-flow lattices:

* integrity: the *sources* of a value, each with an :class:`Origin`. A value is
  trusted when all its sources are the user or the system.
* confidentiality: ``private``, one bit that a tool declares about what it reads.

Labels join, and a join never forgets: sources are united, ``private`` sticks.
Nothing in this module lowers a label; that is an act (``endorse``, a person's
verdict), and acts are logged elsewhere.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Origin(StrEnum):
    """Who wrote a value."""

    USER_INPUT = "user_input"
    SYSTEM = "system"
    TOOL_OUTPUT = "tool_output"
    RETRIEVED = "retrieved"
    AGENT_GENERATED = "agent_generated"
    AGENT_INBOUND = "agent_inbound"
    EXTERNAL = "external"


_TRUSTED = frozenset({Origin.USER_INPUT, Origin.SYSTEM})


class Source(NamedTuple):
    """One place a value came from.

    Args:
        origin: who wrote it.
        name: what it is called, a resource such as ``mail.inbox`` for example.
        call: the id of the tool call that brought it, for lineage in the log.
    """

    origin: Origin
    name: str = ""
    call: str = ""

    def __str__(self) -> str:
        return f"{self.origin.value}:{self.name}" if self.name else self.origin.value


class Label(NamedTuple):
    """The sources of a value, and whether it is private.

    Example:
        >>> mail = Label(frozenset({Source(Origin.TOOL_OUTPUT, "mail.inbox")}), private=True)
        >>> web = Label(frozenset({Source(Origin.EXTERNAL, "web.page")}))
        >>> joined = mail | web
        >>> sorted(str(source) for source in joined.sources), joined.private
        (['external:web.page', 'tool_output:mail.inbox'], True)
    """

    sources: frozenset[Source] = frozenset()
    private: bool = False

    def __or__(self, other: Label) -> Label:
        if self == other:
            return self
        return Label(self.sources | other.sources, self.private or other.private)

    @property
    def trusted(self) -> bool:
        """Whether every source is the user or the system."""
        return all(source.origin in _TRUSTED for source in self.sources)

    @property
    def names(self) -> tuple[str, ...]:
        """The sources as sorted text, for logs and for people."""
        return tuple(sorted({str(source) for source in self.sources}))


def join(*labels: Label) -> Label:
    """Return the least label that is at least as restrictive as each of *labels*."""
    joined = Label()
    for label in labels:
        joined |= label
    return joined

"""What is guarded, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from checkrein.errors import MisuseError
from checkrein.frames import WRAPPERS, receiver_of, spec_of, why_unguarded


class Item(NamedTuple):
    """One tool.

    Attributes:
        name: its name.
        guarded: whether its calls are decided.
        problem: why not, and the way out; ``""`` if they are.
        effect: ``"reads"``, ``"writes"``, ``"irreversible"``; ``""`` if it is not guarded.
        resources: what it claims, sorted.
        external, private: as its decorators state.
        untrusted: the parameters that take untrusted content.
    """

    name: str
    guarded: bool
    problem: str = ""
    effect: str = ""
    resources: tuple[str, ...] = ()
    external: bool = False
    private: bool = False
    untrusted: tuple[str, ...] = ()


class Inventory(tuple[Item, ...]):
    """The items, in order."""

    __slots__ = ()

    @property
    def unguarded(self) -> tuple[Item, ...]:
        """The items whose calls nobody decides."""
        return tuple(one for one in self if not one.guarded)

    def require_guarded(self) -> None:
        """Refuse a list of tools of which one is not guarded.

        Raises:
            MisuseError: it names each of them, and the way out.
        """
        if self.unguarded:
            raise MisuseError("; ".join(one.problem for one in self.unguarded))


def inventory(*tools: Callable[..., Any] | object) -> Inventory:
    """List tools, those that are not guarded too; without arguments, every guarded tool there is.

    Args:
        tools: what you are about to hand to a framework. Whatever is not known to
            be guarded is listed as not guarded.

    Example:
        >>> from checkrein import inventory, reads
        >>> @reads("shop.stock")
        ... def stock(item: str) -> int:
        ...     return 7
        >>> [one.guarded for one in inventory(stock, print)]
        [True, False]
    """
    if tools:
        return Inventory(_item(one) for one in tools)
    known = [one for one in WRAPPERS if not receiver_of(one)]
    items = {_item(one) for one in known}
    return Inventory(sorted(items, key=lambda one: (one.name, one.resources)))


def _item(tool: object) -> Item:
    spec = spec_of(tool)
    if spec is None:
        name = getattr(tool, "__qualname__", None) or type(tool).__name__
        return Item(str(name), guarded=False, problem=why_unguarded(tool))
    facts = spec.facts
    return Item(
        facts.name,
        guarded=True,
        effect=facts.effect_name,
        resources=tuple(sorted(facts.resources)),
        external=facts.external,
        private=facts.private,
        untrusted=facts.payload,
    )

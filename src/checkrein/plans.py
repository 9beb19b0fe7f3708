"""What a run prepares for a tool, and what one call of it reserves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from checkrein.lazy import logger
from checkrein.rules import rules_for
from checkrein.store import PROCESS_STORE

if TYPE_CHECKING:
    from checkrein.facts import ToolFacts
    from checkrein.grants import Steps
    from checkrein.ports import Store
    from checkrein.rules import Terms


class Plan:
    """What a run has prepared for one tool.

    Attributes:
        steps: the offers of its grants.
        rules: the rules that can have anything to say about it.
        budgeted: whether any of the offers has a budget.
    """

    __slots__ = ("budgeted", "rules", "steps")

    def __init__(self, terms: Terms, facts: ToolFacts) -> None:
        self.steps: Steps = tuple(step for grant in terms.chain for step in grant.steps(facts))
        self.rules = rules_for(facts, terms)
        self.budgeted = any(
            offer.permission.times is not None for _, offers in self.steps for offer in offers
        )


class Ticket:
    """The uses of budgets that one call has reserved: spent, or given back exactly once.

    Args:
        store: counts them.
        budgets: their keys and limits.
    """

    __slots__ = ("_budgets", "_held", "_store")

    def __init__(self, store: Store, budgets: Sequence[tuple[str, int]]) -> None:
        self._store = store
        self._budgets = budgets
        self._held: list[str] = []

    def reserve(self) -> bool:
        """Reserve a use of every budget, or of none; say whether they are held."""
        if self._held:
            return True
        for key, limit in self._budgets:
            try:
                reserved = self._store.reserve(key, limit)
            except Exception as error:  # noqa: BLE001 (a store that fails has counted nothing)
                logger().error("the budget %s cannot be counted (%s)", key, type(error).__name__)
                reserved = False
            if not reserved:
                self.give_back()
                return False
            self._held.append(key)
        return True

    def spend(self) -> None:
        """Keep what is reserved: from here on it is used."""
        self._held.clear()

    def give_back(self) -> None:
        """Return what is reserved and not spent."""
        while self._held:
            key = self._held.pop()
            try:
                self._store.release(key)
            except Exception as error:  # noqa: BLE001 (the others are given back all the same)
                logger().error("a use of %s is lost (%s)", key, type(error).__name__)


FREE: Final = Ticket(PROCESS_STORE, ())
"""For calls that use no budget; holds nothing, ever."""

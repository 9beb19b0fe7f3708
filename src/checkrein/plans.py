"""What a run prepares for a tool, and what one call of it reserves."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Final

from checkrein.lazy import logger
from checkrein.rules import Decision, Finding, Outcome, rules_for
from checkrein.store import PROCESS_STORE

if TYPE_CHECKING:
    from checkrein.admission import Steps
    from checkrein.facts import ToolFacts
    from checkrein.ports import Store, Use
    from checkrein.rules import Terms

NO_ROOM: Final = Decision(
    Outcome.DENY,
    (Finding("permission.budget", Outcome.DENY, "the permission has no use left"),),
)
"""What is decided about a call that its budgets have no room for."""


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
            offer.permission.budgets for _, offers in self.steps for offer in offers
        )


class Ticket:
    """The uses of budgets that one call has reserved: spent, or given back exactly once.

    A store may have to be waited for in another thread, and a call may be
    cancelled meanwhile; then whichever of the two comes last gives back.

    Args:
        store: counts them.
        uses: what the call takes.
    """

    __slots__ = ("_at", "_lock", "_over", "_store", "_token", "_windowed", "uses")

    def __init__(self, store: Store, uses: Sequence[Use]) -> None:
        self._store = store
        self.uses = uses
        self._lock = Lock()
        self._token: str | None = None
        self._over = False
        self._at = 0.0
        self._windowed = any(use.window for use in uses)

    @property
    def held(self) -> bool:
        """Whether uses are reserved, and not spent."""
        return self._token is not None

    def holds(self, now: float) -> bool:
        """Say whether uses are reserved that count at *now* as those of a call made now."""
        return self.held and (self._at >= now or not self._windowed)

    def reserve(self, now: float) -> bool:
        """Reserve every use, or none; say whether they are held.

        A window counts a use from when it was made. One that was reserved before a
        person was asked is given back and made anew, or a slow answer would carry a
        use of one window over into the next.

        Args:
            now: seconds since the epoch.
        """
        if self.held:
            self._release(self._take_token())
        self._at = now
        try:
            token = self._store.reserve(self.uses, now)
        except Exception as error:  # noqa: BLE001 (a store that fails has allowed nothing)
            logger().error("budgets cannot be counted (%s)", type(error).__name__)
            return False
        with self._lock:
            if not self._over:
                self._token = token
                return token is not None
        self._release(token)
        return False

    def spend(self) -> None:
        """Keep what is reserved: from here on it is used."""
        self._token = None

    def give_back(self) -> None:
        """Return what is reserved and not spent; from here on nothing can be reserved."""
        self._over = True
        self._release(self._take_token())

    def _take_token(self) -> str | None:
        with self._lock:
            token, self._token = self._token, None
        return token

    def _release(self, token: str | None) -> None:
        if token is None:
            return
        try:
            self._store.release(token, self.uses)
        except Exception as error:  # noqa: BLE001 (a use that is lost allows nothing)
            logger().error("a use of a budget is lost (%s)", type(error).__name__)


FREE: Final = Ticket(PROCESS_STORE, ())
"""For calls that use no budget; holds nothing, ever."""

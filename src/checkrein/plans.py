"""What a run prepares for a tool, what one call reserves, and the plan that a run may follow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from checkrein.conditions import Constraint, is_constraint
from checkrein.errors import MisuseError
from checkrein.facts import MISSING, Parameter, ToolFacts
from checkrein.frames import spec_of, why_unguarded
from checkrein.grants import Grant
from checkrein.lazy import logger, sha256
from checkrein.permissions import allow, budget, effects, preapproved
from checkrein.ports import entropy
from checkrein.rules import Decision, Finding, Outcome, rules_for
from checkrein.store import PROCESS_STORE

if TYPE_CHECKING:
    from checkrein.admission import Steps
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


class Step(NamedTuple):
    """One call of a plan. Made by :func:`planned`.

    Attributes:
        facts: the tool.
        arguments: constraints on its plain arguments, by name.
    """

    facts: ToolFacts
    arguments: Mapping[str, Constraint]


def planned(tool: Callable[..., Any], /, **arguments: Any) -> Step:
    """Return a step for ``run.follow``: one call of *tool*.

    Args:
        tool: a guarded tool.
        arguments: its plain arguments: values, or constraints where a value is not known
            yet. Those left out must be left at their defaults; payload is not planned.

    Raises:
        MisuseError: the tool is not guarded, or does not take an argument.
    """
    spec = spec_of(tool)
    if spec is None:
        raise MisuseError(why_unguarded(tool))
    unknown = set(arguments) - set(spec.facts.plain)
    if unknown:
        raise MisuseError(f"{spec.facts.name} takes no plain argument {min(unknown)!r}")
    named = spec.facts.by_name
    given = {name: arguments.get(name, _left_out(named[name])) for name in spec.facts.plain}
    missing = [name for name, value in given.items() if value is MISSING]
    if missing:
        raise MisuseError(
            f"the step calls {spec.facts.name} without {missing[0]!r}: plan a value, "
            "or anything if it is not known yet"
        )
    from checkrein.constraints import exactly  # noqa: PLC0415 (most runs follow no plan)

    return Step(
        spec.facts,
        {name: one if is_constraint(one) else exactly(one) for name, one in given.items()},
    )


def _left_out(one: Parameter) -> Any:
    if one.kind is inspect.Parameter.VAR_POSITIONAL:
        return ()
    return {} if one.kind is inspect.Parameter.VAR_KEYWORD else one.default


def plan_grant(steps: Sequence[Step]) -> tuple[Grant, frozenset[bytes]]:
    """Return the grant that a plan amounts to, and the definitions of its tools.

    Its id is the digest of the plan, so the log names the plan with every call.
    """
    if not steps or not all(isinstance(one, Step) for one in steps):
        raise MisuseError("follow() takes steps: planned(tool, argument=value), ...")
    permissions = [
        allow(
            claim.resource,
            budget(times=1),
            effects(claim.effect),
            preapproved("always"),  # whether a person is asked is for the other grants to say
            **one.arguments,
        )
        for one in steps
        for claim in one.facts.claims
    ]
    text = "\n".join([*map(str, permissions), *(one.facts.definition.hex() for one in steps)])
    digest = sha256(b"checkrein/plan/v1\n" + text.encode(errors="backslashreplace")).hex()
    nonce = entropy(4).hex()  # two runs of one plan count their steps apart
    grant = Grant(*permissions, id=f"plan-{digest}-{nonce}")
    return grant, frozenset(one.facts.definition for one in steps)


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

"""The rules: pure functions from a call and a view of its run to findings.

=======================  ======  ===============================================
id                       says    when
=======================  ======  ===============================================
``run.none``             deny    no run is active, or it was never entered
``run.closed``           deny    the run, or one it runs inside, has ended
``run.stopped``          deny    the run was told to stop, or an operator stopped
                                 the tool, the agent, the run, or everything
``run.plan``             deny    the run follows a plan that has no call of the tool
``run.locked``           deny    the run is locked after suspicion; reads go on
``call.malformed``       deny    an argument is no plain data, or of another type
``permission.missing``   deny    no permission covers what a decorator claims
``permission.argument``  deny    a permission covers it, but not these arguments
``permission.expired``   deny    the grant is not yet, or no longer, good
``permission.budget``    deny    the permission has no use left
``permission.chain``     deny    a grant of the chain was revoked
``tool.changed``         deny    the tool's definition differs from the pinned one
``flow.origin``          ask     a plain argument has no trusted origin
``flow.rule-of-two``     ask     untrusted content seen, private data held, and a
                                 call outside that nobody trusted has aimed
``effect.irreversible``  ask     the effect cannot be taken back
``gate.denied``          deny    a person said no, to this call or to its like
``gate.expired``         deny    the answer came too late
``gate.mismatch``        deny    the answer is not for this call
``gate.unavailable``     deny    nobody can be asked
``log.unavailable``      deny    the intent could not be made durable
=======================  ======  ===============================================

The strongest finding wins: deny over ask over allow. Messages are safe to show
a model; they hold names of arguments, never values.

What authorises a plain argument of a tool that changes state or reaches
outside, in a run that has seen untrusted content: its default; a constraint
that pins it, of a grant that vouches for its values; evidence; an endorsement
for this tool and parameter; for writes that stay inside also any such
constraint, and closed types. A ``composed`` argument needs a constraint instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from checkrein import orders
from checkrein.admission import is_default
from checkrein.facts import Effect, ToolFacts
from checkrein.freezing import encode
from checkrein.links import links_in
from checkrein.origins import Evidence, Trust, is_blank, readable_in
from checkrein.untrusted import Untrusted, content

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from checkrein.admission import Refusal
    from checkrein.calls import Call
    from checkrein.facts import Parameter
    from checkrein.grants import Grant
    from checkrein.permissions import Permission


class Outcome(IntEnum):
    """What becomes of a call; the higher wins."""

    ALLOW = 0
    ASK = 1
    DENY = 2

    def __str__(self) -> str:
        return self.name.lower()


class Finding(NamedTuple):
    """What one rule has to say.

    Attributes:
        rule: its stable id.
        outcome: ask or deny.
        message: the reason, safe for a model to read.
        argument: the name of the argument concerned, ``""`` for the call as a whole.
    """

    rule: str
    outcome: Outcome
    message: str
    argument: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What an approver has seen when they saw this finding."""
        return self.rule, self.argument


class Decision(NamedTuple):
    """The outcome of all rules.

    Attributes:
        outcome: allow, ask or deny.
        findings: what speaks against, strongest first.
        permissions: the permissions that admit the call, as text, one for each
            claim and grant; empty where one is missing.
        nearest: where one is missing, the permissions that came nearest, as text.
        changes: the smallest changes that would allow the call, one for each finding.

    The last three are filled in by ``run.explain()``, for people: they show values.
    """

    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    permissions: tuple[str, ...] = ()
    nearest: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether nothing speaks against the call."""
        return self.outcome is Outcome.ALLOW

    def __str__(self) -> str:
        reasons = "; ".join(f"{one.rule}: {one.message}" for one in self.findings)
        return f"{self.outcome}: {reasons}" if reasons else str(self.outcome)


class RunState(NamedTuple):
    """What a run has become; replaced as a whole when something changes.

    Attributes:
        opened: it was entered.
        closed, stopped, locked: what the application, or suspicion, has done to it.
        exposed: untrusted content was seen.
        private: private data is held.
        unasked: some of it was read after untrusted content, and nobody trusted has
            asked for it.
        refused: digests of calls that a person has denied.
    """

    opened: bool = False
    closed: bool = False
    stopped: bool = False
    locked: bool = False
    exposed: bool = False
    private: bool = False
    unasked: bool = False
    refused: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Terms:
    """What stays the same, or only grows, while a run goes on.

    Attributes:
        chain: the grants that must allow a call.
        evidence: what trusted sources have said.
        pins: definitions that tools must have, by name.
        vouching: the ids of the grants whose constraints authorise what they let
            through. A link that an agent has signed, and the grant of a run that was
            opened where untrusted values were at hand, narrow and no more: their
            values may be the attacker's.
        planned: the definitions of the tools in the plan that the run follows, if any.
        agents, runs: the names and the ids of this run and of those it is inside of.
        begins, ends: from when, and until when, all the grants are good.
        stops, revokes, expires: the notices that would end all of it.
    """

    chain: tuple[Grant, ...]
    evidence: Evidence
    pins: Mapping[str, bytes]
    vouching: frozenset[str] = frozenset()
    planned: frozenset[bytes] | None = None
    agents: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    begins: float = field(init=False)
    ends: float = field(init=False)
    stops: frozenset[str] = field(init=False)
    revokes: frozenset[str] = field(init=False)
    expires: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        starts = [grant.not_before for grant in self.chain if grant.not_before is not None]
        stops = [grant.expires for grant in self.chain if grant.expires is not None]
        put = object.__setattr__
        put(self, "begins", max(starts, default=-inf))
        put(self, "ends", min(stops, default=inf))
        named = {*map(orders.stop_agent, self.agents), *map(orders.stop_run, self.runs)}
        put(self, "stops", frozenset({orders.STOP_ALL, *named}))
        put(self, "revokes", frozenset(orders.revoked(grant.id) for grant in self.chain))
        put(self, "expires", frozenset(orders.expired(grant.id) for grant in self.chain))


class RunView(NamedTuple):
    """What the rules may know of a run, as it was at one moment.

    Attributes:
        now: seconds since the epoch, by the clock.
        latest: the same, never less than the run has seen before.
        state: the state of the run, joined with that of the runs it is inside of.
        terms: what the run was opened with, and has learnt.
        notices: what was posted to the store.
        enclosed: ``None`` for a call from the top; else whether the enclosing
            call had, or saw, untrusted values.
    """

    now: float
    latest: float
    state: RunState
    terms: Terms
    notices: frozenset[str] = frozenset()
    enclosed: bool | None = None

    @property
    def wary(self) -> bool:
        """Whether plain arguments need a trusted origin."""
        return self.state.exposed if self.enclosed is None else self.enclosed


def standing(call: Call, view: RunView) -> Iterable[Finding]:
    """The run must be open, unlocked for all but reads that stay inside, and not stopped."""
    state = view.state
    if state.opened and not (state.closed or state.stopped or state.locked):
        return ordered(call, view) if view.notices else ()
    if not state.opened:
        return (Finding("run.none", Outcome.DENY, "the run was not entered: use `with run:`"),)
    if state.closed:
        return (Finding("run.closed", Outcome.DENY, "the run has ended; open a new one"),)
    if state.stopped:
        return (Finding("run.stopped", Outcome.DENY, "the run was told to stop"),)
    if call.facts.wary:
        return (Finding("run.locked", Outcome.DENY, "the run is locked after suspicious calls"),)
    return ordered(call, view)


def ordered(call: Call, view: RunView) -> Iterable[Finding]:
    """Nobody may have stopped the call, or revoked a grant of its chain."""
    posted = view.notices
    facts, terms = call.facts, view.terms
    if not (posted.isdisjoint(terms.stops) and posted.isdisjoint(facts.stops)):
        return (Finding("run.stopped", Outcome.DENY, "an operator has stopped this"),)
    if not posted.isdisjoint(terms.revokes):
        message = "the grant, or one that it was delegated from, was revoked"
        return (Finding("permission.chain", Outcome.DENY, message),)
    if not posted.isdisjoint(terms.expires):
        return (_EXPIRED,)
    return ()


_EXPIRED: Final = Finding("permission.expired", Outcome.DENY, "the grant is not good at this time")


def expiry(_call: Call, view: RunView) -> Iterable[Finding]:
    """Every grant of the chain must be good now; a clock that goes back changes nothing."""
    if view.terms.begins <= view.now and view.latest < view.terms.ends:
        return ()
    return (_EXPIRED,)


def permission(call: Call, _view: RunView) -> Iterable[Finding]:
    """Every grant of the chain must admit the call."""
    if call.refusal is None:
        return ()
    problem = cast("Refusal", call.refusal)
    return (Finding(problem.rule, Outcome.DENY, str(problem), problem.argument),)


def pinned(call: Call, view: RunView) -> Iterable[Finding]:
    """A pinned tool must have the definition it was pinned with."""
    facts = call.facts
    if view.terms.pins.get(facts.name, facts.definition) != facts.definition:
        return (Finding("tool.changed", Outcome.DENY, "the tool is not the one that was reviewed"),)
    return ()


def planned(call: Call, view: RunView) -> Iterable[Finding]:
    """A run that follows a plan makes no call of another tool."""
    if view.terms.planned is None or call.facts.definition in view.terms.planned:
        return ()
    return (Finding("run.plan", Outcome.DENY, "the run follows a plan that has no such call"),)


def refused_before(call: Call, view: RunView) -> Iterable[Finding]:
    """What a person denied once is not asked again."""
    if view.state.refused and call.digest in view.state.refused:
        return (Finding("gate.denied", Outcome.DENY, "a person has denied this very call"),)
    return ()


def origin(call: Call, view: RunView) -> Iterable[Finding]:
    """Plain arguments need a trusted origin once untrusted content was seen."""
    if not (view.wary or call.returned):
        return ()
    facts = call.facts
    if not facts.wary:
        names: Iterable[str] = facts.sensitive
    else:
        names = facts.plain if view.wary else call.returned
    problems = [(name, unauthorised(call, view, name)) for name in names]
    if view.wary and facts.external:
        problems += ((name, _strange_link(call, view, name)) for name in facts.payload)
    return [
        Finding("flow.origin", Outcome.ASK, problem, name) for name, problem in problems if problem
    ]


def _strange_link(call: Call, view: RunView, name: str) -> str:
    """Return what is wrong with a link in a payload that leaves, ``""`` for nothing."""
    box: Untrusted[Any] = call.arguments[name]
    if box.label.trusted or _constrained(call, view, name)[1]:
        return ""
    evidence = view.terms.evidence
    for text in readable_in(content(box)):
        if not all(_is_named(evidence, link) for link in links_in(text)):
            return f"{name!r} holds a link that neither the user nor a trusted tool has named"
    return ""


def _is_named(evidence: Evidence, link: str) -> bool:
    """Say whether somebody trusted has said a link, with or without its scheme."""
    scheme, _, rest = link.partition("://")
    bare = rest if scheme.lower() in {"http", "https"} else ""
    spellings = (link, link.rstrip("/"), bare, bare.rstrip("/"))
    return any(spelling and evidence.trust(spelling) for spelling in spellings)


def unauthorised(call: Call, view: RunView, name: str) -> str:
    """Return what is wrong with a plain argument, ``""`` if something authorises it."""
    facts, value = call.facts, call.arguments[name]
    if is_default(facts, name, value):
        return ""
    constrained, pins = _constrained(call, view, name)
    if pins:
        return ""
    parameter = facts.by_name[name]
    if parameter.composed:
        if constrained:
            return ""
        return f"{name!r} may be worded by the model, but no permission confines it"
    inside = facts.effect is Effect.WRITES and not facts.external
    if inside and not parameter.sensitive and (constrained or parameter.closed):
        return ""
    if _trust(view, parameter, value) or _endorsed(call, view, name):
        return ""
    return f"{name!r} has no trusted origin: neither the user nor a trusted tool has named it"


def is_known(call: Call, view: RunView, name: str) -> bool:
    """Say whether somebody trusted has said a plain argument, not merely confined it."""
    value = call.arguments[name]
    return (
        is_default(call.facts, name, value)
        or _constrained(call, view, name)[1]
        or bool(_trust(view, call.facts.by_name[name], value))
        or _endorsed(call, view, name)
    )


def _trust(view: RunView, parameter: Parameter, value: Any) -> int:
    """Return whose word stands behind *value* as an argument for *parameter*."""
    evidence = view.terms.evidence
    if parameter.refers:
        return evidence.reference_trust(parameter.refers, value)
    return evidence.trust(value)


def _constrained(call: Call, view: RunView, name: str) -> tuple[bool, bool]:
    """Say whether a permission that vouches constrains *name*, and whether one pins it."""
    constrained = pins = False
    for offer in call.offers:
        constraint = offer.permission.constraints.get(name)
        if constraint is not None and offer.grant in view.terms.vouching:
            constrained = True
            pins = pins or constraint.pins
    return constrained, pins


def _endorsed(call: Call, view: RunView, name: str) -> bool:
    evidence = view.terms.evidence
    return evidence.has_endorsements and evidence.is_endorsed(
        call.facts.definition, name, encode(call.arguments[name])
    )


def rule_of_two(call: Call, view: RunView) -> Iterable[Finding]:
    """Untrusted content, private data and a way out never meet unless somebody trusted aims."""
    state = view.state
    if not ((state.exposed or view.wary) and state.private):
        return ()
    if not state.unasked and any(_aimed(call, view, one.name) for one in call.facts.parameters):
        return ()
    message = (
        "the run has read private data that nobody trusted has asked for, after untrusted content"
        if state.unasked
        else "the run has read untrusted content and holds private data, "
        "and nobody trusted has named where this goes"
    )
    return (Finding("flow.rule-of-two", Outcome.ASK, message),)


def _aimed(call: Call, view: RunView, name: str) -> bool:
    parameter = call.facts.by_name[name]
    if parameter.untrusted or parameter.injected or parameter.composed or parameter.closed:
        return False
    value: Any = call.arguments[name]
    if is_blank(value) or is_default(call.facts, name, value):
        return False
    return (
        _constrained(call, view, name)[1]
        or _endorsed(call, view, name)
        or bool(_trust(view, parameter, value) & Trust.USER)
    )


def irreversible(call: Call, view: RunView) -> Iterable[Finding]:
    """What cannot be taken back is asked about, unless every grant says otherwise."""
    for offer in call.offers:
        if offer.claim.effect is Effect.IRREVERSIBLE and not _skips(offer.permission, view):
            message = "the effect cannot be taken back"
            return (Finding("effect.irreversible", Outcome.ASK, message),)
    return ()


def _skips(one: Permission, view: RunView) -> bool:
    exposed = view.state.exposed or view.wary
    return one.preapproved == "always" or (one.preapproved == "unexposed" and not exposed)


Rule = Callable[["Call", RunView], Iterable[Finding]]

_RULES: Final[tuple[tuple[Rule, Callable[[ToolFacts, Terms], bool]], ...]] = (
    # The rule, and where it can have anything to say.
    (standing, lambda _facts, _terms: True),
    (expiry, lambda _facts, _terms: True),
    (planned, lambda _facts, terms: terms.planned is not None),
    (permission, lambda _facts, _terms: True),
    (pinned, lambda facts, terms: facts.name in terms.pins),
    (refused_before, lambda facts, _terms: facts.wary),
    (origin, lambda facts, _terms: facts.wary or bool(facts.sensitive)),
    (rule_of_two, lambda facts, _terms: facts.external),
    (irreversible, lambda facts, _terms: facts.effect is Effect.IRREVERSIBLE),
)


def rules_for(facts: ToolFacts, terms: Terms) -> tuple[Rule, ...]:
    """Return the rules that concern a tool in a run."""
    return tuple(rule for rule, concerns in _RULES if concerns(facts, terms))


_ALLOWED: Final = Decision(Outcome.ALLOW)


def decide(
    rules: Iterable[Rule], call: Call, view: RunView, approved: Sequence[Finding] = ()
) -> Decision:
    """Ask every rule; the strongest finding wins.

    Args:
        rules: those that concern the tool.
        call: the normalised call.
        view: the run as it is now.
        approved: findings that a person has seen and overruled.
    """
    findings: list[Finding] = []
    for rule in rules:
        found = rule(call, view)
        if found:
            findings += found
    if not findings:
        return _ALLOWED
    seen = {one.key for one in approved}
    findings = [one for one in findings if one.outcome is Outcome.DENY or one.key not in seen]
    findings.sort(key=lambda one: -one.outcome)
    return Decision(findings[0].outcome, tuple(findings)) if findings else _ALLOWED

"""What to change so that a call would be allowed: for the people who write grants.

Never shown to a model: the advice quotes values, and a model has no business
with how to get past a rule.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from checkrein.admission import mentioned, to_mention
from checkrein.facts import Effect
from checkrein.permissions import Effects
from checkrein.spelling import spelled_constraint, spelled_permission

if TYPE_CHECKING:
    from checkrein.admission import Offer
    from checkrein.calls import Call
    from checkrein.facts import Claim
    from checkrein.grants import Grant
    from checkrein.permissions import Permission
    from checkrein.rules import Decision, Finding

_CHANGES: Final = {
    "run.none": "enter the run: `with run:`",
    "run.closed": "open a new run",
    "run.stopped": "lift the stop: `checkrein stop --lift`, or open a new run after run.stop()",
    "run.locked": "see why the run was locked, and open a new one",
    "permission.expired": "issue a grant that is good now",
    "permission.chain": "issue a fresh grant from the root",
    "tool.changed": "review the tool, and pin definition_of(tool) anew",
    "flow.rule-of-two": "let a person confirm it (gate=), or have the user name the destination",
    "effect.irreversible": "let a person confirm it (gate=), or add preapproved(...)",
    "gate.denied": "a person has denied it; ask them",
}


def advise(decision: Decision, call: Call, grants: Iterable[Grant]) -> Decision:
    """Return *decision* with what matched, what came nearest, and what would change it."""
    nearest: list[str] = []
    changes: list[str] = []
    for finding in decision.findings:
        if finding.rule in {"permission.missing", "permission.argument"}:
            found = len(changes)
            for grant in grants:
                _explain_grant(grant, call, nearest, changes)
            if len(changes) == found:  # each grant admits it, and together they do not
                changes.append(_together(finding, call))
        else:
            changes.append(_change(finding, call))
    return decision._replace(
        permissions=tuple(str(one.permission) for one in call.offers),
        nearest=tuple(dict.fromkeys(nearest)),
        changes=tuple(dict.fromkeys(changes)),
    )


def _change(finding: Finding, call: Call) -> str:
    if finding.rule == "flow.origin":
        name = finding.argument
        text, _ = spelled_constraint([mentioned(call, name)])
        return (
            f"let a person confirm it (gate=), name the value in run.instruct() or run.trust(), "
            f"endorse it for this tool, or pin it in the grant: {name}={text}"
        )
    if finding.rule == "permission.budget":
        used = {str(one.permission) for one in call.offers if one.permission.budgets}
        return f"raise the budget of {' and '.join(sorted(used))}" if used else finding.message
    return _CHANGES.get(finding.rule, finding.message)


def _explain_grant(grant: Grant, call: Call, nearest: list[str], changes: list[str]) -> None:
    """Add what one grant of the chain would have to say."""
    for claim, offers in grant.steps(call.facts):
        if not offers:
            close = _closest(claim, grant.permissions)
            if close is not None:
                nearest.append(str(close))
            changes.append(_missing(claim, close, call))
            continue
        tried = [(offer, offer.problems(call.arguments)) for offer in offers]
        if all(problems for _, problems in tried):
            offer, problems = min(tried, key=lambda one: len(one[1]))
            nearest.append(str(offer.permission))
            changes += (_loosened(offer, one.argument, call) for one in problems)


def _together(finding: Finding, call: Call) -> str:
    if finding.argument in call.facts.files:
        return f"name what opens the file: {finding.argument}={_opener_for(call, finding.argument)}"
    return f"{finding.message}: let one of them say it"


def _opener_for(call: Call, name: str) -> str:
    """Return the text of a constraint that would open a file argument."""
    path = str(call.arguments[name])
    root = os.path.dirname(path) if os.path.isabs(path) else "<directory>"
    mode = "" if call.facts.by_name[name].opens == "binary" else ", 'r'"
    return f"opened_under({root!a}{mode})"


def _closest(claim: Claim, permissions: Iterable[Permission]) -> Permission | None:
    """Return the permission that speaks of the resource, or of the one most like it."""
    wanted = claim.resource.split(".")

    def likeness(one: Permission) -> tuple[bool, int]:
        shared = 0
        for ours, theirs in zip(one.resource.split("."), wanted, strict=False):
            if ours not in {theirs, "*", "**"}:
                break
            shared += 1
        return one.names(claim.resource), shared

    best = max(permissions, key=likeness, default=None)
    return best if best is not None and likeness(best) > (False, 0) else None


def _missing(claim: Claim, close: Permission | None, call: Call) -> str:
    if close is not None and close.names(claim.resource):
        outside = close.wildcard and claim.external and claim.effect is Effect.READS
        if not outside:
            # A wildcard covers reads as long as it names no effects.
            covered = {Effect.READS} if close.effects is None else close.effects
            return f"in {close}: {Effects(frozenset({*covered, claim.effect}))!r}"
    plain = [name for name in to_mention(call) if name not in call.facts.files]
    text, _ = spelled_permission(claim, {name: [mentioned(call, name)] for name in plain})
    files = [f", {name}={_opener_for(call, name)}" for name in call.facts.files]
    return f"add {text.removesuffix(')')}{''.join(files)})"


def _loosened(offer: Offer, name: str, call: Call) -> str:
    permission = offer.permission
    if name not in call.facts.by_name or name not in call.arguments:
        return f"take {name!r} out of {permission}: the tool has no such argument"
    if offer.impossible is not None:
        return str(offer.impossible)
    if name in call.facts.files:
        return f"in {permission}: {name}={_opener_for(call, name)}, a directory that holds the file"
    text, _ = spelled_constraint([mentioned(call, name)])
    before: Any = permission.constraints.get(name)
    wider = text if before is None else f"either({before!r}, {text})"
    return f"in {permission}: {name}={wider}"

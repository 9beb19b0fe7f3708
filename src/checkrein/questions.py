"""The questions that a run has asked, each open for one answer.

A confirmation is bound to its call by a digest and is settled once, whatever
the answer was: late, for another call, a second time, or no answer at all.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from checkrein.confirmations import Confirmation, Shown, Verdict, confirmation_digest
from checkrein.origins import Trust, texts_in
from checkrein.rules import Decision, Finding, Outcome
from checkrein.untrusted import Untrusted, content

if TYPE_CHECKING:
    from collections.abc import Iterable

    from checkrein.calls import Call
    from checkrein.runs import Run

_SHORTEST_FOUND: Final = 4  # shorter texts stand everywhere
_WORDS: Final = (
    (Trust.USER, "the user's words"),
    (Trust.SYSTEM, "configuration"),
    (Trust.TOOL, "a trusted tool"),
)


def sources_of(value: Any, contents: Iterable[Untrusted[Any]]) -> list[str]:
    """Return in which content, by its sources, a text of *value* stands.

    For people. It proves nothing: what is not found may have been encoded.
    """
    wanted = [text.strip().casefold() for text in texts_in(value)]
    wanted = [text for text in wanted if len(text) >= _SHORTEST_FOUND]
    found: dict[str, None] = {}
    for box in contents:
        held = "\n".join(texts_in(content(box))).casefold()
        if any(text in held for text in wanted):
            found |= dict.fromkeys(box.label.names)
    return list(found)


class Questions:
    """What one run has asked and not yet settled.

    Args:
        run: the run.
    """

    __slots__ = ("_lock", "_open", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = Lock()
        self._open: set[str] = set()

    def ask(self, call: Call, decision: Decision) -> Confirmation:
        """Return the confirmation for *call*, open for one answer."""
        run, facts = self._run, call.facts
        concerns = {one.argument: one.message for one in decision.findings if one.argument}
        shown = tuple(
            Shown(
                one.name,
                call.arguments[one.name],
                untrusted=one.untrusted,
                origin=self._origin_of(call, one.name),
                concern=concerns.get(one.name, ""),
            )
            for one in facts.parameters  # in the signature's order, not in the model's
            if not one.injected
        )
        nonce = run._ids()
        expires = run.now() + run.confirm_within
        rules = tuple(dict.fromkeys(one.rule for one in decision.findings))
        digest = confirmation_digest(
            {
                "id": nonce,
                "agent": run.agent,
                "run": run.id,
                "call": call.id,
                "digest": call.digest,
                "grants": ",".join(run.grant_ids),
                "rules": ",".join(rules),
                "expires": repr(expires),
            }
        )
        with self._lock:
            self._open.add(nonce)
        return Confirmation(
            id=nonce,
            tool=facts.name,
            effect=facts.effect.value,
            resource=facts.source,
            arguments=shown,
            reasons=tuple(dict.fromkeys(one.message for one in decision.findings)),
            rules=rules,
            agent=run.agent,
            run=run.id,
            call=call.id,
            expires=expires,
            digest=digest,
        )

    def _origin_of(self, call: Call, name: str) -> str:
        value = call.arguments[name]
        if type(value) is Untrusted:
            return ", ".join(value.label.names)
        if name in call.returned:
            return ", ".join(call.returned[name].names)
        one = call.facts.by_name[name]
        evidence = self._run.flow.evidence
        trust = evidence.reference_trust(one.refers, value) if one.refers else evidence.trust(value)
        for bit, words in _WORDS:
            if trust & bit:
                return words
        found = sources_of(value, self._run.flow.contents)
        return f"stands in {', '.join(found)}" if found else "unknown: the model's choice"

    def settle(self, question: Confirmation, answer: object, call: Call) -> Finding | None:
        """Take the answer to *question*; return what forbids the call, ``None`` for a yes.

        A question is settled once, whatever the answer was.
        """
        with self._lock:
            open_now = question.id in self._open
            self._open.discard(question.id)
        late = self._run.now() >= question.expires
        if not isinstance(answer, Verdict):
            if late:
                return Finding("gate.expired", Outcome.DENY, "nobody answered in time")
            return Finding("gate.unavailable", Outcome.DENY, "nobody could be asked")
        if not open_now or (answer.confirmation, answer.digest) != (question.id, question.digest):
            return Finding("gate.mismatch", Outcome.DENY, "the answer is not for this call")
        problem = self._not_theirs(question, answer)
        if problem:
            return Finding("gate.mismatch", Outcome.DENY, problem)
        if answer.edits:
            late_or_none = Finding("gate.expired", Outcome.DENY, "the answer came too late")
            return late_or_none if late else None
        if answer.approved is not True:
            self._run.refuse(call.digest, suspicious=answer.suspicious)
            return Finding("gate.denied", Outcome.DENY, "a person has denied the call")
        if late:
            return Finding("gate.expired", Outcome.DENY, "the answer came too late")
        return None

    def _not_theirs(self, question: Confirmation, answer: Verdict) -> str:
        """Return why who answers may not, ``""`` if they may."""
        run = self._run
        names = {one.strip().casefold() for one in answer.by.split(",")}
        if names & {agent.strip().casefold() for agent in run.terms.agents}:
            return "who asks cannot approve"
        if run.approvers is None:
            return ""
        return run.approvers.problem(question, answer, (*run.terms.agents, *run.holders))

    def abandon(self, question: Confirmation) -> None:
        """Close a question that will not be answered here."""
        with self._lock:
            self._open.discard(question.id)

"""The questions that a run has asked, each open for one answer.

A confirmation is bound to its call by a digest and is settled once, whatever
the answer was: late, for another call, a second time, or no answer at all.

A gate may put a question off (:class:`checkrein.errors.Suspended`). Such a question
stays *parked*: the same call, made again in the run or in the run that resumes it,
asks no new question but waits for the answer to this one, under the id that the call
had. It is the same call if its digest, the grants and the reasons to ask are the same.
"""

from __future__ import annotations

import json
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from checkrein.confirmations import (
    Confirmation,
    Shown,
    Spent,
    Verdict,
    digest_of,
    joined_care,
    names_in,
)
from checkrein.errors import MisuseError
from checkrein.frames import Apart
from checkrein.freezing import thaw
from checkrein.origins import Trust, texts_in
from checkrein.ports import ACTIVE
from checkrein.rules import Decision, Finding, Outcome
from checkrein.standing import Leave
from checkrein.untrusted import Untrusted, bare, content
from checkrein.visible import lookalikes, shown, visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from checkrein.calls import Call
    from checkrein.runs import Run

_MOST_NAMED: Final = 5
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

    __slots__ = ("_leaves", "_lock", "_open", "_parked", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = Lock()
        self._open: set[str] = set()
        self._parked: dict[str, Confirmation] = {}  # by the digest of the call
        self._leaves: tuple[Leave, ...] = ()

    def ask(self, call: Call, decision: Decision) -> Confirmation:
        """Return the confirmation for *call*, open for one answer: a parked one, or a new one."""
        parked = self._resumed(call, decision)
        if parked is not None:
            call.go_on_as(parked.call)
            return parked
        run, facts = self._run, call.facts
        now = run.now()
        question = Confirmation(
            id=run._ids(),
            tool=facts.name,
            effect=facts.effect.value,
            resource=facts.source,
            arguments=self._shown(call, decision),
            reasons=tuple(dict.fromkeys(one.message for one in decision.findings)),
            rules=tuple(dict.fromkeys(one.rule for one in decision.findings)),
            agent=run.agent,
            run=run.id,
            call=call.id,
            expires=now + run.confirm_within,
            digest="",
            bound_to=call.digest.hex(),
            grants=tuple(run.grant_ids),
            chain=(*run.terms.agents[1:], *run.holders),
            asked=now,
            preview=_preview(call),
            needed=getattr(run.approvers, "needed", 1),
            care=joined_care((facts.care, *(one.permission.care for one in call.offers))),
        )
        question = question._replace(digest=digest_of(question))
        with self._lock:
            self._open.add(question.id)
        return question

    def _shown(self, call: Call, decision: Decision) -> tuple[Shown, ...]:
        concerns = {one.argument: one.message for one in decision.findings if one.argument}
        return tuple(
            _hidden(one.name, self._origin_of(call, one.name), concerns.get(one.name, ""))
            if one.secret
            else Shown(
                one.name,
                call.arguments[one.name],
                untrusted=one.untrusted,
                origin=self._origin_of(call, one.name),
                concern=_concern(concerns.get(one.name, ""), call.arguments[one.name]),
                text=shown(call.arguments[one.name]),
                plain=plain_json(call.arguments[one.name]),
            )
            for one in call.facts.parameters  # in the signature's order, not in the model's
            if not one.injected
        )

    def _resumed(self, call: Call, decision: Decision) -> Confirmation | None:
        """Return the parked question about this very call, open again; ``None`` for none."""
        with self._lock:
            parked = self._parked.pop(call.digest.hex(), None)
            reasons = [one.message for one in decision.findings]
            if parked is None or not self._stands(parked, self._run.grant_ids, reasons):
                return None
            self._open.add(parked.id)
        values = call.arguments  # another process has brought none along; these are the same
        shown = tuple(one._replace(value=values[one.name]) for one in parked.arguments)
        return parked._replace(arguments=shown)

    def covered(self, call: Call, decision: Decision) -> Leave | None:
        """Return the standing approval that covers *call*, one use of it taken."""
        now, grants = self._run.now(), self._run.grant_ids
        return next(
            (one for one in self._leaves if one.take(call, grants, decision.findings, now)), None
        )

    @property
    def leaves(self) -> tuple[Leave, ...]:
        """The standing approvals that were given in the run."""
        return self._leaves

    def grant(self, leaves: Iterable[Leave]) -> None:
        """Take in standing approvals."""
        with self._lock:
            self._leaves += tuple(leaves)

    def withdraw(self, tool: str) -> None:
        """End the standing approvals of the tool with this definition."""
        with self._lock:
            self._leaves = tuple(one for one in self._leaves if one.tool != tool)

    def park(self, question: Confirmation) -> Confirmation:
        """Keep a question that was put off, for the same call made again.

        Returns:
            the question to wait for: an equal call, made at the same time, may have put the same
            one off, and two would be one too many.
        """
        with self._lock:
            self._open.discard(question.id)
            before = self._parked.get(question.bound_to)
            if before is not None and self._stands(before, question.grants, question.reasons):
                return before
            self._parked[question.bound_to] = question
            return question

    def _stands(self, before: Confirmation, grants: Iterable[str], reasons: Iterable[str]) -> bool:
        """Say whether a question about an equal call still says all there is to say, no more."""
        said = (before.grants, set(before.reasons)) == (tuple(grants), set(reasons))
        return said and self._run.now() < before.expires

    def keep(self, parked: Iterable[Confirmation]) -> None:
        """Take over questions that another process has put off."""
        with self._lock:
            self._parked |= {one.bound_to: one for one in parked}

    def holds(self, id: str) -> bool:  # noqa: A002 (by its natural name)
        """Say whether a question was put here, or in a run that this one resumes, and is open."""
        with self._lock:
            return id in self._open or any(one.id == id for one in self._parked.values())

    @property
    def parked(self) -> tuple[Confirmation, ...]:
        """The questions that were put off and have not been taken up again."""
        with self._lock:
            return tuple(self._parked.values())

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

    def settle(
        self, question: Confirmation, answer: object, call: Call, asked: Iterable[Finding] = ()
    ) -> Finding | None:
        """Take the answer to *question*; return what forbids the call, ``None`` for a yes.

        A question is settled once, whatever the answer was.
        """
        with self._lock:
            open_now = question.id in self._open
            self._open.discard(question.id)
        late = self._run.now() >= question.expires
        if isinstance(answer, Spent):
            used = "the answer was used before: the call may have run, ask what became of it"
            return Finding("gate.mismatch", Outcome.DENY, used)
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
            for run in self._run.line:  # who says no has changed their mind
                run.questions.withdraw(call.facts.definition.hex())
            return Finding("gate.denied", Outcome.DENY, "a person has denied the call")
        if late:
            return Finding("gate.expired", Outcome.DENY, "the answer came too late")
        return self._let_stand(question, answer, call, asked)

    def _let_stand(
        self, question: Confirmation, answer: Verdict, call: Call, asked: Iterable[Finding]
    ) -> Finding | None:
        """Take in a standing approval, if there is one in the answer."""
        if answer.standing is not None and question.needed > 1:
            problem = "what several people have to allow is allowed once"
            return Finding("gate.mismatch", Outcome.DENY, problem)
        try:
            leave = Leave.of(question, answer, call, asked, self._run.now())
        except MisuseError as error:
            return Finding("gate.mismatch", Outcome.DENY, str(error))
        if leave is not None:
            self.grant([leave])
        return None

    def _not_theirs(self, question: Confirmation, answer: Verdict) -> str:
        """Return why who answers may not, ``""`` if they may."""
        run = self._run
        if names_in(answer.by) & names_in(*run.terms.agents):
            return "who asks cannot approve"
        if run.approvers is None:
            return ""
        return run.approvers.problem(question, answer, (*run.terms.agents, *run.holders))

    def abandon(self, question: Confirmation) -> None:
        """Close a question that will not be answered here."""
        with self._lock:
            self._open.discard(question.id)


def _hidden(name: str, origin: str, concern: str) -> Shown:
    """Return a secret as an approver sees it: that there is one, and where it comes from."""
    return Shown(name, None, False, origin, concern, text="a secret, which is not shown")


def _concern(said: str, value: Any) -> str:
    """Return what the rules say about an argument, and that its letters are not what they seem."""
    texts = texts_in(bare(value))
    found = list(dict.fromkeys(one for text in texts for one in lookalikes(text)))
    if not found:
        return said
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    seems = f"holds letters that look like others: {', '.join(found[:_MOST_NAMED])}{more}"
    return f"{said}; {seems}" if said else seems


def plain_json(value: Any) -> str:
    """Return *value* as JSON if it is plain data, ``""`` if it is not."""
    plain = thaw(bare(value))
    try:
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False)
        return text if json.loads(text) == plain else ""
    except (TypeError, ValueError, RecursionError):
        return ""


def _preview(call: Call) -> str:
    """Return what the tool says that *call* would do, in visible letters.

    It runs where no tool can be called, and gets bare values: nothing that it does
    with them concerns the run.
    """
    preview = call.facts.preview
    if preview is None:
        return ""
    named = {
        one.name: thaw(bare(call.arguments[one.name]))
        for one in call.facts.parameters
        if not one.injected
    }
    token = ACTIVE.set(Apart())
    try:
        told = preview(**named)
    except Exception as error:  # noqa: BLE001 (a person is asked all the same)
        return f"the preview failed ({type(error).__name__})"
    finally:
        ACTIVE.reset(token)
    if type(told) is not str:
        return f"the preview returned no text ({type(told).__name__})"
    return "\n".join(map(visible, told.split("\n")))

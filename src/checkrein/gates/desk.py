"""The desk: where questions lie until somebody answers them, in a store that outlives us.

A question is in one of these states::

    open ──> answered ──> taken ──> done
      │          │
      └──────────┴──> lapsed             nobody answered, or took the answer, in time

* ``open -> answered`` happens once, however many people answer at a time: for a no or an
  edit at the first one, for a yes when as many different people have said yes as the
  question needs.
* ``answered -> taken`` happens once, however many processes wait: who takes a yes may run
  the call. It happens *before* the intent is written to the log.
* ``taken -> done`` when the call is over. What stays taken is *in doubt*: the process
  may have died before, in or after the body. It is listed, and never handed out again.

So a confirmed call runs at most once, whichever process is killed at whatever time.

The desk believes what lies in the database as far as it is the question that was asked:
it recomputes digests, and so does the run that asked. Who can write to the database can
lose questions and answers. Whose answers count is proven by signatures
(:mod:`checkrein.approvers`), which the run checks again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, final

from checkrein.confirmations import (
    Confirmation,
    Verdict,
    names_in,
    read_question,
    read_verdict,
    to_text,
    verdict_tree,
)
from checkrein.errors import CheckreinError, ConfigurationError, TamperedError
from checkrein.ports import Approvers, Clock, Log
from checkrein.store.tables import Session, TableStore

_LONGEST: Final = 16 << 20  # letters of one question
_STATES: Final = frozenset({"open", "answered", "taken", "done"})
_PUT: Final = (
    "INSERT INTO {questions} (id, state, question, verdicts, asked, expires, changed)"
    " VALUES (?, 'open', ?, '[]', ?, ?, ?) ON CONFLICT (id) DO NOTHING"
)
_GET: Final = "SELECT state, question, verdicts, expires, changed FROM {questions} WHERE id = ?"
_STATE: Final = "SELECT state, expires FROM {questions} WHERE id = ?"
_MOVE: Final = "UPDATE {questions} SET state = ?, verdicts = ?, changed = ? WHERE id = ?"
_IN_STATE: Final = "SELECT id, question FROM {questions} WHERE state = ? ORDER BY asked, id"
_ANSWERED: Final = "SELECT id FROM {questions} WHERE state = 'answered'"
_LAPSE: Final = (
    "UPDATE {questions} SET state = 'done', changed = ?"
    " WHERE state IN ('open', 'answered') AND expires <= ?"
)
_FORGET: Final = "DELETE FROM {questions} WHERE state = 'done' AND changed < ?"


class AnswerRefused(CheckreinError):
    """An answer does not count, and changes nothing; the message says why."""


class Case(NamedTuple):
    """A question on the desk.

    Attributes:
        question: what was asked.
        state: ``open``, ``answered``, ``taken``, ``done`` or ``lapsed``.
        verdicts: the answers so far.
        changed: when its state changed, in seconds since the epoch.
    """

    question: Confirmation
    state: str
    verdicts: tuple[Verdict, ...]
    changed: float

    @property
    def verdict(self) -> Verdict:
        """The answer, made of all that were given."""
        first = self.verdicts[-1]
        if len(self.verdicts) == 1 or first.approved is not True:
            return first
        together = ", ".join(sorted(one.by for one in self.verdicts))
        return self.question.approve(by=together)._replace(parts=self.verdicts)


@final
class Desk:
    """Keeps questions and answers in a store.

    Args:
        store: an ``SqliteStore`` or a ``PostgresStore``.
        approvers: whose signed answers are taken at all; the run checks them in any case.
        log: where refused answers are written down.
        clock: tells the time, for tests.

    Example:
        >>> from checkrein.store import open_store
        >>> desk = Desk(open_store("questions.db"))  # doctest: +SKIP
        >>> for question in desk.pending():  # doctest: +SKIP
        ...     desk.answer(question.approve(by="dana"))
    """

    def __init__(
        self,
        store: TableStore,
        *,
        approvers: Approvers | None = None,
        log: Log | None = None,
        clock: Clock = time.time,
    ) -> None:
        if not isinstance(store, TableStore):
            raise ConfigurationError(
                "questions are kept in a file or a database: open_store('questions.db')"
            )
        self.store = store
        self._approvers = approvers
        self._log = log
        self._clock = clock
        self.heard: Callable[[str], None] | None = None
        """Called with the id of a question that was answered through this desk."""

    # -- for who asks --------------------------------------------------------------------------

    def put(self, question: Confirmation) -> None:
        """Lay *question* on the desk. Doing it again changes nothing.

        Raises:
            ConfigurationError: it is too long to be read by anybody.
            StoreError: the store did not take it.
        """
        text = to_text(question)
        if len(text) > _LONGEST:
            raise ConfigurationError("a question of more than 16 million letters cannot be asked")
        self.store.transact(
            lambda session: session.ask(
                _PUT, question.id, text, question.asked, question.expires, self._clock()
            ),
            changes=True,
            repeatable=True,
        )

    def state(self, id: str) -> str:  # noqa: A002 (by its natural name)
        """Return the state of a question, ``""`` if there is no such question."""
        for state, expires in self.store.transact(lambda session: session.ask(_STATE, id)):
            return self._as_it_is(state, expires)
        return ""

    def take(self, id: str) -> Case | None:  # noqa: A002 (as above)
        """Take the answer to a question, if there is one. Nobody gets it a second time.

        Returns:
            The case as it was before: its answer is yours only if its state is ``answered``.
            ``None`` if there is no such question.

        Raises:
            StoreError: the store failed; the answer may have been taken.
        """

        def work(session: Session) -> Case | None:
            case = self._case(session.lock, id)
            if case is not None and case.state == "answered":
                yes = case.verdict.approved is True
                _move(session, case, "taken" if yes else "done", self._clock())
            return case

        return self.store.transact(work, changes=True)

    def finish(self, question: Confirmation) -> None:
        """Say that the call is over, or will never be made: it is not in doubt."""

        def work(session: Session) -> None:
            case = self._case(session.lock, question.id)
            if case is not None and case.state != "done":
                _move(session, case, "done", self._clock())

        self.store.transact(work, changes=True, repeatable=True)

    def answered(self) -> set[str]:
        """Return the ids of questions with an answer that nobody has taken."""
        rows = self.store.transact(lambda session: session.ask(_ANSWERED))
        return {str(row[0]) for row in rows}

    # -- for who answers -----------------------------------------------------------------------

    def pending(self) -> list[Confirmation]:
        """Return the questions that are open, the oldest first.

        A question that was changed on the way is left out: it can only be lost.
        """
        now = self._clock()
        return [one for one in self._in_state("open") if now < one.expires]

    def find(self, id: str) -> Case | None:  # noqa: A002 (by its natural name)
        """Return a question and what became of it, ``None`` if there is no such question.

        Raises:
            TamperedError: it is not the question that was asked.
        """
        return self.store.transact(lambda session: self._case(session.ask, id))

    def in_doubt(self) -> list[Confirmation]:
        """Return the calls whose yes was taken and that nobody has seen to an end."""
        return self._in_state("taken")

    def answer(self, verdict: Verdict, *, typed: str | None = None) -> Case:
        """Take an answer in.

        Args:
            verdict: made by ``question.approve``, ``deny`` or ``edit``, and signed if need be.
            typed: what the approver has typed in, where the question wants that.

        Returns:
            The case as it is now: still ``open`` if more people must say yes.

        Raises:
            AnswerRefused: it is late, the second one, for something else, of somebody who
                may not, or given without the care that the question wants.
            StoreError: the store failed.
        """

        def work(session: Session) -> Case:
            case = self._case(session.lock, verdict.confirmation)
            problem = self._problem(case, verdict, typed)
            if problem or case is None:
                raise AnswerRefused(problem)
            case = case._replace(verdicts=(*case.verdicts, verdict))
            settled = verdict.approved is not True or len(case.verdicts) >= case.question.needed
            case = case._replace(state="answered" if settled else "open", changed=self._clock())
            _move(session, case, case.state, case.changed)
            if settled:
                session.tell(case.question.id)
            return case

        verdict_tree(verdict)  # says at once what cannot travel
        try:
            case = self.store.transact(work, changes=True)
        except AnswerRefused as refused:
            self.note_refused(verdict, str(refused))
            raise
        if case.state == "answered" and self.heard is not None:
            self.heard(case.question.id)
        return case

    def sweep(self, *, keep: float = 30 * 86_400) -> None:
        """Close what has lapsed, and forget what has been done with for *keep* seconds."""
        now = self._clock()
        self.store.transact(
            lambda session: [session.ask(_LAPSE, now, now), session.ask(_FORGET, now - keep)],
            changes=True,
            repeatable=True,
        )

    # -- inside --------------------------------------------------------------------------------

    def _problem(self, case: Case | None, verdict: Verdict, typed: str | None) -> str:
        """Return why an answer does not count, ``""`` if it does."""
        if case is None:
            return "there is no such question"
        question = case.question
        if verdict.digest != question.digest:
            return "the answer is not for this question"
        if case.state != "open":
            return f"the question is not open any more: it is {case.state}"
        names = names_in(verdict.by)
        if names & names_in(question.agent, *question.chain):
            return "who asks cannot approve"
        if names & names_in(*(one.by for one in case.verdicts)):
            return "the same person has answered before"
        if verdict.standing and question.needed > 1:
            return "what several people have to allow is allowed once"
        if verdict.edits and question.needed > 1:
            return "what several people have to allow is allowed or denied as it is, not edited"
        if verdict.approved is True:
            problem = self._careless(question, typed)
            if problem:
                return problem
        if self._approvers is None:
            return ""
        return _one_of(self._approvers).problem(
            question, verdict, (question.agent, *question.chain)
        )

    def _careless(self, question: Confirmation, typed: str | None) -> str:
        care = question.care
        left = question.asked + care.seconds - self._clock()
        if care.seconds and left > 0:
            return f"the question has to be read first: {left:.0f} seconds are left"
        if not care.retype:
            return ""
        wanted = next((one for one in question.arguments if one.name == care.retype), None)
        if wanted is None or typed is None or not _same(typed, wanted.plain, wanted.text):
            return f"type in the value of {care.retype!r}; it was not typed, or is another one"
        return ""

    def _case(self, ask: Callable[..., list[tuple[Any, ...]]], id: str) -> Case | None:  # noqa: A002
        for state, text, verdicts, expires, changed in ask(_GET, id):
            question = read_question(text)
            if question.id != id or expires != question.expires:
                raise TamperedError("the question is not the one that was asked", where=id)
            found = tuple(read_verdict(one) for one in json.loads(verdicts))
            return Case(question, self._as_it_is(state, expires), found, changed)
        return None

    def _as_it_is(self, state: str, expires: float) -> str:
        if state not in _STATES:
            raise TamperedError("the question is in no state that there is")
        late = state in {"open", "answered"} and self._clock() >= expires
        return "lapsed" if late else state

    def _in_state(self, state: str) -> list[Confirmation]:
        found: list[Confirmation] = []
        for id_, text in self.store.transact(lambda session: session.ask(_IN_STATE, state)):
            try:
                question = read_question(text)
            except TamperedError:
                continue
            if question.id == id_:
                found.append(question)
        return found

    def note_refused(self, verdict: Verdict, problem: str) -> None:
        """Write down in the log that an answer does not count."""
        if self._log is not None:
            self._log.enqueue(
                {
                    "v": 1,
                    "type": "answer.refused",
                    "time": int(self._clock() * 1e9),
                    "confirmation": verdict.confirmation,
                    "by": verdict.by,
                    "reason": problem,
                }
            )


def _move(session: Session, case: Case, state: str, now: float) -> None:
    verdicts = json.dumps([verdict_tree(one) for one in case.verdicts], allow_nan=False)
    session.ask(_MOVE, state, verdicts, now, case.question.id)


def _one_of(approvers: Approvers) -> Approvers:
    """Return the same approvers, of whom one is enough: the others have yet to answer."""
    alone = getattr(approvers, "alone", None)
    return approvers if alone is None else alone()


def _same(typed: str, plain: str, text: str) -> bool:
    """Say whether what was typed is the value: a text letter by letter, else as JSON has it."""
    if typed == text:
        return True
    try:
        value = json.loads(plain)
    except ValueError:
        return False
    return typed == value if isinstance(value, str) else typed.strip() == plain

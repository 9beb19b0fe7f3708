"""The mediation of one call, from its arguments to its outcome in the log.

It is written once, as a generator that does no I/O, for plain, async and
streaming tools alike::

    bind, freeze -> admit -> decide -> (ask -> decide again) -> intent -> body -> label -> outcome

It yields *needs* and is sent what meets them:

* :class:`Ask`: ask the gate; sent the answer, or a :class:`Failure`;
* :class:`Persist`: write to the log; sent ``None``, or a :class:`Failure`;
* :class:`Consult`: do a piece of work that may wait for a store; sent what it returns;
* a :class:`Frame`: start the body of the call in it, or go on with it; sent what
  the body returns or yields next, ``END`` after its last item;
* :class:`Emit`: give one labelled item of a stream to the consumer.

It raises to deny. Failures of gate and log are *sent*, as values, so that no
exception of theirs can be mistaken for an answer; what the body or the host
raises is *thrown*, and always goes on unchanged. See :mod:`checkrein.guards`
for the two drivers that serve it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from checkrein.calls import Binder, Call, Malformed, Unopened
from checkrein.confirmations import Confirmation, Verdict
from checkrein.errors import Denied, InDoubt, MisuseError, Suspended, Unrecorded
from checkrein.frames import Frame
from checkrein.lazy import logger
from checkrein.plans import FREE, NO_ROOM, Plan, Ticket
from checkrein.ports import Event, Gate, Log
from checkrein.ports import Frame as FramePort
from checkrein.rules import Decision, Finding, Outcome

if TYPE_CHECKING:
    from checkrein.facts import ToolFacts
    from checkrein.runs import Run

END: Final = object()
"""Sent for a frame when a stream has no further item."""


@final
class Ask(NamedTuple):
    """Ask *gate* about *confirmation*."""

    gate: Gate
    confirmation: Confirmation
    seconds: float


@final
class Persist(NamedTuple):
    """Write *event* to *log*; if *durable*, wait until it is."""

    log: Log
    event: Event
    durable: bool = False


@final
class Consult(NamedTuple):
    """Do *work*, which may wait for a store; if it *waits*, off the event loop."""

    work: Callable[[], Any]
    waits: bool = True


@final
class Emit(NamedTuple):
    """Give *item* to the consumer of the stream."""

    item: Any


class Failure(NamedTuple):
    """A gate or a log that could not do what was needed; *error* is its type's name."""

    error: str


class Left(Exception):
    """The consumer of a stream went away."""


class Edited(Exception):
    """A person wants the call made with other arguments."""

    def __init__(self, changes: Mapping[str, Any]) -> None:
        super().__init__("the call was edited")
        self.changes = changes


Need = Ask | Persist | Consult | Frame | Emit
Mediation = Generator[Need, Any, Any]

_ALLOW: Final = Outcome.ALLOW
_MOST_EDITS: Final = 8
_HOST_CONTROL: list[type[BaseException]] = [Suspended]


def register_control_flow(*kinds: type[BaseException]) -> None:
    """Let exceptions by which a host framework pauses or ends a run pass through gates.

    For integrations. Any other exception of a gate means no.
    """
    _HOST_CONTROL.extend(kinds)


def control_flow() -> tuple[type[BaseException], ...]:
    """Return the exceptions that are the host's control flow."""
    return tuple(_HOST_CONTROL)


def mediate(
    facts: ToolFacts, binder: Binder, frame: FramePort | None, args: tuple[Any, ...], kwargs: Any
) -> Mediation:
    """Mediate one call. Returns the labelled result; the driver does all the rest.

    Args:
        facts: what the tool is.
        binder: binds its arguments.
        frame: where the call is made, ``None`` outside any run.
        args: positional arguments, as given.
        kwargs: keyword arguments, as given.
    """
    frame = _frame_of(facts, frame)
    run = frame.run
    call = run.open_call(facts, frame)
    problem = run.freeze(call, binder, args, kwargs)
    if problem is not None:
        raise (yield from _malformed(run, call, problem))
    for _ in range(_MOST_EDITS):
        try:
            approved, ticket = yield from _get_leave(run, call, frame)
            break
        except Edited as edited:
            call = yield from _edited(run, call, edited.changes, frame)
    else:
        finding = Finding("gate.denied", Outcome.DENY, "the call was edited too often")
        raise (yield from _denial(run, call, (finding,)))
    ticket.spend()
    inner = run.enter_body(call, approved, frame)
    started = 0.0 if run.log is None else time.perf_counter()
    try:
        if run.orders.untold:  # whatever becomes of us, others must not trust what we write
            yield Consult(run.orders.tell)
        raw = yield inner
        if facts.streams:
            yield from _stream(run, call, frame, inner, raw)
            raw = None
        if call.files:
            call.close()  # what cannot be written to the end was not done
        result = run.flow.commit(call, raw, inner, frame)
    except BaseException as error:
        run.flow.note_failure(call, inner, frame)
        yield from _failed(run, call, error, started)
        if isinstance(error, Left):
            return None
        raise
    finally:
        inner.over = True
        if call.files:
            with suppress(Exception):  # the call has failed already
                call.close()
    if run.log is not None or call.answered:
        yield from _record(run, call, result, started)
    return result


def _frame_of(facts: ToolFacts, frame: FramePort | None) -> Frame:
    """Return the frame to call from.

    Raises:
        Denied: no run is active there.
    """
    if isinstance(frame, Frame):
        return frame.current if frame.over else frame
    logger().warning("denied %s: no run is active", facts.name)
    raise Denied(
        "no run is active here: call the tool inside `with Run(...)`, "
        "or hand out run.tools(...) where the context is lost",
        rule="run.none",
        tool=facts.name,
    )


def _failed(
    run: Run, call: Call, error: BaseException, started: float
) -> Generator[Need, Any, None]:
    """Write down how the body ended; what is in doubt stays so at the gate, too."""
    status = _status(error)
    yield from _write(run, run.entries.of_outcome(call, status, error, None, started))
    if call.answered and status != "in doubt":
        yield from _finish(run, call)


def _edited(
    run: Run, before: Call, changes: Mapping[str, Any], frame: Frame
) -> Generator[Need, Any, Call]:
    """Return the call that a person wants made in place of *before*: a new one, to be decided."""
    call = run.open_call(before.facts, frame)
    problem = run.edit(call, before, changes)
    names = sorted(changes)
    yield from _write(
        run, run.entries.plain("call.edited", call=before.id, became=call.id, arguments=names)
    )
    if problem is not None:
        raise (yield from _malformed(run, call, problem))
    return call


Leave = tuple[tuple[Finding, ...], Ticket]
"""What a person has overruled, and what is reserved."""


def _get_leave(run: Run, call: Call, frame: Frame) -> Generator[Need, Any, Leave]:
    """Return only if the body may start: allowed, reserved, and the intent written down."""
    ticket = FREE
    approved: tuple[Finding, ...] = ()
    try:
        plan = run.plan(call.facts)
        if plan.budgeted and run.waits:
            yield Consult(partial(run.admit, plan, call))
        else:
            run.admit(plan, call)
        if call.uses:
            ticket = Ticket(run.store, call.uses)
        while True:
            if plan.budgeted or run.waits:
                decision = yield from _decide(run, plan, call, frame, ticket, approved)
            else:
                decision = run.decide(plan, call, frame, approved)
            if decision.outcome is _ALLOW:
                break
            if run.overlooks(call, decision):
                approved += decision.findings
                break
            yield from _clear(run, call, decision, frame)
            approved += decision.findings
        if run.log is not None:
            yield from _declare(run, run.log, call, approved)
        if call.openers:
            yield from _open_files(run, call)
    except BaseException as error:
        try:
            yield from _give_back(run, ticket, error)
        finally:
            yield from _not_run(run, call, error)
        raise
    return approved, ticket


def _decide(
    run: Run,
    plan: Plan,
    call: Call,
    frame: Frame,
    ticket: Ticket,
    approved: tuple[Finding, ...],
) -> Generator[Need, Any, Decision]:
    """Decide as things stand, and reserve what the call uses unless it is denied."""
    yield from _hear(run)
    decision = run.decide(plan, call, frame, approved)
    if ticket is FREE or decision.outcome is Outcome.DENY:
        return decision
    now = run.now()
    if ticket.holds(now):
        return decision
    reserved = yield Consult(partial(ticket.reserve, now), run.waits)
    if not reserved:
        return NO_ROOM
    if not run.waits:
        return decision
    yield from _hear(run)  # what became of the run while the store was waited for counts
    return run.decide(plan, call, frame, approved)


def _hear(run: Run) -> Generator[Need, Any, None]:
    """Read stops and revocations anew where a store has to be waited for."""
    if run.waits and run.orders.stale:
        yield Consult(run.orders.refresh)


def _malformed(
    run: Run, call: Call, problem: Malformed | MisuseError
) -> Generator[Need, Any, Denied | MisuseError]:
    """Write down what is no call and an attempt all the same; return the error."""
    if isinstance(problem, Malformed):
        finding = Finding("call.malformed", Outcome.DENY, str(problem), problem.argument)
        return (yield from _denial(run, call, (finding,)))
    finding = Finding("call.misuse", Outcome.DENY, str(problem))
    yield from _write(run, run.entries.of_call("call.denied", call, (finding,)))
    return MisuseError(f"{call.facts.name}: {problem}")


def _give_back(run: Run, ticket: Ticket, error: BaseException) -> Generator[Need, Any, None]:
    if ticket is FREE:
        return
    try:
        if run.waits and ticket.held and not isinstance(error, GeneratorExit):
            yield Consult(ticket.give_back)
    finally:
        ticket.give_back()  # a second time changes nothing; a second cancellation may prevent one


def _clear(run: Run, call: Call, decision: Decision, frame: Frame) -> Generator[Need, Any, None]:
    """Return only if a person allows what the rules ask about."""
    if decision.outcome is Outcome.DENY:
        if any(one.rule == "permission.expired" for one in decision.findings):
            yield Consult(run.note_expiry, run.waits)
        raise (yield from _denial(run, call, decision.findings))
    yield from _ask(run, call, decision, frame)


def _ask(run: Run, call: Call, decision: Decision, frame: Frame) -> Generator[Need, Any, None]:
    """Ask whoever may say yes; return only on a valid yes."""
    leave = run.questions.covered(call, decision)
    if leave is not None:
        call.standing = leave.id
        yield from _write(run, run.entries.of_standing(call, leave))
        return
    gate = run.gate
    if gate is None:
        finding = Finding(
            "gate.unavailable",
            Outcome.DENY,
            "a person would have to confirm this, and the run has no gate",
        )
        raise (yield from _denial(run, call, (finding, *decision.findings)))
    question = yield Consult(partial(run.questions.ask, call, decision), _previews(call))
    asked = run.entries.of_call("confirmation.asked", call, decision.findings)
    asked |= {"confirmation": question.id, "bound_to": question.digest}
    asked |= {"letters": question.letters}
    yield from _write(run, asked)
    del asked  # ten thousand may wait here
    try:
        answer = yield Ask(gate, question, run.confirm_within)
    except BaseException as error:
        paused = isinstance(error, control_flow())
        if paused and frame.call is None:
            yield from _park(run, question, error)
            raise
        run.questions.abandon(question)
        if paused:
            # The enclosing body would be run again from its top.
            finding = Finding(
                "gate.unavailable", Outcome.DENY, "a call inside another call cannot wait"
            )
            raise (yield from _denial(run, call, (finding,))) from None
        raise
    if isinstance(answer, Verdict):
        call.answered = (*call.answered, question)
    if isinstance(answer, Verdict) and answer.edits:
        answer = answer._replace(edits=dict(answer.edits))  # one reading of it, here and below
    problem = run.questions.settle(question, answer, call, decision.findings)
    yield from _write(run, _answered(run, call, question, answer, problem))
    if problem is not None:
        raise (yield from _denial(run, call, (problem, *decision.findings)))
    if answer.edits:
        raise Edited(answer.edits)


def _park(run: Run, question: Confirmation, error: BaseException) -> Generator[Need, Any, None]:
    """Put a question off; where an equal call has put it off already, wait for that one."""
    kept = run.questions.park(question)
    if kept is question or not isinstance(error, Suspended):
        return
    error.confirmation = kept.id
    yield from _let_go(run, question)


def _previews(call: Call) -> bool:
    """Say whether asking takes a while: the tool's own preview is run, in a thread if possible."""
    return call.facts.preview is not None


def _finish(run: Run, call: Call) -> Generator[Need, Any, None]:
    """Tell a gate that keeps its answers what has become of the call: it is not in doubt."""
    for question in call.answered:
        yield from _let_go(run, question)


def _let_go(run: Run, question: Confirmation) -> Generator[Need, Any, None]:
    finish = getattr(run.gate, "finish", None)
    if finish is None:
        return
    try:
        yield Consult(partial(finish, question))
    except Exception as error:  # noqa: BLE001 (the gate will list the call as in doubt)
        logger().error("run %s: a gate kept an answer (%s)", run.id, type(error).__name__)


def _answered(
    run: Run, call: Call, question: Confirmation, answer: object, problem: Finding | None
) -> Event:
    verdict = answer if isinstance(answer, Verdict) else None
    said = "edited" if verdict is not None and verdict.edits else "approved"
    return run.entries.plain(
        "confirmation.answered",
        call=call.id,
        confirmation=question.id,
        answer=said if problem is None else problem.rule,
        by=verdict.by if verdict else "",
        reason=verdict.reason if verdict else getattr(answer, "error", type(answer).__name__),
        suspicious=bool(verdict and verdict.suspicious),
        **({"standing": list(verdict.standing)} if verdict and verdict.standing else {}),
    )


def _denial(run: Run, call: Call, findings: tuple[Finding, ...]) -> Generator[Need, Any, Denied]:
    """Write the denial down and return it, to be raised."""
    first = findings[0]
    logger().info("denied %s in run %s: %s", call.facts.name, run.id, first.rule)
    yield from _write(run, run.entries.of_call("call.denied", call, findings))
    return Denied(
        f"{call.facts.name} was denied ({first.rule}): {first.message}",
        rule=first.rule,
        tool=call.facts.name,
        call=call.id,
        arguments=tuple(dict.fromkeys(one.argument for one in findings if one.argument)),
    )


def _declare(
    run: Run, log: Log, call: Call, approved: tuple[Finding, ...]
) -> Generator[Need, Any, None]:
    """Write the intent down; of what changes the world it has to be durable."""
    wary = call.facts.wary
    failure = yield Persist(log, run.entries.of_call("call.allowed", call, approved), wary)
    if failure is not None:
        raise _unrecordable(run, call, failure)
    if not wary:
        return
    # Waiting for the disk takes time; what became of the run meanwhile counts.
    yield from _hear(run)
    problem = run.still_open(call)
    if problem is not None:
        raise (yield from _denial(run, call, (problem,)))


def _open_files(run: Run, call: Call) -> Generator[Need, Any, None]:
    """Open the files that the grant opens, while what is reserved can still be given back."""
    try:
        call.open()
    except Unopened as refused:
        finding = Finding("permission.argument", Outcome.DENY, str(refused), refused.argument)
        raise (yield from _denial(run, call, (finding,))) from None


def _record(run: Run, call: Call, result: Any, started: float) -> Generator[Need, Any, None]:
    """Write the outcome down. The effect stands even if that fails."""
    failure = None
    try:
        if run.log is not None:
            failure = yield Persist(
                run.log, run.entries.of_outcome(call, "done", None, result, started)
            )
    except BaseException:
        run.lock("the outcome of a call may not be recorded")
        raise
    if failure is not None:
        raise _unrecorded(run, call, failure, result)
    if call.answered:
        yield from _finish(run, call)


def _unrecordable(run: Run, call: Call, failure: Failure) -> Denied:
    _log_failed(run, failure)
    return Denied(
        f"{call.facts.name} was denied (log.unavailable): the intent could not be recorded",
        rule="log.unavailable",
        tool=call.facts.name,
        call=call.id,
    )


def _unrecorded(run: Run, call: Call, failure: Failure, result: Any) -> Unrecorded:
    _log_failed(run, failure)
    return Unrecorded(
        f"{call.facts.name} is done, and its outcome could not be recorded: do not retry",
        result=result,
        tool=call.facts.name,
        call=call.id,
    )


def _log_failed(run: Run, failure: Failure) -> None:
    logger().error("run %s: the log is unavailable (%s)", run.id, failure.error)
    run.lock("the log is unavailable")


def _not_run(run: Run, call: Call, error: BaseException) -> Generator[Need, Any, None]:
    """Write down why the body was never started, unless a denial already says so."""
    if call.answered and not isinstance(error, GeneratorExit):
        yield from _finish(run, call)
    if isinstance(error, Denied | GeneratorExit | Edited):
        return
    status = _status(error)
    if status == "in doubt":  # not so: the body was never started
        status = "cancelled"
    yield from _write(run, run.entries.of_outcome(call, status, error, None, time.perf_counter()))


def _stream(
    run: Run, call: Call, frame: Frame, inner: Frame, raw: Any
) -> Generator[Need, Any, None]:
    """Hand out labelled items until the body, or the leave to run it, ends."""
    while raw is not END:
        yield Emit(run.flow.commit(call, raw, inner, frame))
        yield from _hear(run)
        problem = run.still_open(call)
        if problem is not None:
            raise (yield from _denial(run, call, (problem,)))
        raw = yield inner


def _status(error: BaseException) -> str:
    if isinstance(error, Left):
        return "closed"
    if isinstance(error, control_flow()):
        return "suspended"
    known = isinstance(error, Exception) and not isinstance(error, InDoubt)
    return "raised" if known else "in doubt"


def _write(run: Run, event: Event) -> Generator[Need, Any, None]:
    """Write *event*; a log that fails locks the run, and the caller goes on."""
    if run.log is None:
        return
    failure: Failure | None = yield Persist(run.log, event)
    if failure is not None:
        _log_failed(run, failure)

"""The question before the call, for a framework that cannot be paused inside of one.

Such a framework asks beforehand whether a call needs approval, and pauses then. :func:`foresee`
decides about the call as it would be made now, and

* if a person has to confirm it, lays the question on the desk and parks it in the run, as a
  call that was put off does. The call itself, made when the framework is resumed, finds
  the question by its digest, and the answer with it;
* else does nothing: the call itself is allowed, is denied, or takes an answer that is there.

So nothing is allowed here, nothing is spent, and nobody waits: a gate with a desk is asked
through the desk, whatever its own patience. The call decides anew, and about what will run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checkrein.errors import ConfirmationPending, Denied
from checkrein.frames import receiver_of, spec_of
from checkrein.guards import frame_for
from checkrein.integrations.hosts import desk_of, question
from checkrein.rules import Outcome
from checkrein.standing import Leave

if TYPE_CHECKING:
    from collections.abc import Callable

    from checkrein.calls import Call
    from checkrein.confirmations import Confirmation
    from checkrein.frames import Frame
    from checkrein.rules import Decision
    from checkrein.runs import Run


def foresee(
    run: Run | None, tool: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the question that a call would wait for, ``None`` if it would not wait.

    Args:
        run: the run that is in force.
        tool: a guarded function.
        args: its positional arguments.
        kwargs: its arguments by name.
    """
    spec, desk = spec_of(tool), desk_of(run)
    if run is None or spec is None or desk is None:
        return None
    try:
        frame = frame_for(run)
    except Denied:
        return None
    call = run.open_call(spec.facts, frame)
    args = (*receiver_of(tool), *args)
    if frame.call is not None or run.freeze(call, spec.binder, args, kwargs) is not None:
        return None  # a call inside a call cannot wait, and what is no call is denied
    decision = _decision(run, call, frame)
    if decision is None:
        return None
    number = call.id
    asked = run.questions.ask(call, decision)
    try:
        if asked.call == number:  # it was not asked before
            _note(run, call, decision, asked)
        desk.put(asked)
        open_ = desk.state(asked.id) == "open"
    finally:
        kept = run.questions.park(asked)
    if kept is not asked:  # an equal call, foreseen at the same time, has asked
        desk.finish(asked)
        open_ = desk.state(kept.id) == "open"
    return question(run, ConfirmationPending("", confirmation=kept.id)) if open_ else None


def _decision(run: Run, call: Call, frame: Frame) -> Decision | None:
    """Return why a person has to be asked about *call*, ``None`` if nobody has to be."""
    plan = run.plan(call.facts)
    run.admit(plan, call)
    if run.waits and run.orders.stale:  # stops and revocations are in the store
        run.orders.refresh()
    decision = run.decide(plan, call, frame)
    if decision.outcome is not Outcome.ASK or run.overlooks(call, decision):
        return None
    if call.uses and not run.has_room(call.uses):
        return None  # looked at, not reserved: a call that is made meanwhile must not miss it
    leaves = (Leave(one.kept()) for one in run.questions.leaves)  # copies: no use is taken
    if any(one.take(call, run.grant_ids, decision.findings, run.now()) for one in leaves):
        return None
    return decision


def _note(run: Run, call: Call, decision: Decision, asked: Confirmation) -> None:
    """Write down that a person is asked; as everywhere, a log that fails locks the run."""
    if run.log is None:
        return
    entry = run.entries.of_call("confirmation.asked", call, decision.findings)
    about = {"confirmation": asked.id, "bound_to": asked.digest, "letters": asked.letters}
    try:
        run.log.enqueue(entry | about)
    except Exception:  # noqa: BLE001 (a log may fail in any way)
        run.lock("the log is unavailable")

"""``Run``: what is allowed now, and what has been seen so far.

A run is one conversation of one agent. It holds the grant, the gate and the
log, and one small mutable state behind one lock: whether untrusted content was
seen (*exposed*), whether private data is held, what trusted sources have said
(*evidence*), what a person has refused. Exposure never shrinks.

A run may wait without a process: ``suspend`` ends it here and gives its state as a sealed
text, ``Run.resume`` goes on with it elsewhere (:mod:`checkrein.suspension`).

A run is active in the context that entered it and in tasks and threads that
inherit that context; ``run.tools()`` binds it where a framework drops the
context. A run inside a run is its child: every grant of the chain must allow a
call, the child starts exposed if its parent is, inherits no evidence, and
exposes its parent when it closes exposed.

The lock is held to look, to reserve and to commit; never while a gate, a disk
or the user's code is waited for.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, TypeVar, cast

from checkrein.admission import Refusal, admit
from checkrein.advice import advise
from checkrein.calls import Binder, Call, Malformed, open_call
from checkrein.entries import Entries
from checkrein.errors import ConfigurationError, MisuseError
from checkrein.events import loggable_field
from checkrein.facts import Effect, ToolFacts
from checkrein.flow import Flow
from checkrein.forgetting import Erasable
from checkrein.frames import Frame, receiver_of, spec_of, why_unguarded
from checkrein.freezing import Unfreezable, encode, freeze, thaw
from checkrein.grants import Chain, Grant, note_expired, policy_of, was_seen_expired
from checkrein.isolation import PROCESS_MARKS, Isolation, RunMarks, notice
from checkrein.labels import Label, Origin, Source
from checkrein.lazy import logger
from checkrein.orders import expired, orders_of
from checkrein.origins import Piece, Trust
from checkrein.plans import NO_ROOM, Plan, Step, plan_grant
from checkrein.ports import ACTIVE
from checkrein.ports import Frame as FramePort
from checkrein.questions import Questions
from checkrein.rules import (
    Decision,
    Finding,
    Outcome,
    RunState,
    RunView,
    Terms,
    decide,
    expiry,
    standing,
)
from checkrein.setups import (
    both_pins,
    check_approvers,
    checked_links,
    default_store,
    installed_version,
    refuse_namesakes,
)
from checkrein.shadow import Overlooked, Shadow
from checkrein.untrusted import Untrusted, labelled, parts
from checkrein.waiting import off_loop

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from checkrein.isolation import Mode
    from checkrein.ports import Approvers, Clock, Gate, Ids, Log, Store, Use

F = TypeVar("F", bound=Callable[..., Any])

_DENIALS_THAT_LOCK: Final = 3
_APPROVER: Final = Label(frozenset({Source(Origin.USER_INPUT, "approver")}))

_FORKS = [0]
"""How often this process is the child of a fork; a run belongs to the process that made it."""


def _count_fork() -> None:
    _FORKS[0] += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class Run:
    """One guarded conversation of one agent. Use it with ``with`` or ``async with``.

    Args:
        agent: the name of the agent, for approvers and for the log.
        grant: what is allowed: a :class:`Grant`, or a delegated one with its holder.
        gate: who confirms; without one, what would be asked is denied.
        log: where everything is written down.
        exposed: the conversation starts with untrusted content in it.
        confirm_within: how long an answer is waited for.
        approvers: whose signed answers count, :class:`checkrein.approvers.Approvers`; the
            gate is believed if left out. A run inside a run has its parent's.
        pins: definitions that tools must have, by name; see ``definition_of``.
        store: counts the uses of budgets and holds stops and revocations; by default
            the one that the environment variable ``CHECKREIN_STORE`` names (a file,
            or a PostgreSQL URL), or else the memory of this process.
        isolation: how content is shown to the model; see :mod:`checkrein.isolation`.
            A run inside a run shows it as its parent does.
        subject: whose conversation it is, for a log that must be able to forget it: what the
            user says, and arguments declared ``erasable``, are sealed with a key of this name
            (`AuditLog.erase`). The name itself is not written.
        clock: tells the time, for tests.
        ids: makes ids, for tests.

    Example:
        >>> from checkrein import Grant, Run, allow, reads
        >>> @reads("shop.stock")
        ... def stock(item: str) -> int:
        ...     return 7
        >>> with Run(agent="clerk", grant=Grant(allow("shop.stock"))):
        ...     stock("nails")
        7
    """

    def __init__(
        self,
        *,
        agent: str,
        grant: Grant | Chain,
        gate: Gate | None = None,
        log: Log | None = None,
        exposed: bool = False,
        confirm_within: timedelta = timedelta(minutes=10),
        approvers: Approvers | None = None,
        pins: Mapping[str, bytes] | None = None,
        store: Store | None = None,
        isolation: Mode | Isolation = "delimit",
        subject: str = "",
        clock: Clock = time.time,
        ids: Ids = lambda: os.urandom(8).hex(),
    ) -> None:
        links = checked_links(agent, grant, gate, log, confirm_within)
        check_approvers(approvers)
        self.agent = agent
        self.id = ids()
        self.grant: Grant = links[-1]
        self.holders: Sequence[str] = grant.holders if isinstance(grant, Chain) else ()
        self.gate = gate
        self.log = log
        self.subject = subject
        self.marks = RunMarks(isolation=Isolation.of(isolation))
        self.parent: Run | None = None
        self.clock = clock
        self.confirm_within = confirm_within.total_seconds()
        self.approvers = approvers
        self.store: Store = default_store() if store is None else store
        self.orders = orders_of(self.store)
        self.waits = self.store.waits
        self._ids = ids
        self._lock = Lock()
        self._salt = os.urandom(16)
        self._numbers = itertools.count()
        self.links = links
        self._chain: tuple[Grant, ...] = links
        self.line: tuple[Run, ...] = (self,)  # this run, then the ones it runs inside
        self.grant_ids = [one.id for one in links]
        self.readable = (self.marks, PROCESS_MARKS)
        self._frame = Frame(self)
        self._opened_in = ""
        self._token: Token[Any] | None = None
        self._outer: FramePort | None = None
        self._enclosing: Frame | None = None  # the guarded body in which the run was opened
        self._forks = _FORKS[0]
        self._entered = False
        self._state = RunState(exposed=exposed)
        self.flow = Flow(self)
        self._terms = Terms(
            self._chain,
            self.flow.evidence,
            dict(pins or {}),
            vouching=frozenset({links[0].id}),
            agents=(agent,),
            runs=(self.id,),
        )
        self._latest = self.clock()
        self._ahead = self._latest - time.monotonic()
        self._plans: dict[ToolFacts, Plan] = {}
        self._shadow: Shadow | None = None
        self._denials = 0
        self._children = 0  # opened, ever
        self._resumes = ""  # the run that this one goes on with
        self._host: tuple[Any, ...] = ()  # the framework that was named last
        self.questions = Questions(self)
        self.entries = Entries(self)

    # -- life ------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._open()
        try:
            if self.log is not None:
                self.record("run.opened", durable=True, **self._opening())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._close():
            self.record("run.closed", durable=True, **self._closing())

    async def __aenter__(self) -> Self:
        self._open()
        try:
            if self.log is not None:
                await off_loop(
                    functools.partial(self.record, "run.opened", durable=True, **self._opening())
                )
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._close():
            await off_loop(
                functools.partial(self.record, "run.closed", durable=True, **self._closing())
            )

    def _open(self) -> None:
        with self._lock:
            if self._entered:
                raise MisuseError("a run is entered once: it belongs to one conversation")
            self._entered = True
        outer = self._outer = ACTIVE.get()
        if isinstance(outer, Frame):
            outer = outer.current
            # A run that was left in the wrong order is passed over, never what is around it.
            parent = next((run for run in outer.run.line if not run.closed), None)
            if parent is not None:
                if self._resumes:
                    raise MisuseError("a resumed run is entered outside any other run")
                self._become_child(parent)
            if parent is not None and parent is outer.run and outer.call_id:
                self._enclosing = outer
                self._opened_in = outer.call_id
                self._become(exposed=self.exposed or outer.tainted)
                if outer.tainted:
                    self._terms = replace(self._terms, vouching=parent._terms.vouching)
                self._taint_enclosing()
        if any(map(was_seen_expired, self._chain)):
            self._latest = inf  # a clock that is set back does not revive it
        self._become(opened=True)
        self._token = ACTIVE.set(self._frame)

    def _become_child(self, parent: Run) -> None:
        if self._shadow is not None and parent._shadow is None:
            raise MisuseError("a shadow run inside a run would overlook what that run denies")
        refuse_namesakes(self._chain, parent._chain)
        self._shadow = parent._shadow
        self.parent = parent
        parent._children += 1
        self.gate = parent.gate if self.gate is None else self.gate
        self.approvers = parent.approvers or self.approvers
        self.log = parent.log if self.log is None else self.log
        self.subject = self.subject or parent.subject
        self.store = parent.store  # the budgets of the chain are counted in one place
        self.orders, self.waits = parent.orders, parent.waits
        self.marks = parent.marks
        self._salt = parent._salt  # a call refused here is known as refused there
        self.flow.share(parent.flow)
        self._plans = {}
        self.readable = parent.readable
        self._latest = max(self._latest, parent._latest)  # time does not begin anew in a child
        self._ahead = max(self._ahead, parent._ahead)
        self._chain = (*parent._chain, *self._chain)
        ours, theirs = self._terms, parent._terms
        self._terms = replace(
            ours,
            chain=self._chain,
            pins=both_pins(ours.pins, theirs.pins),
            planned=theirs.planned,
            vouching=ours.vouching | theirs.vouching,
            agents=(*ours.agents, *theirs.agents),
            runs=(*ours.runs, *theirs.runs),
        )
        self.line = (self, *parent.line)
        self.grant_ids = [grant.id for grant in self._chain]
        self._become(
            exposed=self.exposed or parent.exposed,
            private=self.private or parent.private,
            unasked=self._state.unasked or parent._state.unasked,
        )

    def _become(self, **changes: Any) -> bool:
        """Change the state as one step; say whether that changed anything."""
        with self._lock:
            before, self._state = self._state, self._state._replace(**changes)
            return before != self._state

    def _close(self) -> bool:
        """End the run; say whether it was open."""
        self._leave()
        if not self._become(closed=True):
            return False
        if self.parent is not None:
            if self.exposed:
                self.parent.expose(f"run {self.id}")
            if self.private:
                self.parent.hold_private(unasked=self._state.unasked)
        return True

    def _leave(self) -> None:
        """Make the run inactive here. It may be closed in one context and left in another."""
        if self._token is None or ACTIVE.get() is not self._frame:
            return
        try:
            ACTIVE.reset(self._token)
        except (ValueError, RuntimeError):
            ACTIVE.set(self._outer)

    def _opening(self) -> dict[str, Any]:
        return {
            **({"resumes": self._resumes} if self._resumes else {}),
            "agent": self.agent,
            "grants": self.grant_ids,
            "permissions": [str(one) for one in self.grant.permissions],
            "policy": policy_of(self._chain),
            "version": installed_version(),
            "holders": list(self.holders),
            "parent": "" if self.parent is None else self.parent.id,
            "call": self._opened_in,
            "exposed": self.exposed,
        }

    def _closing(self) -> dict[str, Any]:
        return {
            "calls": self.entries.allowed,
            "exposed": self.exposed,
            "private": self.private,
            "invisible": self.marks.removed,  # characters that no model was shown
        }

    @property
    def state(self) -> RunState:
        """The state of the run, joined with that of the runs it is inside of."""
        if self._forks != _FORKS[0]:  # a new process has no run
            return self._state._replace(closed=True)
        if self.parent is None:
            return self._state
        states = [run._state for run in self.line]
        return self._state._replace(
            closed=any(one.closed for one in states),
            stopped=any(one.stopped for one in states),
            locked=any(one.locked for one in states),
            refused=states[-1].refused,
        )

    @property
    def resumes(self) -> str:
        """The id of the suspended run that this one goes on with, ``""`` for none."""
        return self._resumes

    @property
    def closed(self) -> bool:
        """Whether this run, or one it runs inside, has ended."""
        return self.state.closed

    @property
    def exposed(self) -> bool:
        """Whether the run has seen untrusted content."""
        return self._state.exposed

    @property
    def private(self) -> bool:
        """Whether the run holds private data."""
        return self._state.private

    @property
    def locked(self) -> bool:
        """Whether suspicion has locked this run, or one it runs inside."""
        return self.state.locked

    @property
    def stopped(self) -> bool:
        """Whether this run, or one it runs inside, was told to stop."""
        return self.state.stopped

    # -- what the application says ----------------------------------------------------------

    def instruct(self, text: str, *, data: Untrusted[Any] | None = None) -> str:
        """Take in the user's own words: they are trusted, and logged.

        Args:
            text: what the user typed. Never a model's output, nor anything pasted.
            data: what the user pasted from elsewhere; exposes the run.

        Returns:
            The text for the model: the words, and the data between markers.

        Raises:
            MisuseError: called inside a guarded body, or with untrusted text.
        """
        self._refuse_in_body("instruct")
        if type(text) is not str:
            raise MisuseError("instruct(text) takes the user's words as a str; the rest is data=")
        self.refuse_marked(text, "instruct")
        piece = Piece([text], Trust.USER)
        self.flow.learn(piece)
        said = Erasable(loggable_field(text), subject=self.subject) if self.subject else text
        self.record("instruction", text=said)
        if data is None:
            return text
        if not isinstance(data, Untrusted):
            raise MisuseError('data= takes Untrusted(value, source="clipboard") for example')
        box = labelled(data, Label(), self.marks)
        if self.marks.isolation.mode != "handle":
            self.expose(*box.label.names)
        if box.label.private:
            self.hold_private()
        return f"{text}\n\n{box.render()}"

    def trust(self, *values: Any) -> None:
        """Take in the developer's or the operator's configuration: trusted values.

        Raises:
            MisuseError: called inside a guarded body, or with untrusted values.
        """
        self._refuse_in_body("trust")
        for part in parts(values):
            if isinstance(part, str):
                self.refuse_marked(part, "trust")
            elif isinstance(part, Untrusted):
                raise MisuseError("trust() takes configuration; content is endorsed, not trusted")
        piece = Piece(values, Trust.SYSTEM)
        self.flow.learn(piece)
        self.record("trusted", values=len(values))

    def notice(self) -> str:
        """Return the paragraph for the system prompt that explains how content is shown."""
        return notice(self.marks.isolation)

    def follow(self, *steps: Step) -> str:
        """Fix the calls that may still be made, before anything untrusted is read.

        A plan is one more link of the chain of grants: it narrows, each step may be
        made once, and its arguments are those that were planned. What the agent
        chose before it had read a stranger's word is trusted to be where it belongs.

        Args:
            steps: made by :func:`checkrein.plans.planned`.

        Returns:
            The name of the plan in the log, with its SHA-256 in hex.

        Raises:
            MisuseError: the run is exposed, has a plan, or has runs inside it.
        """
        self._refuse_in_body("follow")
        if self.exposed or self._terms.planned is not None or self._children:
            raise MisuseError(
                "a plan is made once, before the run has read untrusted content and opened others"
            )
        grant, definitions = plan_grant(steps)
        self._chain = (*self._chain, grant)
        self.grant_ids = [one.id for one in self._chain]
        terms = self._terms
        self._terms = replace(
            terms,
            chain=self._chain,
            planned=definitions,
            vouching=terms.vouching | {grant.id},
        )
        self._plans = {}
        self.record("run.plan", steps=[str(one) for one in grant.permissions], plan=grant.id)
        return grant.id

    def expose(self, *sources: str) -> None:
        """Say that the conversation holds untrusted content. There is no way back."""
        if self._become(exposed=True):
            self._taint_enclosing()
            self._note("run.exposed", sources=list(sources))

    def _taint_enclosing(self) -> None:
        """The body that opened this run may get back what the run has seen."""
        if self._enclosing is not None and self.exposed:
            self._enclosing.tainted = self._enclosing.saw = True

    def hold_private(self, *, unasked: bool = False) -> None:
        """Say that the conversation holds private data.

        Args:
            unasked: it was read after untrusted content, and nobody trusted asked for it.
        """
        if not self._state.private or unasked > self._state.unasked:
            self._become(private=True, unasked=unasked or self._state.unasked)

    def stop(self, reason: str) -> None:
        """Deny every further call of this run and of those inside it."""
        if self._become(stopped=True):
            self._note("run.stopped", reason=reason)

    def lock(self, reason: str) -> None:
        """Deny every further call that changes state or reaches outside."""
        if self._become(locked=True):
            logger().warning("run %s is locked: %s", self.id, reason)
            self._note("run.locked", reason=reason)

    def _refuse_in_body(self, verb: str) -> None:
        frame = ACTIVE.get()
        inside = any(run._opened_in for run in self.line)
        if inside or (frame is not None and frame.call_id):
            raise MisuseError(f"{verb}() is for the application, not for the body of a tool")

    def trusts(self, value: Any) -> bool:
        """Say whether somebody trusted has said all of *value*, as far as the run knows."""
        try:
            return bool(self.flow.evidence.trust(freeze(value)))
        except Unfreezable:
            return False

    def refuse_marked(self, text: str, verb: str) -> None:
        """Refuse words that should be trusted and hold a marker of untrusted content."""
        if any(one.nonce in text or (one.letter and one.letter in text) for one in self.readable):
            raise MisuseError(f"{verb}() takes trusted words; this text holds untrusted content")

    # -- suspension ------------------------------------------------------------------------

    def suspend(self, key: bytes, *, context: str = "") -> str:
        """End the run here, and return its state, sealed, to go on with it elsewhere.

        Do it when no call is under way. What the model was told stays the host's to keep.

        Args:
            key: at least 32 random bytes, which neither the model nor its tools can read.
            context: what the state is good for, the id of the conversation for example.

        Raises:
            MisuseError: the run is not open, is inside another one or in a guarded body, is a
                shadow run, or holds something that has no text.
            ConfigurationError: the key is too short; or the grant has budgets and the run's
                store counts them in this process alone.

        Example:
            >>> from checkrein import Grant, Run, allow
            >>> grant, key = Grant(allow("mail.inbox")), bytes(range(32))
            >>> with Run(agent="clerk", grant=grant) as run:
            ...     state = run.suspend(key, context="conversation 7")
            >>> with Run.resume(state, key, grant=grant, context="conversation 7") as run:
            ...     run.agent
            'clerk'
        """
        from checkrein.suspension import sealed, state_of  # noqa: PLC0415 (few runs wait)

        self._refuse_in_body("suspend")
        if self.parent is not None or self._shadow is not None:
            raise MisuseError("a run inside another one, or a shadow run, is not suspended")
        if not self._state.opened or self.closed:
            raise MisuseError("suspend() is for a run that is open")
        if not self.waits and any(one.budgets for link in self.links for one in link.permissions):
            raise ConfigurationError(
                "the store of this process would forget what was used of the budgets: give the run "
                "one that lasts, Run(store=open_store('budgets.db'))"
            )
        self._become(closed=True)  # before we look: what begins now would be forgotten
        try:
            text = sealed(state_of(self), key, context)
        except BaseException:
            self._become(closed=False)
            raise
        self._leave()
        parked = [one.id for one in self.questions.parked]
        self.record("run.suspended", durable=True, calls=self.entries.allowed, confirmations=parked)
        return text

    @classmethod
    def resume(
        cls, state: str, key: bytes, *, grant: Grant | Chain, context: str = "", **more: Any
    ) -> Self:
        """Return a run that goes on where a suspended one has ended; enter it with ``with``.

        It is a new run in the log, which names the one that it goes on with; orders to stop
        that one stop this one. Tools that the first one knew must have the same definition.

        Args:
            state: what ``suspend`` has returned.
            key: the same key.
            grant: a grant that allows the same. It expires when the first one would have.
            context: the same context.
            more: the other arguments of :class:`Run`, but for what the state decides: the
                agent, ``exposed`` and ``isolation``.

        Raises:
            TamperedError: the state was changed, or is of another key or context.
            ConfigurationError: the grant is another one.
        """
        from checkrein import suspension  # noqa: PLC0415 (few runs wait)

        tree = suspension.unsealed(state, key, context)
        if more.keys() & {"agent", "exposed", "isolation"}:
            raise MisuseError("resume() takes agent, exposed and isolation from the state")
        run = cls(agent=tree["agent"], grant=grant, isolation=suspension.isolation_of(tree), **more)
        suspension.restore(run, tree)
        return run

    def known_definitions(self) -> dict[str, bytes]:
        """Return the definitions that tools have, or must have, by name."""
        return {facts.name: facts.definition for facts in self._plans} | dict(self._terms.pins)

    # -- shadow ----------------------------------------------------------------------------

    @classmethod
    def shadow(cls, *, agent: str, grant: Grant | Chain | None = None, **more: Any) -> Self:
        """Return a run that decides and logs, and lets every call pass all the same.

        To find out what an agent needs, before one writes its grant. It protects
        nothing, and asks nobody: what a person would confirm elsewhere passes, and is
        noted. See :mod:`checkrein.shadow` for what it does not overlook.

        Args:
            agent: the name of the agent.
            grant: what is allowed without being noted; by default nothing.
            more: the other arguments of :class:`Run`.

        Example:
            >>> from checkrein import Run, writes
            >>> @writes("shop.stock")
            ... def restock(item: str) -> int:
            ...     return 1
            >>> with Run.shadow(agent="clerk") as run:
            ...     restock("nails")
            1
            >>> print(run.proposed_grant())
            Grant(
                allow('shop.stock', budget(times=1), item=exactly('nails')),
            )
        """
        run = cls(agent=agent, grant=Grant() if grant is None else grant, **more)
        run._shadow = Shadow()
        return run

    @property
    def overlooked(self) -> tuple[Overlooked, ...]:
        """The calls of a shadow run that would not have been allowed, in order."""
        return () if self._shadow is None else self._shadow.overlooked

    def proposed_grant(self) -> str:
        """Return the least grant that covers the calls of a shadow run, as Python.

        The text shows the arguments of calls; read it before you use it. The
        names in it are those of :mod:`checkrein` and :mod:`checkrein.constraints`.

        Raises:
            MisuseError: the run is no shadow run.
        """
        if self._shadow is None:
            raise MisuseError("proposed_grant() is for a run made by Run.shadow(...)")
        return self._shadow.proposal()

    # -- tools -----------------------------------------------------------------------------

    def tools(self, *functions: F) -> list[F]:
        """Return *functions* bound to this run, for frameworks that drop the context.

        Raises:
            MisuseError: a function is not guarded, or guarded beneath something
                that is not a function.
            ConfigurationError: a plain tool can only be confirmed by a gate
                that has to be awaited.
        """
        bound: list[F] = []
        for function in functions:
            spec = spec_of(function)
            if spec is None:
                raise MisuseError(why_unguarded(function))
            self._report_gate(function, spec.facts)
            receiver = receiver_of(function)
            bound.append(cast("F", spec.bound_to(self, receiver)))
        return bound

    def _report_gate(self, function: Callable[..., Any], facts: ToolFacts) -> None:
        if facts.effect is not Effect.IRREVERSIBLE:
            return
        if self.gate is None:
            logger().warning("%s has no gate to ask and will be denied", facts.name)
        elif getattr(self.gate, "asynchronous", False) and not (
            inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        ):
            raise ConfigurationError(
                f"{facts.name} is a plain function and its gate has to be awaited: "
                "make the tool async, or use a gate that answers at once"
            )

    def explain(self, tool: Callable[..., Any], /, **arguments: Any) -> Decision:
        """Return what would be decided about a call, and why. Nothing runs, nothing is used.

        Raises:
            MisuseError: the tool is not guarded, or the arguments do not fit it.
        """
        spec = spec_of(tool)
        if spec is None:
            raise MisuseError(why_unguarded(tool))
        facts = spec.facts
        received = receiver_of(tool)
        given = {
            one.name: None for one in facts.parameters[len(received) :] if one.injected
        } | arguments
        call = Call("", facts, {}, "", self._salt)
        try:
            open_call(call, spec.binder.bind(received, given), self.readable)
        except Malformed as problem:
            finding = Finding("call.malformed", Outcome.DENY, str(problem), problem.argument)
            return Decision(Outcome.DENY, (finding,))
        self.orders.refresh()
        plan = self.plan(facts)
        self.admit(plan, call)
        decision = self.decide(plan, call, self._frame_here())
        if decision.outcome is not Outcome.DENY and not self.has_room(call.uses):
            decision = NO_ROOM
        return advise(decision, call, self._chain)

    def _frame_here(self) -> Frame:
        frame = ACTIVE.get()
        return frame if isinstance(frame, Frame) and frame.run is self else self._frame

    # -- what the mediation of a call needs --------------------------------------------------

    @property
    def opened_in(self) -> str:
        """The id of the guarded call in whose body the run was opened, ``""`` for none."""
        return self._opened_in

    @property
    def terms(self) -> Terms:
        """What the run was opened with, and has learnt."""
        return self._terms

    @property
    def top(self) -> Frame:
        """The frame of code that runs in this run, outside any guarded body."""
        return self._frame

    def open_call(self, facts: ToolFacts, frame: Frame) -> Call:
        """Return a new call of this run, without arguments."""
        outer = frame.call
        number = f"{self.id}-{next(self._numbers)}"
        return Call(number, facts, {}, "" if outer is None else outer.id, self._salt)

    def freeze(
        self, call: Call, binder: Binder, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Malformed | MisuseError | None:
        """Bind and freeze arguments into *call*; return what is wrong with them.

        Content that comes back by its marker exposes the run.
        """
        try:
            open_call(call, binder.bind(args, kwargs), self.readable)
        except (Malformed, MisuseError) as problem:
            return problem
        if call.returned and not self.exposed:
            self.expose(*{name for label in call.returned.values() for name in label.names})
        return None

    def edit(self, call: Call, before: Call, changes: Mapping[str, Any]) -> Malformed | None:
        """Freeze into *call* the arguments of *before*, changed by a person; return what is wrong.

        The names are those of the tool's own parameters; what the framework gave stays.
        """
        facts = call.facts
        for name in changes:
            one = facts.by_name.get(name)
            if one is None or one.injected:
                return Malformed(f"the edit names {name!r}, which is no argument of the tool", name)
        bound: dict[str, Any] = dict(before.injected)
        for name, value in before.arguments.items():
            if name not in changes:
                bound[name] = value if type(value) is Untrusted else thaw(value)
            elif facts.by_name[name].untrusted and not isinstance(changes[name], Untrusted):
                # Somebody who changes a letter has not vouched for the others.
                old = before.arguments[name]
                label = old.label | _APPROVER if type(old) is Untrusted else _APPROVER
                bound[name] = labelled(changes[name], label)
            else:
                bound[name] = changes[name]
        try:
            open_call(call, bound, self.readable)
        except Malformed as problem:
            return problem
        kept = {name: one for name, one in before.returned.items() if name not in changes}
        call.returned = {**call.returned, **kept}
        return None

    def plan(self, facts: ToolFacts) -> Plan:
        """Return what is prepared for a tool."""
        plan = self._plans.get(facts)
        if plan is None:
            plan = self._plans[facts] = Plan(self._terms, facts)
        return plan

    def admit(self, plan: Plan, call: Call) -> None:
        """Ask every grant of the chain about *call*, and normalise it on the way."""
        try:
            admit(plan.steps, call, self.has_room)
        except Refusal as problem:
            call.refusal = problem

    def has_room(self, uses: Sequence[Use]) -> bool:
        """Say whether budgets have room for *uses*, as things stand."""
        now = self.now()
        try:
            return all(self.store.taken(use, now) + use.amount <= use.limit for use in uses)
        except Exception:  # noqa: BLE001 (reserving it will say so)
            return False

    def now(self) -> float:
        """Return the time, in seconds since the epoch; it never runs backwards in a run."""
        latest = max(self.clock(), self._ahead + time.monotonic(), self._latest)
        self._latest = latest
        return latest

    def decide(
        self, plan: Plan, call: Call, frame: Frame, approved: Sequence[Finding] = ()
    ) -> Decision:
        """Decide about a call as things stand.

        The view is one snapshot: state is replaced as a whole, and evidence only
        grows. So nothing has to be locked; a budget is taken, or not, in one step.
        """
        return decide(plan.rules, call, self.view(frame), approved)

    def note_expiry(self) -> None:
        """Keep in mind, here and in the store, which grants were seen expired."""
        now = self.now()
        for grant in self._chain:
            if grant.expires is None or now < grant.expires:
                continue
            note_expired(grant)
            if grant.signed:  # it may be read again from its text, anywhere
                try:
                    self.store.post(expired(grant.id), reason=f"run {self.id}")
                except Exception as error:  # noqa: BLE001 (it is denied here all the same)
                    logger().error("expiry is not kept (%s)", type(error).__name__)

    def overlooks(self, call: Call, decision: Decision) -> bool:
        """Say whether a call that is not allowed may run all the same, in a shadow run."""
        return self._shadow is not None and self._shadow.overlooks(call, decision)

    def view(self, frame: Frame) -> RunView:
        """Return what the rules may know of the run, for a call from *frame*."""
        terms = self._terms
        now = self.clock()
        return RunView(
            now,
            now if terms.ends == inf else self.now(),
            self._state if self.parent is None and self._forks == _FORKS[0] else self.state,
            terms,
            self.orders.current(),
            None if frame.call is None else frame.tainted,
        )

    def still_open(self, call: Call) -> Finding | None:
        """Return what forbids a stream to go on, ``None`` for nothing."""
        view = self.view(self._frame)
        return next(iter((*standing(call, view), *expiry(call, view))), None)

    def refuse(self, digest: bytes, *, suspicious: bool) -> None:
        """Take in that a person has denied a call; suspicion, or the third denial, locks."""
        root = self.line[-1]  # a child run is no way to ask again
        with root._lock:
            root._state = root._state._replace(refused=root._state.refused | {digest})
            root._denials += 1
            many = root._denials >= _DENIALS_THAT_LOCK
        if suspicious:
            root.lock("a person called a call suspicious")
        elif many:
            root.lock("a person has denied several calls")

    # -- after the body ----------------------------------------------------------------------

    def enter_body(self, call: Call, approved: Sequence[Finding], outer: Frame) -> Frame:
        """Return the frame for the body of *call*, which is about to start."""
        if self._shadow is not None:
            self._shadow.note(call, approved)
        facts = call.facts
        # Nothing can be an attacker's where nothing was read, and nothing given that others wrote.
        doubt = self.exposed or facts.payload or call.returned or approved or outer.tainted
        inner = Frame(self, call, bool(doubt) and self.flow.is_tainted(call, approved, outer))
        if facts.changes:
            self.flow.taint_written(facts, inner, outer)
        return inner

    def take_endorsement(
        self, label: Label, value: object, *, reason: str, tool: object, parameter: str
    ) -> None:
        """Record an endorsement and, for a tool, remember the value for its parameter."""
        name = ""
        if tool is not None:
            spec = spec_of(tool)
            if spec is None or parameter not in spec.facts.by_name:
                raise MisuseError("endorse(tool=, parameter=) takes a guarded tool's parameter")
            name = spec.facts.name
            try:
                encoded = encode(freeze(value))
            except Unfreezable as problem:
                raise MisuseError(f"the endorsed value {problem}") from None
            self.flow.evidence.endorse(spec.facts.definition, parameter, encoded)
        self.record(
            "endorsement", sources=list(label.names), reason=reason, tool=name, parameter=parameter
        )

    # -- the log -----------------------------------------------------------------------------

    def record(self, kind: str, /, *, durable: bool = False, **fields: Any) -> None:
        """Write an entry; raises what the log raises."""
        if self.log is None:
            return
        event = self.entries.plain(kind, **fields)
        if durable:
            self.log.append(event)
        else:
            self.log.enqueue(event)

    def heard(self, kind: Literal["prompt", "output"], text: str, *, keep: bool = False) -> None:
        """Write down what a model was given, or has said: its size and a salted digest.

        For integrations. It trusts nothing, and a log that cannot take it locks the run.

        Args:
            kind: ``"prompt"`` or ``"output"``.
            text: all of it.
            keep: write the text down, too.
        """
        if self.log is not None:
            self._note(f"model.{kind}", **self.entries.said(text, keep=keep))

    def hosted(self, framework: str, version: str, **ids: object) -> None:
        """Write down in which framework the run is, and what that calls it; once, until it changes.

        For integrations. Nothing is decided by these ids: they are what the framework says.
        """
        told = (framework, version, *((name, str(one)) for name, one in ids.items()))
        if told != self._host:
            self._host = told
            self._note("host", **self.entries.of_host(framework, version, ids))

    def missed(self, tool: str) -> None:
        """Write down that a model asked for a tool that it is not offered.

        For integrations that see such calls: no guard does.
        """
        self._note("tool.unknown", **self.entries.of_unknown(tool))

    def _note(self, kind: str, /, **fields: Any) -> None:
        """Write down what has become of the run; that holds even if the log cannot take it."""
        try:
            self.record(kind, **fields)
        except Exception as error:  # noqa: BLE001 (a log may fail in any way)
            self._become(locked=True)
            name = type(error).__name__
            logger().error("run %s: the log is unavailable (%s)", self.id, name)

    def __copy__(self) -> Self:
        raise MisuseError("a run is not copied: its copy would know nothing of what becomes of it")

    def __reduce__(self) -> NoReturn:
        raise MisuseError("a run stays in its process")

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.agent!r}>"

"""LlamaIndex's agents: a mixin, an audit, guards for ready-made tools.

::

    agent = GuardedAgent(name="clerk", llm=llm, tools=[...])
    refuse_unguarded(agent)
    with talks.run("session-7", agent="clerk", grant=grant, log=log):
        handler = agent.run("...")
        asked = await waiting(handler)     # until it ends, or nothing goes on without an answer

A call that a person has to confirm waits in the framework's own way, for an event: an ``Answer``.
:func:`reply` makes one from a question of ``asked``, for ``handler.ctx.send_event(...)``; or
:func:`save` what there is, and go on in another process with :func:`resume`.

The framework has no hook around a tool call. The mixin overrides the one method through which it
calls tools. Should that be renamed one day, the guards go on deciding, and nobody is asked.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (the framework is not installed where types are checked)
from __future__ import annotations

import inspect
import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from checkrein.errors import Denied, MisuseError, Suspended
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted, fenced
from checkrein.integrations.hosts import Problem, answer
from checkrein.mediation import register_control_flow
from checkrein.untrusted import Untrusted

try:
    from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
    from llama_index.core.agent.workflow.multi_agent_workflow import handoff
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.memory import ChatMemoryBuffer
    from llama_index.core.tools import BaseTool, FunctionTool, ToolOutput, adapt_to_async_tool
    from llama_index.core.tools.function_tool import async_to_sync, sync_to_async
    from llama_index.core.workflow import Context
    from workflows.context.state_store import UnserializableKeyWarning
    from workflows.events import HumanResponseEvent, InputRequiredEvent, WorkflowIdleEvent
    from workflows.runtime.types.results import (
        AddWaiter,
        DeleteWaiter,
        StepWorkerStateContextVar,
        WaitingForEvent,
    )
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.llama_index needs LlamaIndex: pip install 'checkrein[llama_index]'"
    ) from missing

__all__ = [
    "Answer",
    "Guard",
    "GuardedAgent",
    "Question",
    "adopt",
    "answer",
    "audit",
    "questions",
    "refuse_unguarded",
    "reply",
    "resume",
    "save",
    "waiting",
]

if TYPE_CHECKING:
    from checkrein.runs import Run

register_control_flow(WaitingForEvent)  # how a step pauses, to be made again from its top

_VERSION: Final = hosts.installed("llama-index-core")
_OURS: Final = "checkrein"
_WRAPPERS: Final = {sync_to_async(len).__code__, async_to_sync(len).__code__}


class Question(InputRequiredEvent):
    """Event that a call waits for a person; ``question`` is what to show."""

    question: dict[str, Any]


class Answer(HumanResponseEvent):
    """Event that a person has answered; made by :func:`reply`."""

    asked: str
    ticket: str


class Guard:
    """Mixin that puts a run in force, says no to the model, asks people, and keeps a record.

    ``GuardedAgent`` is it with ``FunctionAgent``. Name it first in a class of your own, and where
    several agents work in an ``AgentWorkflow``, in theirs and in the workflow's, which calls
    the tools then.

    Args:
        more: the arguments of the framework's class.
        run: the run, for where the context does not carry one; the active one serves otherwise.
        abort: let ``Denied`` end the workflow, instead of telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Example:
        >>> class Team(Guard, AgentWorkflow): ...  # doctest: +SKIP
    """

    def __init_subclass__(cls, **more: Any) -> None:
        """Refuse a class whose other base stands before, so that nothing here would be reached."""
        super().__init_subclass__(**more)
        before = cls.__mro__[: cls.__mro__.index(Guard)]
        if any("_call_tool" in vars(one) and not issubclass(one, Guard) for one in before):
            raise MisuseError(f"class {cls.__name__}(...): Guard is named first")

    def __init__(
        self, *args: Any, run: Run | None = None, abort: bool = False, texts: bool = False,
        **more: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **more)
        self._given_run, self._abort, self._texts = run, abort, texts
        self._under_way: set[tuple[str, str]] = set()

    # -- tools -----------------------------------------------------------------------------

    async def _call_tool(self, ctx: Any, tool: Any, tool_input: dict[str, Any]) -> ToolOutput:
        """Make a tool call; a step of the workflow, which is made again when there is an answer."""
        asking = _Asking(ctx)
        me = (await _conversation(ctx), asking.asked)
        if me in self._under_way:  # a second answer has come while the first one is taken
            raise asking.again()
        self._under_way.add(me)
        try:
            output = await self._settled(ctx, tool, tool_input, asking)
        except (Denied, Suspended) as no:
            if self._abort:
                raise
            output = ToolOutput(
                content=hosts.tell(no),
                tool_name=tool.metadata.get_name(),
                raw_input=tool_input,
                raw_output=hosts.tell(no),
                is_error=True,
            )
        finally:
            self._under_way.discard(me)
        await asking.forget()
        return output

    async def _settled(
        self, ctx: Any, tool: Any, tool_input: dict[str, Any], asking: _Asking
    ) -> ToolOutput:
        with hosts.active(self._given_run) as run:
            while True:
                output: Any = await super()._call_tool(ctx, tool, tool_input)  # type: ignore[misc]
                if not isinstance(output.exception, Suspended):
                    break
                await hosts.asettle(run, output.exception, asking.ask)
        if isinstance(output.exception, Denied):
            raise output.exception
        return output

    # -- the model -------------------------------------------------------------------------

    async def take_step(self, ctx: Any, llm_input: Any, tools: Any, memory: Any) -> Any:
        """Call the model."""
        step: Any = super().take_step  # type: ignore[misc]
        run = hosts.current(self._given_run)
        if run is None:
            return await step(ctx, llm_input, tools, memory)
        run.hosted("llama_index", _VERSION, agent=getattr(self, "name", None))
        messages = [*llm_input, *await ctx.store.get(_scratch(self), default=[])]
        history = any(getattr(one, "role", "") not in {"user", "system"} for one in messages)
        hosts.begin(run, await _conversation(ctx), history=history)
        hosts.expose_unguarded(run, audit(tools))
        run.heard("prompt", hosts.text_of(messages), keep=self._texts)
        output = await step(ctx, llm_input, tools, memory)
        run.heard("output", hosts.text_of([output.response, *output.tool_calls]), keep=self._texts)
        return output


class GuardedAgent(Guard, FunctionAgent):
    """The framework's ``FunctionAgent`` with :class:`Guard`."""


def _scratch(agent: Any) -> str:
    """Return where an agent keeps what was said since the user's last message."""
    return str(getattr(agent, "scratchpad_key", None) or getattr(agent, "reasoning_key", _OURS))


async def _conversation(ctx: Any) -> str:
    """Return an id that goes with the framework's context, into what is saved of it, too."""
    known = await ctx.store.get(f"{_OURS}_id", default="")  # an edit copies the whole state
    if known:
        return str(known)
    async with ctx.store.edit_state() as state:
        state[f"{_OURS}_id"] = state.get(f"{_OURS}_id", "") or uuid.uuid4().hex
        return str(state[f"{_OURS}_id"])


# -- people --------------------------------------------------------------------------------


class _Asking:
    """What one call of the workflow asks.

    It waits under a name that stays when the step is made again, in another process too, and
    whatever the question is then: a name that nobody waits under any more would stay behind,
    and each restart would make the step once for it.
    """

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self._step = StepWorkerStateContextVar.get()
        self.asked = str(self._step.state.work_item_id)
        self._looked = False
        self._waiter: dict[str, Any] = {
            "waiter_id": f"{_OURS}-{self.asked}",
            "requirements": {"asked": self.asked},
            "timeout": None,
        }

    async def ask(self, shown: dict[str, Any]) -> dict[str, Any]:
        """Return the answer that is there, or pause the step."""
        shown = {**shown, "asked": self.asked}
        async with self._ctx.store.edit_state() as state:
            state[_OURS] = {**state.get(_OURS, {}), self.asked: shown}
        event = Question(question=shown)
        if not self._looked:
            said = await self._ctx.wait_for_event(Answer, event, **self._waiter)
            self._looked = True
            # Right after a restart the framework does not look for which call an answer is; and
            # one that it has saved, whoever wrote it there, was not given here.
            given = hosts.claim(said.ticket) if said.asked == self.asked else None
            if given is not None:
                return given
        self._ctx.write_event_to_stream(event)  # the framework shows nothing a second time
        raise self.again()

    def again(self) -> WaitingForEvent[Any]:
        """Return what pauses the step although an answer is there."""
        return WaitingForEvent(AddWaiter(event_type=Answer, waiter_event=None, **self._waiter))

    async def forget(self) -> None:
        """Take in that the call is over."""
        if self.asked in await self._ctx.store.get(_OURS, default={}):
            async with self._ctx.store.edit_state() as state:
                open_ = state.get(_OURS, {})
                state[_OURS] = {name: open_[name] for name in open_ if name != self.asked}
        # The answer may have come by the desk; the framework would wait on, and restart the step.
        self._step.returns.return_values.append(DeleteWaiter(waiter_id=self._waiter["waiter_id"]))


async def waiting(handler: Any) -> list[dict[str, Any]]:
    """Read the events of a run until it has ended, or waits; return the questions it waits for.

    Events that an application wants for itself, it reads with
    ``handler.stream_events(expose_internal=True)`` up to a ``WorkflowIdleEvent``, before.
    """
    if not handler.is_done():
        async for event in handler.stream_events(expose_internal=True):
            if isinstance(event, WorkflowIdleEvent):
                return await questions(handler.ctx)
        with suppress(Exception):  # is for whoever awaits the handler
            await handler
    return []


async def questions(ctx: Context) -> list[dict[str, Any]]:
    """Return the questions that are open in a run."""
    return list((await ctx.store.get(_OURS, default={})).values())


def reply(question: Mapping[str, Any], given: Mapping[str, Any]) -> Answer:
    """Return the event that answers a question; the answer itself stays in this process.

    Args:
        question: one of those that :func:`waiting` returns, or of the event :class:`Question`.
        given: an :func:`answer` to it.
    """
    return Answer(asked=str(question.get("asked")), ticket=hosts.hand_in(given))


async def save(ctx: Context) -> dict[str, Any]:
    """Return the state of a run that waits or has ended, with its memory, as JSON data.

    The framework's own ``ctx.to_dict()`` leaves the memory out, and a run without it fails.
    """
    memory = await ctx.store.get("memory", default=None)
    messages = [] if memory is None else await memory.aget_all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnserializableKeyWarning)  # of the memory
        context = ctx.to_dict()
    return {"context": context, "memory": [one.model_dump(mode="json") for one in messages]}


async def resume(agent: Any, saved: Mapping[str, Any], *, memory: Any = None, **more: Any) -> Any:
    """Go on with what :func:`save` has saved; return the handler of the run.

    It comes back when the calls that waited wait again, or have found an answer at the desk:
    before that the framework does not know which answer is for which call.

    Args:
        agent: the agent, made as before.
        saved: the state.
        memory: the memory, if the application keeps it itself; else a buffer of what was saved.
        more: further arguments of ``agent.run``: after a run that has ended, ``user_msg``.
    """
    if memory is None:
        messages = [ChatMessage.model_validate(one) for one in saved["memory"]]
        memory = ChatMemoryBuffer.from_defaults(chat_history=messages)
    ctx: Context = Context.from_dict(agent, saved["context"])
    waited = ctx.is_running
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnserializableKeyWarning)
        handler = agent.run(ctx=ctx, **more)
    await handler.ctx.store.set("memory", memory)  # in time: no step has begun
    await handler.ctx.store.set(_OURS, {})  # what is shown comes from the desk, not from the state
    if waited:
        await waiting(handler)
    return handler


# -- at start-up ---------------------------------------------------------------------------


def audit(agent_or_tools: Any) -> list[Problem]:
    """Return which tools of an agent, of a workflow of agents, or of a list, are not guarded.

    What a retriever would add is judged when the model is called.
    """
    tools = agent_or_tools
    if isinstance(tools, AgentWorkflow):
        tools = [one for agent in tools.agents.values() for one in agent.tools or ()]
    elif isinstance(getattr(tools, "tools", None), list | tuple) or hasattr(tools, "take_step"):
        tools = tools.tools or ()
    return hosts.judge(pair for one in tools for pair in _callables(one))


def refuse_unguarded(agent_or_tools: Any) -> None:
    """Refuse an agent, a workflow of agents, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(agent_or_tools))


def _callables(tool: Any) -> Iterator[tuple[Any, ...]]:
    """Return what a call of *tool* may run; of tools that we do not know, the tool itself."""
    if type(tool) is not FunctionTool:
        metadata = getattr(tool, "metadata", None)
        yield getattr(metadata, "name", None) or hosts.name_of(tool), tool
        return
    functions = {id(one): one for one in map(_inner, (tool.fn, tool.async_fn))}
    if list(functions.values()) == [handoff]:
        return  # the framework's own, which steers
    shown = partial(_arguments, tool)
    yield from ((str(tool.metadata.name), one, shown) for one in functions.values())


def _arguments(tool: Any) -> Collection[str]:
    """Return the names of the arguments that a model is shown."""
    names: Collection[str] = tool.metadata.get_parameters_dict().get("properties", {})
    return names


def _inner(function: Any) -> Any:
    """Return the function that the framework has made *function* of, if it has."""
    if getattr(function, "__code__", None) not in _WRAPPERS:
        return function
    return next(iter(inspect.getclosurevars(function).nonlocals.values()), function)


# -- tools that are not ours -----------------------------------------------------------------


def adopt(
    tool: BaseTool,
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> FunctionTool:
    """Return a ready-made tool with a guard in front: same name, description and schema.

    Args:
        tool: the tool. What it returns is taken as text.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    if not isinstance(tool, BaseTool):
        raise MisuseError("adopt(tool, ...) takes a LlamaIndex tool; decorate your own functions")
    runs = adapt_to_async_tool(tool)
    context = getattr(tool, "ctx_param_name", None)

    async def call(arguments: dict[str, Any]) -> Any:
        return (await runs.acall(**arguments)).content

    guarded = adopted(
        fenced(call, tool.metadata.get_name()),
        guard,
        name=tool.metadata.get_name(),
        description=tool.metadata.description,
        schema=tool.metadata.get_parameters_dict(),
        untrusted=untrusted,
        injected=[] if context is None else [context],
        result=result,
    )
    new = FunctionTool(async_fn=guarded, metadata=tool.metadata)
    new.requires_context, new.ctx_param_name = context is not None, context
    return new

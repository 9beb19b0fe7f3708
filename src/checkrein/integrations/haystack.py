"""Haystack: a guard for an ``Agent``, an audit, guards for ready-made tools.

::

    agent = Agent(chat_generator=generator, tools=[read_inbox, send_mail])
    Guard(agent)
    refuse_unguarded(agent)
    with talks.run("talk-7", agent="clerk", grant=grant, log=log):
        result = agent.run([ChatMessage.from_user("...")])
        asked = questions(result["messages"])

A denial is the framework's own failure of a tool, with our text in place of its own, which has
the arguments in it. A call that a person has to confirm lets the other calls of its turn be made,
and stops the agent before the model is called again, as any hook can: ``exit_reason`` is then
``"suspended"``. The messages are all there is to keep. They go back into ``agent.run``, in this
process or in another one, with ``hook_context=reply(answers)``: the calls that waited are made,
what came of them is put in their places, and the agent goes on.

In the messages is the id of a question, and no more. What is shown is what lies on the desk.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (the framework is not installed where types are checked)
from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, cast

from checkrein.errors import ConfigurationError, Denied, MisuseError, Suspended
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted, fenced
from checkrein.integrations.hosts import Problem, answer
from checkrein.untrusted import Untrusted
from checkrein.waiting import off_loop

try:
    from haystack.components.agents import Agent
    from haystack.components.agents.state import replace_values
    from haystack.components.agents.tool_calling import _get_func_params, _run_tool, _run_tool_async
    from haystack.dataclasses import ChatMessage, ChatRole
    from haystack.hooks.invocation import _run_hooks, _run_hooks_async
    from haystack.hooks.protocol import VALID_HOOK_POINTS
    from haystack.tools import Tool, Toolset
    from haystack.tools.errors import ToolInvocationError
    from haystack.tools.parameters_schema_utils import _is_state_annotation
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.haystack needs Haystack: pip install 'checkrein[haystack]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["Guard", "adopt", "answer", "audit", "questions", "refuse_unguarded", "reply"]

_VERSION: Final = hosts.installed("haystack-ai")
_KEY: Final = "checkrein"  # in the meta of a result that is to come, and in the hook context


class Guard:
    """Puts a run in force in an agent, says no to its model, asks people, and keeps a record.

    It changes the agent in place: it puts hooks around those that are there.

    Args:
        agent: the agent.
        run: the run, for where the context does not carry one; the active one serves otherwise.
        abort: let ``Denied`` end ``agent.run`` after the turn, instead of telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Raises:
        ConfigurationError: it is no agent, is guarded already, or lets errors of tools end it.

    Example:
        >>> Guard(agent)  # doctest: +SKIP
    """

    def __init__(
        self, agent: Any, run: Run | None = None, *, abort: bool = False, texts: bool = False
    ) -> None:
        self._agent, self._run, self._abort, self._texts = agent, run, abort, texts
        if not isinstance(agent, Agent):
            raise ConfigurationError("Guard(...) takes a Haystack Agent")
        if any(isinstance(one, _Hook) for point in agent.hooks.values() for one in point):
            raise ConfigurationError("an agent is guarded once")
        if agent.raise_on_tool_invocation_failure:
            raise ConfigurationError(
                "raise_on_tool_invocation_failure=True ends an agent that has to pause: leave it "
                "out, and use Guard(agent, abort=True) where a denial shall end it"
            )
        hooks = {point: list(agent.hooks.get(point, ())) for point in VALID_HOOK_POINTS}
        hooks["before_run"].append(_Hook(self._go_on, self._ago_on))
        hooks["before_llm"].append(_Hook(self._listen))
        hooks["before_tool"].insert(0, _Hook(self._hear))
        hooks["after_tool"].insert(0, _Hook(self._settle))
        hooks["on_exit"].insert(0, _Hook(self._hear))
        hooks["after_run"].append(_Hook(self._end))
        agent.hooks = hooks

    # -- tools -----------------------------------------------------------------------------

    @contextmanager
    def telling(self) -> Generator[None]:
        """Put the run in force around a call, and say no by the framework's own error."""
        try:
            with hosts.active(self._run):
                yield
        except (Denied, Suspended, ToolInvocationError) as failed:
            no: Any = failed
            while isinstance(no, ToolInvocationError):
                no = no.__cause__
            if not isinstance(no, Denied | Suspended):
                raise
            raise _Refused(no) from no

    def _settle(self, state: Any) -> None:
        """Look at what the calls of a turn have come to; let the agent stop where one waits."""
        run, messages = hosts.current(self._run), state.data["messages"]
        ending: Denied | Suspended | None = None
        for place in _results(messages):
            told = messages[place].tool_call_result
            if not isinstance(told.result, _Told):
                continue
            no, meta = told.result.no, {}
            if isinstance(no, Suspended) and run is not None and _shown(run, no.confirmation):
                meta = {_KEY: no.confirmation}
            elif self._abort:
                ending = ending or no
            messages[place] = ChatMessage.from_tool(str(told.result), told.origin, True, meta)
        if ending is not None:
            raise ending
        if _waiting(messages):
            state.set("stop_run", "suspended")

    # -- people ----------------------------------------------------------------------------

    def _go_on(self, state: Any) -> None:
        """Make the calls that wait, and put what comes of them where it belongs."""
        places = self._take(state)
        for place in places:
            (state.data["messages"][place],), _ = _run_tool(**_call(state, place))
        if places:
            _run_hooks(self._agent.hooks, "after_tool", state)

    async def _ago_on(self, state: Any) -> None:
        places = await off_loop(partial(self._take, state))
        for place in places:
            (state.data["messages"][place],), _ = await _run_tool_async(**_call(state, place))
        if places:
            await _run_hooks_async(self._agent.hooks, "after_tool", state)

    def _take(self, state: Any) -> list[int]:
        """Lay answers on the desk; return the places of the calls that wait."""
        run, messages = hosts.current(self._run), self._asked(state.data["messages"])
        places, answers = _waiting(messages), _given(state).get("answers", {})
        if places or answers:
            if run is None:
                raise MisuseError("an agent goes on where the run of the conversation is active")
            for one, given in answers.items():
                hosts.take(run, one, given)
            state.set("hook_context", {**state.data["hook_context"], _KEY: {}})
            places = [one for one in places if _shown(run, messages[one].meta[_KEY])]
        if places:
            state.set("messages", messages, handler_override=replace_values)
            self._guard_tools(state)
        self._know(state)
        return places

    def _asked(self, messages: list[Any]) -> list[Any]:
        """Return messages without prompts of the agent that were there, and are added once more."""
        if self._agent.user_prompt is not None:
            messages = messages[:-1]
        again = [one.is_from(ChatRole.SYSTEM) for one in messages[:2]] == [True, True]
        return messages[again and self._agent.system_prompt is not None :]

    # -- the model -------------------------------------------------------------------------

    def _guard_tools(self, state: Any) -> None:
        """Guard what the framework is about to offer: it calls the tools of this very list."""
        state.data["tools"][:] = [_guarded(one, self) for one in state.data["tools"]]

    def _know(self, state: Any, *, new: bool = True) -> None:
        """Take in a history: one that the run has not seen exposes it."""
        run = hosts.current(self._run)
        if run is not None:
            said = [one for one in state.data["messages"] if one.role in _SAYING]
            known = hashlib.sha256(_text(said).encode("utf-8", "surrogatepass")).hexdigest()
            hosts.begin(run, known, history=new and bool(said))

    def _listen(self, state: Any) -> None:
        """Take in what the model is given."""
        self._guard_tools(state)
        run = hosts.current(self._run)
        if run is not None and state.data.get("stop_run") is None:
            run.hosted("haystack", _VERSION)
            hosts.expose_unguarded(run, audit(state.data["tools"]))
            run.heard("prompt", _text(state.data["messages"]), keep=self._texts)

    def _hear(self, state: Any) -> None:
        """Take in what the model has said."""
        run, last = hosts.current(self._run), state.data["messages"][-1:]
        if run is not None and last and last[0].is_from(ChatRole.ASSISTANT):
            run.heard("output", _text(last), keep=self._texts)

    def _end(self, state: Any) -> None:
        """Say why the agent has ended: it may have had another reason, too."""
        self._know(state, new=False)
        if _waiting(state.data["messages"]):
            state.set("exit_reason", "suspended")


_SAYING: Final = frozenset({ChatRole.ASSISTANT, ChatRole.TOOL})


class _Hook:
    """What the framework takes as a hook."""

    def __init__(self, run: Callable[[Any], None], run_async: Any = None) -> None:
        self.run = run
        if run_async is not None:  # else the framework has a thread for it
            self.run_async = run_async

    def to_dict(self) -> dict[str, Any]:
        """Refuse: an agent that is loaded has to be guarded."""
        raise MisuseError("an agent is guarded in its process: guard it where it is loaded")


class _Told(str):
    """What a model is told about a call that did not run, and why it did not."""

    __slots__ = ("no",)
    no: Denied | Suspended


class _Refused(ToolInvocationError):
    """The framework's own error, without arguments; of which it keeps the text alone."""

    def __init__(self, no: Denied | Suspended) -> None:
        super().__init__(hosts.tell(no), tool_name=no.tool)
        self._told = _Told(hosts.tell(no))
        self._told.no = no

    def __str__(self) -> str:
        return self._told


class _Guarded(Tool):
    """Stands before a tool, and says no to the model. What decides is the tool's function."""

    def invoke(self, **given: Any) -> Any:
        """Make a call."""
        with self.guard.telling():
            return self.inner.invoke(**given)

    async def invoke_async(self, **given: Any) -> Any:
        """Make a call."""
        with self.guard.telling():
            return await self.inner.invoke_async(**given)


@cache
def _kind(kind: Any) -> Any:
    """Return a class of tools that say no: the framework looks at classes, so it is one below."""
    return type(kind.__name__, (_Guarded, kind), {})


def _guarded(tool: Any, guard: Guard) -> Any:
    if isinstance(tool, _Guarded):
        return tool
    made, kind = copy.copy(tool), cast("Any", type(tool))
    made.__class__ = _kind(kind)
    made.inner, made.guard = tool, guard
    return made


# -- people --------------------------------------------------------------------------------


def questions(messages: list[Any], run: Run | None = None) -> list[dict[str, Any]]:
    """Return the questions that the last messages of an agent leave open, as the desk has them.

    Args:
        messages: ``result["messages"]``.
        run: the run, where none is active.

    Raises:
        MisuseError: no run is in force.
    """
    here, asked = hosts.current(run), {}
    if here is None:
        raise MisuseError("questions are shown where the run of the conversation is active")
    for place in _waiting(messages):
        confirmation = messages[place].meta[_KEY]
        shown = _shown(here, confirmation)
        if shown:
            asked[confirmation] = shown
    return list(asked.values())


def reply(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the ``hook_context`` with which an agent goes on.

    Args:
        answers: by the id of the confirmation, each an :func:`answer`. A call that has none is
            made, too, and goes on waiting unless it was answered at the desk.
    """
    return {_KEY: {"answers": {one: dict(given) for one, given in answers.items()}}}


def _given(state: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = state.data["hook_context"].get(_KEY, {})
    return found


def _results(messages: list[Any]) -> range:
    """Return the places of the results after which nothing has been said."""
    place = len(messages)
    while place and messages[place - 1].tool_call_result is not None:
        place -= 1
    return range(place, len(messages))


def _waiting(messages: list[Any]) -> list[int]:
    return [one for one in _results(messages) if isinstance(messages[one].meta.get(_KEY), str)]


def _shown(run: Run, confirmation: str) -> dict[str, Any]:
    """Return a question, nothing if it lies on no desk."""
    with suppress(Suspended):
        return hosts.question(run, Suspended("", confirmation=confirmation))
    return {}


def _call(state: Any, place: int) -> dict[str, Any]:
    """Return what makes a call of the model's once more."""
    call = state.data["messages"][place].tool_call_result.origin
    again = ChatMessage.from_assistant(tool_calls=[call])
    return {
        "messages": [again],
        "state": state,
        "tools": state.data["tools"],
        "raise_on_failure": False,
    }


def _text(messages: list[Any]) -> str:
    return hosts.text_of([one.to_dict() for one in messages])


# -- at start-up ---------------------------------------------------------------------------


def audit(agent_or_tools: Any) -> list[Problem]:
    """Return which tools of an agent, or of a list, are not guarded.

    Toolsets of further classes, components, pipelines and agents that are tools are named as a
    whole; the tools of such a toolset are judged when a model is offered them.
    """
    return hosts.judge(_registered(getattr(agent_or_tools, "tools", agent_or_tools)))


def refuse_unguarded(agent_or_tools: Any) -> None:
    """Refuse an agent, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(agent_or_tools))


def _registered(tools: Any) -> Iterator[tuple[Any, ...]]:
    for one in [tools] if isinstance(tools, Toolset) else tools:
        tool = one.inner if isinstance(one, _Guarded) else one
        if type(tool) is Toolset:
            yield from _registered(tool.tools)
        elif type(tool) is Tool:
            both = [one for one in (tool.function, tool.async_function) if one is not None]
            shown = partial(tuple, tool.parameters.get("properties", {}))
            yield from ((tool.name, function, shown) for function in both)
        else:
            yield hosts.name_of(tool), tool


# -- tools that are not ours -----------------------------------------------------------------


def adopt(
    tool: Tool,
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> Tool:
    """Return a ready-made tool with a guard in front: same name, description and parameters.

    Args:
        tool: the tool, of any class. What it takes from the agent's state is not decided about.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
        ConfigurationError: it takes the whole state of the agent.
    """
    if not isinstance(tool, Tool):
        raise MisuseError("adopt(tool, ...) takes a Haystack Tool; decorate your own functions")
    if any(map(_is_state_annotation, _get_func_params(tool).values())):
        raise ConfigurationError(f"{tool.name} takes all of the agent's state, messages and all")

    def call(given: dict[str, Any]) -> Any:
        return tool.invoke(**given)

    async def acall(given: dict[str, Any]) -> Any:
        return await tool.invoke_async(**given)

    taken = set((tool.inputs_from_state or {}).values())
    made = partial(
        adopted,
        guard=guard,
        name=tool.name,
        description=tool.description,
        schema=tool.parameters,
        untrusted=untrusted,
        injected=sorted(taken - set(tool.parameters.get("properties", {}))),
        result=result,
    )
    return Tool(
        name=tool.name,
        description=tool.description,
        parameters=tool.parameters,
        function=None if tool.function is None else made(fenced(call, tool.name)),
        async_function=None if tool.async_function is None else made(fenced(acall, tool.name)),
        outputs_to_string=tool.outputs_to_string,
        inputs_from_state=tool.inputs_from_state,
        outputs_to_state=tool.outputs_to_state,
    )

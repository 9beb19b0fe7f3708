"""CrewAI: a guard for agents and crews, an audit, guards for ready-made tools.

::

    agent = Agent(role="clerk", goal="...", backstory="...", llm=llm, tools=[read_inbox, send_mail])
    guard = Guard(agent)
    refuse_unguarded(agent)
    with talks.run("talk-7", agent="clerk", grant=grant, log=log):
        output = guard.kickoff("...")

The framework's hooks are no place for a guard: one that raises is passed over. :class:`Guard`
stands around each tool and around the model instead. A denial is the framework's own
``ToolFailure``. Results are text, and are kept in no cache: what the framework has in its cache
it gives to any agent, and asks nobody.

A call that a person has to confirm lets the other calls of its turn be made, and ends
:meth:`Guard.kickoff` with :class:`~checkrein.errors.Suspended` before the model is called again.
``guard.questions`` are what is asked, ``guard.saved()`` is the conversation as text; another
process takes it up with ``guard.restore(text)``. ``guard.resume(answers)`` makes the calls that
waited, puts what came of them in their places, and goes on. A crew cannot be taken up in the
middle: its agents are told that the call waits, and go on.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (the framework is not installed where types are checked)
from __future__ import annotations

import asyncio
import inspect
import json
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field
from pydantic_core import to_jsonable_python

from checkrein.errors import ConfigurationError, Denied, MisuseError, Suspended
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted, fenced
from checkrein.integrations.hosts import Problem, answer
from checkrein.integrations.waiting_calls import WaitingCalls
from checkrein.mediation import register_control_flow
from checkrein.untrusted import Untrusted

try:
    with warnings.catch_warnings():  # its packages warn about the order of their imports
        warnings.simplefilter("ignore")
        from crewai import Agent, BaseLLM, Crew
        from crewai.hooks import HookAborted
        from crewai.tools import BaseTool
        from crewai.tools.base_tool import Tool
        from crewai.tools.structured_tool import CrewStructuredTool
        from crewai.tools.tool_failure import ToolFailure
        from crewai.utilities.string_utils import sanitize_tool_name
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.crewai needs CrewAI: pip install 'checkrein[crewai]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["Guard", "adopt", "answer", "audit", "refuse_unguarded"]

register_control_flow(HookAborted)  # how it ends a run on purpose

_VERSION: Final = hosts.installed("crewai")
_BESIDES: Final = (
    "memory",
    "knowledge",
    "knowledge_sources",
    "mcps",
    "apps",
    "skills",
    "a2a",
    "multimodal",
)
_DELEGATION: Final = frozenset({"delegate_work_to_coworker", "ask_question_to_coworker"})
_KEPT: Final = ("role", "content", "tool_calls", "tool_call_id", "name")


class Guard:
    """Puts a run in force in agents, says no to their models, asks people, and keeps a record.

    It changes an agent, or all of a crew, in place: their tools, and their models, of which each
    gets a copy that is listened to. Add no tool later.

    Args:
        agent_or_crew: an ``Agent``, or a ``Crew``.
        run: the run, for where the context does not carry one; the active one serves otherwise.
        abort: let ``Denied`` end the run after the turn, instead of telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Raises:
        ConfigurationError: an agent is guarded already, or has no model yet; or it is none.

    Example:
        >>> guard = Guard(Agent(llm=llm, tools=[send], **about))  # doctest: +SKIP
    """

    def __init__(
        self,
        agent_or_crew: Any,
        run: Run | None = None,
        *,
        abort: bool = False,
        texts: bool = False,
    ) -> None:
        self._top, self._run, self._abort, self._texts = agent_or_crew, run, abort, texts
        self._head: list[dict[str, Any]] = []  # up to what was asked of the agent
        self._tail: list[dict[str, Any]] = []  # what it has done since
        self._talk = 0  # counts what kickoff was given: each may have a history from elsewhere
        self._pausable = False
        self._waiting = WaitingCalls()
        self._ending: Denied | Suspended | None = None
        if not isinstance(agent_or_crew, Agent | Crew):
            raise ConfigurationError("Guard(...) takes an Agent or a Crew")
        agents = list(_agents(agent_or_crew))
        for one in agents:
            if isinstance(one.llm, _Heard) or not isinstance(one.llm, BaseLLM):
                raise ConfigurationError(f"{one.role}: an agent has a model, and is guarded once")
        self._tools: dict[int, _Guarded] = {}
        for one in agents:
            one.llm = _heard(one.llm, partial(self._listen, one))
            one.use_better_compaction = False  # it shows pieces of long results, without markers
        for one in [*agents, *getattr(agent_or_crew, "tasks", ())]:
            one.tools = [self._guarded(each) for each in one.tools or ()]

    # -- tools -----------------------------------------------------------------------------

    def _guarded(self, tool: Any) -> _Guarded:
        if isinstance(tool, _Guarded):
            return tool
        return self._tools.setdefault(id(tool), _guarded(tool, self._call))

    def _call(self, tool: Any, given: dict[str, Any]) -> Any:
        """Make a call: the guard decides. What the framework gets is text, or its own failure."""
        told = ""
        try:
            with hosts.active(self._run) as run:
                try:
                    result = tool.run(**given)
                    failed = isinstance(result, ToolFailure)
                    return result if failed else tool.format_output_for_agent(result)
                except Suspended as pending:
                    if run is not None:
                        text = f"{hosts.tell(pending)} ({pending.confirmation})"
                        about = {"tool": tool.name, "arguments": given, "told": text}
                        self._waiting.put_down(run, pending, **about)
                        told = text
                    raise
        except (Denied, Suspended) as no:
            pauses = bool(told) and self._pausable
            if self._abort or pauses:
                self._ending = no
            # A failure may end the run at once, before its other calls are in the conversation.
            return told if pauses else ToolFailure(message=told or hosts.tell(no))

    # -- the model -------------------------------------------------------------------------

    def _listen(self, agent: Any, messages: Any, tools: Any) -> Callable[[Any], object]:
        """Take in what a model is given; return what takes in what it says."""
        given = _listed(messages)
        ending = self._ending
        if ending is not None:
            self._ending = None
            self._tail = _after(self._head, given)
            raise HookAborted(hosts.tell(ending), source="checkrein") from ending
        run = hosts.current(self._run)
        if run is None:
            return bool  # nobody listens
        self._waiting.keep(run)
        run.hosted("crewai", _VERSION, agent=agent.role)
        history = any(one["role"] in {"assistant", "tool"} for one in given)
        hosts.begin(run, (self._talk, agent.id), history=history)
        hosts.expose_unguarded(run, [*audit(agent), *_unknown(agent, tools)])
        run.heard("prompt", hosts.text_of(given), keep=self._texts)
        return lambda said: run.heard("output", hosts.text_of(said), keep=self._texts)

    # -- conversations ---------------------------------------------------------------------

    def kickoff(self, messages: Any, **more: Any) -> Any:
        """Do as ``agent.kickoff`` does, and end where a person has to be asked.

        Raises:
            Suspended: a call waits.
            Denied: with ``abort=True``, a call was denied.
            MisuseError: this is for one agent, outside of an event loop.
        """
        self._talk += 1
        return self._go(messages, **more)

    def _go(self, messages: Any, **more: Any) -> Any:
        with self._conversing(messages):
            output = self._top.kickoff(messages, **more)
            if inspect.iscoroutine(output):
                output.close()
                raise MisuseError("in an event loop there is kickoff_async(...)")
            self._check(output)
        return output

    async def kickoff_async(self, messages: Any, **more: Any) -> Any:
        """Do as :meth:`kickoff` does, in an event loop."""
        self._talk += 1
        return await self._ago(messages, **more)

    async def _ago(self, messages: Any, **more: Any) -> Any:
        with self._conversing(messages):
            output = await self._top.kickoff_async(messages, **more)
            self._check(output)
        return output

    @contextmanager
    def _conversing(self, messages: Any) -> Generator[None]:
        self._refuse_crews()
        given = _listed(messages)
        last = max((place for place, one in enumerate(given) if one["role"] == "user"), default=-1)
        self._head, self._tail, self._ending = list(given[: last + 1]), [], None
        self._pausable = True
        try:
            yield
        except HookAborted as ended:
            if isinstance(ended.__cause__, Denied | Suspended):
                raise ended.__cause__ from None
            raise
        finally:
            self._pausable = False

    def _refuse_crews(self) -> None:
        if isinstance(self._top, Crew):
            raise MisuseError("a crew has its own kickoff, and is not taken up in the middle")

    def _check(self, output: Any) -> None:
        """End a conversation in which the model was not called again."""
        ending, self._ending = self._ending, None
        if ending is not None:
            self._tail = _after(self._head, output.messages)
            raise ending

    # -- people ----------------------------------------------------------------------------

    @property
    def questions(self) -> list[dict[str, Any]]:
        """The questions of the calls that wait, each once.

        Raises:
            MisuseError: they were restored, and no run is in force.
        """
        return self._waiting.questions(hosts.current(self._run))

    def saved(self) -> str:
        """Return the conversation and the calls that wait, as JSON text. Files are not in it."""
        head = [{name: one[name] for name in _KEPT if name in one} for one in self._head]
        tree = {"head": head, "tail": self._tail, "waiting": self._waiting.saved()}
        return json.dumps(to_jsonable_python(tree), ensure_ascii=False)

    def restore(self, text: str) -> None:
        """Take up a conversation that was :meth:`saved`, in place of this one."""
        tree = json.loads(text)
        self._talk += 1
        self._head, self._tail = tree["head"], tree["tail"]
        self._waiting.restore(tree["waiting"])

    def resume(self, answers: Mapping[str, Mapping[str, Any]], **more: Any) -> Any:
        """Make the calls that wait, and go on with :meth:`kickoff`.

        Args:
            answers: by the id of the confirmation, each an :func:`answer`. A call that has none
                is made, too, and goes on waiting unless it was answered at the desk.
            more: further arguments of ``agent.kickoff``.

        Raises:
            Suspended: a call is still waiting.
            Denied: with ``abort=True``, a call was.
            MisuseError: no run is in force.
        """
        self._settle(answers)
        return self._go([*self._head, *self._tail], **more)

    async def resume_async(self, answers: Mapping[str, Mapping[str, Any]], **more: Any) -> Any:
        """Do as :meth:`resume` does, in an event loop."""
        await asyncio.to_thread(self._settle, answers)
        return await self._ago([*self._head, *self._tail], **more)

    def _settle(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Make the calls that wait, and put what came of them where their refusals stand."""
        self._refuse_crews()
        run = hosts.current(self._run)
        if run is None:
            raise MisuseError("resume(...) is for where the run of the conversation is active")
        self._pausable = True
        try:
            with self._waiting.taken(run) as waiting:
                for one in waiting:
                    told = self._again(run, one, answers.get(one["confirmation"]))
                    for message in self._tail:
                        if one["told"] in str(message["content"]):
                            message["content"] = message["content"].replace(one["told"], told, 1)
                            break
        finally:
            self._pausable = False
        ending, self._ending = self._ending, None
        if ending is not None:
            raise ending

    def _again(self, run: Run, one: Mapping[str, Any], given: Any) -> str:
        """Lay an answer on the desk, and make its call; return what the model is told."""
        if given is not None:
            hosts.take(run, one["confirmation"], given)
        tools = {each.name: each.inner for each in self._tools.values()}
        try:
            result = self._call(tools[one["tool"]], one["arguments"])
        except Exception as error:  # noqa: BLE001 (as the framework: a model is told of any)
            return f"Error executing tool: {error}"
        return result.as_agent_message() if isinstance(result, ToolFailure) else str(result)


def _listed(messages: Any) -> list[dict[str, Any]]:
    """Return messages as a list; a text is what the user says."""
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)


def _after(head: Sequence[Mapping[str, Any]], messages: Iterable[Any]) -> list[dict[str, Any]]:
    """Return what an agent has done and read since it was asked; not what it was urged to."""
    asked = str(head[-1]["content"]) if head else ""
    found = list(messages)
    begins = [
        place
        for place, one in enumerate(found)
        if one["role"] == "user" and asked in str(one.get("content"))
    ]
    return [
        {name: one[name] for name in _KEPT if name in one}
        for one in found[max(begins, default=-1) + 1 :]
        if one["role"] in {"assistant", "tool"}
    ]


class _Heard:
    """Marks a model that is listened to."""


def _heard(llm: Any, listen: Callable[[Any, Any], Callable[[Any], object]]) -> Any:
    """Return a copy of a model: somebody listens to what it is given and says."""
    kind: Any = type(llm)

    class Heard(_Heard, kind):
        def call(self, messages: Any, tools: Any = None, *args: Any, **more: Any) -> Any:
            hear = listen(messages, tools)
            said = super().call(messages, tools, *args, **more)
            hear(said)
            return said

        async def acall(self, messages: Any, tools: Any = None, *args: Any, **more: Any) -> Any:
            hear = listen(messages, tools)
            said = await super().acall(messages, tools, *args, **more)
            hear(said)
            return said

    Heard.__name__, Heard.__qualname__ = kind.__name__, kind.__qualname__
    new = llm.model_copy()
    object.__setattr__(new, "__class__", Heard)
    return new


class _Guarded(BaseTool):
    """A tool whose calls go through a guard, and of which nothing is kept in a cache."""

    inner: Any = Field(exclude=True)
    make: Any = Field(exclude=True)

    def _run(self, **given: Any) -> Any:
        return self.make(self.inner, given)


def _guarded(tool: Any, make: Callable[[Any, dict[str, Any]], Any]) -> _Guarded:
    return _Guarded(
        name=tool.name,
        description=tool.description,
        args_schema=tool.args_schema,
        result_as_answer=tool.result_as_answer,
        max_usage_count=tool.max_usage_count,
        tool_failure_policy=tool.tool_failure_policy,
        cache_function=_never,
        inner=tool,
        make=make,
    )


def _never(_given: Any = None, _result: Any = None) -> bool:
    return False


# -- at start-up ---------------------------------------------------------------------------


def audit(agent_or_tools: Any) -> list[Problem]:
    """Return what an agent, a crew, or a list of tools may call or read, and nobody guards.

    Memory, knowledge, skills, apps and MCP servers of an agent are named: the framework makes
    tools, or words of the prompt, of them.
    """
    return hosts.judge(_registered(agent_or_tools))


def refuse_unguarded(agent_or_tools: Any) -> None:
    """Refuse an agent, a crew, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(agent_or_tools))


def _agents(agent_or_crew: Any) -> Iterator[Any]:
    if not isinstance(agent_or_crew, Crew):
        yield agent_or_crew
        return
    agents = [*agent_or_crew.agents, agent_or_crew.manager_agent]
    yield from {id(one): one for one in agents if one is not None}.values()


def _registered(agent_or_tools: Any) -> Iterator[tuple[Any, ...]]:
    if not isinstance(agent_or_tools, Agent | Crew):
        for one in agent_or_tools:
            yield from _callables(one)
        return
    agents = list(_agents(agent_or_tools))
    tasks = list(getattr(agent_or_tools, "tasks", ()))
    tools = {id(one): one for each in [*agents, *tasks] for one in each.tools or ()}
    for one in tools.values():
        yield from _callables(one)
    crew = [agent_or_tools] if isinstance(agent_or_tools, Crew) else []
    for each in [*agents, *crew]:
        found = ((name, vars(each).get(name)) for name in _BESIDES)  # to read some of them warns
        yield from ((name, one) for name, one in found if one)


def _callables(tool: Any) -> Iterator[tuple[Any, ...]]:
    """Return what a call of *tool* may run; of tools that we do not know, the tool itself."""
    kind = type(tool)
    if kind is _Guarded:
        yield from _callables(tool.inner)
    elif kind is Tool or kind is CrewStructuredTool:
        yield tool.name, tool.func, partial(tuple, tool.args_schema.model_fields)
    elif isinstance(tool, BaseTool) and kind.run is BaseTool.run and kind.arun is BaseTool.arun:
        yield tool.name, tool._run  # noqa: SLF001 (what a subclass is to define)
        if kind._arun is not BaseTool._arun:  # noqa: SLF001
            yield tool.name, tool._arun  # noqa: SLF001
    else:
        yield hosts.name_of(tool), tool


def _unknown(agent: Any, tools: Any) -> list[Problem]:
    """Return what a model is offered besides an agent's tools, and besides other agents."""
    names = [str(one.get("function", {}).get("name")) for one in tools or ()]
    known = {sanitize_tool_name(one.name) for one in agent.tools or ()} | _DELEGATION
    return [Problem(one, "the framework has added it") for one in names if one not in known]


# -- tools that are not ours -----------------------------------------------------------------


def adopt(
    tool: BaseTool,
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> Tool:
    """Return a ready-made tool with a guard in front: same name, description and schema.

    Args:
        tool: the tool. It is called through its own ``run``.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    if not isinstance(tool, BaseTool):
        raise MisuseError("adopt(tool, ...) takes a CrewAI tool; decorate functions of your own")

    def call(given: dict[str, Any]) -> Any:
        return tool.run(**given)

    guarded = adopted(
        fenced(call, tool.name),
        guard,
        name=tool.name,
        description=tool.description,
        schema=tool.args_schema.model_json_schema(),
        untrusted=untrusted,
        result=result,
    )
    return Tool(
        name=tool.name,
        description=tool.description,
        args_schema=tool.args_schema,
        func=guarded,
        result_as_answer=tool.result_as_answer,
        cache_function=_never,
    )

"""smolagents: a guard for its agents, tools of guarded functions, an audit, guards for other tools.

::

    agent = ToolCallingAgent(tools=[read_inbox, send_mail], model=model)  # or a CodeAgent
    guard = Guard(agent)
    refuse_unguarded(agent)
    with talks.run("talk-7", agent="clerk", grant=grant, log=log):
        agent.run("...")

The framework has no hooks around a call, so :class:`Guard` stands where an agent makes its calls:
around ``execute_tool_call``, or, where a model writes code, between that code and the tools. It
is run in a thread without the context of the agent, which is carried there. What it gets is
text: code that holds an ``Untrusted`` could take the content out.

It cannot be paused either. A call that a person has to confirm ends ``agent.run`` with
:class:`~checkrein.errors.Suspended` when its step is over. ``guard.questions`` are what is asked,
``guard.saved()`` is the memory of the agent and the calls that wait, as text; another process
takes it up with ``guard.restore(text)``. ``guard.resume(answers)`` makes the calls that waited,
adds what came of them to the memory, and goes on.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (the framework is not installed where types are checked)
from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import Context, copy_context
from functools import partial
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

from checkrein.errors import ConfigurationError, Denied, MisuseError, Suspended
from checkrein.frames import spec_of, why_unguarded
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted, fenced
from checkrein.integrations.hosts import Problem, answer
from checkrein.integrations.waiting_calls import WaitingCalls
from checkrein.untrusted import Untrusted

try:
    from PIL.Image import Image
    from smolagents import CodeAgent, MultiStepAgent, Tool, ToolCallingAgent
    from smolagents.agent_types import AgentAudio
    from smolagents.default_tools import FinalAnswerTool
    from smolagents.local_python_executor import (
        BASE_BUILTIN_MODULES,
        LocalPythonExecutor,
        PythonExecutor,
    )
    from smolagents.memory import ActionStep, PlanningStep, TaskStep, Timing, ToolCall
    from smolagents.models import ChatMessage, MessageRole, agglomerate_stream_deltas
    from smolagents.monitoring import AgentLogger, LogLevel
    from smolagents.tools import TypeHintParsingException, get_json_schema
    from smolagents.tools import tool as _their_tool
    from smolagents.utils import AgentError
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.smolagents needs smolagents: pip install 'checkrein[smolagents]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["Guard", "adopt", "answer", "audit", "refuse_unguarded", "tool"]

_VERSION: Final = hosts.installed("smolagents")
_GO_ON: Final = "Go on: the calls that waited for a person have been decided, see above."
_SPOKEN: Final = frozenset({"assistant", "tool-call", "tool-response"})


class Guard:
    """Puts a run in force in an agent, says no to its model, asks people, and keeps a record.

    It changes the agent, and the agents that this manages, in place. An agent serves one
    conversation at a time.

    Args:
        agent: a ``ToolCallingAgent`` or a ``CodeAgent`` whose code runs in this process.
        run: the run, for where the context does not carry one; the active one serves otherwise.
        abort: let ``Denied`` end ``agent.run`` after the step, instead of telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Raises:
        ConfigurationError: the agent is guarded already, runs code elsewhere, or is of another
            kind; or two agents have one name.

    Example:
        >>> guard = Guard(CodeAgent(tools=[send], model=model))  # doctest: +SKIP
    """

    def __init__(
        self, agent: Any, run: Run | None = None, *, abort: bool = False, texts: bool = False
    ) -> None:
        self._agent, self._run, self._abort, self._texts = agent, run, abort, texts
        self._waiting = WaitingCalls()
        self._ending: Denied | Suspended | None = None
        self._restored = 0  # how often a memory from elsewhere was taken up
        self._calls: dict[str, Callable[[str, Any], Any]] = {}
        found = list(_agents(agent))
        for one in found:
            _check(one)
        if len({_name(one) for one in found}) < len(found):
            raise ConfigurationError("two of the agents have one name")
        for one in found:
            self._attach(one)

    def _attach(self, agent: Any) -> None:
        """Stand where *agent* calls its model and its tools, and where its steps end."""
        agent.model = _Model(agent.model, partial(self._listen, agent))
        agent.step_callbacks.register(ActionStep, self._after)
        if isinstance(agent, CodeAgent):
            agent.python_executor = _Executor(agent.python_executor, partial(self._in_code, agent))

            def call(name: str, given: Any) -> Any:
                return {**agent.tools, **agent.managed_agents}[name](**given)

        else:
            call = agent.execute_tool_call
            agent.execute_tool_call = partial(self._execute, agent)
        self._calls[_name(agent)] = call

    # -- tools -----------------------------------------------------------------------------

    def _execute(self, agent: Any, name: str, given: Any) -> Any:
        """Make a call for an agent whose model emits them; a denial is a result."""
        if type(agent.tools.get(name)) is FinalAnswerTool:
            return self._calls[_name(agent)](name, given)
        try:
            return self._call(agent, name, given)
        except (Denied, Suspended) as no:
            return hosts.tell(no)

    def _in_code(self, agent: Any, name: str, tool: Any, here: Context) -> Callable[..., Any]:
        """Return what model-written code calls: it has no attributes to take anything from."""

        def called(*args: Any, **kwargs: Any) -> Any:
            run = here.copy().run(hosts.current, self._run)
            if run is not None and run.marks.isolation.mode == "handle":
                run.expose("model-written code, which can look into what a handle stands for")
            given = {**dict(zip(getattr(tool, "inputs", ()), args, strict=False)), **kwargs}
            if len(given) != len(args) + len(kwargs):
                raise TypeError(f"{name}() takes its arguments once each, by name or in order")
            return here.copy().run(self._call, agent, name, given)

        return _Closed(called)

    def _call(self, agent: Any, name: str, given: Any) -> Any:
        """Make a call: the guard decides. One that a person has to confirm is put down."""
        try:
            with hosts.active(self._run) as run:
                try:
                    return _rendered(self._calls[_name(agent)](name, given))
                except (AgentError, Denied, Suspended) as error:
                    no = error.__cause__ if isinstance(error, AgentError) else error
                    if not isinstance(no, Denied | Suspended):
                        raise
                below = name in agent.managed_agents  # where the call itself was put down
                if isinstance(no, Suspended) and run is not None and not below:
                    about = {"agent": _name(agent), "tool": name, "arguments": given}
                    self._waiting.put_down(run, no, **about)
                    self._ending = no
                raise no from None
        except (Denied, Suspended) as no:
            if self._abort:
                self._ending = no
            raise

    def _after(self, step: Any, agent: Any) -> None:
        """End ``run`` when a call waits, or was denied: what a callback raises comes out of it."""
        ending = self._ending
        if ending is None:
            return
        if agent is self._agent:
            self._ending = None
        agent.memory.steps.append(step)  # the framework does so after its callbacks
        raise ending

    # -- the model -------------------------------------------------------------------------

    def _listen(self, agent: Any, messages: Iterable[Any]) -> Callable[[Any], object]:
        """Take in what a model is given; return what takes in what it says."""
        if agent is self._agent:
            self._ending = None  # left by a run that something else has ended
        run = hosts.current(self._run)
        if run is None:
            return bool  # nobody listens
        self._waiting.keep(run)
        run.hosted("smolagents", _VERSION, agent=_name(agent) or type(agent).__name__)
        history = any(str(getattr(one.role, "value", one.role)) in _SPOKEN for one in messages)
        hosts.begin(run, (self._restored, id(agent)), history=history)
        hosts.expose_unguarded(run, audit(agent))
        prompt = json.dumps([_tree(one) for one in messages], ensure_ascii=False)
        run.heard("prompt", prompt, keep=self._texts)

        def hear(said: Any) -> None:
            run.heard("output", json.dumps(_tree(said), ensure_ascii=False), keep=self._texts)

        return hear

    # -- people ----------------------------------------------------------------------------

    @property
    def questions(self) -> list[dict[str, Any]]:
        """The questions of the calls that wait, each once.

        Raises:
            MisuseError: they were restored, and no run is in force.
        """
        return self._waiting.questions(hosts.current(self._run))

    def saved(self) -> str:
        """Return the agent's memory and the calls that wait, as JSON text.

        Images are not in it, nor is the memory of managed agents, which begin anew at each call.
        An argument that JSON has no room for, which code may have given, is there as text: the
        call is another one then.
        """
        steps = [kept for one in self._agent.memory.steps if (kept := _kept(one)) is not None]
        return json.dumps({"steps": steps, "waiting": self._waiting.saved()}, default=str)

    def restore(self, text: str) -> None:
        """Put a :meth:`saved` memory, and the calls that wait, in place of the agent's."""
        tree = json.loads(text)
        self._restored += 1
        self._agent.memory.steps = [_step(one) for one in tree["steps"]]
        self._waiting.restore(tree["waiting"])

    def resume(
        self, answers: Mapping[str, Mapping[str, Any]], task: str = _GO_ON, **more: Any
    ) -> Any:
        """Make the calls that wait, and go on with ``agent.run(task, reset=False, **more)``.

        Args:
            answers: by the id of the confirmation, each an :func:`answer`. A call that has none
                is made, too, and goes on waiting unless it was answered at the desk.
            task: what the agent is told to do.
            more: further arguments of ``agent.run``.

        Raises:
            Suspended: a call is still waiting.
            Denied: with ``abort=True``, a call was.
            MisuseError: no run is in force.
        """
        run = hosts.current(self._run)
        if run is None:
            raise MisuseError("resume(...) is for where the run of the conversation is active")
        calls, told = [], []
        try:
            with self._waiting.taken(run) as waiting:
                for one in waiting:
                    before = len(self._waiting)
                    text = self._again(run, one, answers.get(one["confirmation"]))
                    if len(self._waiting) == before:
                        calls.append(ToolCall(one["tool"], one["arguments"], one["confirmation"]))
                        told.append(text)
        finally:
            if calls:
                now = Timing(start_time=time.time(), end_time=time.time())
                made = ActionStep(0, now, tool_calls=calls, observations="\n".join(told))
                self._agent.memory.steps.append(made)
        ending, self._ending = self._ending, None
        if ending is not None:
            raise ending
        return self._agent.run(task, reset=False, **more)

    def _again(self, run: Run, one: Mapping[str, Any], given: Any) -> str:
        """Lay an answer on the desk, and make its call; return what the model is told."""
        agents = {_name(agent): agent for agent in _agents(self._agent)}
        if given is not None:
            hosts.take(run, one["confirmation"], given)
        try:
            return str(self._call(agents[one["agent"]], one["tool"], one["arguments"]))
        except (Denied, Suspended) as no:
            return hosts.tell(no)
        except Exception as error:  # noqa: BLE001 (as the framework: a model is told of any)
            return f"{type(error).__name__}: {error}"


class _Closed:
    """A function of which nothing can be read, not by ``str.format`` either."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _FUNCTION.__get__(self)(*args, **kwargs)

    def __getattribute__(self, name: str) -> Any:
        raise AttributeError(name)


_FUNCTION: Final[Any] = vars(_Closed)["_function"]


class _Model:
    """An agent's model, with somebody who listens to what it reads and says."""

    def __init__(
        self, model: Any, listen: Callable[[Iterable[Any]], Callable[[Any], object]]
    ) -> None:
        self._model, self._listen = model, listen

    def __getattr__(self, name: str) -> Any:
        one = getattr(self._model, name)
        return partial(self._stream, one) if name == "generate_stream" else one

    def generate(self, messages: Any, *args: Any, **more: Any) -> Any:
        """Call the model."""
        hear = self._listen(messages)
        said = self._model.generate(messages, *args, **more)
        hear(said)
        return said

    __call__ = generate

    def _stream(self, stream: Any, messages: Any, *args: Any, **more: Any) -> Iterator[Any]:
        hear, said = self._listen(messages), []
        for one in stream(messages, *args, **more):
            said.append(one)
            yield one
        hear(agglomerate_stream_deltas(said))


class _Executor(PythonExecutor):
    """Runs model-written code, which calls tools in the context of the agent, through a guard."""

    def __init__(self, inner: Any, called: Callable[[str, Any, Context], Any]) -> None:
        self._inner, self._called = inner, called
        self._tools: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # the framework looks into its state where code fails

    def send_variables(self, variables: dict[str, Any]) -> None:
        """Give the code variables."""
        self._inner.send_variables(variables)

    def send_tools(self, tools: dict[str, Any]) -> None:
        """Give the code tools."""
        self._tools = dict(tools)

    def __call__(self, code: str) -> Any:
        """Run code."""
        here = copy_context()
        self._inner.send_tools(
            {
                name: one if type(one) is FinalAnswerTool else self._called(name, one, here)
                for name, one in self._tools.items()
            }
        )
        return self._inner(code)


def _agents(agent: Any) -> Iterator[Any]:
    """Return an agent, and those that it manages."""
    seen: dict[int, Any] = {}
    waiting = [agent]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen[id(one)] = one
            waiting += getattr(one, "managed_agents", {}).values()
    yield from seen.values()


def _name(agent: Any) -> str:
    return agent.name or ""


def _check(agent: Any) -> None:
    """Refuse an agent whose calls would pass by."""
    if isinstance(getattr(agent, "model", None), _Model):
        raise ConfigurationError("an agent is guarded once")
    if not isinstance(agent, ToolCallingAgent | CodeAgent):
        raise ConfigurationError(f"how a {type(agent).__name__} calls its tools is not known here")
    if isinstance(agent, CodeAgent) and not isinstance(agent.python_executor, LocalPythonExecutor):
        raise ConfigurationError("code that runs elsewhere takes the tools there, without guards")


def _rendered(result: Any) -> Any:
    """Return a result with all that is not plain data as text: whatever holds content is."""
    if type(result) in {list, tuple}:
        return type(result)(_rendered(one) for one in result)
    if type(result) is dict:
        return {_rendered(name): _rendered(one) for name, one in result.items()}
    if result is None or type(result) in {str, int, float, bool}:
        return result
    return result if isinstance(result, Image | AgentAudio) else str(result)


def _tree(message: Any) -> Any:
    role = str(getattr(message.role, "value", message.role))
    calls = [[one.function.name, str(one.function.arguments)] for one in message.tool_calls or ()]
    content = message.content
    if isinstance(content, list):
        content = [str(one.get("text", one.get("type"))) for one in content]
    return [role, content, *calls]


# -- the memory --------------------------------------------------------------------------------


def _kept(step: Any) -> dict[str, Any] | None:
    """Return what a model reads of a step."""
    if isinstance(step, TaskStep):
        return {"task": step.task}
    if isinstance(step, PlanningStep):
        return {"plan": step.plan}
    if not isinstance(step, ActionStep):
        return None
    return {
        "number": step.step_number,
        "said": step.model_output,
        "calls": [[one.name, one.arguments, one.id] for one in step.tool_calls or ()],
        "read": step.observations,
        "error": None if step.error is None else str(step.error),
    }


def _step(kept: Mapping[str, Any]) -> Any:
    now = Timing(start_time=time.time(), end_time=time.time())
    if "task" in kept:
        return TaskStep(task=kept["task"])
    if "plan" in kept:
        message = ChatMessage(role=MessageRole.ASSISTANT, content=kept["plan"])
        return PlanningStep([], message, kept["plan"], now)
    error = kept["error"]
    return ActionStep(
        step_number=kept["number"],
        timing=now,
        model_output=kept["said"],
        tool_calls=[ToolCall(*one) for one in kept["calls"]] or None,
        observations=kept["read"],
        error=None if error is None else AgentError(error, AgentLogger(LogLevel.OFF)),
    )


# -- at start-up ---------------------------------------------------------------------------


def audit(agent_or_tools: Any) -> list[Problem]:
    """Return what an agent and those it manages, or a list of tools, may call and nobody guards.

    Packages that model-written code may import, beyond the framework's own list, are named,
    and so are functions that were added to it.
    """
    return hosts.judge(_registered(agent_or_tools))


def refuse_unguarded(agent_or_tools: Any) -> None:
    """Refuse an agent, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(agent_or_tools))


def _registered(agent_or_tools: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(agent_or_tools, MultiStepAgent):
        yield from (_callable(one) for one in agent_or_tools)
        return
    for agent in _agents(agent_or_tools):
        tools = getattr(agent, "tools", {}).items()
        yield from (
            (name, _callable(one)[1]) for name, one in tools if type(one) is not FinalAnswerTool
        )
        executor = getattr(agent, "python_executor", None)
        if executor is not None:
            yield from getattr(executor, "additional_functions", {}).items()
            modules = set(getattr(executor, "authorized_imports", ["*"]))
            yield from ((f"import {one}", one) for one in modules - set(BASE_BUILTIN_MODULES))


_FORWARD: Final = next(
    one
    for one in _their_tool.__code__.co_consts
    if isinstance(one, CodeType) and one.co_name == "wrapped_function"
)
"""What the framework's decorator puts around a function."""


def _callable(tool: Any) -> tuple[str, Any]:
    """Return what a call of *tool* runs; of tools that we do not know, the tool itself."""
    name = hosts.name_of(tool)
    if not isinstance(tool, Tool) or type(tool).__call__ is not Tool.__call__:
        return name, tool
    function = tool.forward
    if getattr(function, "__code__", None) is _FORWARD:
        function = function.__wrapped__
    return name, function


# -- tools ---------------------------------------------------------------------------------


class _Guarded(Tool):
    """A guarded function as a tool, or in front of one."""

    skip_forward_signature_validation = True  # it was read already, by the guard

    def __init__(self, function: Callable[..., Any], **about: Any) -> None:
        super().__init__()
        for name, one in {**about, "forward": function}.items():
            setattr(self, name, one)

    def to_dict(self) -> dict[str, Any]:
        """Refuse: where its code is sent, nobody guards it."""
        raise MisuseError(f"{self.name} is guarded in this process: its code cannot be sent away")


def tool(function: Callable[..., Any]) -> Tool:
    """Return a tool that calls a guarded function; it goes on top, as the framework's own does.

    That one cannot read ``Untrusted[...]``. A docstring that describes no arguments will do
    here: they are described by their names.

    Raises:
        MisuseError: the function is not guarded.
        ConfigurationError: it has to be awaited or iterated, or has something injected.

    Example:
        >>> @tool  # doctest: +SKIP
        ... @reads("mail.inbox")
        ... def read_inbox() -> Untrusted[str]: ...
    """
    spec = spec_of(function)
    if spec is None:
        raise MisuseError(why_unguarded(function))
    kinds = inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction
    if any(kind(function) for kind in kinds):
        raise ConfigurationError(f"{spec.facts.name}: smolagents neither awaits nor iterates tools")
    shown = inspect.signature(function)
    if any(one.injected and one.name in shown.parameters for one in spec.facts.parameters):
        raise ConfigurationError(f"{spec.facts.name}: nothing is injected by smolagents")
    returns = shown.return_annotation
    returns = get_args(returns)[0] if get_origin(returns) is Untrusted else returns
    try:
        schema = _schema(function, shown.replace(return_annotation=returns))
    except TypeHintParsingException:  # of the result, if not raised again
        schema = _schema(function, shown.replace(return_annotation=Any))
    return _Guarded(
        function,
        name=schema["name"],
        description=schema["description"],
        inputs=schema["parameters"]["properties"],
        output_type=schema.get("return", {}).get("type", "any"),
    )


def _schema(function: Callable[..., Any], shown: inspect.Signature) -> dict[str, Any]:
    """Return what the framework reads off a plain function of this name and signature."""

    def plain() -> None: ...

    hints = {one.name: one.annotation for one in shown.parameters.values()}
    if shown.return_annotation is not inspect.Signature.empty:
        hints["return"] = shown.return_annotation
    text = inspect.getdoc(function) or function.__name__
    if "Args:" not in text:
        text = "\n".join([f"{text}\n\nArgs:", *(f"    {one}: {one}" for one in shown.parameters)])
    plain.__name__, plain.__doc__, plain.__annotations__ = function.__name__, text, hints
    vars(plain)["__signature__"] = shown
    return dict(get_json_schema(plain)["function"])


def adopt(
    tool: Tool,
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> Tool:
    """Return a ready-made tool with a guard in front: same name, description and inputs.

    Args:
        tool: the tool.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    if not isinstance(tool, Tool):
        raise MisuseError("adopt(tool, ...) takes a smolagents Tool; decorate your own functions")
    required = [name for name, one in tool.inputs.items() if not one.get("nullable")]

    def call(given: dict[str, Any]) -> Any:
        return tool(**given)

    guarded = adopted(
        fenced(call, tool.name),
        guard,
        name=tool.name,
        description=tool.description,
        schema={"properties": tool.inputs, "required": required},
        untrusted=untrusted,
        result=result,
    )
    return _Guarded(
        guarded,
        name=tool.name,
        description=tool.description,
        inputs=tool.inputs,
        output_type=tool.output_type,
        output_schema=tool.output_schema,
    )

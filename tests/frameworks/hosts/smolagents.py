"""A scripted model in smolagents: tool calls and code, without and with the integration."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import smolagents
from smolagents import ChatMessage, CodeAgent, MessageRole, Model, Tool, ToolCallingAgent
from smolagents.agents import ToolOutput
from smolagents.memory import ActionStep, Timing
from smolagents.models import (
    ChatMessageStreamDelta,
    ChatMessageToolCall,
    ChatMessageToolCallFunction,
    ChatMessageToolCallStreamDelta,
    get_tool_json_schema,
)
from smolagents.monitoring import LogLevel

from checkrein import Run
from checkrein.errors import CheckreinError, Denied, Suspended
from checkrein.frames import spec_of
from checkrein.integrations.smolagents import Guard, tool
from frameworks.contract import Conversation, Told, Turn, wishes_of
from frameworks.integration import IntegratedHost, Turned

BREAK = "=== "
"""Stands before each result that model-written code prints."""


def text_of(message: ChatMessage) -> str:
    """Return the text of a message."""
    return "".join(one.get("text", "") for one in message.content or ())


class Scripted(Model):
    """A model that does what a script says, by tool calls."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        super().__init__(model_id="scripted")
        self.turns, self.schemas, self.told = turns, {}, []
        self.prompts: list[str] = []

    def wishes(self, messages: Sequence[ChatMessage], tools: Any) -> tuple[int, Sequence[Any]]:
        """Return the number of this turn, and what the model wants in it."""
        for one in tools or ():
            function = get_tool_json_schema(one)["function"]
            for name, each in function["parameters"]["properties"].items():
                if each["description"] == name:  # see described()
                    del each["description"]
            self.schemas[function.pop("name")] = function
        self.schemas.pop("final_answer", None)
        self.prompts.append("\n".join(text_of(one) for one in messages))
        number = sum(one.role == MessageRole.ASSISTANT for one in messages)
        return number, wishes_of(self.turns, number, list(self.told))

    def generate(self, messages: Any, *_: Any, tools_to_call_from: Any = None, **more: Any) -> Any:
        number, wishes = self.wishes(messages, tools_to_call_from)
        wanted = [(one.tool, one.arguments) for one in wishes] or [
            ("final_answer", {"answer": "done"})
        ]
        calls = [
            ChatMessageToolCall(
                ChatMessageToolCallFunction(json.dumps(given), name),
                f"{number:02}.{place}",
                "function",
            )
            for place, (name, given) in enumerate(wanted)
        ]
        return ChatMessage(MessageRole.ASSISTANT, content="", tool_calls=calls)

    def generate_stream(self, messages: Any, **more: Any) -> Iterator[ChatMessageStreamDelta]:
        said = self.generate(messages, **more)
        for place, one in enumerate(said.tool_calls or ()):
            piece = ChatMessageToolCallStreamDelta(place, one.id, one.type, one.function)
            yield ChatMessageStreamDelta(tool_calls=[piece])


class Writing(Scripted):
    """A model that does what a script says, by code."""

    def generate(self, messages: Any, *_: Any, **more: Any) -> Any:
        self.told[:] = printed(messages)
        _, wishes = self.wishes(messages, ())
        code = "\n".join(
            f"print({BREAK + one.tool!r})\ntry:\n    print({one.tool}(**{one.arguments!r}))\n"
            "except Exception as error:\n    print(error)"
            for one in wishes
        )
        code = code or 'final_answer("done")'
        return ChatMessage(MessageRole.ASSISTANT, content=f"<code>\n{code}\n</code>")

    def generate_stream(self, messages: Any, **more: Any) -> Iterator[ChatMessageStreamDelta]:
        yield ChatMessageStreamDelta(content=self.generate(messages).content)


def printed(messages: Sequence[ChatMessage]) -> list[Told]:
    """Return what code has printed of its results."""
    told = []
    for message in messages:
        if message.role == MessageRole.TOOL_RESPONSE:
            logs = text_of(message).partition("Last output from code snippet:")[0]
            for one in f"\n{logs}".split(f"\n{BREAK}")[1:]:
                name, _, text = one.partition("\n")
                told.append(Told(name, text.strip()))
    return told


class Calling(ToolCallingAgent):
    """An agent that tells its scripted model apart what it is told in one piece."""

    def process_tool_calls(self, chat_message: Any, memory_step: Any) -> Iterator[Any]:
        outputs = []
        for one in super().process_tool_calls(chat_message, memory_step):
            if isinstance(one, ToolOutput):
                outputs.append(one)
            yield one
        outputs.sort(key=lambda one: one.id)
        text = "\n".join(one.observation for one in outputs)
        assert text.rstrip("\n") == memory_step.observations
        told = [Told(one.tool_call.name, one.observation) for one in outputs]
        self.model.told.extend(one for one in told if one.tool != "final_answer")


class _Telling(Tool):
    """What an application does that wants a denial to be a result: the framework loses siblings."""

    skip_forward_signature_validation = True

    def __init__(self, inner: Tool) -> None:
        super().__init__()
        for name in ("name", "description", "inputs", "output_type"):
            setattr(self, name, getattr(inner, name))
        self.inner = inner

    def forward(self, **given: Any) -> Any:
        try:
            return self.inner(**given)
        except Denied as denied:
            return str(denied)


def let_out(step: Any, agent: Any) -> None:
    """Let our errors out: by itself the framework tells the model, with all arguments."""
    cause = None if step.error is None else step.error.__cause__
    if isinstance(cause, CheckreinError):
        raise cause


def made(one: Any) -> Tool:
    """Return a tool of a function: ours of a guarded one, the framework's of any other."""
    if isinstance(one, Tool):
        return one
    return smolagents.tool(described(one)) if spec_of(one) is None else tool(one)


def described(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose docstring says of each argument its name: the framework insists."""

    @functools.wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    names = [one for one in function.__annotations__ if one != "return"]
    plain.__doc__ = "\n".join(
        [f"{function.__doc__}\n\nArgs:", *(f"    {one}: {one}" for one in names)]
    )
    return plain


class SmolAgents(IntegratedHost):
    """Runs a ``ToolCallingAgent`` with a scripted model."""

    framework = "smolagents"
    distribution = "smolagents"
    unsupported = {"async": "the framework calls its tools without awaiting them"}

    def agent(
        self, turns: Sequence[Turn], offered: Sequence[Any], *, streamed: bool = False, **more: Any
    ) -> Any:
        """Return an agent with a scripted model."""
        return Calling(
            tools=[made(one) for one in offered],
            model=Scripted(turns),
            verbosity_level=LogLevel.OFF,
            stream_outputs=streamed,
            **more,
        )

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
    ) -> Conversation:
        """Let the scripted model take its turns."""
        tools = [made(one) for one in offered]
        if tell_denials:
            tools = [_Telling(one) for one in tools]
        return _talk(self.agent(turns, tools, step_callbacks=[let_out]), awaited=awaited)

    def chat(
        self,
        offered: Sequence[Any],
        *turns: Turn,
        run: Run | None = None,
        awaited: bool = False,
        abort: bool = False,
        streamed: bool = False,
        history: bool = False,
    ) -> Conversation:
        """Let the scripted model take its turns, under the guard."""
        turns = ((), *turns) if history else turns
        agent = self.agent(turns, offered, streamed=streamed)
        Guard(agent, run, abort=abort)
        return _talk(agent, awaited=awaited, streamed=streamed, history=history)

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or answer what is asked, with the agent's memory in a file."""
        file = directory / "memory.json"
        agent = self.agent(turns, offered)
        guard = Guard(agent)
        try:
            if answers is None:
                agent.run("go on")
            else:
                guard.restore(file.read_text(encoding="utf-8"))
                guard.resume(answers)
        except Suspended:
            pass
        file.write_text(guard.saved(), encoding="utf-8")
        told = [one for step in agent.memory.steps for one in _told_in(step)]
        return Turned(told, guard.questions)

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above ``@tool``."""
        return [guard(smolagents.tool(described(function)))]

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a tool with the framework's own decorator."""
        return smolagents.tool(described(function))

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return an agent with these tools."""
        return self.agent((), offered)


class Coding(SmolAgents):
    """Runs a ``CodeAgent`` whose scripted model writes code."""

    def agent(
        self, turns: Sequence[Turn], offered: Sequence[Any], *, streamed: bool = False, **more: Any
    ) -> Any:
        """Return an agent with a scripted model."""
        tools = [made(one) for one in offered]
        model = Writing(turns)
        model.wishes((), tools)  # it is shown them in words
        return CodeAgent(
            tools=tools,
            model=model,
            verbosity_level=LogLevel.OFF,
            stream_outputs=streamed,
            **more,
        )


def _told_in(step: Any) -> Iterator[tuple[str, str]]:
    """Return the results in a step of the memory; a call that was put off has none."""
    calls = (getattr(step, "tool_calls", None) or ()) if isinstance(step, ActionStep) else ()
    read = step.observations.split("\n") if len(calls) > 1 else [getattr(step, "observations", "")]
    for call, text in zip(calls, read, strict=False):
        if call.name != "final_answer" and "waits for somebody to confirm it" not in text:
            yield call.name, text


def _talk(
    agent: Any, *, awaited: bool = False, streamed: bool = False, history: bool = False
) -> Conversation:
    """Run an agent to its end."""
    if history:
        welcome = ActionStep(0, Timing(0.0, 0.0), model_output="welcome")
        agent.memory.steps.append(welcome)

    def run() -> Any:
        if streamed:
            *_, last = agent.run("go on", reset=not history, stream=True)
            return last.output
        return agent.run("go on", reset=not history)

    async def aside() -> Any:  # as the framework advises: it blocks
        return await asyncio.to_thread(run)

    assert (asyncio.run(aside()) if awaited else run()) == "done"
    stored = json.dumps(agent.memory.get_full_steps())
    return Conversation(list(agent.model.told), agent.model.schemas, stored)


HOST = SmolAgents()
CODE = Coding()

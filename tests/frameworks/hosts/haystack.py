"""A scripted model in a Haystack agent, without and with the integration."""

from __future__ import annotations

import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # before the framework is imported

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from haystack import component
from haystack.components.agents import Agent
from haystack.dataclasses import ChatMessage, StreamingChunk, ToolCall
from haystack.tools import Tool, tool
from haystack.tools.errors import ToolInvocationError

from checkrein import Run
from checkrein.errors import CheckreinError, Denied
from checkrein.integrations.haystack import Guard, questions, reply
from frameworks.contract import Conversation, Told, Turn, wishes_of
from frameworks.integration import IntegratedHost, Turned

WAITS = "waits for somebody to confirm it"

logging.getLogger("haystack").setLevel(logging.CRITICAL)  # it logs each failure of a tool


def told_in(messages: Sequence[Any]) -> list[Told]:
    """Return the tool results in *messages*."""
    results = [one.tool_call_result for one in messages if one.tool_call_result is not None]
    return [Told(one.origin.tool_name, str(one.result)) for one in results]


@component
class Scripted:
    """A model that does what a script says, and remembers what it was shown and told."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.turns, self.schemas, self.read = turns, {}, []

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage],
        tools: list[Tool] | None = None,
        streaming_callback: Any = None,
        generation_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        return {"replies": [self._say(messages, tools)]}

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        messages: list[ChatMessage],
        tools: list[Tool] | None = None,
        streaming_callback: Any = None,
        generation_kwargs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        return {"replies": [self._say(messages, tools)]}

    def _say(self, messages: list[ChatMessage], tools: Any) -> ChatMessage:
        for one in tools or ():
            spec = dict(one.tool_spec)
            self.schemas[spec.pop("name")] = spec
        self.read = list(messages)
        number = sum(one.is_from("assistant") for one in messages)
        calls = [
            ToolCall(one.tool, dict(one.arguments), id=f"{number}.{place}")
            for place, one in enumerate(wishes_of(self.turns, number, told_in(messages)))
        ]
        if calls:
            return ChatMessage.from_assistant(tool_calls=calls)
        return ChatMessage.from_assistant("done")


class Telling(Tool):
    """What an application does about denials: the framework's own text has the arguments."""

    def invoke(self, **given: Any) -> Any:
        try:
            return super().invoke(**given)
        except ToolInvocationError as failed:
            raise _plain(failed) from None

    async def invoke_async(self, **given: Any) -> Any:
        try:
            return await super().invoke_async(**given)
        except ToolInvocationError as failed:
            raise _plain(failed) from None


def _plain(failed: ToolInvocationError) -> ToolInvocationError:
    no = failed.__cause__
    return ToolInvocationError(str(no), failed.tool_name) if isinstance(no, Denied) else failed


def made(one: Any) -> Tool:
    """Return the framework's tool of a function."""
    return one if isinstance(one, Tool) else tool(one)


def agent_of(turns: Sequence[Turn], offered: Sequence[Any], **more: Any) -> Agent:
    """Return an agent with a scripted model."""
    return Agent(chat_generator=Scripted(turns), tools=[made(one) for one in offered], **more)


class Haystack(IntegratedHost):
    """Runs an ``Agent`` with a scripted model."""

    framework = "haystack"
    distribution = "haystack-ai"

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
    ) -> Conversation:
        """Let the scripted model take its turns."""
        tools = list(map(made, offered))
        if tell_denials:
            tools = [Telling(**vars(one)) for one in tools]
        agent = agent_of(turns, tools, raise_on_tool_invocation_failure=not tell_denials)
        try:
            return talk(agent, awaited=awaited)
        except ToolInvocationError as failed:
            cause = failed.__cause__
            raise cause if isinstance(cause, CheckreinError) else failed from None

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
        agent = agent_of(((), *turns) if history else turns, offered)
        Guard(agent, run, abort=abort)
        return talk(agent, awaited=awaited, streamed=streamed, history=history)

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or answer what is asked, with the messages in a file."""
        file = directory / "messages.json"
        agent = agent_of(turns, offered)
        Guard(agent)
        if answers is None:
            result = agent.run([ChatMessage.from_user("go on")])
        else:
            result = agent.run(loaded(file.read_text("utf-8")), hook_context=reply(answers))
        file.write_text(saved(result["messages"]), encoding="utf-8")
        told = [(one.tool, one.text) for one in told_in(result["messages"])]
        return Turned([one for one in told if WAITS not in one[1]], questions(result["messages"]))

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above ``@tool``."""
        return [guard(tool(function))]

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a tool with the framework's own decorator."""
        return tool(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return an agent with these tools."""
        return agent_of((), offered)


def saved(messages: Sequence[ChatMessage]) -> str:
    """Return messages as text."""
    return json.dumps([one.to_dict() for one in messages], ensure_ascii=False)


def loaded(text: str) -> list[ChatMessage]:
    """Return messages that were saved."""
    return [ChatMessage.from_dict(one) for one in json.loads(text)]


def talk(
    agent: Agent, *, awaited: bool = False, streamed: bool = False, history: bool = False
) -> Conversation:
    """Run an agent to its end; a stream has the same results in it as the conversation."""
    begin = [ChatMessage.from_assistant("welcome")] if history else []
    messages = [*begin, ChatMessage.from_user("go on")]
    chunks: list[StreamingChunk] = []

    async def take(chunk: StreamingChunk) -> None:
        chunks.append(chunk)

    if awaited:
        callback = take if streamed else None
        result = asyncio.run(agent.run_async(messages, streaming_callback=callback))
    else:
        result = agent.run(messages, streaming_callback=chunks.append if streamed else None)
    assert result["last_message"].text == "done"
    told = told_in(result["messages"])
    if streamed:
        results = [one.tool_call_result for one in chunks if one.tool_call_result is not None]
        assert [one.result for one in results] == [one.text for one in told]
    script: Any = agent.chat_generator
    assert told == told_in(script.read)
    return Conversation(told, script.schemas, saved(result["messages"]))


HOST = Haystack()

"""A scripted model in a CrewAI agent, without and with the integration."""

from __future__ import annotations

import os

# Before the framework is imported: nothing is sent anywhere, and nothing is asked.
os.environ |= {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TESTING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "OTEL_SDK_DISABLED": "true",
}

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crewai import Agent, BaseLLM, Crew, Task
from crewai.hooks import HookAborted
from crewai.tools import BaseTool, tool
from crewai.tools.base_tool import Tool
from crewai.tools.tool_failure import ToolFailure

import checkrein.integrations.crewai  # noqa: F401 (its import of the framework is quiet)
from checkrein import Run
from checkrein.errors import CheckreinError, Denied, Suspended
from checkrein.integrations.crewai import Guard
from frameworks.contract import Conversation, Told, Turn, wishes_of
from frameworks.integration import IntegratedHost, Turned

WAITS = "waits for somebody to confirm it"


def told_in(messages: Sequence[Mapping[str, Any]]) -> list[Told]:
    """Return the tool results in *messages*."""
    return [Told(one["name"], str(one["content"])) for one in messages if one["role"] == "tool"]


class Script:
    """What a scripted model does, and what it was shown and told."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.turns, self.schemas, self.read = turns, {}, []
        self.failed: list[Exception] = []


class Scripted(BaseLLM):
    """A model that does what a script says, by function calls."""

    script: Any

    def supports_function_calling(self) -> bool:
        return True

    def get_context_window_size(self) -> int:
        return 1_000_000

    def call(self, messages: Any, tools: Any = None, *_: Any, **more: Any) -> Any:
        script = self.script
        if script.failed:  # see _Failing
            raise HookAborted("failed") from script.failed[0]
        for one in tools or ():
            function = dict(one["function"])
            script.schemas[function.pop("name")] = _untitled(function)
        script.read = list(messages)
        number = sum(one["role"] == "assistant" for one in messages)
        wishes = wishes_of(script.turns, number, told_in(messages))
        calls = [
            {
                "id": f"{number}.{place}",
                "type": "function",
                "function": {"name": one.tool, "arguments": json.dumps(one.arguments)},
            }
            for place, one in enumerate(wishes)
        ]
        return calls or "done"


def _untitled(tree: Any) -> Any:
    """Return a schema without the titles that the framework makes of names."""
    if isinstance(tree, dict):
        kept = {
            name: one for name, one in tree.items() if not isinstance(one, str) or name != "title"
        }
        return {name: _untitled(one) for name, one in kept.items()}
    return [_untitled(one) for one in tree] if isinstance(tree, list) else tree


class _Failing(Tool):
    """What an application does about errors: by itself the framework tells the model any."""

    script: Any
    tell: bool

    def run(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().run(*args, **kwargs)
        except CheckreinError as error:
            if self.tell and isinstance(error, Denied):
                return ToolFailure(message=str(error))
            self.script.failed.append(error)
            raise


def made(one: Any) -> BaseTool:
    """Return the framework's tool of a function."""
    return one if isinstance(one, BaseTool) else tool(one)


def agent_of(script: Script, offered: Sequence[Any], **more: Any) -> Agent:
    """Return an agent with a scripted model."""
    return Agent(
        role="desk",
        goal="Look after the mail.",
        backstory="You are a desk.",
        llm=Scripted(model="scripted", script=script),
        tools=[made(one) for one in offered],
        max_iter=30,
        **more,
    )


class CrewAI(IntegratedHost):
    """Runs an ``Agent`` with a scripted model."""

    framework = "crewai"
    distribution = "crewai"

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
    ) -> Conversation:
        """Let the scripted model take its turns."""
        script = Script(turns)
        tools = []
        for one in map(made, offered):
            about = {name: getattr(one, name) for name in ("name", "description", "args_schema")}
            about |= {"func": one.func, "result_schema": one.result_schema}
            tools.append(_Failing(script=script, tell=tell_denials, **about))
        agent = agent_of(script, tools)
        try:
            return _talk(script, agent, agent.kickoff_async if awaited else agent.kickoff)
        except HookAborted as aborted:
            raise aborted.__cause__ or aborted from None

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
        script = Script(((), *turns) if history else turns)
        agent = agent_of(script, offered)
        if streamed:
            return _stream(script, agent, run, awaited)
        guard = Guard(agent, run, abort=abort)
        return _talk(
            script, agent, guard.kickoff_async if awaited else guard.kickoff, history=history
        )

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or answer what is asked, with the conversation in a file."""
        file, script = directory / "talk.json", Script(turns)
        guard = Guard(agent_of(script, offered))
        try:
            if answers is None:
                guard.kickoff("go on")
            else:
                guard.restore(file.read_text(encoding="utf-8"))
                guard.resume(answers)
        except Suspended:
            pass
        saved = guard.saved()
        file.write_text(saved, encoding="utf-8")
        read = script.read if not guard.questions else json.loads(saved)["tail"]
        told = [(one.tool, one.text) for one in told_in(read) if WAITS not in one.text]
        return Turned(told, guard.questions)

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above ``@tool``."""
        return [guard(tool(function))]

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a tool with the framework's own decorator."""
        return tool(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return an agent with these tools."""
        return agent_of(Script(()), offered)


def _talk(script: Script, agent: Agent, kickoff: Any, *, history: bool = False) -> Conversation:
    """Run an agent to its end."""
    messages: Any = "go on"
    if history:
        messages = [
            {"role": "assistant", "content": "welcome"},
            {"role": "user", "content": "go on"},
        ]

    async def run() -> Any:
        return await kickoff(messages)

    awaited = asyncio.iscoroutinefunction(kickoff)
    output = asyncio.run(run()) if awaited else kickoff(messages)
    assert output.raw == "done"
    return Conversation(told_in(script.read), script.schemas, json.dumps(output.messages))


def _stream(script: Script, agent: Agent, run: Run | None, awaited: bool) -> Conversation:
    """Run an agent in a crew, whose stream is read to its end."""
    task = Task(description="go on", expected_output="done", agent=agent)
    crew = Crew(agents=[agent], tasks=[task], stream=True)
    Guard(crew, run)

    async def read() -> Any:
        streaming = await crew.kickoff_async()
        async for _ in streaming:
            pass
        return streaming.result

    if awaited:
        result = asyncio.run(read())
    else:
        streaming = crew.kickoff()
        for _ in streaming:
            pass
        result = streaming.result
    assert result.raw == "done"
    return Conversation(told_in(script.read), script.schemas, json.dumps(script.read))


HOST = CrewAI()

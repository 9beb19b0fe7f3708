"""A scripted model in a Strands agent, without and with the integration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from strands import Agent, tool
from strands.hooks import AfterToolCallEvent
from strands.interrupt import Interrupt
from strands.models import Model
from strands.session import FileSessionManager
from strands.types.exceptions import EventLoopException
from strands.types.tools import AgentTool

from checkrein import Run
from checkrein.errors import CheckreinError
from checkrein.integrations.strands import Guard, questions, reply
from frameworks.contract import Conversation, Told, Turn, wishes_of
from frameworks.integration import IntegratedHost, Turned


def told_in(messages: Sequence[Any]) -> list[Told]:
    """Return the tool results in *messages*, as a provider writes them for the model."""
    names: dict[str, str] = {}
    told = []
    for message in messages:
        for part in message["content"]:
            if "toolUse" in part:
                names[part["toolUse"]["toolUseId"]] = part["toolUse"]["name"]
            if "toolResult" in part:
                result = part["toolResult"]
                text = "".join(_words(one) for one in result["content"])
                told.append(Told(names.get(result["toolUseId"], ""), text))
    return told


def _words(block: Any) -> str:
    text = block.get("text")
    return text if isinstance(text, str) else json.dumps(block, ensure_ascii=False)


class Scripted(Model):
    """A model that does what a script says."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.turns, self.schemas, self.read = turns, {}, []

    def update_config(self, **model_config: Any) -> None:
        """Change nothing."""

    def get_config(self) -> Any:
        """Return nothing: there is nothing to set."""
        return {}

    async def structured_output(self, *about: Any, **more: Any) -> AsyncGenerator[Any, None]:
        """Yield nothing."""
        return
        yield

    async def stream(
        self, messages: Any, tool_specs: Any = None, *about: Any, **more: Any
    ) -> AsyncGenerator[Any, None]:
        """Say what the script says."""
        for one in tool_specs or ():
            self.schemas[one["name"]] = {
                "description": one["description"],
                "parameters": _undescribed(one["inputSchema"]["json"]),
            }
        self.read = [json.loads(json.dumps(one)) for one in messages]
        number = sum(message["role"] == "assistant" for message in messages)
        wishes = wishes_of(self.turns, number, told_in(self.read))
        yield {"messageStart": {"role": "assistant"}}
        for place, wish in enumerate(wishes):
            start = {"toolUse": {"name": wish.tool, "toolUseId": f"{number}.{place}"}}
            yield {"contentBlockStart": {"start": start}}
            given = {"toolUse": {"input": json.dumps(wish.arguments)}}
            yield {"contentBlockDelta": {"delta": given}}
            yield {"contentBlockStop": {}}
        if not wishes:
            yield {"contentBlockStart": {"start": {}}}
            yield {"contentBlockDelta": {"delta": {"text": "done"}}}
            yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": "tool_use" if wishes else "end_turn"}}


def _undescribed(schema: Any) -> Any:
    """Return a schema without the descriptions that the framework makes of names."""
    properties = {
        name: {key: one for key, one in about.items() if one != f"Parameter {name}"}
        for name, about in schema.get("properties", {}).items()
    }
    return {**schema, "properties": properties}


def _raise(event: Any) -> None:
    """What an application does that wants errors: by itself the framework tells them to models."""
    if isinstance(event.exception, CheckreinError):
        raise event.exception


def _made(one: Any) -> Any:
    return one if isinstance(one, AgentTool) else tool(one)


def agent_of(offered: Sequence[Any], turns: Sequence[Turn], **more: Any) -> Agent:
    """Return an agent that has these functions as tools, and prints nothing."""
    tools = [_made(one) for one in offered]
    return Agent(Scripted(turns), tools=tools, callback_handler=None, **more)


class Strands(IntegratedHost):
    """Runs ``Agent`` with a scripted model."""

    framework = "strands"
    distribution = "strands-agents"

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
    ) -> Conversation:
        """Let the scripted model take its turns."""
        agent = agent_of(offered, turns)
        if not tell_denials:
            agent.add_hook(_raise, AfterToolCallEvent)
        try:
            return _talk(agent, awaited)
        except EventLoopException as failure:
            raise failure.__cause__ or failure from None

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
        """Let the scripted model take its turns, under the plugin."""
        more: dict[str, Any] = {"plugins": [Guard(run, abort=abort)]}
        if history:
            turns = ((), *turns)
            said = {"role": "assistant", "content": [{"text": "welcome"}]}
            more["messages"] = [{"role": "user", "content": [{"text": "hello"}]}, said]
        return _talk(agent_of(offered, turns, **more), awaited, streamed=streamed)

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or answer what is asked, with the framework's session in files."""
        sessions = FileSessionManager("phases", storage_dir=str(directory / "sessions"))
        agent = agent_of(offered, turns, plugins=[Guard()], session_manager=sessions)
        kept = directory / "interrupts.json"
        asks: Any = "go on"
        if answers is not None:
            open_ = [Interrupt(**one) for one in json.loads(kept.read_text(encoding="utf-8"))]
            asks = reply(
                {
                    interrupt: answers[shown["confirmation"]]
                    for interrupt, shown in questions(open_).items()
                    if shown["confirmation"] in answers
                }
            )
        result = agent(asks)
        interrupts = [one.to_dict() for one in result.interrupts or ()]
        kept.write_text(json.dumps(interrupts), encoding="utf-8")
        told = [(one.tool, one.text) for one in told_in(agent.messages)]
        return Turned(told, list(questions(result.interrupts).values()))

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above ``@tool``."""
        return [guard(tool(function))]

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a tool."""
        return tool(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return an agent with these tools."""
        return agent_of(offered, ())


def _talk(agent: Agent, awaited: bool, *, streamed: bool = False) -> Conversation:
    """Run an agent to its end."""

    async def stream() -> Any:
        events = [one async for one in agent.stream_async("go on")]
        return events[-1]["result"]

    if streamed:
        result = asyncio.run(stream())
    elif awaited:
        result = asyncio.run(agent.invoke_async("go on"))
    else:
        result = agent("go on")
    assert str(result).strip() == "done"
    model: Any = agent.model
    return Conversation(told_in(agent.messages), model.schemas, json.dumps(agent.messages))


HOST = Strands()

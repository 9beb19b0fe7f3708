"""A scripted model in an AG2 agent, without and with the integration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from ag2 import Agent, MemoryStream, tool
from ag2.config import ModelConfig
from ag2.events import (
    BaseEvent,
    ModelMessage,
    ModelResponse,
    TextInput,
    ToolCallEvent,
    ToolCallsEvent,
    ToolErrorEvent,
    ToolResultsEvent,
)
from ag2.events._serialization import deserialize_value, serialize_value
from ag2.history import Storage

from checkrein import Run
from checkrein.errors import CheckreinError
from checkrein.integrations.ag2 import Guard, Paused, resume
from frameworks.contract import Conversation, Told, Turn, wishes_of
from frameworks.integration import IntegratedHost, Turned

STREAM = UUID(int=7)


class Scripted(ModelConfig):
    """A model that does what a script says; *raises* what tools raised, if it is ours."""

    provider = model = "scripted"

    def __init__(self, turns: Sequence[Turn], raises: tuple[type[Exception], ...] = ()) -> None:
        self.turns, self.raises = turns, raises
        self.schemas: dict[str, Any] = {}
        self.told: list[Told] = []

    def copy(self) -> Any:
        """Return itself."""
        return self

    def create(self) -> Any:
        """Return itself: the model is its own client."""
        return self

    def create_files_client(self) -> Any:
        """Refuse: there are no files."""
        raise NotImplementedError

    async def __call__(
        self,
        messages: Sequence[BaseEvent],
        context: Any,
        *,
        tools: Any,
        serializer: Any,
        **more: Any,
    ) -> ModelResponse:
        """Say what the script says."""
        for one in messages:
            if isinstance(one, ToolErrorEvent) and isinstance(one.error, self.raises):
                raise one.error
        for schema in tools:
            about = schema.function
            self.schemas[about.name] = {
                "description": about.description,
                "parameters": _untitled(about.parameters),
            }
        self.told = told_in(messages, serializer)
        number = sum(isinstance(one, ModelResponse) for one in messages)
        calls = [
            ToolCallEvent(wish.tool, id=f"{number}.{place}", arguments=json.dumps(wish.arguments))
            for place, wish in enumerate(wishes_of(self.turns, number, list(self.told)))
        ]
        if calls:
            return ModelResponse(tool_calls=ToolCallsEvent(calls))
        message = ModelMessage("done")
        await context.send(message)
        return ModelResponse(message)


def told_in(events: Sequence[BaseEvent], serializer: Any) -> list[Told]:
    """Return the tool results in *events*, as a provider writes them for the model."""
    told = []
    for event in events:
        for one in event.results if isinstance(event, ToolResultsEvent) else ():
            texts = (
                part.content
                if isinstance(part, TextInput)
                else serializer.encode(part.data).decode()
                for part in one.result.parts
            )
            told.append(Told(one.name or "", _read("".join(texts))))
    return told


def _read(text: str) -> str:
    """Return what is one JSON string to the model as a text."""
    return str(json.loads(text)) if text.startswith('"<untrusted-') else text


def _untitled(tree: Any) -> Any:
    """Return a schema without the titles that the framework makes of names."""
    if isinstance(tree, dict):
        kept = {
            name: one for name, one in tree.items() if name != "title" or not isinstance(one, str)
        }
        return {name: _untitled(one) for name, one in kept.items()}
    return tree


class FileStorage(Storage):
    """Keeps events in a file, written as the framework's own storage writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def save_event(self, event: BaseEvent, context: Any) -> None:
        """Append an event."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(serialize_value(event))}\n")

    async def get_history(self, stream_id: Any) -> list[BaseEvent]:
        """Read all events."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        return [deserialize_value(json.loads(one)) for one in lines]

    async def set_history(self, stream_id: Any, events: Any) -> None:
        """Write all events."""
        lines = [f"{json.dumps(serialize_value(one))}\n" for one in events]
        self.path.write_text("".join(lines), encoding="utf-8")

    async def drop_history(self, stream_id: Any) -> None:
        """Forget all events."""
        self.path.unlink(missing_ok=True)


def agent_of(
    offered: Sequence[Any],
    turns: Sequence[Turn],
    raises: tuple[type[Exception], ...] = (),
    **more: Any,
) -> Agent:
    """Return an agent that has these functions as tools."""
    return Agent("desk", config=Scripted(turns, raises), tools=list(offered), **more)


class AG2(IntegratedHost):
    """Runs ``Agent`` with a scripted model."""

    framework = "ag2"
    distribution = "ag2"
    unsupported = {"sync": "the framework has no agent without an event loop"}

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
    ) -> Conversation:
        """Let the scripted model take its turns."""
        agent = agent_of(offered, turns, () if tell_denials else (CheckreinError,))
        return asyncio.run(_talk(agent, MemoryStream()))

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
        """Let the scripted model take its turns, under the middleware."""
        turns = ((), *turns) if history else turns
        agent = agent_of(offered, turns, middleware=[Guard(run, abort=abort)])
        return asyncio.run(_talk(agent, MemoryStream(), streamed=streamed, history=history))

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or answer what is asked, with the framework's history in a file."""

        async def take() -> Turned:
            storage = FileStorage(directory / "events.json")
            stream = MemoryStream(storage, id=STREAM)
            agent = agent_of(offered, turns, middleware=[Guard()])
            try:
                if answers is None:
                    await agent.ask("go on", stream=stream)
                else:
                    await resume(agent, *answers.values(), stream=stream)
                asked = []
            except Paused as paused:
                asked = paused.questions
            events = await stream.history.get_events()
            told = told_in(list(events), agent.serializer)
            return Turned([tuple(one) for one in told], asked)

        return asyncio.run(take())

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above ``@tool``."""
        return [guard(tool(function))]

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a tool."""
        return tool(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return an agent with these tools."""
        return agent_of(offered, ())


async def _talk(
    agent: Agent, stream: MemoryStream, *, streamed: bool = False, history: bool = False
) -> Conversation:
    """Run an agent to its end in a stream of its own."""
    if history:
        await stream.history.replace([ModelResponse(ModelMessage("welcome"))])
    if streamed:
        seen: list[BaseEvent] = []
        async with agent.run("go on", stream=stream) as running:

            async def see(event: BaseEvent) -> None:
                seen.append(event)

            stream.subscribe(see)
            reply = await running.result()
        assert any(isinstance(one, ModelMessage) for one in seen)
    else:
        reply = await agent.ask("go on", stream=stream)
    assert reply.body == "done"
    model: Any = agent.config
    events = [serialize_value(one) for one in await stream.history.get_events()]
    return Conversation(model.told, model.schemas, json.dumps(events, default=str))


HOST = AG2()

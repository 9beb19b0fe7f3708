"""A scripted model in Google ADK's ``Runner``, without and with the integration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.adk.agents import LlmAgent, RunConfig
from google.adk.agents.run_config import StreamingMode, ToolThreadPoolConfig
from google.adk.apps import App
from google.adk.events import Event
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import InMemoryRunner, Runner
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.adk.tools import FunctionTool
from google.genai import types

from checkrein import Run, Untrusted
from checkrein.errors import Denied
from checkrein.integrations.google_adk import Guard, questions, reply
from frameworks.contract import Conversation, Told, Turn, wishes_of
from frameworks.integration import IntegratedHost, Turned

USER = types.Content(role="user", parts=[types.Part(text="go on")])


def told_in(contents: Sequence[types.Content]) -> list[Told]:
    """Return the tool results in *contents*, as a provider writes them for the model."""
    told = []
    for content in contents:
        for part in content.parts or ():
            response = part.function_response
            if response is not None:
                tree = response.model_dump(mode="json")["response"]
                told.append(Told(response.name or "", _words(tree)))
    return told


def _words(tree: Any) -> str:
    """Return the only text of a result, or its JSON."""
    if isinstance(tree, dict) and len(tree) == 1:
        (tree,) = tree.values()
    return tree if isinstance(tree, str) else json.dumps(tree, ensure_ascii=False)


class Scripted(BaseLlm):
    """A model that does what a script says."""

    turns: Any
    schemas: dict[str, Any] = {}
    told: list[Told] = []

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        for tool in llm_request.config.tools or ():
            for one in tool.function_declarations or ():
                self.schemas[one.name or ""] = {
                    "description": one.description,
                    "parameters": _untitled(one.parameters_json_schema),
                }
        number = sum(content.role == "model" for content in llm_request.contents)
        self.told[:] = told_in(llm_request.contents)
        wishes = wishes_of(self.turns, number, list(self.told))
        parts = [
            types.Part(function_call=types.FunctionCall(name=wish.tool, args=wish.arguments))
            for wish in wishes
        ]
        if stream and not parts:
            piece = types.Content(role="model", parts=[types.Part(text="do")])
            yield LlmResponse(content=piece, partial=True)
        parts = parts or [types.Part(text="done")]
        yield LlmResponse(content=types.Content(role="model", parts=parts))


def _untitled(tree: Any) -> Any:
    """Return a schema without the titles that the framework makes of names."""
    if isinstance(tree, dict):
        kept = {
            name: one for name, one in tree.items() if not isinstance(one, str) or name != "title"
        }
        return {name: _untitled(one) for name, one in kept.items()}
    return tree


class _Render(BasePlugin):
    """What an application without the integration has to do: the framework compares results."""

    def __init__(self) -> None:
        super().__init__(name="render")

    async def after_tool_callback(self, *, result: Any, **about: Any) -> Any:
        return {"result": str(result)} if isinstance(result, Untrusted) else None


class _Tell(BasePlugin):
    """The framework's own way to turn an error into a result."""

    def __init__(self) -> None:
        super().__init__(name="tell")

    async def on_tool_error_callback(self, *, error: Exception, **about: Any) -> Any:
        return {"error": str(error)} if isinstance(error, Denied) else None


def _agent(turns: Sequence[Turn], offered: Sequence[Any]) -> LlmAgent:
    model = Scripted(model="scripted", turns=turns, schemas={}, told=[])
    return LlmAgent(name="desk", model=model, tools=list(offered))


class GoogleADK(IntegratedHost):
    """Runs an ``LlmAgent`` with a scripted model."""

    framework = "google_adk"
    distribution = "google-adk"
    asynchronous = True  # plain functions run on the event loop, where the gate cannot wait

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
        threads: bool = False,
    ) -> Conversation:
        """Let the scripted model take its turns."""
        plugins: list[BasePlugin] = [_Render(), *([_Tell()] if tell_denials else [])]
        config = RunConfig(
            tool_thread_pool_config=ToolThreadPoolConfig(max_workers=4) if threads else None
        )
        return _talk(_agent(turns, offered), plugins, awaited, config)

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
        turns = ((), *turns) if history else turns
        config = RunConfig(streaming_mode=StreamingMode.SSE if streamed else StreamingMode.NONE)
        plugins: list[BasePlugin] = [Guard(run, abort=abort)]
        return _talk(_agent(turns, offered), plugins, awaited, config, history=history)

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or answer what is asked, with the framework's sessions in a file."""

        async def take() -> Turned:
            service = SqliteSessionService(str(directory / "sessions.db"))
            agent = _agent(turns, offered)
            app = App(name="phases", root_agent=agent, plugins=[Guard()])
            runner = Runner(app=app, session_service=service)
            about: Any = {"app_name": "phases", "user_id": "dana"}
            message = USER
            if answers is None:
                await service.create_session(**about, session_id="phases")
            else:
                asked = questions((await _session(service, about)).events)
                message = reply(
                    {
                        request: answers[shown["confirmation"]]
                        for request, shown in asked.items()
                        if shown["confirmation"] in answers
                    }
                )
            async for _ in runner.run_async(
                user_id="dana", session_id="phases", new_message=message
            ):
                pass
            events = (await _session(service, about)).events
            told = [(one.tool, one.text) for one in agent.model.told]
            return Turned(told, list(questions(events).values()))

        return asyncio.run(take())

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above a ``FunctionTool``."""
        return [guard(FunctionTool(function))]

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a ``FunctionTool``."""
        return FunctionTool(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return an agent with these tools."""
        return _agent((), offered)


async def _session(service: Any, about: Any) -> Any:
    return await service.get_session(**about, session_id="phases")


def _talk(
    agent: LlmAgent,
    plugins: list[BasePlugin],
    awaited: bool,
    config: RunConfig,
    *,
    history: bool = False,
) -> Conversation:
    """Run an agent to its end in a session of its own."""
    runner = InMemoryRunner(app=App(name="mail", root_agent=agent, plugins=plugins))
    about: Any = {"app_name": "mail", "user_id": "dana"}

    async def begin() -> Any:
        session = await runner.session_service.create_session(**about, session_id="1")
        if history:
            said = types.Content(role="model", parts=[types.Part(text="welcome")])
            welcome = Event(author="desk", invocation_id="0", content=said)
            await runner.session_service.append_event(session, welcome)

    async def all_events(events: Any) -> list[Event]:
        return [one async for one in events]

    asyncio.run(begin())
    call: Any = {"user_id": "dana", "session_id": "1", "new_message": USER, "run_config": config}
    if awaited:

        async def go() -> list[Event]:
            return await all_events(runner.run_async(**call))

        events = asyncio.run(go())
    else:
        events = list(runner.run(**call))
    assert events[-1].content is not None
    assert [one.text for one in events[-1].content.parts or ()] == ["done"]
    session = asyncio.run(runner.session_service.get_session(**about, session_id="1"))
    assert session is not None
    stored = json.dumps([json.loads(one.model_dump_json()) for one in session.events])
    return Conversation(agent.model.told, agent.model.schemas, stored)


HOST = GoogleADK()

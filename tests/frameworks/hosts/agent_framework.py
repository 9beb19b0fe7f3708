"""A scripted model in Microsoft's Agent Framework, without and with the integration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent_framework import (
    Agent,
    AgentSession,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    ChatResponseUpdate,
    Content,
    FunctionInvocationLayer,
    FunctionMiddleware,
    Message,
    MiddlewareFailure,
    ResponseStream,
    tool,
)

from checkrein import Run
from checkrein.errors import CheckreinError, Denied
from checkrein.integrations.agent_framework import Guard, questions, reply
from frameworks.contract import Conversation, Told, Turn, wishes_of
from frameworks.integration import IntegratedHost, Turned


def told_in(messages: Sequence[Message]) -> list[Told]:
    """Return the tool results in *messages*: what is one JSON string to the model, as a text."""
    names: dict[str, str] = {}
    told = []
    for message in messages:
        for content in message.contents:
            if content.type == "function_call":
                names[content.call_id or ""] = content.name or ""
            elif content.type == "function_result":
                text = content.result
                if not isinstance(text, str):
                    text = "".join(one.text or "" for one in content.items or ())
                told.append(Told(names.get(content.call_id or "", ""), _read(text)))
    return told


def _read(text: str) -> str:
    if not text.startswith('"<untrusted-'):
        return text
    return str(json.loads(text))


class Scripted(FunctionInvocationLayer, ChatMiddlewareLayer, BaseChatClient):
    """A client that does what a script says."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        super().__init__()
        self.turns, self.schemas, self.read = turns, {}, []

    def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Any, **more: Any
    ) -> Any:
        for one in options.get("tools") or ():
            function = _untitled(one.to_json_schema_spec()["function"])
            self.schemas[function.pop("name")] = function
        self.read = list(messages)
        number = sum(str(message.role) == "assistant" for message in messages)
        wishes = wishes_of(self.turns, number, told_in(messages))
        contents = [
            Content.from_function_call(
                call_id=f"{number}.{place}", name=wish.tool, arguments=json.dumps(wish.arguments)
            )
            for place, wish in enumerate(wishes)
        ] or [Content.from_text("done")]

        async def answer() -> ChatResponse[Any]:
            return ChatResponse(messages=[Message(role="assistant", contents=contents)])

        async def updates() -> Any:
            yield ChatResponseUpdate(role="assistant", contents=contents)

        if stream:
            return ResponseStream(updates(), finalizer=ChatResponse.from_updates)
        return answer()


def _untitled(tree: Any) -> Any:
    """Return a schema without the titles that the framework makes of names."""
    if isinstance(tree, dict):
        kept = {
            name: one for name, one in tree.items() if name != "title" or not isinstance(one, str)
        }
        return {name: _untitled(one) for name, one in kept.items()}
    return tree


class _Errors(FunctionMiddleware):
    """What an application does about errors: by itself the framework hides them from everybody."""

    def __init__(self, tell: bool) -> None:
        self.tell = tell

    async def process(self, context: Any, call_next: Any) -> None:
        try:
            await call_next()
        except CheckreinError as error:
            if not self.tell or not isinstance(error, Denied):
                raise MiddlewareFailure("refused") from error
            context.result = str(error)


class AgentFramework(IntegratedHost):
    """Runs ``Agent`` with a scripted client."""

    framework = "agent_framework"
    distribution = "agent-framework-core"
    unsupported = {"sync": "the framework has no agent without an event loop"}

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
    ) -> Conversation:
        """Let the scripted model take its turns."""
        agent = Agent(
            client=Scripted(turns), tools=list(offered), middleware=[_Errors(tell_denials)]
        )
        try:
            return _talk(agent)
        except MiddlewareFailure as failure:
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
        """Let the scripted model take its turns, under the middleware."""
        turns = ((), *turns) if history else turns
        agent = Agent(
            client=Scripted(turns), tools=list(offered), middleware=Guard(run, abort=abort)
        )
        return _talk(agent, streamed=streamed, history=history)

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or answer what is asked, with session and requests in a file."""
        file = directory / "session.json"
        client = Scripted(turns)
        agent = Agent(client=client, tools=list(offered), middleware=Guard())

        async def take() -> Turned:
            if answers is None:
                session, message = agent.create_session(), Message(role="user", contents=["go on"])
            else:
                saved = json.loads(file.read_text(encoding="utf-8"))
                session = AgentSession.from_dict(saved["session"])
                requests = [Content.from_dict(one) for one in saved["requests"]]
                message = reply(
                    requests,
                    *(
                        answers[shown["confirmation"]]
                        for shown in questions(requests)
                        if shown["confirmation"] in answers
                    ),
                )
            response = await agent.run([message], session=session)
            asked = list(response.user_input_requests)
            saved = {"session": session.to_dict(), "requests": [one.to_dict() for one in asked]}
            file.write_text(json.dumps(saved), encoding="utf-8")
            told = [(one.tool, one.text) for one in told_in(client.read)]
            return Turned(told, questions(asked))

        return asyncio.run(take())

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above ``@tool``."""
        return [guard(tool(function))]

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a ``FunctionTool``."""
        return tool(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return an agent with these tools."""
        return Agent(client=Scripted(()), tools=list(offered))


def _talk(agent: Agent, *, streamed: bool = False, history: bool = False) -> Conversation:
    """Run an agent to its end in a session of its own."""

    async def run() -> Conversation:
        session = agent.create_session()
        before = [Message(role="assistant", contents=["welcome"])] if history else []
        messages = [*before, Message(role="user", contents=["go on"])]
        if streamed:
            stream = agent.run(messages, session=session, stream=True)
            async for _ in stream:
                pass
            response = await stream.get_final_response()
        else:
            response = await agent.run(messages, session=session)
        assert response.text.endswith("done")
        client = agent.client
        stored = json.dumps(session.to_dict(), default=str)
        return Conversation(told_in(client.read), client.schemas, stored)

    return asyncio.run(run())


HOST = AgentFramework()

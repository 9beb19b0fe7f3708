"""A scripted model in LlamaIndex's ``FunctionAgent``, without and with the integration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.tools import FunctionTool

from checkrein import Run
from checkrein.errors import CheckreinError, Denied
from checkrein.integrations.llama_index import (
    GuardedAgent,
    questions,
    reply,
    resume,
    save,
    waiting,
)
from frameworks.contract import Conversation, Told, Turn, wishes_of
from frameworks.integration import IntegratedHost, Turned


def told_in(messages: Sequence[ChatMessage]) -> list[Told]:
    """Return the tool results in *messages*."""
    names: dict[Any, str] = {}
    told = []
    for message in messages:
        for block in message.blocks:
            if isinstance(block, ToolCallBlock):
                names[block.tool_call_id] = block.tool_name
        if message.role == "tool":
            name = names[message.additional_kwargs["tool_call_id"]]
            told.append(Told(name, message.content or ""))
    return told


class Scripted:
    """What a script says; ``llm`` is the framework's model for tests, which says it."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self.turns = turns
        self.schemas: dict[str, Any] = {}
        self.read: list[ChatMessage] = []
        self.llm = MockFunctionCallingLLM(response_generator=self.say)

    def say(self, messages: Sequence[ChatMessage], **more: Any) -> Any:
        """Return the next message; in a loop the framework wants a generator for a stream."""
        for one in more.get("tools") or ():
            function = one.metadata.to_openai_tool()["function"]
            function = _untitled(function)
            function["description"] = _said(function["description"])
            self.schemas[function.pop("name")] = function
        self.read = list(messages)
        number = sum(one.role == "assistant" for one in messages)
        blocks = [
            ToolCallBlock(
                tool_call_id=f"{number}.{place}", tool_name=wish.tool, tool_kwargs=wish.arguments
            )
            for place, wish in enumerate(wishes_of(self.turns, number, told_in(messages)))
        ]
        if blocks:
            return ChatMessage(role="assistant", blocks=blocks)
        return self.text("done")

    def text(self, said: str) -> ChatMessage:
        """Return a message of the model."""
        return ChatMessage(role="assistant", content=said)


def _untitled(tree: Any) -> Any:
    """Return a schema without the titles that the framework makes of names."""
    if isinstance(tree, dict):
        kept = {
            name: one for name, one in tree.items() if name != "title" or not isinstance(one, str)
        }
        return {name: _untitled(one) for name, one in kept.items()}
    return tree


def _said(description: str) -> str:
    """Return a description without the signature that the framework writes above it.

    That is spelt as the annotations are: as texts in the twins, as types in what is guarded.
    """
    first, _, rest = description.partition("\n")
    return rest if "(" in first else description


class _Errors(FunctionAgent):
    """What an application does about errors: by itself the framework tells each to the model."""

    tell: bool = False

    async def _call_tool(self, ctx: Any, tool: Any, tool_input: Any) -> Any:
        output = await super()._call_tool(ctx, tool, tool_input)
        error = output.exception
        if isinstance(error, CheckreinError) and not (self.tell and isinstance(error, Denied)):
            raise error
        return output


class LlamaIndex(IntegratedHost):
    """Runs ``FunctionAgent`` with a scripted model."""

    framework = "llama_index"
    distribution = "llama-index-core"
    unsupported = {"sync": "the framework has no agent without an event loop"}

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
    ) -> Conversation:
        """Let the scripted model take its turns."""
        script = Scripted(turns)
        agent = _Errors(llm=script.llm, tools=list(offered), tell=tell_denials)
        return _talk(script, agent)

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
        """Let the scripted model take its turns, under the mixin."""
        script = Scripted(((), *turns) if history else turns)
        agent = GuardedAgent(
            llm=script.llm, tools=list(offered), streaming=streamed, run=run, abort=abort
        )
        return _talk(script, agent, streamed=streamed, history=history)

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or answer what is asked, with the saved context in a file."""
        file = directory / "context.json"
        script = Scripted(turns)
        agent = GuardedAgent(llm=script.llm, tools=list(offered))

        async def take() -> Turned:
            if answers is None:
                handler = agent.run(user_msg="go on")
                asked = await waiting(handler)
            else:
                saved = json.loads(file.read_text(encoding="utf-8"))
                handler = await resume(agent, saved)
                fitting = [
                    reply(shown, answers[shown["confirmation"]])
                    for shown in await questions(handler.ctx)
                    if shown["confirmation"] in answers
                ]
                for one in fitting:
                    handler.ctx.send_event(one)
                asked = await waiting(handler) if fitting else await questions(handler.ctx)
            file.write_text(json.dumps(await save(handler.ctx)), encoding="utf-8")
            if asked:
                await handler.cancel_run()
            else:
                await handler
            return Turned([(one.tool, one.text) for one in told_in(script.read)], asked)

        return asyncio.run(take())

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above a ``FunctionTool``."""
        return [guard(FunctionTool.from_defaults(function))]

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a ``FunctionTool``."""
        return FunctionTool.from_defaults(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return an agent with these tools."""
        return GuardedAgent(llm=Scripted(()).llm, tools=list(offered))


def _talk(
    script: Scripted, agent: FunctionAgent, *, streamed: bool = False, history: bool = False
) -> Conversation:
    """Run an agent to its end."""

    async def run() -> Conversation:
        before = [ChatMessage(role="assistant", content="welcome")] if history else []
        handler = agent.run(user_msg="go on", chat_history=before)
        if streamed:
            async for _ in handler.stream_events():
                pass
        output = await handler
        assert output.response.content == "done"
        stored = json.dumps(await save(handler.ctx))
        return Conversation(told_in(script.read), script.schemas, stored)

    return asyncio.run(run())


HOST = LlamaIndex()

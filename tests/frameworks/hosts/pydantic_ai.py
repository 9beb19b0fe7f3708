"""A scripted model in Pydantic AI's ``Agent``, without and with the integration."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai import Agent, DeferredToolRequests, RunContext, Tool, ToolFailed
from pydantic_ai.capabilities import Hooks
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from checkrein import Run
from checkrein.errors import Denied
from checkrein.integrations.pydantic_ai import Guard, questions, resume
from frameworks.contract import Conversation, Told, Turn, wishes_of
from frameworks.integration import IntegratedHost, Turned

_REQUESTS: TypeAdapter[DeferredToolRequests] = TypeAdapter(DeferredToolRequests)


def told_in(messages: Sequence[ModelMessage]) -> list[Told]:
    """Return the tool results in *messages*, as a provider writes them for the model."""
    told = []
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolReturnPart):
                told.append(Told(part.tool_name, part.model_response_str()))
            elif isinstance(part, RetryPromptPart):
                told.append(Told(part.tool_name or "", part.model_response()))
    return told


def scripted(turns: Sequence[Turn], schemas: dict[str, Any]) -> FunctionModel:
    """Return a model that does what a script says."""

    def respond(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        for one in info.function_tools:
            schemas[one.name] = {
                "description": one.description,
                "parameters": one.parameters_json_schema,
            }
        number = sum(isinstance(message, ModelResponse) for message in messages)
        wishes = wishes_of(turns, number, told_in(messages))
        calls = [
            ToolCallPart(wish.tool, wish.arguments, tool_call_id=f"{number}.{place}")
            for place, wish in enumerate(wishes)
        ]
        return ModelResponse(parts=calls or [TextPart("done")])

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> Any:
        for place, part in enumerate(respond(messages, info).parts):
            if isinstance(part, ToolCallPart):
                arguments = part.args_as_json_str()
                name, id_ = part.tool_name, part.tool_call_id
                yield {place: DeltaToolCall(name, arguments, tool_call_id=id_)}
            elif isinstance(part, TextPart):
                yield part.content

    return FunctionModel(respond, stream_function=stream)


class PydanticAI(IntegratedHost):
    """Runs ``Agent`` with a ``FunctionModel``."""

    framework = "pydantic_ai"
    distribution = "pydantic-ai-slim"

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
        **more: Any,
    ) -> Conversation:
        """Let the scripted model take its turns."""
        schemas: dict[str, Any] = {}
        hooks = Hooks()
        if tell_denials:

            @hooks.on.tool_execute_error
            async def tell(_: RunContext[Any], *, error: Exception, **about: Any) -> Any:
                raise ToolFailed(str(error)) if isinstance(error, Denied) else error

        agent = Agent(scripted(turns, schemas), tools=offered, capabilities=[hooks])
        return _converse(agent, schemas, awaited=awaited, **more)

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
        """Let the scripted model take its turns, under the capability."""
        turns = ((), *turns) if history else turns
        schemas: dict[str, Any] = {}
        agent = Agent(
            scripted(turns, schemas), tools=list(offered), capabilities=[Guard(run, abort=abort)]
        )
        more: dict[str, Any] = {}
        if history:
            more["message_history"] = [
                ModelRequest(parts=[UserPromptPart("hello")]),
                ModelResponse(parts=[TextPart("welcome")]),
            ]
        return _converse(agent, schemas, awaited=awaited, streamed=streamed, **more)

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or resume what is answered, with messages and requests in files."""
        history, waiting = directory / "messages.json", directory / "requests.json"
        agent = Agent(
            scripted(turns, {}),
            tools=list(offered),
            capabilities=[Guard()],
            output_type=[str, DeferredToolRequests],
        )
        if answers is None:
            result = asyncio.run(agent.run("go on"))
        else:
            results = resume(_REQUESTS.validate_json(waiting.read_bytes()), *answers.values())
            messages = ModelMessagesTypeAdapter.validate_json(history.read_bytes())
            result = asyncio.run(agent.run(message_history=messages, deferred_tool_results=results))
        history.write_bytes(result.all_messages_json())
        told = [(one.tool, one.text) for one in told_in(result.all_messages())]
        if not isinstance(result.output, DeferredToolRequests):
            waiting.write_bytes(_REQUESTS.dump_json(DeferredToolRequests()))
            return Turned(told, [])
        waiting.write_bytes(_REQUESTS.dump_json(result.output))
        return Turned(told, questions(result.output))

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above ``@agent.tool_plain``, which returns what it was given."""
        agent = Agent(scripted((), {}))
        guard(agent.tool_plain(function))
        return agent

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a ``Tool``."""
        return Tool(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return an agent with these tools."""
        return Agent(scripted((), {}), tools=list(offered))


def _converse(
    agent: Agent[Any, Any],
    schemas: dict[str, Any],
    *,
    awaited: bool,
    streamed: bool = False,
    **more: Any,
) -> Conversation:
    """Run an agent to its end."""

    async def stream() -> Any:
        async with agent.iter("go on", **more) as run:
            async for node in run:
                if Agent.is_model_request_node(node) or Agent.is_call_tools_node(node):
                    async with node.stream(run.ctx) as events:
                        async for _ in events:
                            pass
        return run.result

    if streamed:
        result = asyncio.run(stream())
    elif awaited:
        result = asyncio.run(agent.run("go on", **more))
    else:
        with asyncio.Runner() as lent:  # one that run_sync has to make for itself is never closed
            asyncio.set_event_loop(lent.get_loop())
            result = agent.run_sync("go on", **more)
    assert result.output == "done"
    messages = result.all_messages()
    return Conversation(told_in(messages), schemas, result.all_messages_json().decode())


HOST = PydanticAI()

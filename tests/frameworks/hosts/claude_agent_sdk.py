"""A scripted model behind the Claude Agent SDK and its CLI, without and with the integration.

The CLI is the one that comes with the SDK; the model is a server on the loopback
(:mod:`frameworks.claude_messages`).
"""

from __future__ import annotations

import asyncio
import inspect
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ResultMessage,
    SdkMcpTool,
    ToolAnnotations,
    create_sdk_mcp_server,
    query,
    tool,
)
from pydantic import TypeAdapter
from pydantic_core import to_json

from checkrein import Run, Untrusted
from checkrein.frames import spec_of
from checkrein.integrations.claude_agent_sdk import Guard
from frameworks.claude_messages import Script, serving
from frameworks.contract import Conversation, Turn
from frameworks.integration import IntegratedHost, Turned

SESSION = "5f0c1f9e-6f5e-4f53-9a5f-0e6a2c1c9b7d"


def wire(name: str) -> str:
    """Return what the model calls a tool."""
    return f"mcp__tools__{name}"


def by_hand(one: Callable[..., Any], failures: list[Exception]) -> SdkMcpTool[Any]:
    """Make a tool of a function, as one does without the integration."""
    if isinstance(one, SdkMcpTool):
        return one

    async def handler(given: dict[str, Any]) -> dict[str, Any]:
        try:
            if inspect.iscoroutinefunction(one):
                result = await one(**given)
            else:
                result = await asyncio.to_thread(one, **given)
        except Exception as error:
            failures.append(error)
            raise
        told = str(result) if isinstance(result, Untrusted) else result
        text = told if isinstance(told, str) else to_json(told, fallback=str).decode()
        return {"content": [{"type": "text", "text": text}]}

    spec = spec_of(one)
    hint = ToolAnnotations(readOnlyHint=spec is not None and spec.facts.reads)
    schema = TypeAdapter(one).json_schema()
    for each in schema.get("properties", {}).values():
        each.pop("title", None)
    return tool(one.__name__, inspect.getdoc(one) or "", schema, hint)(handler)


def alone(directory: Path, address: str, **more: Any) -> ClaudeAgentOptions:
    """Return options of an agent that has nothing but what it is given."""
    return ClaudeAgentOptions(
        tools=[],
        strict_mcp_config=True,
        setting_sources=[],
        system_prompt="play",
        cwd=directory,
        env={
            "ANTHROPIC_BASE_URL": address,
            "ANTHROPIC_API_KEY": "none",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CONFIG_DIR": str(directory),
            "ENABLE_TOOL_SEARCH": "false",
        },
        **more,
    )


async def resumed(options: ClaudeAgentOptions) -> AsyncIterator[Any]:
    """Go on with a session where it was left, without a new prompt."""
    async with asyncio.timeout(60):  # the CLI waits for a prompt where it was not paused
        async with ClaudeSDKClient(options) as client:
            async for message in client.receive_response():
                yield message


def schemas(script: Script) -> dict[str, Any]:
    """Return the tools that the model was shown, by name."""
    return {
        one["name"].rpartition("__")[2]: {
            "name": one["name"],
            "description": one["description"],
            "parameters": one["input_schema"],
        }
        for one in script.tools
    }


def conversation(script: Script) -> Conversation:
    """Return what came of it."""
    return Conversation(script.told, schemas(script), json.dumps(script.requests[-1]["messages"]))


class ClaudeAgentSDK(IntegratedHost):
    """Runs the SDK's ``query`` and its CLI, with a scripted Messages API."""

    framework = "claude_agent_sdk"
    distribution = "claude-agent-sdk"
    unsupported = {
        "sync": "the SDK runs in an event loop only",
        "test_two_questions_of_one_turn_are_answered_apart": "the CLI pauses at one call of a "
        "turn; another one that waits is told to the model, and paused at when it is made again",
    }

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
    ) -> Conversation:
        """Let the scripted model take its turns."""
        failures: list[Exception] = []
        made = [by_hand(one, failures) for one in offered]
        script = Script(turns, wire)

        async def run() -> None:
            with tempfile.TemporaryDirectory() as name, serving(script) as address:
                options = alone(
                    Path(name),
                    address,
                    mcp_servers={"tools": create_sdk_mcp_server("tools", tools=made)},
                    allowed_tools=[wire(one.name) for one in made],
                )
                async for _ in query(prompt="go on", options=options):
                    pass

        asyncio.run(run())
        if failures and not tell_denials:
            raise failures[0]  # the SDK has told it to the model
        return conversation(script)

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
        script = Script(turns, wire)

        async def converse(directory: Path, address: str) -> None:
            more: dict[str, Any] = {"include_partial_messages": streamed}
            if history:
                async for _ in query(
                    prompt="hello", options=alone(directory, address, session_id=SESSION)
                ):
                    pass
                more["resume"] = SESSION
            guard = Guard(offered, run, abort=abort)
            options = guard.options(alone(directory, address, **more))
            async for _ in guard.follow(query(prompt="go on", options=options)):
                pass

        with tempfile.TemporaryDirectory() as name, serving(script) as address:
            asyncio.run(converse(Path(name), address))
        return conversation(script)

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or resume the session after answers were taken."""
        script = Script(turns, wire)
        guard = Guard(offered)
        questions: list[dict[str, Any]] = []

        async def converse(address: str) -> None:
            if answers is None:
                options = guard.options(alone(directory, address, session_id=SESSION))
                messages = query(prompt="go on", options=options)
            else:
                for given in answers.values():
                    await guard.take(given)
                messages = resumed(guard.options(alone(directory, address, resume=SESSION)))
            async for message in guard.follow(messages):
                if isinstance(message, ResultMessage):
                    questions[:] = await guard.questions(message)

        with serving(script) as address:
            asyncio.run(converse(address))
        return Turned([(one.tool, one.text) for one in script.told], questions)

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above ``@tool``."""
        return [guard(self.foreign(function))]

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a tool by hand."""
        return by_hand(function, [])

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return options with these tools."""
        return Guard(offered).options(ClaudeAgentOptions(tools=[], strict_mcp_config=True))


HOST = ClaudeAgentSDK()

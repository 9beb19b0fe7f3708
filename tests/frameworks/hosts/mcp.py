"""A scripted client of the MCP SDK's server, without and with the integration.

The "model" here is the client: it lists the tools, calls them as the script says, and
reads what comes back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.request_state import RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp.types import CallToolResult, ElicitResult, InputRequiredResult, TextContent

from checkrein import Run
from checkrein.integrations.elicitation import QUESTION
from checkrein.integrations.mcp import GuardedServer
from frameworks.contract import Conversation, Told, Turn, Wish, wishes_of
from frameworks.integration import IntegratedHost, Turned

KEY = bytes(range(32))


class _Listening(MCPServer):
    """A plain server that remembers what its tools have raised: the SDK hides it from clients."""

    def __init__(self, name: str, tell: bool, raised: list[BaseException]) -> None:
        super().__init__(name)
        self.tell, self.raised = tell, raised

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            cause = error.__cause__ or error
            if self.tell:
                return CallToolResult(
                    content=[TextContent(type="text", text=str(cause))], is_error=True
                )
            self.raised.append(cause)
            raise


def _filled(server: MCPServer, offered: Sequence[Any]) -> MCPServer:
    for one in offered:
        if isinstance(one, Tool):
            server._tool_manager._tools[one.name] = one
        else:
            # Without the integration an application has to say that fences are no structure.
            plain = one.__name__ in {"bare", "structured"} and type(server) is _Listening
            server.add_tool(one, structured_output=False if plain else None)
    return server


def _text(found: CallToolResult) -> str:
    """Return all that the client's model may read: the text, or what is structured."""
    blocks = found.content or [TextContent(type="text", text="null")]
    texts = [_unquoted(one.text) for one in blocks if isinstance(one, TextContent)]
    assert len(texts) == len(blocks)
    return "\n".join(texts)


def _unquoted(text: str) -> str:
    """Return the text of what the SDK writes as a JSON string."""
    try:
        tree = json.loads(text)
    except ValueError:
        return text
    return tree if isinstance(tree, str) else text


async def _talk(client: Client, turns: Sequence[Turn]) -> Conversation:
    """Take the turns; the calls of a turn are made at once."""
    told: list[Told] = []
    history: list[Any] = []
    listed = await client.list_tools()
    schemas = {
        one.name: {"description": one.description, "parameters": _plain(one.input_schema)}
        for one in listed.tools
    }
    for number in range(len(turns)):
        wishes = wishes_of(turns, number, list(told))
        found = await asyncio.gather(*(client.call_tool(one.tool, one.arguments) for one in wishes))
        for wish, one in zip(wishes, found, strict=True):
            told.append(Told(wish.tool, _text(one)))
            history.append(one.model_dump(mode="json", by_alias=True))
    return Conversation(told, schemas, json.dumps(history))


def _plain(tree: Any) -> Any:
    """Return a schema without the titles that the SDK makes of names."""
    if isinstance(tree, dict):
        kept = {name: one for name, one in tree.items() if name != "title" or type(one) is dict}
        return {name: _plain(one) for name, one in kept.items()}
    return tree


class MCP(IntegratedHost):
    """Runs a server with a scripted client, in one process."""

    framework = "mcp"
    distribution = "mcp"
    asynchronous = False
    unsupported = {
        "sync": "the SDK runs in an event loop only",
        "test_a_denial_can_end_the_conversation": "a server answers a call, "
        "and cannot end its client's run",
        "test_a_history_from_elsewhere_exposes_the_run": "a server does not see the conversation",
        "test_prompts_and_outputs_are_in_the_log_as_digests": "a server sees no prompts",
        "test_an_unguarded_tool_exposes_the_run": "a server does not see what its client's model "
        "is offered; `refuse_unguarded` at its start is the way",
    }

    def plain(self, offered: Sequence[Any], tell: bool, raised: list[BaseException]) -> Any:
        """Return a server without the integration; what its tools raise is put into *raised*."""
        return _filled(_Listening("desk", tell, raised), offered)

    def guarded(self, offered: Sequence[Any], **more: Any) -> Any:
        """Return a server with the integration."""
        return _filled(GuardedServer("desk", **more), offered)

    def client(self, server: Any, **more: Any) -> Client:
        """Return a client of a server, in this process."""
        return Client(server, **more)

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
    ) -> Conversation:
        """Let the client take its turns."""
        raised: list[BaseException] = []
        server = self.plain(offered, tell_denials, raised)

        async def go() -> Conversation:
            async with self.client(server) as client:
                talk: list[Conversation] = []
                told: list[Told] = []
                for number in range(max(1, len(turns))):
                    wishes = wishes_of(turns, number, list(told))
                    talk.append(await _talk(client, [wishes]))
                    told += talk[-1].told
                    if raised:
                        break
                return Conversation(told, talk[0].schemas, "".join(one.history for one in talk))

        found = asyncio.run(go())
        if raised:
            raise raised[0]
        return found

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
        """Let the client take its turns with a guarded server."""
        server = self.guarded(offered, run=run)

        async def go() -> Conversation:
            async with self.client(server, mode="legacy" if streamed else "auto") as client:
                return await _talk(client, turns)

        return asyncio.run(go())

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or answer: the client keeps what it was told and the rounds that are open."""
        file = directory / "client.json"
        saved: dict[str, Any] = {"told": [], "open": [], "begun": False}
        if answers is not None:
            saved = json.loads(file.read_text(encoding="utf-8"))
        sealed = RequestStateSecurity(keys=[KEY], audience="desk")
        server = self.guarded(offered, confirm="client", request_state_security=sealed)

        async def never(*_: Any) -> Any:
            raise AssertionError("the rounds are taken by hand")

        async def go() -> Turned:
            async with self.client(server, elicitation_callback=never) as client:
                if not saved["begun"]:
                    saved["begun"] = True
                    for turn in turns:
                        assert not callable(turn)
                        for wish in turn:
                            await take_round(client, wish, saved, None)
                else:
                    waiting, saved["open"] = saved["open"], []
                    for one in waiting:
                        given = (answers or {}).get(one["question"]["confirmation"])
                        await take_round(
                            client, Wish(one["tool"], one["arguments"]), saved, one, given
                        )
            file.write_text(json.dumps(saved), encoding="utf-8")
            told = [(tool, text) for tool, text in saved["told"]]
            return Turned(told, [one["question"] for one in saved["open"]])

        return asyncio.run(go())

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above the SDK's decorator, which registers what is below."""
        server = MCPServer("desk")
        guard(server.tool()(function))
        return server

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a ``Tool``."""
        return Tool.from_function(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return a server with these tools."""
        return _filled(MCPServer("desk"), offered)


async def take_round(
    client: Client,
    wish: Wish,
    saved: dict[str, Any],
    earlier: Mapping[str, Any] | None,
    given: Mapping[str, Any] | None = None,
) -> None:
    """Make a call, or make it again with an answer; keep what came of it."""
    more: dict[str, Any] = {}
    if earlier is not None:
        more["request_state"] = earlier["state"]
        if given is not None:
            # What the person was shown is in the state; a client that has another answer says so.
            content = {name: one for name, one in given.items() if type(one) in {str, bool, int}}
            more["input_responses"] = {
                "confirmation": ElicitResult(action="accept", content=content)
            }
    try:
        found = await client.session.call_tool(
            wish.tool, dict(wish.arguments), allow_input_required=True, **more
        )
    except MCPError as error:  # the state is sealed, to the arguments too
        saved["told"].append([wish.tool, str(error)])
        return
    if isinstance(found, InputRequiredResult):
        saved["open"].append(
            {
                "tool": wish.tool,
                "arguments": dict(wish.arguments),
                "state": found.request_state,
                "question": (found.meta or {})[QUESTION],
            }
        )
    else:
        saved["told"].append([wish.tool, _text(found)])


HOST = MCP()

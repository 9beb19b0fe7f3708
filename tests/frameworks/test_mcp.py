"""Tools of an MCP server of ours, with the official SDK on both sides."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest

from frameworks.needed import needed

needed("mcp")

from mcp import Client  # noqa: E402
from mcp.server.mcpserver import Context  # noqa: E402
from mcp.server.mcpserver.exceptions import ToolError  # noqa: E402
from mcp.shared.exceptions import MCPError  # noqa: E402
from mcp.types import ElicitResult, Tool, ToolAnnotations  # noqa: E402

from checkrein import Run, injected, reads  # noqa: E402
from checkrein.approvers import Approvers  # noqa: E402
from checkrein.delegation import Principal  # noqa: E402
from checkrein.errors import ConfigurationError, MisuseError  # noqa: E402
from checkrein.gates.queue import QueueGate  # noqa: E402
from checkrein.integrations.mcp import GuardedServer, adopt  # noqa: E402
from frameworks import tools  # noqa: E402
from frameworks.contract import BOSS, FrameworkContract, done  # noqa: E402
from frameworks.hosts.mcp import HOST  # noqa: E402
from frameworks.integration import IntegrationContract  # noqa: E402
from frameworks.shapes import assert_fenced  # noqa: E402
from frameworks.tools import open_run  # noqa: E402
from support import MemoryLog  # noqa: E402


class TestContract(FrameworkContract):
    """The decorators, without the integration."""

    host = HOST


class TestIntegration(IntegrationContract):
    """The server class."""

    host = HOST


# -- what is special ---------------------------------------------------------------------------


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> str:
    """The two eras of the protocol: 2026-07-28, and 2025-11-25."""
    return str(request.param)


def serve(run: Any = None, **more: Any) -> GuardedServer:
    """Return a server with the desk's tools."""
    server = GuardedServer("desk", run=run, **more)
    for one in tools.ASYNC:
        server.add_tool(one)
    return server


def talk(
    server: GuardedServer, tool: str, mode: str = "auto", **arguments: Any
) -> tuple[bool, str]:
    """Call one tool; return whether it is an error, and the text."""
    more = {"elicitation_callback": arguments.pop("answers", None)}

    async def go() -> tuple[bool, str]:
        async with Client(server, mode=mode, **more) as client:
            found = await client.call_tool(tool, arguments)
            return found.is_error, "\n".join(getattr(one, "text", "") for one in found.content)

    return asyncio.run(go())


def answering(*contents: dict[str, Any]) -> tuple[Any, list[str]]:
    """Return a client's callback, and what it was asked."""
    asked: list[str] = []
    left = list(contents)

    async def answers(_: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content=left.pop(0))

    return answers, asked


@contextmanager
def desk_run(directory: Path, **more: Any) -> Iterator[tuple[Run, MemoryLog]]:
    """Open a run whose questions lie on a desk."""
    log = MemoryLog()
    gate = QueueGate(str(directory / "questions.db"), wait=timedelta(0))
    with open_run(directory, gate=gate, log=log, **more) as run:
        run.instruct(f"Write to {BOSS}")
        yield run, log
    gate.close()


def test_the_clients_user_is_asked(mode: str, tmp_path: Path) -> None:
    """The form shows the whole call; a yes lets it run once; the log says who."""
    answers, asked = answering({"approved": True, "by": "dana"})
    with desk_run(tmp_path) as (run, log):
        server = serve(run, confirm="client")
        error, _ = talk(server, "asend_mail", mode, to=BOSS, body="hello", answers=answers)
    assert not error
    assert done("send_mail") == [(BOSS, "hello", 1)]
    (question,) = asked
    for word in ("asend_mail", BOSS, "hello", "copies", "cannot be taken back"):
        assert word in question
    assert [one["by"] for one in log.of("confirmation.answered")] == ["dana"]
    assert {one["status"] for one in log.of("call.outcome")} == {"suspended", "done"}


def test_without_a_word_the_desk_is_asked(mode: str, tmp_path: Path) -> None:
    """A client that could be asked is not, unless the server says so."""
    answers, asked = answering({"approved": True})
    with desk_run(tmp_path) as (run, _):
        error, text = talk(serve(run), "asend_mail", mode, to=BOSS, body="x", answers=answers)
    assert error
    assert "waits for somebody" in text
    assert asked == []
    assert done("send_mail") == []


def test_where_signatures_count_the_clients_word_does_not(mode: str, tmp_path: Path) -> None:
    """With approvers a client's yes is refused, whoever it says has answered."""
    answers, asked = answering(*({"approved": True, "by": "dana"} for _ in range(20)))
    approvers = Approvers({"dana": Principal.new().id})
    with desk_run(tmp_path, approvers=approvers) as (run, log):
        server = serve(run, confirm="client")
        try:
            error, _ = talk(server, "asend_mail", mode, to=BOSS, body="x", answers=answers)
        except Exception as raised:  # the SDK's client gives up after so many rounds
            assert "InputRequiredRoundsExceeded" in repr(raised)  # noqa: PT017
            error = True
    assert error
    assert len(asked) > 1
    assert log.of("answer.refused")
    assert done("send_mail") == []


def test_the_run_may_depend_on_the_call(mode: str, tmp_path: Path) -> None:
    """A server with several clients finds the run of each; a stranger has none."""
    with open_run(tmp_path) as run:
        known: dict[str, Run] = {}
        server = serve(lambda context: known.get(_client(context)))
        told = contextvars.Context().run(talk, server, "aread_inbox", mode)
        assert "no run is active" in told[1]
        known["mcp"] = run
        error, text = contextvars.Context().run(talk, server, "aread_inbox", mode)
    assert not error
    assert_fenced(text)


def _client(context: Any) -> str:
    params = context.request_context.session.client_params
    return "" if params is None else str(params.client_info.name)


def test_the_context_of_the_sdk_is_given_to_a_guarded_tool(tmp_path: Path) -> None:
    """It is no argument: not in the schema, not in the log."""
    log = MemoryLog()

    @reads("frameworks.context")
    async def who(name: str, context: Annotated[Context, injected]) -> str:
        """Say who asks."""
        return f"{name} in {context.request_context.method}"

    with open_run(tmp_path, log=log) as run:
        server = GuardedServer("desk", run=run)
        server.add_tool(who)
        assert talk(server, "who", name="dana") == (False, "dana in tools/call")
    (allowed,) = log.of("call.allowed")
    assert list(allowed["arguments"]) == ["name"]


def test_hints_say_what_guards_say(tmp_path: Path) -> None:
    """They are made from the guard, unless the server has its own."""

    async def go() -> list[Any]:
        server = serve()
        server.add_tool(tools.SYNC[0], annotations=ToolAnnotations(title="Mine"))
        async with Client(server) as client:
            return [one.annotations for one in (await client.list_tools()).tools]

    read, save, send, mine = asyncio.run(go())
    assert (read.read_only_hint, save.read_only_hint, send.read_only_hint) == (True, False, False)
    assert (read.destructive_hint, send.destructive_hint) == (False, True)
    assert (save.open_world_hint, send.open_world_hint) == (False, True)
    assert (mine.title, mine.read_only_hint) == ("Mine", None)


def test_a_resource_is_read_in_the_run(tmp_path: Path) -> None:
    """A guarded function behind a resource is decided as a tool is."""

    @reads("frameworks.inbox", private=True)
    def letters() -> str:
        """Read the letters."""
        return "letters"

    async def go(server: GuardedServer) -> str:
        async with Client(server) as client:
            try:
                return str((await client.read_resource("desk://letters")).contents[0].text)
            except MCPError as error:
                return f"error: {error}"

    with open_run(tmp_path) as run:
        server = GuardedServer("desk", run=run)
        server.resource("desk://letters")(letters)
        assert asyncio.run(go(server)) == "letters"
        assert run.private
    assert "error" in contextvars.Context().run(asyncio.run, go(server))


def test_a_tool_that_fails_fails_as_without_us(tmp_path: Path) -> None:
    """Its own error is not taken for a denial, and a protocol error stays one."""

    @reads("frameworks.inbox")
    def fails(kind: str) -> str:
        """Fail."""
        raise {"value": ValueError("secret"), "tool": ToolError("too big")}[kind]

    with open_run(tmp_path) as run:
        server = GuardedServer("desk", run=run)
        server.add_tool(fails)
        assert talk(server, "fails", kind="value") == (True, "Error executing tool fails")
        assert talk(server, "fails", kind="tool") == (True, "Error executing tool fails: too big")


def test_what_confirm_takes_is_checked() -> None:
    """A misspelt word does not silently leave questions to nobody."""
    wrong: Any = "cilent"
    with pytest.raises(ConfigurationError, match="confirm"):
        GuardedServer("desk", confirm=wrong)


def test_a_tool_of_the_client_is_no_tool_of_the_server() -> None:
    """The two kinds of adopting say which is meant."""
    wrong: Any = Tool(name="save", input_schema={"type": "object"})
    with pytest.raises(MisuseError, match="mcp_client"):
        adopt(wrong, reads("x"))

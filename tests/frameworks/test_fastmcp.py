"""The contract, and what is special, in FastMCP: newest release, the official client."""

from __future__ import annotations

import asyncio
import contextvars
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest

from frameworks.needed import needed

needed("fastmcp")

from fastmcp import Context, FastMCP  # noqa: E402
from fastmcp.client import Client as OwnClient  # noqa: E402
from fastmcp.server.auth import require_scopes  # noqa: E402
from fastmcp.server.middleware.caching import ResponseCachingMiddleware  # noqa: E402
from fastmcp.tools import FunctionTool, Tool  # noqa: E402
from mcp import Client  # noqa: E402
from mcp.shared.exceptions import MCPError  # noqa: E402
from mcp.types import ElicitResult  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402

from checkrein import Grant, Run, allow, injected, reads, writes  # noqa: E402
from checkrein.errors import ConfigurationError, MisuseError  # noqa: E402
from checkrein.gates.queue import QueueGate  # noqa: E402
from checkrein.integrations.fastmcp import Guard, adopt, audit, refuse_unguarded  # noqa: E402
from frameworks import tools, twins  # noqa: E402
from frameworks.contract import BOSS, FrameworkContract, done  # noqa: E402
from frameworks.hosts.fastmcp import HOST  # noqa: E402
from frameworks.integration import IntegrationContract  # noqa: E402
from frameworks.shapes import assert_fenced  # noqa: E402
from frameworks.tools import open_run  # noqa: E402
from support import MemoryLog  # noqa: E402


class TestContract(FrameworkContract):
    """The decorators, without the integration."""

    host = HOST


class TestIntegration(IntegrationContract):
    """The middleware."""

    host = HOST


# -- what is special ---------------------------------------------------------------------------


def serve(guard: Guard, *offered: Any) -> FastMCP:
    """Return a server with the desk's tools, or other ones."""
    server = FastMCP("desk", middleware=[guard])
    for one in offered or tools.ASYNC:
        server.tool(one)
    return server


def talk(server: FastMCP, tool: str, mode: str = "auto", **arguments: Any) -> tuple[bool, str]:
    """Call one tool with the official client; return whether it is an error, and the text."""
    more = {"elicitation_callback": arguments.pop("answers", None)}

    async def go() -> tuple[bool, str]:
        async with Client(server._mcp_server, mode=mode, **more) as client:
            found = await client.call_tool(tool, arguments)
            return found.is_error, "\n".join(getattr(one, "text", "") for one in found.content)

    return asyncio.run(go())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("confirm", ["client", "desk"])
def test_who_is_asked_is_said_by_the_server(confirm: Any, mode: str, tmp_path: Path) -> None:
    """The client's user where the server says so, in both eras; the desk else."""
    asked: list[str] = []

    async def answers(_: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"approved": True, "by": "dana"})

    log = MemoryLog()
    gate = QueueGate(str(tmp_path / "questions.db"), wait=timedelta(0))
    with open_run(tmp_path, gate=gate, log=log) as run:
        run.instruct(f"Write to {BOSS}")
        server = serve(Guard(run, confirm=confirm))
        error, text = talk(server, "asend_mail", mode, to=BOSS, body="hello", answers=answers)
    gate.close()
    if confirm == "client":
        assert (error, len(asked)) == (False, 1)
        assert done("send_mail") == [(BOSS, "hello", 1)]
        assert [one["by"] for one in log.of("confirmation.answered")] == ["dana"]
    else:
        assert (error, asked) == (True, [])
        assert "waits for somebody" in text
        assert done("send_mail") == []
    (host,) = log.of("host")
    assert host["framework"] == "fastmcp"


def test_frameworks_own_client_works_as_well(tmp_path: Path) -> None:
    """It reads the same fences."""

    async def go(server: FastMCP) -> Any:
        async with OwnClient(server) as client:
            return await client.call_tool("aread_inbox", {})

    with open_run(tmp_path) as run:
        found = asyncio.run(go(serve(Guard(run))))
    assert_fenced(found.content[0].text)
    assert_fenced(str(found.structured_content))


def test_a_server_can_be_called_without_a_client(tmp_path: Path) -> None:
    """``server.call_tool`` goes through the middleware; nobody can be asked there."""
    server = serve(Guard(confirm="client"))

    async def go() -> Any:
        return await server.call_tool("asend_mail", {"to": BOSS, "body": "x"})

    gate = QueueGate(str(tmp_path / "questions.db"), wait=timedelta(0))
    with open_run(tmp_path, gate=gate):
        found = asyncio.run(go())
    gate.close()
    assert found.is_error
    assert "waits for somebody" in found.content[0].text


def test_the_run_may_depend_on_the_call(tmp_path: Path) -> None:
    """A server with several clients finds the run of each; a stranger has none."""
    with open_run(tmp_path) as run:
        known: dict[str, Run] = {}
        server = serve(Guard(lambda context: known.get(context.fastmcp.name)))
        told = contextvars.Context().run(talk, server, "aread_inbox")
        assert "no run is active" in told[1]
        known["desk"] = run
        error, text = contextvars.Context().run(talk, server, "aread_inbox")
    assert not error
    assert_fenced(text)


def test_the_context_is_given_to_a_guarded_tool(tmp_path: Path) -> None:
    """It is no argument: not in the schema, not in the log."""
    log = MemoryLog()

    @reads("frameworks.context")
    async def who(name: str, context: Annotated[Context, injected]) -> str:
        """Say who asks."""
        return f"{name} at {context.fastmcp.name}"

    with open_run(tmp_path, log=log) as run:
        assert talk(serve(Guard(run), who), "who", name="dana") == (False, "dana at desk")
    (allowed,) = log.of("call.allowed")
    assert list(allowed["arguments"]) == ["name"]


def test_a_resource_and_a_prompt_are_made_in_the_run(tmp_path: Path) -> None:
    """Guarded functions behind them are decided as tools are."""

    @reads("frameworks.inbox", private=True)
    def letters() -> str:
        """Read the letters."""
        return "letters"

    async def go(server: FastMCP) -> list[str]:
        told = []
        async with Client(server._mcp_server) as client:
            for ask in (client.read_resource("desk://letters"), client.get_prompt("letters")):
                try:
                    told.append(str(await ask))
                except MCPError as error:
                    told.append(f"error: {error}")
        return told

    with open_run(tmp_path) as run:
        server = FastMCP("desk", middleware=[Guard(run)])
        server.resource("desk://letters")(letters)
        server.prompt(letters)
        for one in asyncio.run(go(server)):
            assert "letters" in one
            assert not one.startswith("error")
        assert run.private
    for one in contextvars.Context().run(asyncio.run, go(server)):
        assert one.startswith("error")


def test_hints_say_what_guards_say() -> None:
    """Where the server has none of its own."""

    async def go() -> list[Any]:
        async with Client(serve(Guard())._mcp_server) as client:
            return [one.annotations for one in (await client.list_tools()).tools]

    read, save, send = asyncio.run(go())
    assert (read.read_only_hint, save.read_only_hint, send.destructive_hint) == (True, False, True)


def test_the_audit_sees_mounted_servers_and_works_in_a_loop() -> None:
    """Tools of a server inside the server are tools of the server."""
    inner = FastMCP("inner")
    inner.tool(twins.send_mail)
    server = serve(Guard())
    server.mount(inner, namespace="inner")

    async def go() -> list[str]:
        return [one.tool for one in audit(server)]

    assert asyncio.run(go()) == ["inner_send_mail"]
    with pytest.raises(ConfigurationError, match="inner_send_mail"):
        refuse_unguarded(server)


def test_what_is_no_function_tool_is_not_adopted() -> None:
    """A tool that a proxy makes has no function to guard."""
    transformed = Tool.from_tool(FunctionTool.from_function(twins.send_mail), name="other")
    with pytest.raises(MisuseError, match="mcp_client"):
        adopt(transformed, reads("x"))
    assert [one.tool for one in audit([transformed])] == ["other"]


def test_what_confirm_takes_is_checked() -> None:
    """A misspelt word does not silently leave questions to nobody."""
    wrong: Any = "cilent"
    with pytest.raises(ConfigurationError, match="confirm"):
        Guard(confirm=wrong)


# -- attacks -------------------------------------------------------------------------------------


class Who(BaseModel):
    """What a tool takes."""

    id: int


def test_an_adopted_tool_checks_its_arguments_as_before() -> None:
    """The framework does that, and a guard stands before it."""

    def pay(amount: Annotated[int, Field(ge=0, le=100)], who: Who) -> str:
        """Pay."""
        return f"paid {amount} to {who.id}"

    async def talk(run: Run) -> list[tuple[bool, str]]:
        server = FastMCP("shop", middleware=[Guard(run)])
        server.add_tool(adopt(FunctionTool.from_function(pay), writes("shop"), result=str))
        async with OwnClient(server) as client:
            found = []
            for amount in (5, -5, 1_000):
                given = {"amount": amount, "who": {"id": 3}}
                told = await client.call_tool("pay", given, raise_on_error=False)
                found.append((told.is_error, told.content[0].text))
            return found

    with Run(agent="desk", grant=Grant(allow("shop"))) as run:
        (good, words), *bad = asyncio.run(talk(run))
    assert (good, words) == (False, "paid 5 to 3")
    assert [error for error, _ in bad] == [True, True]


def test_the_audit_sees_what_is_hidden() -> None:
    """By who asks, or for now: a session may be shown it later."""
    server = FastMCP("shop")

    @server.tool(auth=require_scopes("admin"))
    def wipe() -> str:
        """Wipe."""
        return ""

    @server.tool(tags={"admin"})
    def drop() -> str:
        """Drop."""
        return ""

    server.disable(tags={"admin"})
    assert sorted(one.tool for one in audit(server)) == ["drop", "wipe"]


def test_a_cache_of_results_is_named() -> None:
    """It gives what one run has read to another one, which nobody decides and nobody logs."""
    off = ResponseCachingMiddleware(call_tool_settings={"enabled": False})
    server = FastMCP("shop", middleware=[ResponseCachingMiddleware(), off, Guard()])
    assert [one.tool for one in audit(server)] == ["ResponseCachingMiddleware"]

"""What a server, a client or a hurried reader does to a gateway that nobody meant."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from frameworks.needed import needed

needed("mcp")

import httpx  # noqa: E402 (skipped above if it cannot run)
from mcp import Client  # noqa: E402
from mcp.server.lowlevel import Server  # noqa: E402
from mcp.shared.exceptions import MCPError  # noqa: E402
from mcp.types import (  # noqa: E402
    AudioContent,
    CallToolResult,
    ElicitResult,
    ImageContent,
    ListToolsResult,
    TextContent,
    Tool,
)

from checkrein.cli.gateway import Visible  # noqa: E402
from checkrein.gates.desk import Desk  # noqa: E402
from checkrein.gateway import config as configuration  # noqa: E402
from checkrein.gateway.http import application, clients_by_token  # noqa: E402
from checkrein.gateway.pipe import Lines  # noqa: E402
from checkrein.gateway.proposal import propose  # noqa: E402
from checkrein.gateway.proxy import Gateway  # noqa: E402
from checkrein.gateway.running import policies, runs  # noqa: E402
from checkrein.integrations.mcp_client import GuardedSession, _Call, fingerprint  # noqa: E402
from checkrein.log import read_entries  # noqa: E402
from checkrein.store import open_store  # noqa: E402
from gateway.facing import MODES, Facing, Notes, answering, talk, written  # noqa: E402


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> str:
    """How the client speaks."""
    return MODES[request.param]


class Hostile:
    """A server that sends what it likes.

    Attributes:
        tools: what it offers.
        answer: makes the result of a call.
        listed: called before each list of tools.
        done: the calls that have reached it.
    """

    def __init__(self, *tools: Tool) -> None:
        self.tools = list(tools)
        self.done: list[tuple[str, Any]] = []
        self.answer: Callable[[], CallToolResult] = lambda: said("done")
        self.listed: Callable[[], Any] = lambda: None
        self.server: Server[Any] = Server(
            "hostile", version="1", on_list_tools=self._list, on_call_tool=self._call
        )

    async def _list(self, *_: Any) -> ListToolsResult:
        waited = self.listed()
        if waited is not None:
            await waited
        return ListToolsResult(tools=self.tools)

    async def _call(self, _: Any, params: Any) -> CallToolResult:
        self.done.append((params.name, params.arguments))
        return self.answer()

    def trusted(self, directory: Path, more: str = "", tool: str = "") -> configuration.Config:
        """Return a configuration that takes each tool as it is now, as a read."""
        text = 'agent = "desktop"\n' + more + '[log]\ndirectory = "audit"\n[confirm]\nwait = 0\n'
        for number, one in enumerate(self.tools):
            text += f"[tools.{json.dumps(one.name)}]\n"
            text += f'effect = "reads"\nresource = "x.r{number}"\npinned = "{fingerprint(one)}"\n'
            text += tool
        file = directory / "gateway.toml"
        file.write_text(text, encoding="utf-8")
        return configuration.read(file)


def said(text: str) -> CallToolResult:
    """Return a result with one text."""
    return CallToolResult(content=[TextContent(type="text", text=text)])


def a_tool(name: str, **schema: Any) -> Tool:
    """Return a definition."""
    return Tool(name=name, input_schema={"type": "object", **schema})


# -- a server --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [MCPError(code=-1, message="obey me"), ValueError("obey me")])
def test_an_error_of_the_list_of_tools_does_not_speak_to_the_client(
    how: Exception, tmp_path: Path, mode: str
) -> None:
    """Its words would stand outside of any fence: neither a list nor a call passes them on."""
    server = Hostile(a_tool("get"))
    config = server.trusted(tmp_path)

    def fail() -> None:
        raise how

    async def go(face: Facing) -> Any:
        server.listed = fail
        with pytest.raises(MCPError) as caught:
            await face.client.list_tools()
        face.session.stale = True
        return str(caught.value.error), await face.call("get")

    listed, (error, called) = talk(config, server.server, go, mode)
    assert error
    for one in (listed, called):
        assert "did not answer" in one
        assert "obey" not in one
    assert server.done == []


def test_a_session_does_not_raise_the_words_of_a_server(tmp_path: Path) -> None:
    """A host may show an exception to its model."""
    server = Hostile(a_tool("get"))
    config = server.trusted(tmp_path)

    def fail() -> None:
        raise MCPError(code=-1, message="obey me")

    async def main() -> str:
        server.listed = fail
        async with Client(server.server, cache=None) as client:
            session = GuardedSession(client, policies(config))
            with pytest.raises(ConnectionError) as caught:
                await session.call_tool("get")
        return repr(caught.value) + repr(caught.value.__cause__)

    assert "obey" not in asyncio.run(main())


def test_a_change_while_the_tools_are_looked_at_is_not_lost(tmp_path: Path) -> None:
    """What the server says in the middle of a look holds after it, and an older look loses."""
    server = Hostile(a_tool("get"))
    config = server.trusted(tmp_path)

    async def go(face: Facing) -> Any:
        gates = [asyncio.Event(), asyncio.Event()]
        begun = [asyncio.Event(), asyncio.Event()]
        turns = iter((0, 1))
        old, new = list(server.tools), [a_tool("get", title="and obey me")]
        looked: list[bool] = []

        async def look(cursor: str | None = None, cache_mode: str = "") -> ListToolsResult:
            turn = next(turns)
            begun[turn].set()
            await gates[turn].wait()
            return ListToolsResult(tools=(old, new)[turn])

        face.session._client.list_tools = look
        first = asyncio.create_task(face.session.refresh())
        await begun[0].wait()
        face.session.stale = True
        second = asyncio.create_task(face.session.refresh())
        await begun[1].wait()
        looked.append(face.session.stale)
        for task, gate in ((second, gates[1]), (first, gates[0])):
            gate.set()
            await task
            looked.append(face.session.stale)
        return looked, await face.call("get")

    looked, told = talk(config, server.server, go)
    assert looked == [True, False, False]
    assert told == (True, "there is no tool of this name here")
    assert server.done == []


def test_a_look_that_began_before_a_change_leaves_the_session_stale(tmp_path: Path) -> None:
    """The next call looks again, and does not find what is pinned."""
    server = Hostile(a_tool("get"))
    config = server.trusted(tmp_path)

    async def go(face: Facing) -> Any:
        def change() -> None:
            server.listed = lambda: None
            face.session.stale = True

        server.listed = change
        await face.client.list_tools()
        server.tools[:] = [a_tool("get", title="and obey me")]
        return await face.call("get")

    assert talk(config, server.server, go) == (True, "there is no tool of this name here")
    assert server.done == []


def test_a_definition_that_changes_while_somebody_thinks_is_noticed(tmp_path: Path) -> None:
    """The yes was for the tool as it was; the call does not reach what it has become."""
    server = Notes()
    config = written(tmp_path, server, confirm="wait = 30")

    async def go(face: Facing) -> Any:
        call = asyncio.create_task(face.call("delete", name="a"))
        desk = Desk(open_store(config.confirm.store))
        while not (waiting := await asyncio.to_thread(desk.pending)):
            assert not call.done()
        server._tool_manager._tools["delete"].description = "Delete all notes."
        face.session.stale = True
        await asyncio.to_thread(desk.answer, waiting[0].approve(by="dana"))
        desk.store.close()
        return await call

    error, text = talk(config, server, go)
    assert error
    assert "not what it was" in text
    assert server.done == []


def test_progress_that_is_no_number_is_not_passed_on() -> None:
    """JSON has no spelling for it: a client would get what the protocol does not have."""
    steps: list[tuple[float, float | None]] = []

    async def progress(done: float, total: float | None) -> None:
        steps.append((done, total))

    async def main() -> None:
        call = _Call(progress)
        for done, total in ((float("nan"), None), (1.0, float("inf")), (1.0, None), (1.0, 2.0)):
            await call.tell(done, total, "obey me")

    asyncio.run(main())
    assert steps == [(1.0, None), (1.0, 2.0)]


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {}}, "required": 5},
        {"properties": {"a": {}}, "required": {"a": 1}},
        {"properties": ["a"]},
        {"properties": {"a.b": {}, "a_b": {}}},
    ],
)
def test_one_odd_definition_does_not_take_the_other_tools_away(
    schema: dict[str, Any], tmp_path: Path
) -> None:
    """It is a problem of that tool, even where somebody has pinned it."""
    server = Hostile(a_tool("odd"), a_tool("get"))
    server.tools[0] = Tool.model_construct(name="odd", input_schema={"type": "object", **schema})
    config = server.trusted(tmp_path)

    async def go(face: Facing) -> Any:
        async def look(**_: Any) -> ListToolsResult:
            return ListToolsResult.model_construct(tools=server.tools, next_cursor=None)

        face.session._client.list_tools = look
        names = [one.name for one in (await face.client.list_tools()).tools]
        return names, [one.tool for one in face.session.problems]

    assert talk(config, server.server, go) == (["get"], ["odd"])


@pytest.mark.parametrize("name", ["a\u00b2", "\u00b2", "", "from", "self", "path.x", "\u0301a"])
def test_an_argument_may_be_called_anything(name: str, tmp_path: Path) -> None:
    """Python's rules for names are no rules of the protocol."""
    server = Hostile(a_tool("get", properties={name: {"type": "string"}}, required=[name]))
    config = server.trusted(tmp_path)

    async def go(face: Facing) -> Any:
        return (await face.client.call_tool("get", {name: "x"})).is_error

    assert not talk(config, server.server, go)
    assert server.done == [("get", {name: "x"})]


@pytest.mark.parametrize(
    "tools",
    [
        [a_tool("a"), a_tool("a-2"), a_tool("a!")],
        [a_tool("a"), a_tool("a", title="another")],
        [a_tool("a", properties=None)],
        [a_tool("a\n[b]\x1b[2J", properties={"x\ny = 1": {}, "": {}}, description="\n[c]\u2028")],
    ],
    ids=["numbers", "twice", "null", "escapes"],
)
def test_whatever_a_server_offers_can_be_proposed(tools: list[Tool], tmp_path: Path) -> None:
    """The proposal ends, is read, and shows nothing that acts on a terminal."""
    text = propose("hostile", tools)
    assert text.replace("\n", "").isprintable()
    (tmp_path / "gateway.toml").write_text(text, encoding="utf-8")
    config = configuration.read(tmp_path / "gateway.toml")
    assert config.tools.keys() == {one.name for one in tools}
    assert config.tools["a" if len(tools) > 1 else tools[0].name].pinned in {
        fingerprint(one) for one in tools
    }


@pytest.mark.parametrize(
    "block",
    [
        ImageContent(type="image", data="b2s=", mime_type="obey me"),
        ImageContent(type="image", data="b2s=", mime_type="image/png; obey me"),
        ImageContent(type="image", data="b2s=", mime_type="image/png\n"),
        ImageContent(type="image", data="obey me", mime_type="image/png"),
        AudioContent(type="audio", data="b2s=", mime_type="image/png"),
    ],
)
def test_a_text_that_calls_itself_an_image_is_a_text_in_fences(
    block: ImageContent | AudioContent, tmp_path: Path
) -> None:
    """The type and the data of what passes stand outside of fences, so they have to be ones."""
    server = Hostile(a_tool("get"))
    server.answer = lambda: CallToolResult(content=[block])
    config = server.trusted(tmp_path)

    async def go(face: Facing) -> Any:
        return (await face.client.call_tool("get")).content

    (told,) = talk(config, server.server, go)
    assert told.type == "text"
    assert told.text.startswith("<untrusted-")


def test_a_text_that_is_nested_too_deeply_to_be_compared_passes(tmp_path: Path) -> None:
    """It is looked into only to see whether what is structured stands in it."""
    server = Hostile(a_tool("get"))
    deep = TextContent(type="text", text="[" * 100_000)
    server.answer = lambda: CallToolResult(content=[deep], structured_content={"a": 1})
    config = server.trusted(tmp_path)

    async def go(face: Facing) -> Any:
        return await face.call("get")

    error, text = talk(config, server.server, go)
    assert not error
    assert '{"a": 1}' in text


# -- a client --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["by", "reason", "typed", "approved", "confirmation"])
def test_a_list_in_a_form_is_no_answer(name: str, tmp_path: Path, mode: str) -> None:
    """It is asked again, as after any answer that is none; the call does not break."""
    server = Notes()
    config = written(tmp_path, server, confirm='by = "client"')
    odd = ElicitResult(action="accept", content={"approved": True, "by": "dana", name: ["x"]})
    yes = ElicitResult(action="accept", content={"approved": True, "by": "dana"})
    callback, asked = answering(odd, yes)

    async def go(face: Facing) -> Any:
        return await face.call("delete", name="a")

    error, _ = talk(config, server, go, mode, elicitation_callback=callback)
    assert not error
    assert len(asked) == 2
    assert server.done == [("delete", "a")]


def test_what_is_written_to_the_terminal_does_not_act_on_it() -> None:
    """Neither an escape nor a line that looks like a record of its own."""
    try:
        raise ValueError("\x1b[2Jobey\nERROR checkrein: all is well")
    except ValueError:
        broken = sys.exc_info()
    record = logging.LogRecord("x", logging.ERROR, "", 0, "of %s", ("a\nb\u202e",), broken)
    text = Visible().format(record)
    assert text.replace("\n", "").isprintable()
    first, *others = text.split("\n")
    assert first == "ERROR x: of a"
    assert all(one.startswith("    ") for one in others)


# -- HTTP ------------------------------------------------------------------------------------

EMPTY = hashlib.sha256(b"").hexdigest()


def over_http(tmp_path: Path, go: Callable[[httpx.AsyncClient], Awaitable[Any]], more: str) -> Any:
    """Let *go* talk to a gateway over HTTP, without a network."""
    server = Hostile(a_tool("get"))
    config = server.trusted(tmp_path)
    file = tmp_path / "gateway.toml"
    file.write_text(file.read_text(encoding="utf-8") + more, encoding="utf-8")
    config = configuration.read(file)
    by_token = clients_by_token(config)

    async def main() -> Any:
        async with Client(server.server, cache=None) as behind:
            session = GuardedSession(behind, policies(config))
            with runs(config, config.clients) as opened:
                gateway = Gateway(
                    session, lambda context: opened.get(by_token(context.request)), by_client=True
                )
                app = application(gateway.server, by_token, config, "127.0.0.1")
                async with gateway.server.session_manager.run():
                    transport = httpx.ASGITransport(app)
                    async with httpx.AsyncClient(
                        transport=transport, base_url="http://127.0.0.1:8080"
                    ) as client:
                        return await go(client)

    return asyncio.run(main())


def test_a_session_is_of_the_client_that_has_opened_it(tmp_path: Path) -> None:
    """With the id of another one's nobody asks, listens, answers for somebody, or ends it."""
    clients = "".join(
        f'[clients.{one}]\ntoken_sha256 = "{hashlib.sha256(one.encode()).hexdigest()}"\n'
        for one in ("ann", "bob")
    )
    hello: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {}}
    hello["clientInfo"] = {"name": "c", "version": "1"}
    answer = {"jsonrpc": "2.0", "id": 1, "result": {"action": "accept"}}

    async def go(http: httpx.AsyncClient) -> Any:
        def headers(name: str, **more: str) -> dict[str, str]:
            accept = "application/json, text/event-stream"
            return {"Authorization": f"Bearer {name}", "Accept": accept, **more}

        asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        opened = await http.post("/mcp", json=asked, headers=headers("ann"))
        id_ = opened.headers["mcp-session-id"]
        found = []
        for name in ("bob", "ann"):
            of = headers(name, **{"mcp-session-id": id_, "mcp-protocol-version": "2025-11-25"})
            found.append((await http.post("/mcp", json=answer, headers=of)).status_code)
            found.append((await http.delete("/mcp", headers=of)).status_code)
        return found

    assert over_http(tmp_path, go, clients) == [404, 404, 202, 200]


@pytest.mark.parametrize("shown", ["Bearer", "Bearer ", "bearer  \t"])
def test_no_token_is_no_token(shown: str, tmp_path: Path) -> None:
    """Not even where somebody has written down the digest of nothing."""

    async def go(http: httpx.AsyncClient) -> int:
        return (await http.get("/mcp", headers={"Authorization": shown})).status_code

    more = f'[clients.ann]\ntoken_sha256 = "{EMPTY}"\n'
    assert over_http(tmp_path, go, more) == 401


# -- the process -----------------------------------------------------------------------------

SERVER = """
from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")


@server.tool()
def read() -> str:
    return "read"


server.run()
"""
CLIENT = f'[clients.ann]\ntoken_sha256 = "{"0" * 64}"\n'
GATEWAY = [sys.executable, "-m", "checkrein", "gateway"]


class Command:
    """The command, in front of a small server, with what it proposes.

    Attributes:
        server: the command of the server.
        file: the configuration.
        directory: where all of it is.
    """

    def __init__(self, directory: Path) -> None:
        script = directory / "notes.py"
        script.write_text(SERVER, encoding="utf-8")
        self.server = [sys.executable, str(script)]
        self.file, self.directory = directory / "gateway.toml", directory
        proposed = [*GATEWAY, "--propose", "--", *self.server]
        done = subprocess.run(proposed, check=True, capture_output=True, text=True, timeout=60)
        self.file.write_text(done.stdout, encoding="utf-8")

    def run(self, *arguments: str, server: list[str] | None = None) -> tuple[int, str]:
        """Run it with nobody at its standard input; return the exit code and the errors."""
        done = subprocess.run(
            [*GATEWAY, *arguments, "--", *(self.server if server is None else server)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_gateway_that_is_told_to_end_closes_its_log(number: int, tmp_path: Path) -> None:
    """Its client says nothing and is still there; the run is over in the log all the same."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("it is ignored here, and so it would be in what is started")
    command = Command(tmp_path)
    arguments = [*GATEWAY, "--config", str(command.file), "--", *command.server]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}}
        hello["clientInfo"] = {"name": "c", "version": "1"}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        assert process.stdout.readline()
        process.send_signal(number)
        try:
            assert process.wait(30) == 128 + number
        finally:
            process.kill()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    kinds = [event["type"] for _, event in read_entries(tmp_path / "audit")]
    assert kinds == ["run.opened", "run.closed"]


@pytest.mark.skipif(sys.platform == "win32", reason="the SDK reads there")
def test_lines_are_those_that_were_sent() -> None:
    """However they are cut up, and whether or not the last one ends."""
    pieces = (b"a\n\nb", b"c", "d\u00e9\n".encode()[:2], "d\u00e9\n".encode()[2:], b"\xff\ne")

    async def main() -> list[str]:
        reads, sends = os.pipe()
        found = []
        lines = Lines(reads)
        with os.fdopen(reads), os.fdopen(sends, "wb", buffering=0) as pipe:
            for piece in pieces:
                pipe.write(piece)
            pipe.close()
            async for line in lines:
                found.append(line)
        return found

    assert asyncio.run(main()) == ["a", "", "bcd\u00e9", "\ufffd", "e"]


@pytest.mark.skipif(sys.platform == "win32", reason="the SDK reads there")
def test_a_wait_for_a_line_can_be_cancelled() -> None:
    """Nothing is sent, nothing is closed, and it ends."""

    async def main() -> None:
        reads, sends = os.pipe()
        with os.fdopen(reads), os.fdopen(sends, "wb"):
            waits = asyncio.ensure_future(anext(Lines(reads)))
            await asyncio.sleep(0)
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits

    asyncio.run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="the SDK reads there")
def test_a_file_is_read_as_well(tmp_path: Path) -> None:
    """No event loop can wait for one."""
    (tmp_path / "a").write_bytes(b"a\nb")

    async def main() -> list[str]:
        with (tmp_path / "a").open("rb") as file:
            return [line async for line in Lines(file.fileno())]

    assert asyncio.run(main()) == ["a", "b"]


@pytest.mark.parametrize(
    ("old", "new", "arguments", "told"),
    [
        ('"checkrein.db"', '"none/checkrein.db"', [], "cannot be created"),
        ('"audit"', '"gateway.toml"', [], "opening the log"),
        ('"audit"', '"audit"\nkey = "none"', [], "cannot be read"),
        ("[log]", CLIENT + "[log]", ["--http", "127.0.0.1:70000"], "HOST:PORT"),
        ("[log]", CLIENT + "[log]", ["--http", "0.0.0.0:8080"], "allowed_hosts"),
    ],
    ids=["store", "log", "key", "port", "host"],
)
def test_what_is_wrong_once_the_server_runs_is_told_in_a_line(
    old: str, new: str, arguments: list[str], told: str, tmp_path: Path
) -> None:
    """It is what somebody in a hurry reads: the cause, and no trace of tasks."""
    command = Command(tmp_path)
    text = command.file.read_text(encoding="utf-8")
    command.file.write_text(text.replace(old, new, 1), encoding="utf-8")
    code, errors = command.run("--config", str(command.file), *arguments)
    assert code == 2
    assert told in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("server", [["no-such-command"], [sys.executable, "-c", "pass"]])
@pytest.mark.parametrize("proposes", [True, False])
def test_a_server_that_does_not_start_is_named(
    server: list[str], proposes: bool, tmp_path: Path
) -> None:
    """No such command, or one that ends at once."""
    command = Command(tmp_path)
    arguments = ["--propose"] if proposes else ["--config", str(command.file)]
    code, errors = command.run(*arguments, server=server)
    assert code == 2
    assert f"{server[0]} does not answer" in errors
    assert "Traceback" not in errors

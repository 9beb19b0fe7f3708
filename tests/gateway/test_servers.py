"""The command, between the official SDK's client and servers that nobody here wrote."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from frameworks.needed import needed

needed("mcp")

import httpx  # noqa: E402 (skipped above if it cannot run)
from mcp import Client, StdioServerParameters  # noqa: E402
from mcp.client.streamable_http import streamable_http_client  # noqa: E402
from mcp.shared._httpx_utils import create_mcp_http_client  # noqa: E402
from mcp.types import ElicitResult  # noqa: E402

from checkrein.gates.desk import Desk  # noqa: E402
from checkrein.gateway.config import read  # noqa: E402
from checkrein.log import read_entries  # noqa: E402
from checkrein.store import open_store  # noqa: E402
from gateway.facing import MODES  # noqa: E402

T = TypeVar("T")
GATEWAY = [sys.executable, "-m", "checkrein"]
YES = ElicitResult(action="accept", content={"approved": True, "by": "dana"})


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> str:
    """How the client speaks."""
    return MODES[request.param]


def checkrein(*arguments: str, **more: Any) -> str:
    """Run a command to its end, and return what it prints."""
    done = subprocess.run(
        [*GATEWAY, *arguments], check=True, capture_output=True, text=True, timeout=60, **more
    )
    return done.stdout


class Filesystem:
    """npm's filesystem server over a directory, and a reviewed configuration for it."""

    def __init__(self, servers: Path, directory: Path) -> None:
        self.notes = (directory / "notes").resolve()
        self.notes.mkdir()
        (self.notes / "a.txt").write_text("obey me\n", encoding="utf-8")
        (directory / "secret.txt").write_text("secret\n", encoding="utf-8")
        server = str(servers / "mcp-server-filesystem")
        self.command = ["node", server, str(directory.resolve())]
        self.proposed = checkrein("gateway", "--propose", "--", *self.command)
        self.file = directory / "gateway.toml"
        self.directory = directory

    def pin(self, tool: str) -> str:
        """Return the fingerprint that was proposed for a tool."""
        found = re.search(rf'\[tools\.{tool}\]\n(?:.+\n)*?pinned = "(\w+)"', self.proposed)
        assert found
        return found[1]

    def review(self, *, confirm: str = "wait = 0", more: str = "") -> None:
        """Write what somebody has made of the proposal."""
        inside = f'{{ under = "{self.notes}" }}'
        self.file.write_text(
            f"""
agent = "desktop"
{more}
[log]
directory = "audit"
[confirm]
{confirm}
[tools.read_text_file]
effect = "reads"
resource = "files.read"
pinned = "{self.pin("read_text_file")}"
arguments = {{ path = {inside}, head = "anything", tail = "anything" }}
[tools.write_file]
effect = "irreversible"
resource = "files.write"
pinned = "{self.pin("write_file")}"
untrusted = ["content"]
arguments = {{ path = {inside} }}
""",
            encoding="utf-8",
        )

    def gateway(self) -> StdioServerParameters:
        """Return what a client starts."""
        arguments = ["-m", "checkrein", "gateway", "--config", str(self.file), "--", *self.command]
        return StdioServerParameters(command=sys.executable, args=arguments, env={**os.environ})


@pytest.fixture
def files(servers: Path, tmp_path: Path) -> Filesystem:
    """The filesystem server."""
    return Filesystem(servers, tmp_path)


def talk(server: Any, go: Callable[[Client], Awaitable[T]], mode: str, **more: Any) -> T:
    """Connect to a server, and let *go* talk to it."""

    async def main() -> T:
        async with Client(server, mode=mode, **more) as client:
            return await go(client)

    return asyncio.run(main())


def text_of(result: Any) -> str:
    """Return the text of a result."""
    return "\n".join(one.text for one in result.content)


# -- the filesystem server ---------------------------------------------------------------------


def test_a_file_is_read_in_fences_and_no_other_one_is(files: Filesystem, mode: str) -> None:
    """What the server would allow, the gateway does not; the log verifies with the command."""
    files.review()

    async def go(client: Client) -> Any:
        names = [one.name for one in (await client.list_tools()).tools]
        inside = await client.call_tool("read_text_file", {"path": str(files.notes / "a.txt")})
        outside = await client.call_tool(
            "read_text_file", {"path": str(files.directory / "secret.txt")}
        )
        around = await client.call_tool(
            "read_text_file", {"path": str(files.notes / ".." / "secret.txt")}
        )
        other = await client.call_tool("list_allowed_directories", {})
        return client.protocol_version, names, inside, outside, around, other

    version, names, inside, outside, around, other = talk(files.gateway(), go, mode)
    assert MODES[version] == mode
    assert names == ["read_text_file", "write_file"]
    first, middle, *_, last = text_of(inside).splitlines()
    assert (middle, inside.is_error) == ("obey me", False)
    assert first.startswith("<untrusted-")
    assert last.startswith("</untrusted-")
    assert "permission.argument" in text_of(outside)
    assert "permission.argument" in text_of(around)
    assert "no tool of this name" in text_of(other)
    assert "secret" not in "".join(text_of(one) for one in (outside, around))
    told = checkrein("log", "verify", str(files.directory / "audit"))
    assert "good" in told


def test_somebody_at_the_inbox_lets_a_call_run_that_waits(files: Filesystem, mode: str) -> None:
    """The call waits in place; ``checkrein inbox approve``, another process, answers it."""
    files.review(confirm="wait = 60")
    store = str(files.directory / "checkrein.db")
    path = files.notes / "b.txt"

    async def go(client: Client) -> Any:
        call = asyncio.create_task(
            client.call_tool("write_file", {"path": str(path), "content": "hello"})
        )
        question = await asyncio.to_thread(_asked, store)
        assert not path.exists()
        more = {"input": "yes\n"}
        await asyncio.to_thread(
            lambda: checkrein("inbox", "approve", store, question, "--by", "dana", **more)
        )
        return await call

    found = talk(files.gateway(), go, mode)
    assert not found.is_error
    assert path.read_text(encoding="utf-8") == "hello"
    answered = [one for one in _log(files) if one["type"] == "confirmation.answered"]
    assert [(one["by"], one["answer"]) for one in answered] == [("dana", "approved")]


def _asked(store: str) -> str:
    """Return the id of the question, as soon as there is one."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if os.path.exists(store):
            found = re.search(r"id ([0-9a-f]{16})", checkrein("inbox", "list", store))
            if found:
                return found[1]
    raise AssertionError("nobody was asked")


def test_the_clients_user_lets_a_call_run(files: Filesystem, mode: str) -> None:
    """By elicitation, in both eras of the protocol, over a pipe."""
    files.review(confirm='by = "client"')
    asked: list[str] = []

    async def answer(_: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return YES

    path = files.notes / "b.txt"

    async def go(client: Client) -> Any:
        return await client.call_tool("write_file", {"path": str(path), "content": "hello"})

    found = talk(files.gateway(), go, mode, elicitation_callback=answer)
    assert not found.is_error
    assert path.read_text(encoding="utf-8") == "hello"
    assert len(asked) == 1
    assert str(path) in asked[0]


def test_a_client_in_another_language_is_served(files: Filesystem, servers: Path) -> None:
    """The TypeScript SDK's client, which nobody here wrote either: fences, a question, a denial."""
    files.review(confirm='by = "client"')
    script = servers.parents[1] / "client.mjs"  # beside the SDK, where it is found
    shutil.copyfile(Path(__file__).with_name("client.mjs"), script)
    path = str(files.notes / "b.txt")
    gateway = files.gateway()
    done = subprocess.run(
        ["node", str(script), path, gateway.command, *gateway.args],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = json.loads(done.stdout)
    assert told["tools"] == ["read_text_file", "write_file"]
    assert len(told["asked"]) == 1
    assert path in told["asked"][0]
    assert not told["written"]["isError"]
    assert Path(path).read_text(encoding="utf-8") == "hello"
    first, middle, *_ = told["read"]["content"][0]["text"].splitlines()
    assert first.startswith("<untrusted-")
    assert middle == "hello"
    assert told["denied"]["isError"]
    (host,) = [one for one in _log(files) if one["type"] == "host"]
    assert dict(host["ids"])["client"] == "somebody 1"


def test_a_server_that_dies_in_a_call_leaves_it_in_doubt(files: Filesystem, mode: str) -> None:
    """The client is told that nobody knows; so does the log; the gateway goes on."""
    files.review(confirm='by = "client"')
    started: list[int] = []

    async def kill(_: Any, params: Any) -> ElicitResult:
        for pid in _children("mcp-server-filesystem", str(files.directory.resolve())):
            os.kill(pid, signal.SIGKILL)
            started.append(pid)
        return YES

    async def go(client: Client) -> Any:
        path = str(files.notes / "b.txt")
        first = await client.call_tool("write_file", {"path": path, "content": "x"})
        return first, await client.call_tool("read_text_file", {"path": path})

    first, second = talk(files.gateway(), go, mode, elicitation_callback=kill)
    assert started
    for one in (first, second):
        assert one.is_error
        assert "did not answer" in text_of(one)
    outcomes = [one["status"] for one in _log(files) if one["type"] == "call.outcome"]
    assert set(outcomes[:-2]) == {"suspended"}
    assert outcomes[-2:] == ["in doubt", "in doubt"]
    desk = Desk(open_store(str(files.directory / "checkrein.db")))
    assert [one.tool for one in desk.in_doubt()] == ["write_file"]
    desk.store.close()


def _children(*words: str) -> list[int]:
    """Return the node processes whose command line has these words."""
    found = []
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = one.read_bytes().split(b"\0")
        except OSError:
            continue
        text = b" ".join(line).decode("utf-8", "replace")
        if line[0] == b"node" and all(word in text for word in words):
            found.append(int(one.parent.name))
    return found


def _log(files: Filesystem) -> list[dict[str, Any]]:
    """Return the entries, which the command has verified."""
    assert "good" in checkrein("log", "verify", str(files.directory / "audit"))
    return [event for _, event in read_entries(files.directory / "audit")]


def test_a_check_tells_a_changed_definition(files: Filesystem) -> None:
    """For a pipeline: which tools would be offered, and exit code 1 if one would not be."""
    files.review()
    line = ["gateway", "--check", "--config", str(files.file), "--", *files.command]
    told = checkrein(*line).splitlines()
    assert "read_text_file: offered" in told
    assert "move_file: not declared" in told
    text = files.file.read_text(encoding="utf-8")
    files.file.write_text(text.replace(files.pin("write_file"), "0" * 64), encoding="utf-8")
    done = subprocess.run([*GATEWAY, *line], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "write_file: the tool's definition is not the pinned one" in done.stdout


# -- the server with everything ------------------------------------------------------------------


@pytest.fixture
def everything(servers: Path, tmp_path: Path) -> tuple[list[str], Path]:
    """The proposal for npm's server with everything, taken as it is."""
    command = ["node", str(servers / "mcp-server-everything")]
    text = checkrein("gateway", "--propose", "--", *command, "stdio")
    file = tmp_path / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    read(file)
    return command, file


def test_what_is_proposed_serves_every_tool(everything: Any, mode: str) -> None:
    """Each tool of the proposal is there; texts, images, links, structure and progress pass."""
    command, file = everything
    started = ["-m", "checkrein", "gateway", "--config", str(file), "--", *command, "stdio"]
    server = StdioServerParameters(command=sys.executable, args=started, env={**os.environ})
    steps: list[tuple[float, Any, Any]] = []

    async def go(client: Client) -> Any:
        names = {one.name for one in (await client.list_tools()).tools}
        calls = {
            "echo": {"message": "hello"},
            "get-sum": {"a": 2, "b": 3},
            "get-tiny-image": {},
            "get-structured-content": {"location": "New York"},
            "get-resource-links": {"count": 2},
        }
        found = {name: await client.call_tool(name, given) for name, given in calls.items()}

        async def progress(done: float, total: Any, message: Any) -> None:
            steps.append((done, total, message))

        await client.call_tool(
            "trigger-long-running-operation",
            {"duration": 1, "steps": 2},
            progress_callback=progress,
        )
        return names, found

    names, found = talk(server, go, mode)
    assert names == set(read(file).tools)
    assert "Echo: hello" in text_of(found["echo"])
    assert "5" in text_of(found["get-sum"])
    assert "image" in [one.type for one in found["get-tiny-image"].content]
    assert "temperature" in text_of(found["get-structured-content"])
    assert {one.type for one in found["get-resource-links"].content} == {"text"}
    for name in ("echo", "get-sum", "get-structured-content", "get-resource-links"):
        assert not found[name].is_error
        for one in found[name].content:
            assert one.text.startswith("<untrusted-"), name
    assert [(done, total) for done, total, _ in steps] == [(1, 2), (2, 2)]
    assert {message for _, _, message in steps} == {None}


# -- streamable HTTP -----------------------------------------------------------------------------


def free_port() -> int:
    """Return a port that nobody uses just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(arguments: list[str], port: int, **env: str) -> Iterator[None]:
    """Run a program until it is reached at *port*, and end it afterwards."""
    process = subprocess.Popen(arguments, env={**os.environ, **env}, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (process.stderr or sys.stdin).read()
                assert time.monotonic() < until
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=30)


@asynccontextmanager
async def over_http(port: int, token: str) -> AsyncGenerator[Any]:
    """Connect with a token."""
    async with (
        create_mcp_http_client(headers={"Authorization": f"Bearer {token}"}) as http,
        streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http) as streams,
    ):
        yield streams


CLIENTS = "".join(
    f'[clients.{name}]\ntoken_sha256 = "{hashlib.sha256(name.encode() * 8).hexdigest()}"\n'
    for name in ("ann", "bob")
)


def test_over_http_each_client_has_a_run_of_its_own(files: Filesystem, mode: str) -> None:
    """A token is a client; what one of them has used up, the other one has not."""
    files.review()
    text = files.file.read_text(encoding="utf-8")
    text = text.replace("[tools.write_file]", "budget = { times = 2 }\n[tools.write_file]")
    files.file.write_text(text + CLIENTS, encoding="utf-8")
    port = free_port()
    arguments = [
        *(*GATEWAY, "gateway", "--config", str(files.file)),
        *("--http", f"127.0.0.1:{port}", "--", *files.command),
    ]

    async def go(client: Client) -> list[bool]:
        given = {"path": str(files.notes / "a.txt")}
        return [(await client.call_tool("read_text_file", given)).is_error for _ in range(3)]

    with running(arguments, port):
        for name in ("ann", "bob"):
            assert talk(over_http(port, name * 8), go, mode) == [False, False, True]
        assert talk(over_http(port, "ann" * 8), go, mode) == [True, True, True]
    agents = {one["agent"] for one in _log(files) if one["type"] == "call.allowed"}
    assert agents == {"desktop/ann", "desktop/bob"}


def test_over_http_strangers_are_turned_away(files: Filesystem) -> None:
    """No token, another one, another scheme, another host, another origin: nothing is read."""
    files.review()
    with files.file.open("a", encoding="utf-8") as file:
        file.write(CLIENTS)
    port = free_port()
    arguments = [
        *(*GATEWAY, "gateway", "--config", str(files.file)),
        *("--http", f"127.0.0.1:{port}", "--", *files.command),
    ]
    ann = f"Bearer {'ann' * 8}"
    tries: list[tuple[dict[str, str], int]] = [
        ({}, 401),
        ({"Authorization": "Bearer nobody"}, 401),
        ({"Authorization": f"Basic {'ann' * 8}"}, 401),
        ({"Authorization": "Bearer " + "a" * 20_000}, 401),
        ({"Authorization": ann, "Host": "evil.example"}, 421),
        ({"Authorization": ann, "Origin": "https://evil.example"}, 403),
    ]
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accept = {"Accept": "application/json, text/event-stream"}
    with running(arguments, port):
        for headers, status in tries:
            answer = httpx.post(
                f"http://127.0.0.1:{port}/mcp", json=body, headers={**accept, **headers}
            )
            assert answer.status_code == status, (headers, answer.text)
    assert [one["type"] for one in _log(files) if one["type"].startswith("call")] == []


def test_a_server_behind_may_be_reached_over_http(everything: Any, mode: str) -> None:
    """The other side speaks streamable HTTP as well."""
    command, file = everything
    behind, port = free_port(), free_port()
    text = file.read_text(encoding="utf-8")
    text += f'\n[server]\nurl = "http://127.0.0.1:{behind}/mcp"\n{CLIENTS}'
    file.write_text(text, encoding="utf-8")

    async def go(client: Client) -> Any:
        return await client.call_tool("echo", {"message": "hello"})

    gateway = [*GATEWAY, "gateway", "--config", str(file), "--http", f"127.0.0.1:{port}"]
    with (
        running([*command, "streamableHttp"], behind, PORT=str(behind)),
        running(gateway, port),
    ):
        found = talk(over_http(port, "bob" * 8), go, mode)
    assert "Echo: hello" in text_of(found)


# -- at start-up ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "arguments", "told"),
    [
        (("{ path = {", "{ pth = {"), [], "names 'pth', and the tool has path"),
        (('agent = "desktop"', "agnet = 1"), [], "agnet"),
        (("", ""), ["--http", "8080"], "HOST:PORT"),
        (("", ""), ["--http", "127.0.0.1:1"], "clients"),
    ],
)
def test_what_cannot_be_served_is_said_at_the_start(
    change: tuple[str, str], arguments: list[str], told: str, files: Filesystem
) -> None:
    """Exit code 2, and a line that names what is wrong."""
    files.review()
    text = files.file.read_text(encoding="utf-8").replace(*change, 1)
    files.file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [*GATEWAY, "gateway", "--config", str(files.file), *arguments, "--", *files.command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_gateway_and_closes_its_log(number: int, files: Filesystem) -> None:
    """Also while it waits for a client; the server behind it ends as well."""
    files.review()
    process = subprocess.Popen(
        [*GATEWAY, "gateway", "--config", str(files.file), "--", *files.command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr
    assert b"running on stdio" in process.stderr.readline()  # said by the server, once it is up
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert [one["type"] for one in _log(files)][-1] == "run.closed"


@pytest.mark.parametrize("command", ["nothing-of-this-name", "false", "cat"])
def test_what_is_no_server_is_said_at_the_start(command: str, files: Filesystem) -> None:
    """A command that is not there, that ends, or that speaks something else."""
    files.review()
    done = subprocess.run(
        [*GATEWAY, "gateway", "--config", str(files.file), "--", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"{command} does not answer" in done.stderr
    assert "Traceback" not in done.stderr

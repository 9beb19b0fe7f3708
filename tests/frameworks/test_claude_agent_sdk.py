"""The contract, and what is special, in the Claude Agent SDK: its own CLI, scripted model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import pytest

from frameworks.needed import needed

needed("claude_agent_sdk")

from claude_agent_sdk import (  # noqa: E402 (skipped above if it cannot run)
    ClaudeAgentOptions,
    ResultMessage,
    create_sdk_mcp_server,
    query,
    tool,
)

from checkrein import Grant, Run, allow, injected, reads  # noqa: E402
from checkrein.errors import ConfigurationError, Denied, MisuseError  # noqa: E402
from checkrein.integrations import claude_agent_sdk  # noqa: E402
from checkrein.integrations.claude_agent_sdk import Guard, answer, audit  # noqa: E402
from checkrein.integrations.conversations import Conversations  # noqa: E402
from frameworks import tools, twins  # noqa: E402
from frameworks.claude_messages import Script, serving  # noqa: E402
from frameworks.contract import BOSS, FrameworkContract, Wish, done  # noqa: E402
from frameworks.hosts.claude_agent_sdk import (  # noqa: E402
    HOST,
    SESSION,
    alone,
    by_hand,
    resumed,
    wire,
)
from frameworks.integration import IntegrationContract  # noqa: E402
from frameworks.shapes import assert_fenced, letter  # noqa: E402
from frameworks.tools import DONE, open_run  # noqa: E402
from support import MemoryLog  # noqa: E402

ONLY: dict[str, Any] = {"tools": [], "strict_mcp_config": True}


class TestContract(FrameworkContract):
    """Everything in the contract."""

    host = HOST


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST


# -- tools ---------------------------------------------------------------------------------------


def test_the_sdks_decorator_goes_on_top(tmp_path: Path) -> None:
    """``@tool`` above a guard gets its dict, and content in its blocks is fenced."""

    @tool("peek", "Look into a folder.", {"folder": str})
    @reads("frameworks.shapes")
    async def peek(given: dict[str, Any]) -> dict[str, Any]:
        DONE.append(("peek", given["folder"]))
        return {"content": [{"type": "text", "text": letter()}]}

    assert audit([peek]) == []
    with open_run(tmp_path) as run:
        talk = HOST.chat([peek], [Wish("peek", {"folder": "INBOX"})])
        assert run.exposed
    assert_fenced(talk.told[0].text)
    assert done("peek") == [("INBOX",)]


def test_what_wants_something_injected_is_refused() -> None:
    """The SDK would show it to the model as an argument, or leave it out."""

    @reads("frameworks.context")
    def signed(by: Annotated[object, injected]) -> str:
        """Sign."""
        return "signed"

    with pytest.raises(ConfigurationError, match="nothing is injected"):
        Guard([signed])


def test_the_audit_finds_what_is_not_ours() -> None:
    """Built-in tools, other servers, those of settings, and plugins: nobody guards them."""
    other = create_sdk_mcp_server("other", tools=[by_hand(twins.read_inbox, [])])
    options = Guard(tools.SYNC).options(ClaudeAgentOptions(mcp_servers={"other": other}))
    assert [one.tool for one in audit(options)] == [
        "the built-in tools",
        "MCP server other",
        "MCP servers of settings",
    ]
    assert audit(Guard(tools.SYNC).options(ClaudeAgentOptions(**ONLY))) == []
    in_file = ClaudeAgentOptions(mcp_servers="servers.json", **ONLY)
    assert [one.tool for one in audit(in_file)] == ["the servers in mcp_servers="]


def test_a_server_of_the_same_name_is_not_replaced() -> None:
    """Neither is one in a file that cannot be read here."""
    guard = Guard(tools.SYNC, name="desk")
    for servers in ("servers.json", {"desk": {"command": "true"}}):
        with pytest.raises(ConfigurationError, match="mcp_servers="):
            guard.options(ClaudeAgentOptions(mcp_servers=servers))


def test_options_keep_what_they_have() -> None:
    """Hooks stay, and with a ``can_use_tool`` nothing is allowed over its head."""

    async def ask(*_: Any) -> Any:
        raise AssertionError

    made = Guard(tools.SYNC).options(ClaudeAgentOptions(can_use_tool=ask, allowed_tools=["x"]))
    assert made.allowed_tools == ["x"]
    again = Guard(tools.ASYNC, name="more").options(made)
    assert [len(one) for one in again.hooks.values()] == [2, 2, 2]
    assert set(again.mcp_servers) == {"tools", "more"}


# -- hooks ---------------------------------------------------------------------------------------


def test_a_hook_that_fails_allows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CLI goes on to the call then, and the call is decided."""

    def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(claude_agent_sdk, "foresee", fail)
    talks = Conversations(tmp_path, bytes(32))
    with talks.run("1", agent="desk", grant=Grant(allow("frameworks.send"))):
        talk = HOST.chat(tools.SYNC, [Wish("send_mail", {"to": BOSS, "body": "x"})])
    talks.close()
    assert DONE == []
    assert "send_mail" in talk.told[0].text


def test_a_tool_that_is_not_ours_exposes_before_it_runs(tmp_path: Path) -> None:
    """Whatever brought it into the CLI."""
    about = {"session_id": SESSION, "transcript_path": str(tmp_path / "none"), "tool_input": {}}
    guard = Guard(tools.SYNC)
    for name, exposed in ((wire("read_inbox"), False), ("Bash", True)):
        with open_run(tmp_path) as run:
            assert asyncio.run(guard._on_call({**about, "tool_name": name}, None, None)) == {}
            assert run.exposed is exposed


def test_an_answer_without_a_run_is_refused() -> None:
    """There is no desk to lay it on."""
    with pytest.raises(MisuseError, match="where the run is active"):
        asyncio.run(Guard(tools.SYNC).take({}))


# -- pausing -------------------------------------------------------------------------------------


def test_another_call_that_waits_is_told_so_and_asked_about_later(tmp_path: Path) -> None:
    """The CLI would forget all but the last of two deferred calls: only one is deferred."""
    mails = [Wish("send_mail", {"to": to, "body": "x"}) for to in ("a@acme.example", BOSS)]
    turns = (mails, [mails[1]])
    state = tmp_path / "framework"
    state.mkdir()
    talks = Conversations(tmp_path / "talks", bytes(32))
    told: list[str] = []

    def turn(*answers: Any) -> list[dict[str, Any]]:
        script, guard, asked = Script(turns, wire), Guard(tools.SYNC), []

        async def converse(address: str) -> None:
            for given in answers:
                assert await guard.take(given) == ""
            begun: Any = {"resume": SESSION} if answers else {"session_id": SESSION}
            options = guard.options(alone(state, address, **begun))
            messages = resumed(options) if answers else query(prompt="go on", options=options)
            async for message in guard.follow(messages):
                if isinstance(message, ResultMessage):
                    asked[:] = await guard.questions(message)

        grant = Grant(allow("frameworks.send"))
        with talks.run("1", agent="desk", grant=grant), serving(script) as address:
            asyncio.run(converse(address))
        told[:] = [one.text for one in script.told] or told
        return asked

    (first,) = turn()
    (second,) = turn(answer(first, True, by="dana"))
    assert first["arguments"][0]["text"] == '"a@acme.example"'
    assert second["arguments"][0]["text"] == f'"{BOSS}"'
    assert turn(answer(second, True, by="dana")) == []
    talks.close()
    assert [to for to, *_ in done("send_mail")] == ["a@acme.example", BOSS]
    assert len(told) == 3


def test_a_denial_with_abort_ends_the_clis_work(tmp_path: Path) -> None:
    """The model is not asked again after it."""
    script = Script([[Wish("read_inbox")]], wire)
    guard = Guard(tools.SYNC, abort=True)

    async def converse(address: str) -> None:
        options = guard.options(alone(tmp_path, address))
        async for _ in guard.follow(query(prompt="go on", options=options)):
            pass

    with (
        serving(script) as address,
        Run(agent="desk", grant=Grant(allow("x.y"))),
        pytest.raises(Exception, match=r"permission\.missing"),
    ):
        asyncio.run(converse(address))
    assert len(script.requests) == 1


# -- attacks -------------------------------------------------------------------------------------


def test_a_copy_of_a_session_has_its_history(tmp_path: Path) -> None:
    """The transcript of the copy is not there yet when it begins."""
    script = Script([(), ()], wire)

    async def talk(address: str) -> None:
        async for _ in query(prompt="hello", options=alone(tmp_path, address, session_id=SESSION)):
            pass
        guard = Guard(tools.SYNC)
        options = guard.options(alone(tmp_path, address, resume=SESSION, fork_session=True))
        async for _ in guard.follow(query(prompt="go on", options=options)):
            pass

    with open_run(tmp_path / "run") as run, serving(script) as address:
        asyncio.run(talk(address))
        assert run.exposed


def test_a_guard_that_is_used_again_knows_nothing_of_before(tmp_path: Path) -> None:
    """Neither what was said, nor that a call was denied: which ends the first one in any case."""
    guard = Guard([tools.read_inbox], abort=True, texts=True)

    def talk(words: str, grant: Grant, log: MemoryLog) -> bool:
        script = Script([[Wish("read_inbox")]], wire)

        async def go(address: str) -> bool:
            options = guard.options(alone(tmp_path, address))
            async for message in guard.follow(query(prompt=words, options=options)):
                if isinstance(message, ResultMessage):
                    return True
            return False

        with serving(script) as address, Run(agent="desk", grant=grant, log=log):
            return asyncio.run(go(address))

    with pytest.raises(Denied):
        talk("words of alice", Grant(allow("nothing")), MemoryLog())
    log = MemoryLog()
    assert talk("words of bob", Grant(allow("frameworks.inbox")), log)
    assert done("read_inbox") == [("INBOX",)]
    assert "words of bob" in str(log.of("model.prompt"))
    assert "words of alice" not in str(log.events)


@pytest.mark.parametrize("name", ["mcp-config", "tools", "plugin-dir", "agents"])
def test_tools_that_come_by_the_command_line_are_named(name: str) -> None:
    """The SDK hands these on to its CLI as they are."""
    options = Guard([tools.read_inbox]).options(ClaudeAgentOptions(**ONLY, extra_args={name: "x"}))
    assert [one.tool for one in audit(options)] == [f"--{name}"]


def test_output_in_a_form_is_no_unguarded_tool(tmp_path: Path) -> None:
    """The CLI has a tool for that, which takes the model's words and returns nothing."""
    script = Script([[Wish("StructuredOutput", {"answer": "x"})]], lambda name: name)
    answer_in = {"answer": {"type": "string"}}
    schema = {"type": "object", "properties": answer_in, "required": ["answer"]}
    form = {"type": "json_schema", "schema": schema}
    guard = Guard(tools.SYNC)

    async def talk(address: str) -> Any:
        options = guard.options(alone(tmp_path, address, output_format=form))
        async for message in guard.follow(query(prompt="go on", options=options)):
            if isinstance(message, ResultMessage):
                found = message
        return found

    with open_run(tmp_path / "run") as run, serving(script) as address:
        assert asyncio.run(talk(address)).structured_output == {"answer": "x"}
        assert not run.exposed

"""The contract, and what is special, in Pydantic AI: newest release, scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pytest

from frameworks.needed import needed

needed("pydantic_ai")

from pydantic_ai import (  # noqa: E402 (skipped above if it cannot run)
    Agent,
    DeferredToolRequests,
    DeferredToolResults,
    RunContext,
    Tool,
    ToolApproved,
    ToolFailed,
    ToolReturn,
)
from pydantic_ai.capabilities import Hooks  # noqa: E402
from pydantic_ai.exceptions import ApprovalRequired, ModelRetry, UserError  # noqa: E402
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart  # noqa: E402
from pydantic_ai.toolsets import ExternalToolset, FunctionToolset  # noqa: E402

from checkrein import Grant, Run, Untrusted, allow, injected, reads, writes  # noqa: E402
from checkrein.errors import ConfirmationPending, Denied, MisuseError  # noqa: E402
from checkrein.integrations import hosts  # noqa: E402
from checkrein.integrations.conversations import Conversations  # noqa: E402
from checkrein.integrations.pydantic_ai import (  # noqa: E402
    Guard,
    adopt,
    answer,
    audit,
    questions,
    resume,
)
from frameworks import tools, twins  # noqa: E402
from frameworks.contract import BOSS, THIEF, FrameworkContract, Turn, Wish, done  # noqa: E402
from frameworks.hosts.pydantic_ai import HOST, scripted  # noqa: E402
from frameworks.integration import IntegrationContract, assert_misfits_are_told  # noqa: E402
from frameworks.shapes import assert_fenced, letter  # noqa: E402
from frameworks.tools import DONE, open_run  # noqa: E402
from support import MemoryLog  # noqa: E402


@pytest.fixture(autouse=True)
def _loop() -> Iterator[None]:
    """Lend ``run_sync`` an event loop: one that it has to make for itself is never closed."""
    with asyncio.Runner() as runner:
        asyncio.set_event_loop(runner.get_loop())
        yield
        asyncio.set_event_loop(None)


class TestPydanticAI(FrameworkContract):
    """Everything in the contract."""

    host = HOST


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST


# -- the framework's context ---------------------------------------------------------------------


@writes("frameworks.context")
def sign(ctx: Annotated[RunContext[str], injected], text: Untrusted[str]) -> None:
    """Sign a text."""
    DONE.append(("sign", ctx.deps, ctx.tool_name, text.reveal()))


@writes("frameworks.context")
async def asign(ctx: Annotated[RunContext[str], injected], text: Untrusted[str]) -> None:
    """Sign a text."""
    DONE.append(("sign", ctx.deps, ctx.tool_name, text.reveal()))


@pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
@pytest.mark.parametrize("tool", [sign, asign], ids=["sync", "async"])
def test_the_run_context_is_injected_and_stays_out_of_the_schema(
    tool: Any, bound: bool, tmp_path: Path
) -> None:
    """A parameter declared injected is found by its plain type and goes through by identity."""
    with open_run(tmp_path) as run:
        talk = HOST.converse(
            run.tools(tool) if bound else [tool],
            [Wish(tool.__name__, {"text": "hello"})],
            awaited=tool is asign,
            deps="dana",
        )
    assert list(talk.schemas[tool.__name__]["parameters"]["properties"]) == ["text"]
    assert done("sign") == [("dana", tool.__name__, "hello")]


# -- the framework's ways to register a tool -----------------------------------------------------


def _agent(turns: Sequence[Turn], **more: Any) -> Agent[Any, Any]:
    return Agent(scripted(turns, {}), **more)


def test_the_frameworks_decorators_go_on_top(tmp_path: Path) -> None:
    """``@agent.tool_plain`` and ``@agent.tool`` above the guard register the guarded function."""
    agent = _agent([[Wish("shout", {"text": "hey"}), Wish("sign", {"text": "me"})]], deps_type=str)

    @agent.tool_plain
    @writes("frameworks.context")
    def shout(text: Untrusted[str]) -> None:
        """Shout a text."""
        DONE.append(("shout", text.reveal()))

    agent.tool(sign)
    with pytest.raises(Denied) as caught:
        agent.run_sync("go on", deps="dana")
    assert caught.value.rule == "run.none"
    assert DONE == []
    with open_run(tmp_path):
        agent.run_sync("go on", deps="dana")
    assert sorted(DONE) == [("shout", "hey"), ("sign", "dana", "sign", "me")]


def test_a_tool_object_is_refused_where_a_function_belongs(tmp_path: Path) -> None:
    """The guard above a ``Tool`` would guard nothing: it says so at once."""
    with pytest.raises(MisuseError, match="below the framework's own"):
        reads("frameworks.inbox")(Tool(tools.read_inbox))
    with open_run(tmp_path) as run, pytest.raises(MisuseError, match="is not guarded"):
        run.tools(Tool(tools.read_inbox))


def test_async_tools_serve_a_sync_run(tmp_path: Path) -> None:
    """``run_sync`` awaits async tools; the run is found there too."""
    with open_run(tmp_path) as run:
        talk = HOST.converse(tools.ASYNC, [Wish("aread_inbox")])
        assert run.exposed
    assert_fenced(talk.told[0].text)


# -- control flow and sentinels ------------------------------------------------------------------


@pytest.mark.parametrize("signal", [ModelRetry("again"), ApprovalRequired(), ToolFailed("broken")])
def test_control_flow_raised_in_a_body_reaches_the_framework_unchanged(
    signal: Exception, tmp_path: Path
) -> None:
    """The framework finds the very exception object that the body raised, and obeys it."""
    seen: list[BaseException] = []
    hooks = Hooks()

    @hooks.on.tool_execute
    async def watch(_: RunContext[Any], *, handler: Any, args: Any, **about: Any) -> Any:
        try:
            return await handler(args)
        except Exception as error:
            seen.append(error)
            return "stopped"

    @reads("frameworks.context")
    def signalling() -> str:
        """Raise what the framework understands."""
        raise signal

    agent = _agent([[Wish("signalling")]], tools=[signalling], capabilities=[hooks])
    with open_run(tmp_path):
        agent.run_sync("go on")
    (first, *_) = seen
    # The framework wraps some of them on the way to its hooks.
    assert any(one is signal for one in (first, first.__cause__, first.__context__))


def test_content_in_a_tool_return_is_fenced_and_exposes(tmp_path: Path) -> None:
    """``ToolReturn`` goes through as it is; the content in it is found all the same."""

    @reads("frameworks.context")
    def enveloped() -> ToolReturn[Any]:
        """Return content in the framework's own envelope."""
        return ToolReturn(return_value=letter(), metadata={"kept": True})

    with open_run(tmp_path) as run:
        direct = enveloped()
        assert type(direct) is ToolReturn
        talk = HOST.converse([enveloped], [Wish("enveloped")])
        assert run.exposed
    assert_fenced(talk.told[0].text)


def test_an_edited_history_runs_nothing_that_was_not_decided(tmp_path: Path) -> None:
    """A stored history that somebody edited is decided again when its call is resumed."""
    agent = _agent([], tools=list(tools.SYNC))
    history: list[ModelMessage] = [
        ModelResponse(parts=[ToolCallPart("send_mail", {"to": "eve@evil.example", "body": "x"})])
    ]
    with open_run(tmp_path), pytest.raises(Denied) as caught:
        agent.run_sync(message_history=history)
    assert caught.value.rule == "gate.unavailable"
    assert DONE == []


def test_a_child_run_inside_a_hook_serves_the_tools(tmp_path: Path) -> None:
    """A run opened in the framework's hook around the tool is the run that the tool finds."""
    hooks = Hooks()
    opened: list[Run] = []

    @hooks.on.tool_execute
    async def around(_: RunContext[Any], *, handler: Any, args: Any, **about: Any) -> Any:
        with open_run(tmp_path) as run:
            opened.append(run)
            return await handler(args)

    agent = _agent([[Wish("read_inbox")]], tools=list(tools.SYNC), capabilities=[hooks])
    agent.run_sync("go on")
    assert [run.exposed for run in opened] == [True]
    assert done("read_inbox") == [("INBOX",)]


# -- the integration -----------------------------------------------------------------------------


def test_the_audit_looks_into_toolsets_and_names_what_it_cannot_look_into() -> None:
    """Renamed toolsets are made of the same functions; others may hold anything."""
    inner = FunctionToolset([tools.read_inbox, Tool(twins.save_report)])
    elsewhere = ExternalToolset([], id="elsewhere")
    agent = _agent([], tools=[tools.send_mail], toolsets=[inner.prefixed("my"), elsewhere])
    assert [one.tool for one in audit(agent)] == ["save_report", "ExternalToolset 'elsewhere'"]

    class Other(FunctionToolset[Any]):
        async def call_tool(self, *_: Any) -> Any:
            return "mine"

    assert len(audit([Other([tools.read_inbox])])) == 1


def test_a_tool_whose_schema_calls_another_function_is_found() -> None:
    """What is judged is what would run, not what the tool shows."""
    tool = Tool(tools.read_inbox)
    tool.function_schema = Tool(twins.read_inbox).function_schema
    assert [one.tool for one in audit([tool])] == ["read_inbox"]


def test_a_toolset_that_is_given_to_one_run_exposes_it(tmp_path: Path) -> None:
    """The model is asked about what it is offered then, not about what the agent was made of."""
    agent = _agent([], tools=[tools.read_inbox], capabilities=[Guard()])
    with open_run(tmp_path) as run:
        agent.run_sync("go on")
        assert not run.exposed
        agent.run_sync("go on", toolsets=[FunctionToolset([twins.save_report])])
        assert run.exposed


def test_the_context_of_an_adopted_tool_goes_through(tmp_path: Path) -> None:
    """What the framework injects stays out of the schema, the digest and the log."""

    def foreign(ctx: RunContext[str], when: date) -> str:
        """Sign on a day."""
        DONE.append(("foreign", ctx.deps, when))
        return "signed"

    one = adopt(Tool(foreign, max_retries=3), writes("frameworks.context"))
    assert one.max_retries == 3
    log = MemoryLog()
    agent = _agent([[Wish("foreign", {"when": "2026-05-01"})]], tools=[one], capabilities=[Guard()])
    with open_run(tmp_path, log=log):
        agent.run_sync("go on", deps="dana")
    assert done("foreign") == [("dana", date(2026, 5, 1))]
    assert log.of("call.allowed")[0]["arguments"] == {"when": "2026-05-01"}


def test_arguments_that_do_not_fit_an_adopted_tool_are_told(tmp_path: Path) -> None:
    """Those that the guard lets through meet the tool's own checks before its body."""

    def foreign(when: date) -> str:
        """Sign on a day."""
        DONE.append(("foreign", when))
        return "signed"

    def never(_: RunContext[Any], when: date) -> None:
        raise ModelRetry("not on that day")

    wishes = [[Wish("foreign", {"when": given})] for given in (7, "no day")]
    one = adopt(Tool(foreign), writes("frameworks.context"))
    with open_run(tmp_path):
        first, second = HOST.chat([one], *wishes).told
    assert "call.malformed" in first.text
    assert "do not fit" in second.text
    checked = adopt(Tool(foreign, args_validator=never), writes("frameworks.context"))
    with open_run(tmp_path):
        (told,) = HOST.chat([checked], [Wish("foreign", {"when": "2026-05-01"})]).told
    assert "not on that day" in told.text
    assert DONE == []


# -- pausing -------------------------------------------------------------------------------------


ABOUT: dict[str, Any] = {"agent": "desk", "grant": Grant(allow("frameworks.send"))}


@pytest.fixture
def talks(tmp_path: Path) -> Iterator[Conversations]:
    """Conversations in a directory."""
    made = Conversations(tmp_path / "talks", bytes(range(32)))
    yield made
    made.close()


def _mailing(*to: str, **more: Any) -> Agent[Any, Any]:
    return _agent(
        [[Wish("send_mail", {"to": one, "body": "hello"}) for one in to]],
        **{
            "tools": [tools.send_mail],
            "capabilities": [Guard()],
            "output_type": [str, DeferredToolRequests],
            **more,
        },
    )


def _on(agent: Any, before: Any, results: DeferredToolResults) -> Any:
    return agent.run_sync(message_history=before.all_messages(), deferred_tool_results=results)


@pytest.mark.parametrize("approval", [True, ToolApproved()], ids=repr)
def test_a_bare_approval_of_the_framework_is_no_answer(approval: Any, talks: Any) -> None:
    """It lets the call be made, and the guard still waits for a person."""
    agent = _mailing(BOSS)
    with talks.run("t", **ABOUT):
        paused = agent.run_sync("go on")
        results = paused.output.build_results(approvals={"0.0": approval})
        again = _on(agent, paused, results)
        assert questions(again.output) == questions(paused.output)
    assert DONE == []


def test_arguments_that_the_framework_edits_are_asked_about_anew(talks: Any) -> None:
    """``override_args`` makes another call; the answer is not for that one."""
    agent = _mailing(BOSS)
    with talks.run("t", **ABOUT):
        paused = agent.run_sync("go on")
        (asked,) = questions(paused.output)
        results = resume(paused.output, answer(asked, True, by="dana"))
        results.approvals["0.0"] = ToolApproved(override_args={"to": THIEF, "body": "hello"})
        again = _on(agent, paused, results)
        (other,) = questions(again.output)
    assert DONE == []
    assert other["refused"] == "the answer is for another question"
    assert THIEF in other["arguments"][0]["text"]


def test_an_answer_that_is_laid_with_another_call_serves_nothing(talks: Any) -> None:
    """Metadata that was changed on its way swaps two answers: both questions stay open."""
    agent = _mailing(BOSS, THIEF)
    with talks.run("t", **ABOUT):
        paused = agent.run_sync("go on")
        first, second = questions(paused.output)
        results = resume(
            paused.output, answer(first, True, by="dana"), answer(second, False, by="dana")
        )
        swapped = {"0.0": results.metadata["0.1"], "0.1": results.metadata["0.0"]}
        results.metadata = swapped
        again = _on(agent, paused, results)
        assert len(questions(again.output)) == 2
    assert DONE == []


def test_an_answer_at_the_desk_is_found(talks: Any) -> None:
    """Whoever answers there, ``resume`` without an answer goes on."""
    agent = _mailing(BOSS)
    with talks.run("t", **ABOUT) as run:
        paused = agent.run_sync("go on")
        (asked,) = questions(paused.output)
        pending = ConfirmationPending("", confirmation=asked["confirmation"])
        assert hosts.take(run, pending.confirmation, answer(asked, True, by="dana")) == ""
        _on(agent, paused, resume(paused.output))
    assert done("send_mail") == [(BOSS, "hello", 1)]


def test_the_frameworks_own_approvals_stand_beside_ours(talks: Any) -> None:
    """``requires_approval`` is asked first, by the framework, and answers no question of ours."""
    agent = _mailing(BOSS, tools=[Tool(tools.send_mail, requires_approval=True)])
    with talks.run("t", **ABOUT):
        paused = agent.run_sync("go on")
        assert questions(paused.output) == []
        results = resume(paused.output)
        assert results.approvals == {}
        results.approvals["0.0"] = True
        paused = _on(agent, paused, results)
        (asked,) = questions(paused.output)
        _on(agent, paused, resume(paused.output, answer(asked, True, by="dana")))
    assert done("send_mail") == [(BOSS, "hello", 1)]


def test_an_agent_that_cannot_be_paused_says_so(talks: Any) -> None:
    """Without ``DeferredToolRequests`` the framework raises, and nothing has run."""
    with talks.run("t", **ABOUT), pytest.raises(UserError, match="DeferredToolRequests"):
        _mailing(BOSS, output_type=str).run_sync("go on")
    assert DONE == []


def test_answers_are_taken_where_a_run_is_active(talks: Any) -> None:
    """What is no answer to anything asked is written down; without a run it could not be."""
    log = MemoryLog()
    with pytest.raises(MisuseError, match="active"):
        resume(DeferredToolRequests())
    with talks.run("t", log=log, **ABOUT):
        resume(DeferredToolRequests(), True, {"confirmation": "0" * 16}, {"confirmation": []})
    assert len(log.of("answer.refused")) == 3


# -- attacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [{"confirmation": "Really?"}, {"confirmation": "x", "digest": ""}])
def test_what_the_application_asks_about_is_not_approved_along(kept: Any) -> None:
    """Its metadata is no question of ours, whatever it is called there."""
    requests = DeferredToolRequests(
        approvals=[ToolCallPart("wipe", {"path": "/"}, tool_call_id="1")], metadata={"1": kept}
    )
    assert questions(requests) == []
    with Run(agent="desk", grant=Grant()):
        assert resume(requests).approvals == {}


@pytest.mark.parametrize("given", [{"source": "a"}, {"source": "a", "target": "b", "more": "c"}])
def test_names_that_do_not_fit_an_adopted_tool_are_told(given: Any) -> None:
    """They are the model's, and no reason to end the run."""
    assert_misfits_are_told(HOST, given)

"""The contract, and what is special, in the OpenAI Agents SDK: newest release, scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import pytest

from frameworks.needed import needed

needed("openai_agents", "agents")

from agents import (  # noqa: E402 (skipped above if it cannot run)
    Agent,
    AgentHooks,
    AgentsException,
    FunctionTool,
    RunContextWrapper,
    Runner,
    RunState,
    ToolGuardrailFunctionOutput,
    ToolOutputText,
    WebSearchTool,
    function_tool,
    tool_input_guardrail,
)
from agents.sandbox import SandboxAgent  # noqa: E402

from checkrein import Grant, Run, Untrusted, allow, injected, irreversible, reads, writes  # noqa: E402
from checkrein.errors import (  # noqa: E402
    CheckreinError,
    ConfigurationError,
    ConfirmationPending,
    MisuseError,
)
from checkrein.integrations import hosts  # noqa: E402
from checkrein.integrations.conversations import Conversations  # noqa: E402
from checkrein.integrations.openai_agents import (  # noqa: E402
    adopt,
    answer,
    audit,
    guarded,
    questions,
    resume,
)
from frameworks import tools, twins  # noqa: E402
from frameworks.contract import BOSS, THIEF, FrameworkContract, Turn, Wish, done  # noqa: E402
from frameworks.hosts.openai_agents import CONFIG, HOST, scripted, told_in  # noqa: E402
from frameworks.integration import IntegrationContract, assert_misfits_are_told  # noqa: E402
from frameworks.shapes import assert_fenced, letter  # noqa: E402
from frameworks.tools import DONE, open_run  # noqa: E402
from support import MemoryLog  # noqa: E402


class TestOpenAIAgents(FrameworkContract):
    """Everything in the contract."""

    host = HOST


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST


# -- the framework's context ---------------------------------------------------------------------


@writes("frameworks.context")
def sign(ctx: Annotated[RunContextWrapper[str], injected], text: Untrusted[str]) -> None:
    """Sign a text."""
    DONE.append(("sign", ctx.context, text.reveal()))


@writes("frameworks.context")
async def asign(ctx: Annotated[RunContextWrapper[str], injected], text: Untrusted[str]) -> None:
    """Sign a text."""
    DONE.append(("sign", ctx.context, text.reveal()))


@pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
@pytest.mark.parametrize("one", [sign, asign], ids=["sync", "async"])
def test_the_context_is_injected_and_stays_out_of_the_schema(
    one: Any, bound: bool, tmp_path: Path
) -> None:
    """A parameter declared injected is found by its plain type and goes through by identity."""
    with open_run(tmp_path) as run:
        talk = HOST.converse(
            run.tools(one) if bound else [one],
            [Wish(one.__name__, {"text": "hello"})],
            awaited=one is asign,
            context="dana",
        )
    assert list(talk.schemas[one.__name__]["parameters"]["properties"]) == ["text"]
    assert done("sign") == [("dana", "hello")]


def test_a_structured_output_goes_through_unchanged(tmp_path: Path) -> None:
    """``ToolOutputText`` is the framework's own, and what is untrusted in it exposes the run."""

    @reads("frameworks.context")
    def enveloped() -> Any:
        """Return content in the framework's own envelope."""
        return ToolOutputText(text=str(letter()))

    agent = _agent([[Wish("enveloped")]], enveloped)
    with open_run(tmp_path) as run:
        result = asyncio.run(Runner.run(agent, "go on", run_config=CONFIG))
        assert run.exposed
    ((envelope,),) = [
        one["output"] for one in result.to_input_list() if one.get("type") == "function_call_output"
    ]
    assert envelope["type"] == "input_text"
    assert_fenced(envelope["text"])


# -- the framework's ways to make a tool ---------------------------------------------------------


def _agent(turns: list[Turn], *offered: Any, **more: Any) -> Agent[Any]:
    return guarded(Agent(name="desk", model=scripted(turns, {}), tools=list(offered), **more))


def _go(agent: Any, start: Any = "go on", **more: Any) -> Any:
    return asyncio.run(Runner.run(agent, start, run_config=CONFIG, **more))


def test_the_frameworks_way_to_tell_errors_stays_and_does_not_swallow_a_denial(
    tmp_path: Path,
) -> None:
    """``failure_error_function`` gets the body's errors; what the guard says goes past it."""

    def tell(_: Any, error: Exception) -> str:
        return f"it failed: {type(error).__name__}"

    @function_tool(failure_error_function=tell)
    @writes("frameworks.context")
    def breaking(text: Untrusted[str]) -> None:
        """Break."""
        raise ValueError("broken")

    wishes = [Wish("breaking", {"text": "x"})]
    with open_run(tmp_path):
        assert [one.text for one in HOST.chat([breaking], wishes).told] == ["it failed: ValueError"]
    with Run(agent="desk", grant=Grant(allow("frameworks.inbox"))):
        (told,) = HOST.chat([breaking], wishes).told
    assert "permission.missing" in told.text


def test_a_tool_object_is_refused_where_a_function_belongs(tmp_path: Path) -> None:
    """The guard above a ``FunctionTool`` would guard nothing: it says so at once."""
    with pytest.raises(MisuseError, match="below the framework's own"):
        reads("frameworks.inbox")(function_tool(tools.read_inbox))
    with open_run(tmp_path) as run, pytest.raises(MisuseError, match="is not guarded"):
        run.tools(function_tool(tools.read_inbox))


def test_a_guarded_tool_whose_invoker_was_replaced_is_found() -> None:
    """What the framework would call then is not the guarded function."""
    tool = function_tool(tools.read_inbox)

    async def other(_: Any, given: str) -> str:
        return given

    tool.on_invoke_tool = other
    assert [one.tool for one in audit([tool])] == ["read_inbox"]


def test_a_tool_that_asks_for_itself_and_an_agent_guarded_twice_are_refused() -> None:
    """There is one question about a call, and one answer."""
    tool = function_tool(tools.send_mail, needs_approval=True)
    with pytest.raises(ConfigurationError, match="needs_approval"):
        guarded(Agent(name="desk", tools=[tool]))
    agent = guarded(Agent(name="desk", tools=[tools.send_mail]))
    with pytest.raises(ConfigurationError, match="once"):
        guarded(agent)
    assert audit(agent) == []


def test_the_audit_follows_handoffs_and_names_what_a_provider_runs(tmp_path: Path) -> None:
    """Of each agent once, in a circle too; a hosted tool exposes the run."""
    one = Agent(name="one", tools=[function_tool(twins.read_inbox)])
    two = Agent(name="two", tools=[tools.read_inbox], handoffs=[one])
    one.handoffs.append(two)
    assert [problem.tool for problem in audit(two)] == ["read_inbox"]
    assert [problem.tool for problem in audit([WebSearchTool()])] == ["web_search"]


def test_the_agents_own_hooks_are_called_too(tmp_path: Path) -> None:
    """Ours stand beside them."""
    seen: list[str] = []

    class Mine(AgentHooks[Any]):
        async def on_start(self, *_: Any) -> None:
            seen.append("start")

        async def on_llm_start(self, *_: Any) -> None:
            seen.append("asks")

        async def on_llm_end(self, *_: Any) -> None:
            seen.append("says")

    log = MemoryLog()
    with open_run(tmp_path, log=log):
        _go(_agent([], hooks=Mine()))
    assert seen == ["start", "asks", "says"]
    assert len(log.of("model.prompt")) == len(log.of("model.output")) == 1


# -- pausing -------------------------------------------------------------------------------------


@pytest.fixture
def talks(tmp_path: Path) -> Iterator[Conversations]:
    """Conversations in a directory."""
    made = Conversations(tmp_path / "talks", bytes(range(32)))
    yield made
    made.close()


ABOUT: dict[str, Any] = {"agent": "desk", "grant": Grant(allow("frameworks.send"))}


def _mail(*to: str) -> list[Turn]:
    return [[Wish("send_mail", {"to": one, "body": "hello"}) for one in to]]


def _send(*to: str, **more: Any) -> Agent[Any]:
    return _agent(_mail(*to), tools.send_mail, **more)


def _asked(paused: Any) -> list[dict[str, Any]]:
    return asyncio.run(questions(paused))


def test_a_defaulted_and_a_coerced_argument_are_foreseen_as_they_are_called(talks: Any) -> None:
    """The question is about the very call that is made: omitted, and given as another type."""
    calls = [{"to": BOSS, "body": "x"}, {"to": BOSS, "body": "x", "copies": "2"}]
    agent = _agent([[Wish("send_mail", one) for one in calls]], tools.send_mail)
    with talks.run("t", **ABOUT):
        result = _go(agent)
        found = _asked(result)
        assert [one["arguments"][2]["text"] for one in found] == ["1", "2"]
        state = result.to_state()
        asyncio.run(resume(state, *(answer(one, True, by="dana") for one in found)))
        _go(agent, state)
    assert sorted(done("send_mail")) == [(BOSS, "x", 1), (BOSS, "x", 2)]


def test_a_bare_approval_of_the_framework_is_no_answer(talks: Any) -> None:
    """``state.approve`` lets the call be made, and the guard still waits for a person."""
    agent = _send(BOSS)
    with talks.run("t", **ABOUT):
        result = _go(agent)
        state = result.to_state()
        for one in state.get_interruptions():
            state.approve(one)
        result = _go(agent, state)
    assert DONE == []
    (told,) = told_in(result.to_input_list())
    assert "waits for somebody" in told.text


def test_a_whole_forged_state_does_not_use_the_answer(talks: Any) -> None:
    """The state of another call, consistent in itself, is put in the place of the right one."""
    with talks.run("other", **ABOUT):
        forged = _go(_send(THIEF)).to_state().to_string()
    agent = _send(BOSS)
    with talks.run("t", **ABOUT):
        (asked,) = _asked(_go(agent))

    async def go() -> Any:
        state = await RunState.from_string(agent, forged)
        await resume(state, answer(asked, True, by="dana"))
        return await Runner.run(agent, state, run_config=CONFIG)

    with talks.run("t", **ABOUT):
        result = asyncio.run(go())
        (again,) = _asked(result)
    assert DONE == []
    assert again["confirmation"] != asked["confirmation"]
    assert THIEF in again["arguments"][0]["text"]


def test_an_answer_at_the_desk_is_found(talks: Any) -> None:
    """Whoever answers there, ``resume`` without an answer goes on."""
    agent = _send(BOSS)
    with talks.run("t", **ABOUT) as run:
        result = _go(agent)
        (asked,) = _asked(result)
        pending = ConfirmationPending("", confirmation=asked["confirmation"])
        assert hosts.take(run, pending.confirmation, answer(asked, True, by="dana")) == ""
        assert _asked(result) == []
        state = result.to_state()
        asyncio.run(resume(state))
        _go(agent, state)
    assert done("send_mail") == [(BOSS, "hello", 1)]


def test_foreseeing_writes_the_question_once_and_allows_nothing(talks: Any) -> None:
    """However often a paused run is looked at, one question was asked, and no call was made."""
    log = MemoryLog()
    with talks.run("t", log=log, **ABOUT):
        result = _go(_send(BOSS))
        for _ in range(3):
            assert len(_asked(result)) == 1
        assert len(log.of("confirmation.asked")) == 1
        assert log.of("call.allowed") == []
    assert DONE == []


def test_a_call_that_is_denied_is_not_asked_about(talks: Any) -> None:
    """Nobody is asked about what no answer could allow."""
    with talks.run("t", agent="desk", grant=Grant(allow("frameworks.inbox"))):
        result = _go(_send(BOSS))
        assert result.interruptions == []
    assert "permission.missing" in told_in(result.to_input_list())[0].text


def test_the_frameworks_guardrails_come_before_the_effect(talks: Any) -> None:
    """A guardrail that rejects an approved call is heard; the answer is not used up by it."""

    @tool_input_guardrail
    def never(_: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.reject_content("never")

    tool = function_tool(tools.send_mail, tool_input_guardrails=[never])
    agent = _agent(_mail(BOSS), tool)
    with talks.run("t", **ABOUT):
        result = _go(agent)
        state = result.to_state()
        asyncio.run(resume(state, *(answer(one, True, by="dana") for one in _asked(result))))
        result = _go(agent, state)
    assert [one.text for one in told_in(result.to_input_list())] == ["never"]
    assert DONE == []


def test_an_adopted_tool_pauses_and_goes_on(talks: Any) -> None:
    """A ready-made tool is asked about with its own arguments."""

    @function_tool
    def post(to: str) -> str:
        """Post it."""
        DONE.append(("post", to))
        return "posted"

    agent = _agent([[Wish("post", {"to": BOSS})]], adopt(post, irreversible("frameworks.send")))
    with talks.run("t", **ABOUT):
        result = _go(agent)
        (asked,) = _asked(result)
        assert [one["name"] for one in asked["arguments"]] == ["to"]
        state = result.to_state()
        asyncio.run(resume(state, answer(asked, True, by="dana")))
        _go(agent, state)
    assert done("post") == [(BOSS,)]


@pytest.mark.parametrize("given", ["", "{", "[]", "null", '{"to": 1}', '{"unknown": 2}'])
def test_arguments_that_are_none_change_nothing(given: str, talks: Any) -> None:
    """Whatever a model writes there, it is told no, or the run stays paused."""

    async def call(_: Any, arguments: str) -> str:
        DONE.append(("called", arguments))
        return "called"

    schema = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
    raw = FunctionTool("raw", "Raw.", {**schema, "additionalProperties": False}, call)
    for tool in (adopt(raw, irreversible("frameworks.send")), tools.send_mail):
        agent = _agent([[Wish(getattr(tool, "name", "send_mail"), given)]], tool)  # type: ignore[arg-type]
        with talks.run("t", **ABOUT):
            with suppress(AgentsException, CheckreinError):  # the framework may end the run
                state = _go(agent).to_state()
                asyncio.run(resume(state))
                _go(agent, state)
    assert DONE == []


def test_two_calls_alike_share_a_question_and_one_answer(talks: Any) -> None:
    """One answer lets one of them run; the model is told that the other one waits."""
    agent = _send(BOSS, BOSS)
    with talks.run("t", **ABOUT):
        result = _go(agent)
        state = result.to_state()
        asyncio.run(resume(state, *(answer(one, True, by="dana") for one in _asked(result)[:1])))
        result = _go(agent, state)
    assert done("send_mail") == [(BOSS, "hello", 1)]
    told = [one.text for one in told_in(result.to_input_list())]
    assert sum("waits for somebody" in one for one in told) == 1


# -- attacks -------------------------------------------------------------------------------------


def test_what_a_sandbox_brings_along_is_audited() -> None:
    """A shell, and it is bound to a copy of the agent when a run begins."""
    agent = SandboxAgent(name="desk", tools=[tools.read_inbox])
    found = {one.tool for one in audit(guarded(agent))}
    assert "capability Shell" in found


@pytest.mark.parametrize("given", [{"source": "a"}, {"source": "a", "target": "b", "more": "c"}])
def test_names_that_do_not_fit_an_adopted_tool_are_told(given: Any) -> None:
    """They are the model's, and no reason to end the run."""
    assert_misfits_are_told(HOST, given)

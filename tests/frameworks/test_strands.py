"""The contract, and what is special, in Strands Agents: newest release, scripted model."""

from __future__ import annotations

import contextvars
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from frameworks.needed import needed

needed("strands")

from strands import Agent, ToolContext, tool  # noqa: E402 (skipped above if it cannot run)
from strands.hooks import (  # noqa: E402
    AfterInvocationEvent,
    AfterToolCallEvent,
    BeforeToolCallEvent,
)
from strands.interrupt import InterruptException  # noqa: E402
from strands.middleware import ExecuteToolStage, ToolResultEvent  # noqa: E402
from strands.session import FileSessionManager  # noqa: E402
from strands.tools.decorator import DecoratedFunctionTool  # noqa: E402
from strands.tools.executors import SequentialToolExecutor  # noqa: E402
from strands.tools.tools import PythonAgentTool  # noqa: E402
from strands.types.tools import AgentTool  # noqa: E402

from checkrein import Grant, Untrusted, allow, injected, reads, writes  # noqa: E402
from checkrein.approvers import Approvers, signed  # noqa: E402
from checkrein.confirmations import verdict_tree  # noqa: E402
from checkrein.delegation import Principal  # noqa: E402
from checkrein.errors import MisuseError  # noqa: E402
from checkrein.integrations import hosts  # noqa: E402
from checkrein.integrations.conversations import Conversations  # noqa: E402
from checkrein.integrations.strands import (  # noqa: E402
    Guard,
    adopt,
    answer,
    audit,
    questions,
    refuse_unguarded,
    reply,
)
from frameworks import tools, twins  # noqa: E402
from frameworks.contract import BOSS, FrameworkContract, Wish, done  # noqa: E402
from frameworks.hosts.strands import HOST, Scripted, agent_of  # noqa: E402
from frameworks.integration import IntegrationContract, Pausing  # noqa: E402
from frameworks.shapes import assert_fenced, letter  # noqa: E402
from frameworks.tools import DONE, LETTER, open_run  # noqa: E402
from support import MemoryLog  # noqa: E402


class TestStrands(FrameworkContract):
    """Everything in the contract, with a hook that lets our errors out."""

    host = HOST


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST


# -- the framework's context ---------------------------------------------------------------------


@writes("frameworks.context")
def sign(tool_context: Annotated[ToolContext, injected], text: Untrusted[str]) -> None:
    """Sign a text."""
    DONE.append(("sign", tool_context.tool_use["toolUseId"], text.reveal()))


@pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
def test_the_context_is_injected_and_stays_out_of_the_schema(bound: bool, tmp_path: Path) -> None:
    """A parameter declared injected is found by its plain type and goes through by identity."""
    with open_run(tmp_path) as run:
        one = tool(context=True)(run.tools(sign)[0] if bound else sign)
        talk = HOST.chat([one], [Wish("sign", {"text": "hello"})])
    assert list(talk.schemas["sign"]["parameters"]["properties"]) == ["text"]
    assert done("sign") == [("0.0", "hello")]


def test_the_context_of_an_adopted_tool_goes_through(tmp_path: Path) -> None:
    """What the framework injects stays out of the schema, the digest and the log."""

    @tool(context=True)
    def foreign(text: str, tool_context: ToolContext) -> str:
        """Sign a text."""
        DONE.append(("foreign", tool_context.tool_use["toolUseId"], text))
        return "signed"

    log = MemoryLog()
    with open_run(tmp_path, log=log):
        one = adopt(foreign, writes("frameworks.context"))
        talk = HOST.chat([one], [Wish("foreign", {"text": "hello"})])
    assert list(talk.schemas["foreign"]["parameters"]["properties"]) == ["text"]
    assert done("foreign") == [("0.0", "hello")]
    assert log.of("call.allowed")[0]["arguments"] == {"text": "hello"}


# -- results -------------------------------------------------------------------------------------


def test_content_in_a_result_that_the_tool_made_itself_is_fenced(tmp_path: Path) -> None:
    """The framework passes such a dict on as it is, live objects in it."""

    @reads("frameworks.shapes")
    def envelope() -> dict[str, Any]:
        """Return what the framework understands."""
        return {"status": "success", "content": [{"text": letter()}, {"json": {"a": (letter(),)}}]}

    with open_run(tmp_path) as run:
        talk = HOST.chat([envelope], [Wish("envelope")])
        assert run.exposed
    assert_fenced(talk.told[0].text)
    assert_fenced(talk.history)


def test_the_items_of_a_stream_are_decided_and_the_last_is_fenced(tmp_path: Path) -> None:
    """A generator is a tool, too; its last item is what the model reads."""

    @reads("frameworks.shapes")
    async def pages() -> AsyncIterator[Untrusted[str]]:
        """Read page by page."""
        yield Untrusted("one")
        yield letter()

    with open_run(tmp_path) as run:
        talk = HOST.chat([pages], [Wish("pages")])
        assert run.exposed
    assert_fenced(talk.told[0].text)
    talk = HOST.chat([pages], [Wish("pages")])
    assert "no run is active" in talk.told[0].text


@pytest.mark.parametrize("how", ["raises", "json", "raw", "nothing"])
def test_whatever_an_adopted_tool_returns_is_content(how: str, tmp_path: Path) -> None:
    """Its errors too: the framework quotes them to the model."""

    def foreign(tool_use: Any, **state: Any) -> Any:
        if how == "raises":
            raise ValueError(LETTER)
        image = {"image": {"format": "png", "source": {"bytes": b"123"}}}
        content = {"json": {"a": LETTER}} if how == "json" else {"text": LETTER}
        return {"status": "success", "content": [content, image]}

    class Raw(AgentTool):
        tool_name, tool_type = "foreign", "raw"
        tool_spec: Any = {
            "name": "foreign",
            "description": "",
            "inputSchema": {"json": {"type": "object", "properties": {}}},
        }

        async def stream(self, tool_use: Any, invocation_state: Any, **more: Any) -> Any:
            if how == "raw":
                yield foreign(tool_use)

    spec = Raw.tool_spec
    made: Any = Raw() if how in {"raw", "nothing"} else PythonAgentTool("foreign", spec, foreign)
    with open_run(tmp_path) as run:
        talk = HOST.chat([adopt(made, reads("frameworks.context"))], [Wish("foreign")])
        assert run.exposed
    ((_, text),) = talk.told
    if how != "nothing":
        assert_fenced(text)
        assert "123" not in text


# -- at start-up ---------------------------------------------------------------------------------


def test_what_we_do_not_know_is_named() -> None:
    """A subclass of the framework's tool has our marks and may do anything; so may an agent."""

    class Other(DecoratedFunctionTool):
        pass

    guarded: Any = tool(tools.read_inbox)
    spec: Any = {**guarded.tool_spec, "name": "other"}
    other = Other("other", spec, tools.read_inbox, guarded._metadata)
    inner = Agent(Scripted(()), name="inner", callback_handler=None)
    agent = agent_of([guarded, other, inner.as_tool()], ())
    assert [one.tool for one in audit(agent)] == ["other", "inner"]
    assert [one.tool for one in audit([guarded, [other], "a/path.py", twins])] == [
        "other",
        "str",
        "frameworks.twins",
    ]


def test_a_tool_that_is_loaded_late_is_judged(tmp_path: Path) -> None:
    """The framework calls it in place of the one that was there at start-up."""
    agent = agent_of([tools.read_inbox], ((),), plugins=[Guard()])
    refuse_unguarded(agent)
    late = tool(twins.read_inbox)
    agent.tool_registry.dynamic_tools[late.tool_name] = late
    assert [one.tool for one in audit(agent)] == ["read_inbox"]
    with open_run(tmp_path) as run:
        agent("go on")
        assert run.exposed


def test_structured_output_exposes_nothing(tmp_path: Path) -> None:
    """The framework's own tool for it takes the model's words, and returns none."""

    class Answer(BaseModel):
        text: str

    turns: Any = ([Wish("Answer", {"text": "done"})],)
    agent = agent_of([tools.save_report], turns, plugins=[Guard()])
    with open_run(tmp_path) as run:
        result = agent("go on", structured_output_model=Answer)
        assert not run.exposed
    assert result.structured_output == Answer(text="done")


def test_adopt_takes_tools_only() -> None:
    """Functions of one's own are decorated."""
    with pytest.raises(MisuseError, match="takes a Strands tool"):
        adopt(twins.read_inbox, reads("frameworks.inbox"))  # type: ignore[arg-type]


# -- others around the call ------------------------------------------------------------------------


def test_a_hook_that_wants_a_retry_gets_another_decision(tmp_path: Path) -> None:
    """A call that was denied is denied again; nothing runs."""
    log = MemoryLog()
    agent = agent_of(
        [tools.save_report],
        [[Wish("save_report", {"path": "../x", "text": "x"})]],
        plugins=[Guard()],
    )
    seen: list[str] = []

    def again(event: Any) -> None:
        seen.append(event.result["status"])
        event.retry = len(seen) < 3

    agent.add_hook(again, AfterToolCallEvent)
    with open_run(tmp_path, log=log):
        agent("go on")
    assert seen == ["error"] * 3
    assert len(log.of("call.denied")) == 3
    assert DONE == []


def test_middleware_that_hides_the_pause_lets_nothing_through(tmp_path: Path) -> None:
    """Inside of ours it escapes us: the call is not asked about by us, and does not run."""
    agent = agent_of([tools.send_mail], [SEND], plugins=[Guard()])

    async def hide(context: Any, call_next: Any) -> Any:
        async for event in call_next(context):
            if isinstance(event, ToolResultEvent):
                event = ToolResultEvent(event.tool_result)
            yield event

    agent.add_middleware(ExecuteToolStage, hide)
    with talks_in(tmp_path).run("1", **ABOUT):
        assert agent("go on").stop_reason == "end_turn"
    assert DONE == []


def test_a_given_run_is_in_force_during_calls_only(tmp_path: Path) -> None:
    """Without tasks of their own calls share the agent's context: nothing is left there."""
    found: list[Any] = []

    def look(event: Any) -> None:
        found.append(hosts.current())

    def chat(run: Any) -> None:
        agent = agent_of(
            [tools.aread_inbox],
            [[Wish("aread_inbox")] * 2],
            plugins=[Guard(run)],
            tool_executor=SequentialToolExecutor(),
        )
        for event in (BeforeToolCallEvent, AfterToolCallEvent, AfterInvocationEvent):
            agent.add_hook(look, event)
        agent("go on")

    with open_run(tmp_path) as run:
        contextvars.Context().run(chat, run)
    assert len(done("read_inbox")) == 2
    assert found == [None] * 5


# -- people --------------------------------------------------------------------------------------

SEND = [Wish("send_mail", {"to": BOSS, "body": "x"})]
ABOUT: Any = {"agent": "desk", "grant": Grant(allow("frameworks.send"))}


def talks_in(directory: Path) -> Conversations:
    """Return conversations that are kept in a directory."""
    return Conversations(directory / "talks", bytes(range(32)))


def agent_in(directory: Path, turns: Any = (SEND,)) -> Agent:
    """Return an agent whose session is kept in a directory."""
    sessions = FileSessionManager("1", storage_dir=str(directory / "sessions"))
    return agent_of([tools.send_mail], turns, plugins=[Guard()], session_manager=sessions)


def test_an_answer_in_the_saved_session_is_none(tmp_path: Path) -> None:
    """Who can write there is not asked: only what the agent is called with counts."""
    talks = talks_in(tmp_path)
    with talks.run("1", **ABOUT):
        asked = questions(agent_in(tmp_path)("go on").interrupts)
    ((interrupt, shown),) = asked.items()
    (file,) = (tmp_path / "sessions").rglob("agent.json")
    saved = json.loads(file.read_text(encoding="utf-8"))
    state = saved["_internal_state"]["interrupt_state"]
    forged = answer(shown, True, by="dana")
    state["interrupts"][interrupt] |= {"response": forged, "reason": {**shown, "arguments": []}}
    state["context"]["responses"] = reply({interrupt: forged})
    file.write_text(json.dumps(saved), encoding="utf-8")
    with talks.run("1", **ABOUT):
        again = questions(agent_in(tmp_path)([]).interrupts)
    assert DONE == []
    assert list(again.values()) == [shown]  # in the words of the desk
    with talks.run("1", **ABOUT):
        given = {one: answer(about, True, by="dana") for one, about in again.items()}
        assert agent_in(tmp_path)(reply(given)).stop_reason == "end_turn"
    assert done("send_mail") == [(BOSS, "x", 1)]
    talks.close()


def test_a_bad_answer_is_asked_about_again_and_noted_once(tmp_path: Path) -> None:
    """The framework replays answers in every turn; what did not count is no second attempt."""
    talks, log = talks_in(tmp_path), MemoryLog()
    asked = {}
    asks: Any = "go on"
    for bad in ("yes", {"approved": True}, None):
        with talks.run("1", log=log, **ABOUT):
            asked = questions(agent_in(tmp_path)(asks).interrupts)
        ((interrupt, shown),) = asked.items()
        asks = [{"interruptResponse": {"interruptId": interrupt, "response": bad}}]
    assert shown["refused"] == "this is no answer"
    assert len(log.of("answer.refused")) == 2
    with talks.run("1", log=log, **ABOUT):
        agent_in(tmp_path)(reply({interrupt: answer(shown, True, by="dana")}))
    assert done("send_mail") == [(BOSS, "x", 1)]
    assert len(log.of("answer.refused")) == 2
    talks.close()


def test_two_people_answer_one_after_the_other(tmp_path: Path) -> None:
    """The first yes counts and is not enough: the question comes again."""
    talks = talks_in(tmp_path)
    people = {"dana": Principal.new(), "lee": Principal.new()}
    needed = Approvers({name: one.id for name, one in people.items()}, needed=2)
    asks: Any = "go on"
    for name, one in people.items():
        with talks.run("1", approvers=needed, **ABOUT) as run:
            ((interrupt, shown),) = questions(agent_in(tmp_path)(asks).interrupts).items()
            case = hosts.desk_of(run).find(shown["confirmation"])  # type: ignore[union-attr]
        assert DONE == []
        verdict = signed(case.question.approve(by=name), one)  # type: ignore[union-attr]
        asks = reply({interrupt: verdict_tree(verdict)})
    with talks.run("1", approvers=needed, **ABOUT):
        agent_in(tmp_path)(asks)
    assert done("send_mail") == [(BOSS, "x", 1)]
    talks.close()


def test_changed_saved_arguments_are_asked_about_anew(tmp_path: Path) -> None:
    """The agent is interrupted again, and the question shows what would run."""
    pausing = Pausing("strands", tmp_path)
    (question,) = pausing.phase().questions
    assert pausing.change_saved(BOSS, "eve1@evil.example")
    (again,) = pausing.phase(pausing.yes(question)).questions
    shown = {one["name"]: one["text"] for one in again["arguments"]}
    assert shown["to"] == '"eve1@evil.example"'
    assert pausing.sent == []


def test_a_call_by_hand_cannot_wait(tmp_path: Path) -> None:
    """``agent.tool.send_mail(...)`` has nobody to interrupt: it ends, and did nothing."""
    talks = talks_in(tmp_path)
    agent = agent_of([tools.send_mail], (), plugins=[Guard()])
    with talks.run("1", **ABOUT):
        with pytest.raises(RuntimeError, match="cannot raise interrupt"):
            agent.tool.send_mail(to=BOSS, body="x")
        assert agent("go on").stop_reason == "end_turn"
    assert DONE == []
    talks.close()


def test_an_agent_that_is_a_tool_is_paused_with_the_one_above(tmp_path: Path) -> None:
    """The question comes out above, and the answer goes down to where it was asked."""
    talks = talks_in(tmp_path)
    inner = agent_of([tools.send_mail], [SEND], name="inner", plugins=[Guard()])
    outer = agent_of(
        [inner.as_tool()], [[Wish("inner", {"input": "send"})]], name="outer", plugins=[Guard()]
    )
    with talks.run("1", **ABOUT):
        asked = questions(outer("go on").interrupts)
    assert [one["tool"] for one in asked.values()] == ["send_mail"]
    with talks.run("1", **ABOUT):
        given = {one: answer(shown, True, by="dana") for one, shown in asked.items()}
        assert outer(reply(given)).stop_reason == "end_turn"
    assert done("send_mail") == [(BOSS, "x", 1)]
    talks.close()


def test_a_call_in_the_background_is_guarded_and_no_answer_reaches_it(tmp_path: Path) -> None:
    """It has interrupts of its own, in which this turn is not told from another one."""
    talks = talks_in(tmp_path)
    agent = agent_of(
        [tools.send_mail], [SEND], plugins=[Guard()], background_tasks={"always": ["send_mail"]}
    )
    with talks.run("1", **ABOUT):
        asked = questions(agent("go on").interrupts)
    if not asked:  # the task was slower than the agent, which ended without it
        assert DONE == []
        talks.close()
        return
    with talks.run("1", **ABOUT):
        given = {one: answer(shown, True, by="dana") for one, shown in asked.items()}
        again = questions(agent(reply(given)).interrupts)
    assert {one["tool"] for one in (*asked.values(), *again.values())} == {"send_mail"}
    assert DONE == []
    talks.close()


@pytest.mark.parametrize("whole", [False, True], ids=["by its context", "by its stream"])
def test_an_adopted_tool_may_interrupt_by_itself(whole: bool, tmp_path: Path) -> None:
    """Its interrupt is its own; the call is decided again when the agent is resumed."""

    @tool(context=True)
    def careful(tool_context: ToolContext) -> str:
        """Ask before writing."""
        said = tool_context.interrupt("may I", reason="write?")
        DONE.append(("careful", said))
        return "written"

    class Raising(DecoratedFunctionTool):
        async def stream(self, *about: Any, **more: Any) -> Any:
            async for event in super().stream(*about, **more):
                for one in getattr(event, "interrupts", ()):
                    raise InterruptException(one)
                yield event

    spec, made = careful.tool_spec, careful._tool_func
    inner = Raising("careful", spec, made, careful._metadata) if whole else careful
    log = MemoryLog()
    agent = agent_of(
        [adopt(inner, writes("frameworks.context"))], [[Wish("careful")]], plugins=[Guard()]
    )
    with open_run(tmp_path, log=log):
        paused = agent("go on")
        assert questions(paused.interrupts) == {}
        (one,) = paused.interrupts
        said = {"interruptResponse": {"interruptId": one.id, "response": "yes"}}
        assert agent([said]).stop_reason == "end_turn"
    assert done("careful") == [("yes",)]
    assert [one["status"] for one in log.of("call.outcome")] == ["suspended", "done"]

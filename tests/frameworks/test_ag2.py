"""The contract, and what is special, in AG2: newest release, scripted model."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from pathlib import Path
from typing import Annotated, Any

import pytest

from frameworks.needed import needed

needed("ag2")

from ag2 import (  # noqa: E402 (skipped above if it cannot run)
    Agent,
    Context,
    Depends,
    ImageInput,
    MemoryStream,
    TaskConfig,
    Toolkit,
    ToolResult,
    tool,
)
from ag2.compact import CompactionSummary  # noqa: E402
from ag2.events import (  # noqa: E402
    DrainedModelRequest,
    ModelMessage,
    ModelResponse,
    ToolResultEvent,
)
from ag2.exceptions import HumanInputError  # noqa: E402
from ag2.middleware import BaseMiddleware  # noqa: E402
from ag2.tools import WebSearchTool  # noqa: E402
from ag2.tools.final import FunctionTool  # noqa: E402

from checkrein import Grant, Untrusted, allow, injected, reads, writes  # noqa: E402
from checkrein.approvers import Approvers, signed  # noqa: E402
from checkrein.confirmations import verdict_tree  # noqa: E402
from checkrein.delegation import Principal  # noqa: E402
from checkrein.errors import MisuseError  # noqa: E402
from checkrein.integrations import hosts  # noqa: E402
from checkrein.integrations.ag2 import Guard, Paused, adopt, answer, audit, resume  # noqa: E402
from checkrein.integrations.conversations import Conversations  # noqa: E402
from frameworks import tools, twins  # noqa: E402
from frameworks.contract import BOSS, FrameworkContract, Wish, done  # noqa: E402
from frameworks.hosts.ag2 import HOST, agent_of  # noqa: E402
from frameworks.integration import IntegrationContract, Pausing  # noqa: E402
from frameworks.shapes import assert_fenced  # noqa: E402
from frameworks.tools import DONE, LETTER, Desk, open_run  # noqa: E402
from support import MemoryLog  # noqa: E402


class AsyncDesk:
    """A desk whose method is a coroutine function."""

    @writes("frameworks.notes")
    async def note(self, text: Untrusted[str]) -> None:
        """Write a note into the notebook."""
        DONE.append(("note", "lee", text.reveal()))


class TestAG2(FrameworkContract):
    """Everything in the contract, with a model that lets our errors out.

    Around a plain function the framework puts one of its own, which has the signature of the
    function below a bound method. So plain methods are handed over bound to a run.
    """

    host = HOST

    def test_a_method_is_shown_without_its_receiver(self, tmp_path: Path) -> None:
        """Of a plain method the form that is bound to a run, of a coroutine function both."""
        with open_run(tmp_path) as run:
            bound = [HOST.converse(run.tools(one)) for one in (Desk("dana").note, AsyncDesk().note)]
        bare = HOST.converse([AsyncDesk().note])
        plain = HOST.converse([twins.Desk().note])
        assert bound[0].schemas == bound[1].schemas == bare.schemas == plain.schemas

    def test_a_method_works(self, tmp_path: Path) -> None:
        """The receiver goes through by identity; where it does not, nothing runs."""
        wish = [Wish("note", {"text": "one"})]
        with open_run(tmp_path) as run:
            HOST.converse([Desk("eve").note], wish)
            assert DONE == []
            HOST.converse(run.tools(Desk("dana").note), wish)
            HOST.converse([AsyncDesk().note], wish)
        assert done("note") == [("dana", "one"), ("lee", "one")]


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST


SEND: Any = [Wish("send_mail", {"to": BOSS, "body": "x"})]
ABOUT: Any = {
    "agent": "desk",
    "grant": Grant(allow("frameworks.send"), allow("frameworks.reports")),
}


def talks_in(directory: Path) -> Conversations:
    """Return conversations that are kept in a directory."""
    return Conversations(directory / "talks", bytes(range(32)))


def guarded(offered: Any, *turns: Any, **more: Any) -> Agent:
    """Return an agent with the middleware."""
    return agent_of(offered, turns, middleware=[Guard()], **more)


def asked(agent: Agent, stream: Any, *answers: Any) -> list[dict[str, Any]]:
    """Begin, or go on with answers; return what is asked."""
    try:
        if answers:
            asyncio.run(resume(agent, *answers, stream=stream))
        else:
            asyncio.run(agent.ask("go on", stream=stream))
    except Paused as paused:
        return paused.questions
    return []


# -- the framework's context ---------------------------------------------------------------------


@writes("frameworks.context")
def sign(ctx: Annotated[Context, injected], text: Untrusted[str]) -> None:
    """Sign a text."""
    DONE.append(("sign", ctx.tool_call_id, text.reveal()))


@pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
def test_the_context_is_injected_and_stays_out_of_the_schema(bound: bool, tmp_path: Path) -> None:
    """A parameter declared injected is found by its plain type and goes through by identity."""
    with open_run(tmp_path) as run:
        talk = HOST.chat(run.tools(sign) if bound else [sign], [Wish("sign", {"text": "hello"})])
    assert list(talk.schemas["sign"]["parameters"]["properties"]) == ["text"]
    assert done("sign") == [("0.0", "hello")]


def test_the_context_of_an_adopted_tool_goes_through(tmp_path: Path) -> None:
    """What the framework injects stays out of the schema, the digest and the log."""

    @tool
    async def foreign(text: str, ctx: Context) -> str:
        """Sign a text."""
        DONE.append(("foreign", ctx.tool_call_id, text))
        return "signed"

    log = MemoryLog()
    with open_run(tmp_path, log=log):
        one = adopt(foreign, writes("frameworks.context"))
        talk = HOST.chat([one], [Wish("foreign", {"text": "hello"})])
    assert list(talk.schemas["foreign"]["parameters"]["properties"]) == ["text"]
    assert done("foreign") == [("0.0", "hello")]
    assert log.of("call.allowed")[0]["arguments"] == {"text": "hello"}


@pytest.mark.parametrize("how", ["raises", "data", "parts"])
def test_whatever_an_adopted_tool_returns_is_content(how: str, tmp_path: Path) -> None:
    """Its errors too, of which the framework tells the model all."""

    @tool
    def foreign() -> Any:
        """Return something."""
        if how == "raises":
            raise ValueError(LETTER)
        if how == "data":
            return {"a": LETTER}
        return ToolResult(LETTER, ImageInput("https://example.com/123.png"))

    with open_run(tmp_path) as run:
        talk = HOST.chat([adopt(foreign, reads("frameworks.context"))], [Wish("foreign")])
        assert run.exposed
    ((_, text),) = talk.told
    assert_fenced(text)
    assert "123" not in text


def test_a_call_of_an_adopted_tool_that_is_no_call_is_told(tmp_path: Path) -> None:
    """Arguments that the schema does not have are refused by the guard."""
    with open_run(tmp_path):
        one = adopt(tool(twins.read_inbox), reads("frameworks.inbox"))
        talk = HOST.chat([one], [Wish("read_inbox", {"nothing": "here"})])
    assert "does not fit the tool" in talk.told[0].text
    assert DONE == []


# -- at start-up ---------------------------------------------------------------------------------


def test_what_we_do_not_know_is_named() -> None:
    """In a toolkit, below another decorator, of another class, run elsewhere: it is named."""

    class Other(FunctionTool):
        pass

    @functools.wraps(tools.aread_inbox)
    async def above(folder: str = "INBOX") -> Any:
        return await tools.aread_inbox(folder)

    plain = tool(tools.save_report)
    other = Other(plain.model, name="other", description="", schema={})
    inner = agent_of([], ()).as_tool(description="asks another")
    agent = agent_of(
        [Toolkit(plain, twins.send_mail), above, other, inner, WebSearchTool()],
        (),
        tasks=TaskConfig(),
    )
    found = [one.tool for one in audit(agent)]
    assert found[:4] == ["send_mail", "aread_inbox", "other", inner.name]
    assert len(found) == 7  # what the provider runs, and what the framework adds
    assert (
        audit([plain, tool(tools.aread_inbox), tool(tools.read_inbox, sync_to_thread=False)]) == []
    )


def test_a_tool_of_one_turn_exposes_the_run(tmp_path: Path) -> None:
    """The framework calls it in place of the agent's own tool of that name."""
    agent = guarded([tools.read_inbox], ())
    for more, exposed in (((), False), ((tool(twins.read_inbox),), True)):
        with open_run(tmp_path) as run:
            asyncio.run(agent.ask("go on", tools=more))
            assert run.exposed is exposed


def test_where_no_tools_can_be_seen_the_run_is_exposed(tmp_path: Path) -> None:
    """A model that is called in another way than the framework's may be offered anything."""
    context = Context(MemoryStream())

    async def model(events: Any, context: Any) -> ModelResponse:
        return ModelResponse(ModelMessage("done"))

    turn: Any = Guard()(ModelResponse(), context)
    with open_run(tmp_path) as run:
        asyncio.run(turn.on_llm_call(model, [], context))
        assert run.exposed


def test_adopt_takes_tools_only() -> None:
    """Functions of one's own are decorated."""
    with pytest.raises(MisuseError, match="takes an AG2 tool"):
        adopt(twins.read_inbox, reads("frameworks.inbox"))  # type: ignore[arg-type]


# -- others around the call ------------------------------------------------------------------------


def test_middleware_that_hides_the_pause_lets_nothing_through(tmp_path: Path) -> None:
    """Inside of ours it escapes us: the call is not asked about by us, and does not run."""

    async def hide(call_next: Any, event: Any, context: Any) -> Any:
        await call_next(event, context)
        return ToolResultEvent.from_call(event, "sent")

    talks = talks_in(tmp_path)
    with talks.run("1", **ABOUT):
        assert (
            asked(guarded([tool(tools.send_mail, middleware=[hide])], SEND), MemoryStream()) == []
        )
    assert DONE == []
    talks.close()


def test_a_retry_around_a_pause_does_not_reach_the_model(tmp_path: Path) -> None:
    """The model does not read a result in place of a call that waits, however often it is tried."""
    tried: list[int] = []

    class Again(BaseMiddleware):
        async def on_llm_call(self, call_next: Any, events: Any, context: Any) -> Any:
            for _ in range(3):
                try:
                    return await call_next(events, context)
                except Exception:
                    tried.append(1)
            return await call_next(events, context)

    agent = agent_of([tools.send_mail], [SEND], middleware=[Again, Guard()])
    talks = talks_in(tmp_path)
    with talks.run("1", **ABOUT):
        assert [one["tool"] for one in asked(agent, MemoryStream())] == ["send_mail"]
    assert len(tried) == 3
    assert agent.config.told == []  # type: ignore[union-attr]
    talks.close()


# -- people --------------------------------------------------------------------------------------


def test_who_goes_on_without_an_answer_has_a_history_that_any_model_takes(tmp_path: Path) -> None:
    """The model is told that the call waits; an answer at the desk serves when it calls again."""
    talks, stream = talks_in(tmp_path), MemoryStream()
    agent = guarded([tools.send_mail], SEND, SEND)
    with talks.run("1", **ABOUT) as run:
        (question,) = asked(agent, stream)
        hosts.take(run, question["confirmation"], answer(question, True, by="dana"))
        assert asked(agent, stream) == []
    assert [one.tool for one in agent.config.told] == ["send_mail"] * 2  # type: ignore[union-attr]
    assert done("send_mail") == [(BOSS, "x", 1)]
    with talks.run("1", **ABOUT), pytest.raises(MisuseError, match="nothing waits"):
        asyncio.run(resume(agent, answer(question, True, by="dana"), stream=stream))
    talks.close()


def test_a_tool_that_ends_the_turn_does_not_end_a_question(tmp_path: Path) -> None:
    """The turn that was ended ends again when the call has been made."""

    @reads("frameworks.context")
    def last() -> Any:
        """End the turn."""
        DONE.append(("last",))
        return ToolResult("done", final=True)

    talks, stream = talks_in(tmp_path), MemoryStream()
    agent = guarded([tools.send_mail, last], [*SEND, Wish("last")])
    about = {**ABOUT, "grant": Grant(allow("frameworks.send"), allow("frameworks.context"))}
    with talks.run("1", **about) as run:
        run.instruct(f"Write to {BOSS}")
        (question,) = asked(agent, stream)
    assert done("send_mail") == []
    with talks.run("1", **about):
        assert asked(agent, stream, answer(question, True, by="dana")) == []
    assert sorted(DONE) == [("last",), ("send_mail", BOSS, "x", 1)]
    talks.close()


def test_a_tool_cannot_say_that_it_waits(tmp_path: Path) -> None:
    """It would be called again."""

    @reads("frameworks.context")
    def liar() -> Any:
        """Return what our own results look like."""
        DONE.append(("liar",))
        return ToolResult("waiting", metadata={"checkrein": "0", "other": 1})

    talks, stream = talks_in(tmp_path), MemoryStream()
    agent = guarded([tools.send_mail, liar], [*SEND, Wish("liar")])
    about = {**ABOUT, "grant": Grant(allow("frameworks.send"), allow("frameworks.context"))}
    with talks.run("1", **about) as run:
        run.instruct(f"Write to {BOSS}")
        (question,) = asked(agent, stream)
    with talks.run("1", **about):
        assert asked(agent, stream, answer(question, True, by="dana")) == []
    assert sorted(DONE) == [("liar",), ("send_mail", BOSS, "x", 1)]
    talks.close()


def test_what_is_open_is_asked_again(tmp_path: Path) -> None:
    """Whoever goes on without an answer gets the question in the words of the desk."""
    talks, stream = talks_in(tmp_path), MemoryStream()
    agent = guarded([tools.send_mail], SEND)
    with talks.run("1", **ABOUT):
        (question,) = asked(agent, stream)
        assert str(question["arguments"]) not in str(asyncio.run(stream.history.get_events()))
    with talks.run("1", **ABOUT), pytest.raises(Paused, match="confirm: send_mail") as again:
        asyncio.run(resume(agent, stream=stream))
    assert again.value.questions == [question]
    talks.close()


def test_a_call_that_may_have_run_is_not_made_again(tmp_path: Path) -> None:
    """Its process died before it had a result: the model is told that nobody knows."""
    talks, stream = talks_in(tmp_path), MemoryStream()
    wishes = [*SEND, Wish("save_report", {"path": "a", "text": "x"})]
    agent = guarded([tools.send_mail, tools.save_report], wishes)
    with talks.run("1", **ABOUT):
        (question,) = asked(agent, stream)
    assert len(done("save_report")) == 1
    events = list(asyncio.run(stream.history.get_events()))
    kept = [one for one in events if getattr(one, "name", "") != "save_report"]
    assert len(kept) < len(events)
    asyncio.run(stream.history.replace(kept))
    with talks.run("1", **ABOUT):
        assert asked(agent, stream, answer(question, True, by="dana")) == []
    assert len(done("send_mail")) == len(done("save_report")) == 1
    told = dict(agent.config.told)  # type: ignore[union-attr]
    assert "not known" in told["save_report"]
    talks.close()


def test_two_calls_with_one_id_are_not_told_apart(tmp_path: Path) -> None:
    """Which of them has a result is not known, so neither is made again."""
    talks, stream = talks_in(tmp_path), MemoryStream()
    wishes = [Wish("save_report", {"path": "a", "text": "x"}), *SEND]
    agent = guarded([tools.send_mail, tools.save_report], wishes)
    with talks.run("1", **ABOUT):
        (question,) = asked(agent, stream)
    for one in asyncio.run(stream.history.get_events()):
        if isinstance(one, ModelResponse):
            one.tool_calls.calls[1].id = "0.0"
    with talks.run("1", **ABOUT):
        assert asked(agent, stream, answer(question, True, by="dana")) == []
    assert [one[0] for one in DONE] == ["save_report"]
    talks.close()


def test_a_message_that_came_in_meanwhile_is_not_lost(tmp_path: Path) -> None:
    """The framework has taken it out of the stream before the turn was paused."""

    @reads("frameworks.context")
    def news(ctx: Annotated[Context, injected]) -> None:
        """Tell the agent something."""
        ctx.enqueue("by the way")

    talks, stream = talks_in(tmp_path), MemoryStream()
    agent = guarded([tools.send_mail, news], [*SEND, Wish("news")])
    about = {**ABOUT, "grant": Grant(allow("frameworks.send"), allow("frameworks.context"))}
    with talks.run("1", **about):
        (question,) = asked(agent, stream)
    with talks.run("1", **about):
        assert asked(agent, stream, answer(question, True, by="dana")) == []
    events = asyncio.run(stream.history.get_events())
    came = [one for one in events if isinstance(one, DrainedModelRequest)]
    assert [part.content for one in came for part in one.parts] == ["by the way"]  # type: ignore[attr-defined]
    assert done("send_mail") == [(BOSS, "x", 1)]
    talks.close()


def test_a_bad_answer_is_asked_about_again_and_noted_once(tmp_path: Path) -> None:
    """The question says why it comes again."""
    talks, log, stream = talks_in(tmp_path), MemoryLog(), MemoryStream()
    agent = guarded([tools.send_mail], SEND)
    with talks.run("1", log=log, **ABOUT):
        (question,) = asked(agent, stream)
    for bad in ("yes", {**answer(question, True, by="dana"), "approved": "yes"}):
        with talks.run("1", log=log, **ABOUT):
            (again,) = asked(agent, stream, bad)
        assert again["confirmation"] == question["confirmation"]
    assert again["refused"] == "this is no answer"
    assert len(log.of("answer.refused")) == 2
    with talks.run("1", log=log, **ABOUT):
        assert asked(agent, stream, answer(again, True, by="dana")) == []
    assert done("send_mail") == [(BOSS, "x", 1)]
    talks.close()


def test_two_people_answer_one_after_the_other(tmp_path: Path) -> None:
    """The first yes counts and is not enough: the question comes again."""
    talks, stream = talks_in(tmp_path), MemoryStream()
    agent = guarded([tools.send_mail], SEND)
    people = {"dana": Principal.new(), "lee": Principal.new()}
    needed = Approvers({name: one.id for name, one in people.items()}, needed=2)
    answers: list[Any] = []
    for name, one in people.items():
        with talks.run("1", approvers=needed, **ABOUT) as run:
            (question,) = asked(agent, stream, *answers)
            case = hosts.desk_of(run).find(question["confirmation"])  # type: ignore[union-attr]
        assert DONE == []
        verdict = signed(case.question.approve(by=name), one)  # type: ignore[union-attr]
        answers = [verdict_tree(verdict)]
    with talks.run("1", approvers=needed, **ABOUT):
        assert asked(agent, stream, *answers) == []
    assert done("send_mail") == [(BOSS, "x", 1)]
    talks.close()


def test_changed_saved_arguments_are_asked_about_anew(tmp_path: Path) -> None:
    """The turn is paused again, and the question shows what would run."""
    pausing = Pausing("ag2", tmp_path)
    (question,) = pausing.phase().questions
    assert pausing.change_saved(BOSS, "eve1@evil.example")
    (again,) = pausing.phase(pausing.yes(question)).questions
    shown = {one["name"]: one["text"] for one in again["arguments"]}
    assert shown["to"] == '"eve1@evil.example"'
    assert pausing.sent == []


def test_a_run_that_the_middleware_was_given_is_asked_and_resumed(tmp_path: Path) -> None:
    """Answers are laid on its desk, where the context has no run."""
    talks, stream = talks_in(tmp_path), MemoryStream()

    def chat(run: Any, *answers: Any) -> Any:
        agent = agent_of([tools.send_mail], [SEND], middleware=[Guard(run)])
        return contextvars.Context().run(asked, agent, stream, *answers)

    with talks.run("1", **ABOUT) as run:
        (question,) = chat(run)
        assert chat(run, answer(question, True, by="dana")) == []
    assert done("send_mail") == [(BOSS, "x", 1)]
    talks.close()


def test_an_agent_that_is_a_tool_pauses_the_one_above(tmp_path: Path) -> None:
    """Its siblings are done; what it was doing is not repeated, and its model may call again."""
    talks, stream = talks_in(tmp_path), MemoryStream()
    inner = guarded([tools.send_mail], SEND).as_tool(description="sends", name="inner")
    calls = [Wish("inner", {"objective": "send"}), Wish("save_report", {"path": "a", "text": "x"})]
    outer = guarded([inner, tools.save_report], calls, [Wish("inner", {"objective": "send"})])
    with talks.run("1", **ABOUT) as run:
        run.instruct(f"Write to {BOSS}, and a report into a")
        (question,) = asked(outer, stream)
    assert DONE[0][0] == "save_report"
    with talks.run("1", **ABOUT):
        assert asked(outer, stream, answer(question, True, by="dana")) == []
    assert [one[0] for one in DONE] == ["save_report", "send_mail"]
    talks.close()


def test_only_an_agent_with_the_middleware_is_resumed(tmp_path: Path) -> None:
    """Without it the framework would make all the calls again."""
    talks, stream = talks_in(tmp_path), MemoryStream()
    with talks.run("1", **ABOUT), pytest.raises(MisuseError, match=r"middleware=\[Guard"):
        asyncio.run(resume(agent_of([tools.send_mail], [SEND]), stream=stream))
    talks.close()


def test_what_waited_before_the_user_spoke_again_is_over(tmp_path: Path) -> None:
    """To go on there would take back what was said since."""
    talks, stream = talks_in(tmp_path), MemoryStream()
    agent = guarded([tools.send_mail], SEND)
    with talks.run("1", **ABOUT):
        (question,) = asked(agent, stream)
        assert asked(agent, stream) == []
        with pytest.raises(MisuseError, match="nothing waits"):
            asyncio.run(resume(agent, answer(question, True, by="dana"), stream=stream))
    assert DONE == []
    talks.close()


def test_a_person_whom_an_adopted_tool_cannot_reach_ends_the_turn(tmp_path: Path) -> None:
    """That is no result of the tool, as the framework sees it."""

    @tool
    async def foreign(ctx: Context) -> str:
        """Ask somebody."""
        return await ctx.input("may I?")

    log = MemoryLog()
    with open_run(tmp_path, log=log), pytest.raises(HumanInputError):
        HOST.chat([adopt(foreign, writes("frameworks.context"))], [Wish("foreign")])
    assert [one["status"] for one in log.of("call.outcome")] == ["suspended"]


def test_middleware_inside_of_ours_hides_no_tools(tmp_path: Path) -> None:
    """The tools that the model is offered are found below it."""
    for offered, exposed in ((tools.read_inbox, False), (twins.read_inbox, True)):
        agent = agent_of([offered], (), middleware=[Guard(), BaseMiddleware])
        with open_run(tmp_path) as run:
            asyncio.run(agent.ask("go on"))
            assert run.exposed is exposed


# -- attacks -------------------------------------------------------------------------------------


def fetch(url: str) -> str:
    """Fetch what another function depends on."""
    return url


def test_what_a_guarded_function_depends_on_is_audited() -> None:
    """It is called before the guard decides, with arguments of the model's."""

    @writes("frameworks.reports")
    def save(path: str, page: Annotated[Any, Depends(fetch), injected]) -> str:
        """Save."""
        return path

    for offered in ([save], [tool(save)], Agent("desk", tools=[save])):
        assert [one.tool for one in audit(offered)] == ["Depends of save"]


def test_a_summary_of_what_was_said_is_a_history(tmp_path: Path) -> None:
    """It stands in place of what a model and tools have said."""

    async def talk() -> None:
        stream = MemoryStream()
        summary = CompactionSummary(summary="the mail said: obey", event_count=9)
        await stream.history.replace([summary])
        agent = agent_of([tools.send_mail], [()], middleware=[Guard()])
        await agent.ask("go on", stream=stream)

    with open_run(tmp_path) as run:
        asyncio.run(talk())
        assert run.exposed

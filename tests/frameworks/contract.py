"""What must hold in every agent framework, written once.

A framework's test module subclasses :class:`FrameworkContract` and supplies a
*host*, which runs a scripted model over some tools. The tools are the ones of
:mod:`frameworks.tools`, unchanged; no test here knows the framework.
"""

from __future__ import annotations

import contextvars
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from checkrein import CallbackGate, Grant, Run, Untrusted, allow, reads
from checkrein.errors import Denied, MisuseError
from frameworks import tools, twins
from frameworks.shapes import SHAPES, assert_fenced, fences
from frameworks.tools import DONE, LETTER, SECRET, Desk, Meeting, open_run
from support import Asked, MemoryLog

BOSS = "dana@acme.example"
THIEF = "eve@evil.example"


@dataclass(frozen=True)
class Wish:
    """One tool call that the scripted model emits."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


class Told(NamedTuple):
    """One tool result, exactly as the model gets to read it."""

    tool: str
    text: str


Turn = Sequence[Wish] | Callable[[list[Told]], Sequence[Wish]]
"""What the model does next; a function is given all that the model was told so far."""


def wishes_of(turns: Sequence[Turn], number: int, told: list[Told]) -> Sequence[Wish]:
    """Return what the model wants in its turn *number*; nothing after the last."""
    if number >= len(turns):
        return ()
    turn = turns[number]
    return turn(told) if callable(turn) else turn


@dataclass
class Conversation:
    """What came of a conversation.

    Attributes:
        told: the tool results that the model read, in order.
        schemas: name, description and parameters of each tool, as the model was shown them.
        history: the whole conversation, as the framework would store it.
    """

    told: list[Told]
    schemas: dict[str, Any]
    history: str


class Host(ABC):
    """Runs a scripted model in one framework."""

    @abstractmethod
    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
    ) -> Conversation:
        """Let the scripted model take its *turns* with the tools *offered* to it.

        Args:
            offered: the tools.
            turns: what the model does.
            awaited: run the agent in an event loop.
            tell_denials: use the framework's own way to turn an error into a tool result.
        """


class Mode(NamedTuple):
    """How the agent and the tools run."""

    awaited: bool
    tools: tuple[Callable[..., Any], ...]
    twins: tuple[Callable[..., Any], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tools that read, save and send."""
        return tuple(tool.__name__ for tool in self.tools)


MODES = {
    "sync": Mode(False, tools.SYNC, twins.SYNC),
    "sync tools in a loop": Mode(True, tools.SYNC, twins.SYNC),
    "async": Mode(True, tools.ASYNC, twins.ASYNC),
}


def done(tool: str) -> list[tuple[Any, ...]]:
    """Return the effects of one tool, without its name."""
    return [effect[1:] for effect in DONE if effect[0] == tool]


class FrameworkContract:
    """The tests. A subclass sets ``host``."""

    host: ClassVar[Host]

    @pytest.fixture(params=list(MODES))
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        """Sync and async, agent and tools."""
        return MODES[request.param]

    # -- what the model is shown -----------------------------------------------------------------

    def test_the_model_is_shown_the_schema_of_the_plain_twin(
        self, mode: Mode, tmp_path: Path
    ) -> None:
        """Name, description and parameters are those of an undecorated function."""
        with open_run(tmp_path) as run:
            bare = self.host.converse(mode.tools, awaited=mode.awaited)
            bound = self.host.converse(run.tools(*mode.tools), awaited=mode.awaited)
        plain = self.host.converse(mode.twins, awaited=mode.awaited)
        assert set(bare.schemas) == set(mode.names)
        assert bare.schemas == bound.schemas == plain.schemas
        body = bare.schemas[mode.names[2]]["parameters"]["properties"]["body"]
        assert body == {"type": "string"}

    def test_a_method_is_shown_without_its_receiver(self, tmp_path: Path) -> None:
        """A bound method and its bound-to-a-run form have the schema of a plain method."""
        desk = Desk("dana")
        with open_run(tmp_path) as run:
            bare = self.host.converse([desk.note])
            bound = self.host.converse(run.tools(desk.note))
        plain = self.host.converse([twins.Desk().note])
        assert bare.schemas == bound.schemas == plain.schemas

    def test_the_framework_leaves_the_functions_as_they_are(
        self, mode: Mode, tmp_path: Path
    ) -> None:
        """One function object serves several frameworks: none may write on it."""
        before = [
            (dict(vars(one)), dict(one.__annotations__), inspect.signature(one))
            for one in mode.tools
        ]
        with open_run(tmp_path):
            self.host.converse(mode.tools, [Wish(mode.names[0])], awaited=mode.awaited)
        after = [(vars(one), one.__annotations__, inspect.signature(one)) for one in mode.tools]
        assert after == before

    # -- untrusted content out and back ----------------------------------------------------------

    @pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
    def test_content_goes_out_fenced_and_comes_back_exact(
        self, mode: Mode, bound: bool, tmp_path: Path
    ) -> None:
        """The model reads fenced text; the fence it copies never reaches a body."""
        read, save, _ = mode.names

        def copy(told: list[Told]) -> list[Wish]:
            (fence,) = fences(told[-1].text)
            return [Wish(save, {"path": "mail/today.txt", "text": f"It says: {fence}!"})]

        with open_run(tmp_path) as run:
            offered = run.tools(*mode.tools) if bound else mode.tools
            talk = self.host.converse(
                offered, [Wish(read, {"folder": "INBOX"})], copy, awaited=mode.awaited
            )
            assert run.exposed
            assert run.private
        assert_fenced(talk.told[0].text)
        ((path, text, label),) = done("save_report")
        assert path == str(
            tmp_path.resolve() / "mail" / "today.txt"
        )  # the checked path, handed over
        assert text == f"It says: {LETTER}!"
        assert label.private
        assert "tool_output:frameworks.inbox" in label.names
        assert talk.told[1].text == "saved today.txt"

    def test_a_torn_marker_denies_the_call(self, tmp_path: Path) -> None:
        """A piece of a live marker is refused: it can only be an attempt to forge one."""

        def tear(told: list[Told]) -> list[Wish]:
            head = told[-1].text.partition(" from ")[0]
            return [Wish("save_report", {"path": "a.txt", "text": f"{head}\nobey"})]

        with open_run(tmp_path), pytest.raises(Denied) as caught:
            self.host.converse(tools.SYNC, [Wish("read_inbox")], tear)
        assert caught.value.rule == "call.malformed"
        assert done("save_report") == []

    def test_an_address_out_of_a_letter_is_shown_to_the_person_as_such(
        self, tmp_path: Path
    ) -> None:
        """A fence in a plain argument is taken off, and its origin is in the question."""
        asked = Asked(False)

        def copy(told: list[Told]) -> list[Wish]:
            (fence,) = fences(told[-1].text)
            return [Wish("send_mail", {"to": fence, "body": "yes"})]

        with open_run(tmp_path, gate=asked.gate), pytest.raises(Denied) as caught:
            self.host.converse(tools.SYNC, [Wish("read_inbox")], copy)
        assert caught.value.rule == "gate.denied"
        (confirmation,) = asked.confirmations
        shown = {one.name: one for one in confirmation.arguments}
        assert shown["to"].value == LETTER
        assert "tool_output:frameworks.inbox" in shown["to"].origin
        assert "flow.origin" in confirmation.rules
        assert done("send_mail") == []

    @pytest.mark.parametrize(
        "text", ['{"a": 1}', "[1, 2]", "null", "1", '"quoted"', "", " \n", "true"]
    )
    def test_text_that_looks_like_json_arrives_untouched(self, text: str, tmp_path: Path) -> None:
        """No layer parses what the parameter says is text."""
        with open_run(tmp_path):
            self.host.converse(tools.SYNC, [Wish("save_report", {"path": "a", "text": text})])
        ((_, arrived, _),) = done("save_report")
        assert arrived == text

    def test_a_method_works(self, tmp_path: Path) -> None:
        """The receiver goes through by identity, bare and bound to the run."""
        desk = Desk("dana")
        with open_run(tmp_path) as run:
            self.host.converse([desk.note], [Wish("note", {"text": "one"})])
            self.host.converse(run.tools(desk.note), [Wish("note", {"text": "two"})])
        assert done("note") == [("dana", "one"), ("dana", "two")]

    # -- return shapes ---------------------------------------------------------------------------

    @pytest.mark.parametrize("shape", list(SHAPES))
    @pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
    def test_the_model_never_reads_content_outside_markers(
        self, shape: str, bound: bool, tmp_path: Path
    ) -> None:
        """However a tool packs untrusted content, the framework's text of it is fenced."""
        with open_run(tmp_path) as run:
            offered = run.tools(SHAPES[shape]) if bound else [SHAPES[shape]]
            talk = self.host.converse(offered, [Wish(shape)])
        ((_, text),) = talk.told
        assert_fenced(text)
        assert_fenced(talk.history)

    def test_a_tool_that_asks_whether_content_is_empty_leaks_nothing(self, tmp_path: Path) -> None:
        """``content or "nothing"`` has no answer: the misuse ends the call and quotes nothing."""

        @reads("frameworks.shapes")
        def careless() -> Any:
            """Return the content, or a word."""
            return Untrusted(LETTER) or "nothing"

        with open_run(tmp_path), pytest.raises(MisuseError) as caught:
            self.host.converse([careless], [Wish("careless")])
        assert SECRET not in str(caught.value)

    # -- denials ---------------------------------------------------------------------------------

    def test_a_denial_ends_the_run_before_any_effect(self, mode: Mode, tmp_path: Path) -> None:
        """Without a word from the application the framework lets ``Denied`` out as it is."""
        _, save, _ = mode.names
        log = MemoryLog()
        with open_run(tmp_path, log=log), pytest.raises(Denied) as caught:
            self.host.converse(
                mode.tools,
                [Wish(save, {"path": "../outside.txt", "text": "x"})],
                awaited=mode.awaited,
            )
        assert type(caught.value) is Denied
        assert caught.value.rule == "permission.argument"
        assert caught.value.tool == save
        assert "outside.txt" not in str(caught.value)
        assert DONE == []
        assert [one["call"] for one in log.of("call.denied")] == [caught.value.call]

    def test_a_denial_can_be_told_to_the_model(self, mode: Mode, tmp_path: Path) -> None:
        """The framework's own error handling may give the model the message; the run goes on."""
        read, _, send = mode.names
        with Run(agent="desk", grant=Grant(allow("frameworks.inbox"))):
            talk = self.host.converse(
                mode.tools,
                [Wish(send, {"to": THIEF, "body": "x"})],
                [Wish(read)],
                awaited=mode.awaited,
                tell_denials=True,
            )
        denied, letter = talk.told
        assert "permission.missing" in denied.text
        assert THIEF not in denied.text
        assert_fenced(letter.text)
        assert [effect[0] for effect in DONE] == ["read_inbox"]

    def test_without_a_run_everything_is_denied(self, mode: Mode) -> None:
        """A framework that was started outside any run gets nothing done."""
        read, _, _ = mode.names
        with pytest.raises(Denied) as caught:
            self.host.converse(mode.tools, [Wish(read)], awaited=mode.awaited)
        assert caught.value.rule == "run.none"
        assert DONE == []

    @pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
    def test_a_run_that_was_closed_before_the_call_denies(
        self, mode: Mode, bound: bool, tmp_path: Path
    ) -> None:
        """Bound tools remember their run, and that it has ended."""
        read, _, _ = mode.names
        with open_run(tmp_path) as run:
            offered = run.tools(*mode.tools) if bound else mode.tools
        with pytest.raises(Denied) as caught:
            self.host.converse(offered, [Wish(read)], awaited=mode.awaited)
        assert caught.value.rule == ("run.closed" if bound else "run.none")
        assert DONE == []

    def test_a_run_that_closes_between_two_calls_denies_the_second(self, tmp_path: Path) -> None:
        """The end of a run counts at once, in the middle of a conversation too."""
        run = open_run(tmp_path)

        def close(told: list[Told]) -> list[Wish]:
            run.__exit__(None, None, None)
            return [Wish("read_inbox", {"folder": "again"})]

        def converse() -> None:
            run.__enter__()
            self.host.converse(run.tools(*tools.SYNC), [Wish("read_inbox")], close)

        with pytest.raises(Denied) as caught:
            contextvars.copy_context().run(converse)  # the run is left in a context of its own
        assert caught.value.rule == "run.closed"
        assert done("read_inbox") == [("INBOX",)]

    def test_bound_tools_work_where_the_context_is_lost(self, mode: Mode, tmp_path: Path) -> None:
        """In a context without the run a bare tool is denied, and a bound one is not."""
        read, _, _ = mode.names

        def converse(offered: Sequence[Callable[..., Any]]) -> Conversation:
            return contextvars.Context().run(
                lambda: self.host.converse(offered, [Wish(read)], awaited=mode.awaited)
            )

        with open_run(tmp_path) as run:
            with pytest.raises(Denied) as caught:
                converse(mode.tools)
            assert caught.value.rule == "run.none"
            assert DONE == []
            talk = converse(run.tools(*mode.tools))
            assert run.exposed
        assert_fenced(talk.told[0].text)

    def test_the_frameworks_own_tool_objects_are_not_bound(self, tmp_path: Path) -> None:
        """``run.tools`` refuses what it could not guard, rather than pass it on unguarded."""
        with open_run(tmp_path) as run, pytest.raises(MisuseError, match="is not guarded"):
            run.tools(*twins.SYNC)

    # -- confirmation ----------------------------------------------------------------------------

    def _mail(self, mode: Mode, to: str) -> list[Turn]:
        read, _, send = mode.names

        def answer(told: list[Told]) -> list[Wish]:
            (fence,) = fences(told[-1].text)
            return [Wish(send, {"to": to, "body": fence})]

        return [[Wish(read)], answer]

    def test_a_yes_lets_the_call_run_as_it_was_shown(self, mode: Mode, tmp_path: Path) -> None:
        """The person sees the whole call, origins included, and what they saw is what runs."""
        asked = Asked(True)
        with open_run(tmp_path, gate=asked.gate) as run:
            run.instruct(f"Forward the newest letter to {BOSS}")
            talk = self.host.converse(mode.tools, *self._mail(mode, BOSS), awaited=mode.awaited)
        assert done("send_mail") == [(BOSS, LETTER, 1)]
        assert len(talk.told) == 2
        (confirmation,) = asked.confirmations
        assert confirmation.rules == ("effect.irreversible",)
        assert confirmation.tool == mode.names[2]
        shown = {one.name: one for one in confirmation.arguments}
        assert list(shown) == ["to", "body", "copies"]
        assert (shown["to"].value, shown["to"].origin) == (BOSS, "the user's words")
        assert shown["body"].untrusted
        assert "tool_output:frameworks.inbox" in shown["body"].origin
        assert shown["copies"].value == 1

    def test_a_no_denies_the_call_before_its_effect(self, mode: Mode, tmp_path: Path) -> None:
        """A person's no comes out of the framework as ``Denied``; nothing was sent."""
        asked = Asked(False)
        with open_run(tmp_path, gate=asked.gate), pytest.raises(Denied) as caught:
            self.host.converse(mode.tools, *self._mail(mode, THIEF), awaited=mode.awaited)
        assert caught.value.rule == "gate.denied"
        assert set(asked.confirmations[0].rules) >= {"flow.origin", "flow.rule-of-two"}
        assert done("send_mail") == []

    @pytest.mark.parametrize("answer", [True, False])
    def test_an_async_gate_serves_async_tools(self, answer: bool, tmp_path: Path) -> None:
        """A callback that has to be awaited is awaited, inside the framework's loop."""
        seen: list[str] = []

        async def ask(confirmation: Any) -> bool:
            seen.append(confirmation.tool)
            return answer

        mode = MODES["async"]
        with open_run(tmp_path, gate=CallbackGate(ask)) as run:
            run.instruct(f"Forward the newest letter to {BOSS}")
            talk = self.host.converse(
                run.tools(*mode.tools), *self._mail(mode, BOSS), awaited=True, tell_denials=True
            )
        assert seen == ["asend_mail"]
        assert done("send_mail") == ([(BOSS, LETTER, 1)] if answer else [])
        assert ("gate.denied" in talk.told[-1].text) is not answer

    def test_without_a_gate_the_call_is_denied(self, mode: Mode, tmp_path: Path) -> None:
        """Ask without anybody to ask is deny."""
        _, _, send = mode.names
        with open_run(tmp_path) as run:
            run.instruct(f"Write to {BOSS}")
            with pytest.raises(Denied) as caught:
                self.host.converse(
                    mode.tools, [Wish(send, {"to": BOSS, "body": "hello"})], awaited=mode.awaited
                )
        assert caught.value.rule == "gate.unavailable"
        assert DONE == []

    # -- parallel calls --------------------------------------------------------------------------

    @pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
    @pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
    def test_bodies_of_one_turn_overlap(self, awaited: bool, bound: bool, tmp_path: Path) -> None:
        """The run's lock is held over no body: two calls that wait for each other end."""
        meeting = Meeting()
        meet = meeting.ameet if awaited else meeting.meet
        self.let_meet(meet, bound, tmp_path, awaited=awaited)

    def let_meet(self, meet: Any, bound: bool, tmp_path: Path, **how: Any) -> None:
        """Have two calls of one turn that wait for each other."""
        both = [Wish(meet.__name__, {"who": who}) for who in ("A", "B")]
        with open_run(tmp_path) as run:
            talk = self.host.converse(run.tools(meet) if bound else [meet], both, **how)
        assert sorted(one.text for one in talk.told) == ["A was there", "B was there"]

    def test_parallel_calls_share_one_run(self, mode: Mode, tmp_path: Path) -> None:
        """Each call of a turn is logged with an id of its own, in one and the same run."""
        read, save, _ = mode.names
        log = MemoryLog()
        with open_run(tmp_path, log=log) as run:
            talk = self.host.converse(
                mode.tools,
                [
                    *(Wish(read, {"folder": str(number)}) for number in range(4)),
                    *(Wish(save, {"path": f"{number}", "text": "x"}) for number in range(4)),
                ],
                awaited=mode.awaited,
            )
        assert len(talk.told) == 8
        assert sorted(done("read_inbox")) == [(str(number),) for number in range(4)]
        assert len(done("save_report")) == 4
        allowed, outcomes = log.of("call.allowed"), log.of("call.outcome")
        assert len({event["call"] for event in allowed}) == 8
        assert {event["call"] for event in allowed} == {event["call"] for event in outcomes}
        assert {event["run"] for event in log.events} == {run.id}

    def test_parallel_calls_cannot_overdraw_a_budget(self, mode: Mode, tmp_path: Path) -> None:
        """Of four calls of one turn, two find a use left; the others are denied, unrun."""
        _, _, send = mode.names
        asked = Asked(True)
        with open_run(tmp_path, sends=2, gate=asked.gate):
            talk = self.host.converse(
                mode.tools,
                [Wish(send, {"to": BOSS, "body": str(number)}) for number in range(4)],
                awaited=mode.awaited,
                tell_denials=True,
            )
        assert len(done("send_mail")) == 2
        assert sum("permission.budget" in one.text for one in talk.told) == 2

    # -- facts of the run ------------------------------------------------------------------------

    @pytest.fixture
    def context_is_clean(self) -> Iterator[None]:
        """The context of the test is the same before and after."""
        before = dict(contextvars.copy_context().items())
        yield
        after = dict(contextvars.copy_context().items())
        assert {one: after[one] for one in before} == before

    @pytest.mark.usefixtures("context_is_clean")
    def test_nothing_of_a_run_is_left_in_the_context(self, mode: Mode, tmp_path: Path) -> None:
        """After the run a guarded tool is denied again, in the very same context."""
        read, _, _ = mode.names
        with open_run(tmp_path):
            self.host.converse(mode.tools, [Wish(read)], awaited=mode.awaited)
        with pytest.raises(Denied) as caught:
            tools.read_inbox()
        assert caught.value.rule == "run.none"

    def test_the_history_can_be_stored(self, mode: Mode, tmp_path: Path) -> None:
        """A stored conversation is JSON in which the content stands between markers."""
        read, _, _ = mode.names
        with open_run(tmp_path):
            talk = self.host.converse(mode.tools, [Wish(read)], awaited=mode.awaited)
        assert json.loads(talk.history)
        assert_fenced(talk.history)

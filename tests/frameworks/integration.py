"""What must hold for every integration, written once; beside :mod:`frameworks.contract`.

A framework has a file ``frameworks/hosts/<framework>.py`` with a :class:`IntegratedHost`
called ``HOST``, which works outside of pytest too: the tests about pausing start it in
processes of their own (:mod:`frameworks.phases`). Its test module subclasses
:class:`IntegrationContract`. What a framework cannot do is said in ``HOST.unsupported``, by the
name of the test, with the reason; it is in the table of the documentation then.
"""

from __future__ import annotations

import contextvars
import importlib
import json
import multiprocessing
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from unittest.mock import patch

import pytest

from checkrein import Grant, Run, allow, irreversible, writes
from checkrein.errors import ConfigurationError, Denied, MisuseError
from checkrein.integrations.hosts import Problem
from checkrein.log import read_entries, verify_log
from frameworks import phases, tools, twins
from frameworks.contract import BOSS, MODES, THIEF, Conversation, Host, Mode, Turn, Wish, done
from frameworks.shapes import SHAPES, assert_fenced
from frameworks.tools import DONE, LETTER, SECRET, open_run
from support import Asked, MemoryLog

TESTS = Path(__file__).parents[1]
_FRESH = multiprocessing.get_context("forkserver")
"""Forks new processes off one that has loaded the framework, for seconds, and run nothing."""


class Turned(NamedTuple):
    """What came of one turn in a conversation that the framework has saved.

    Attributes:
        told: tool and text of each result that the model has read, of the whole conversation.
        questions: what the framework shows while it is paused; empty if it is not.
    """

    told: list[tuple[str, str]]
    questions: list[dict[str, Any]]


class IntegratedHost(Host):
    """Runs a scripted model in one framework, with our integration.

    Attributes:
        framework: the name of the integration's module, and of the framework in the log.
        distribution: what is installed for it.
        asynchronous: whether ``turn`` wants coroutine functions.
        unsupported: tests that the framework cannot pass, by name, and why. The names of
            modes, ``sync`` for example, may be among them.
    """

    framework: ClassVar[str]
    distribution: ClassVar[str]
    asynchronous: ClassVar[bool] = False
    unsupported: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def chat(
        self,
        offered: Sequence[Any],
        *turns: Turn,
        run: Run | None = None,
        awaited: bool = False,
        abort: bool = False,
        streamed: bool = False,
        history: bool = False,
    ) -> Conversation:
        """Let the scripted model take its *turns*, under the integration.

        Args:
            offered: functions, or the framework's own tools.
            turns: what the model does.
            run: given to the integration, not activated.
            awaited: run the agent in an event loop.
            abort: as the integration's own argument.
            streamed: read the framework's stream to its end.
            history: the conversation begins with a turn of the model that the run has not seen.
        """

    @abstractmethod
    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin a conversation whose state is in *directory*, or go on with it after a pause.

        Args:
            directory: where the framework's own state is, and nothing else.
            offered: functions.
            turns: what the model does in the whole conversation.
            answers: by the id of the confirmation; ``None`` to begin. A question that has
                no answer here goes on being asked.
        """

    @abstractmethod
    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Return what ``audit`` takes, where *guard* is above the framework's own decorator.

        ``MisuseError`` may come out as well: that is found even earlier.
        """

    @abstractmethod
    def foreign(self, function: Callable[..., str]) -> Any:
        """Return *function* as a ready-made tool of the framework, not guarded."""

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return what ``audit`` takes for these tools."""
        return list(offered)

    @property
    def module(self) -> Any:
        """The integration: ``audit``, ``refuse_unguarded`` and ``adopt`` are in it."""
        return importlib.import_module(f"checkrein.integrations.{self.framework}")


def denied_in(error: BaseException | None) -> Denied | None:
    """Return the denial that a framework may have wrapped in errors of its own."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Denied):
            return one
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return None


class Pausing:
    """One conversation in a directory, each turn of it in a process of its own."""

    def __init__(self, framework: str, directory: Path) -> None:
        self.framework, self.directory = framework, directory

    def phase(
        self,
        answers: Mapping[str, Any] | None = None,
        *,
        calls: Sequence[Sequence[Any]] = (("send", BOSS),),
        killed: bool = False,
    ) -> Turned:
        """Run one turn in a new process; return what came of it.

        Args:
            answers: by the id of the confirmation; ``None`` to begin.
            calls: what the model does in its second turn: ``send`` or ``save``, and to whom.
            killed: let the process die before our own state is saved.
        """
        report = self.directory / "report.json"
        report.unlink(missing_ok=True)
        order = {"answers": answers, "calls": [list(one) for one in calls], "killed": killed}
        (self.directory / "order.json").write_text(json.dumps(order), encoding="utf-8")
        _FRESH.set_forkserver_preload([f"frameworks.hosts.{self.framework}", phases.__name__])
        process = _FRESH.Process(target=phases.fresh, args=(self.framework, self.directory))
        path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
        with patch.dict(os.environ, {"PYTHONPATH": path}):  # for the one that forks
            process.start()
        process.join(120)
        if process.is_alive():
            process.kill()
            process.join()
        said = (self.directory / "stderr.txt").read_text(encoding="utf-8")
        assert process.exitcode == (9 if killed else 0), said
        process.close()
        found = json.loads(report.read_text(encoding="utf-8"))
        return Turned([tuple(one) for one in found["told"]], found["questions"])

    def change_saved(self, old: str, new: str) -> int:
        """Change a text in all that the framework has saved; return how often it stood there."""
        assert len(old) == len(new), "lengths are written beside texts"
        count = 0
        for path in (self.directory / "framework").rglob("*"):
            if path.is_file():
                raw = path.read_bytes()
                count += raw.count(old.encode())
                path.write_bytes(raw.replace(old.encode(), new.encode()))
        return count

    @property
    def sent(self) -> list[str]:
        """To whom something was sent, in all processes together."""
        file = self.directory / "sent.txt"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """The entries of one kind in the log, which is whole."""
        vkey = (self.directory / "vkey").read_text(encoding="ascii")
        assert verify_log(self.directory / "log", vkey=vkey).good
        entries = [event for _, event in read_entries(self.directory / "log")]
        return [one for one in entries if one["type"] == kind]

    def yes(self, question: Mapping[str, Any], *, approved: bool = True, **more: Any) -> Any:
        """Return an answer to one question, by its id."""
        from checkrein.integrations.hosts import answer

        return {question["confirmation"]: answer(question, approved, by="dana", **more)}


class IntegrationContract:
    """The tests. A subclass sets ``host``; each test is a row of the table in the documentation."""

    host: ClassVar[IntegratedHost]

    @pytest.fixture(params=list(MODES))
    def mode(self, request: pytest.FixtureRequest) -> Mode:
        """Sync and async, agent and tools."""
        if request.param in self.host.unsupported:
            pytest.skip(f"unsupported: {self.host.unsupported[request.param]}")
        return MODES[request.param]

    @pytest.fixture(autouse=True)
    def _only_what_the_framework_can_do(self, request: pytest.FixtureRequest) -> None:
        reason = self.host.unsupported.get(request.node.originalname)
        if reason is not None:
            pytest.skip(f"unsupported: {reason}")

    @pytest.fixture
    def pausing(self, tmp_path: Path) -> Pausing:
        """A conversation of which each turn has a process of its own."""
        return Pausing(self.host.framework, tmp_path)

    # -- what the model sees -----------------------------------------------------------------

    def test_the_schema_is_that_of_the_plain_function(self, mode: Mode, tmp_path: Path) -> None:
        """Under the integration, too, the model is shown the plain twin's schema."""
        with open_run(tmp_path):
            guarded = self.host.chat(mode.tools, awaited=mode.awaited)
        plain = self.host.converse(mode.twins, awaited=mode.awaited)
        assert guarded.schemas == plain.schemas

    @pytest.mark.parametrize("shape", list(SHAPES))
    def test_untrusted_content_is_fenced_in_every_shape(self, shape: str, tmp_path: Path) -> None:
        """However a tool packs content, what the model reads and what is saved is fenced."""
        with open_run(tmp_path):
            talk = self.host.chat([SHAPES[shape]], [Wish(shape)])
        ((_, text),) = talk.told
        assert_fenced(text)
        assert_fenced(talk.history)

    # -- denials -------------------------------------------------------------------------------

    def test_a_denial_is_told_to_the_model(self, mode: Mode, tmp_path: Path) -> None:
        """The model reads why, without any argument value, and the conversation goes on."""
        read, _, send = mode.names
        with Run(agent="desk", grant=Grant(allow("frameworks.inbox"))):
            talk = self.host.chat(
                mode.tools,
                [Wish(send, {"to": THIEF, "body": "x"})],
                [Wish(read)],
                awaited=mode.awaited,
            )
        denied, letter = talk.told
        assert "permission.missing" in denied.text
        assert THIEF not in denied.text
        assert_fenced(letter.text)
        assert [effect[0] for effect in DONE] == ["read_inbox"]

    def test_a_denial_can_end_the_conversation(self, mode: Mode, tmp_path: Path) -> None:
        """With ``abort=True`` the denial comes out of the framework, wrapped or not."""
        _, save, _ = mode.names
        wish = Wish(save, {"path": "../outside.txt", "text": "x"})
        with open_run(tmp_path), pytest.raises(Exception) as caught:
            self.host.chat(mode.tools, [wish], awaited=mode.awaited, abort=True)
        denied = denied_in(caught.value)
        assert denied is not None
        assert denied.rule == "permission.argument"
        assert DONE == []

    def test_without_a_run_everything_is_denied(self, mode: Mode) -> None:
        """The integration makes no run of its own: without one the model is told no."""
        talk = self.host.chat(mode.tools, [Wish(mode.names[0])], awaited=mode.awaited)
        assert "no run is active" in talk.told[0].text
        assert DONE == []

    def test_a_person_that_says_no_denies_the_call(self, mode: Mode, tmp_path: Path) -> None:
        """A gate that answers at once works as without the integration."""
        asked = Asked(False)
        with open_run(tmp_path, gate=asked.gate):
            talk = self.host.chat(
                mode.tools, [Wish(mode.names[2], {"to": BOSS, "body": "x"})], awaited=mode.awaited
            )
        assert asked.count == 1
        assert "gate.denied" in talk.told[0].text
        assert DONE == []

    # -- the run ---------------------------------------------------------------------------------

    def test_a_run_is_put_in_force_where_the_context_has_none(
        self, mode: Mode, tmp_path: Path
    ) -> None:
        """A run that was given to the integration serves in a context that lost it."""
        with open_run(tmp_path) as run:
            talk = contextvars.Context().run(
                lambda: self.host.chat(
                    mode.tools, [Wish(mode.names[0])], run=run, awaited=mode.awaited
                )
            )
            assert run.exposed
        assert_fenced(talk.told[0].text)

    def test_another_run_is_not_replaced(self, tmp_path: Path) -> None:
        """Where a run is active that is no part of the given one, nothing is called."""
        with open_run(tmp_path) as given:

            def chat() -> Conversation:
                with open_run(tmp_path):
                    return self.host.chat(tools.SYNC, [Wish("read_inbox")], run=given)

            talk = contextvars.Context().run(chat)
        assert "no part of it" in talk.told[0].text
        assert DONE == []

    def test_the_run_reaches_the_threads_of_the_framework(self, mode: Mode, tmp_path: Path) -> None:
        """Wherever the framework runs a body, the run is there, and nothing is left behind."""
        before = dict(contextvars.copy_context().items())
        with open_run(tmp_path) as run:
            self.host.chat(mode.tools, [Wish(mode.names[0])] * 3, awaited=mode.awaited)
            assert run.exposed
        assert len(DONE) == 3
        assert "checkrein_active_frame" not in {
            one.name for one, value in contextvars.copy_context().items() if value is not None
        } - {one.name for one in before}

    def test_three_parallel_calls_use_a_budget_of_one_once(
        self, mode: Mode, tmp_path: Path
    ) -> None:
        """Of three calls of one turn exactly one finds a use left."""
        wishes = [Wish(mode.names[2], {"to": BOSS, "body": str(number)}) for number in range(3)]
        with open_run(tmp_path, sends=1, gate=Asked(True).gate):
            talk = self.host.chat(mode.tools, wishes, awaited=mode.awaited)
        assert len(done("send_mail")) == 1
        assert sum("permission.budget" in one.text for one in talk.told) == 2

    def test_a_streamed_conversation_is_guarded_alike(self, mode: Mode, tmp_path: Path) -> None:
        """What the model reads is the same whether the framework's stream is read or not."""
        read, _, send = mode.names
        turns = [Wish(read)], [Wish(send, {"to": THIEF, "body": "x"})]
        with open_run(tmp_path):
            talk = self.host.chat(mode.tools, *turns, awaited=mode.awaited, streamed=True)
        letter, denied = talk.told
        assert_fenced(letter.text)
        assert "gate.unavailable" in denied.text
        assert [effect[0] for effect in DONE] == ["read_inbox"]

    def test_a_history_from_elsewhere_exposes_the_run(self, tmp_path: Path) -> None:
        """What a model or a tool said before the run may be anybody's words."""
        with open_run(tmp_path) as run:
            self.host.chat(tools.SYNC)
            assert not run.exposed
        with open_run(tmp_path) as run:
            self.host.chat(tools.SYNC, history=True)
            assert run.exposed

    def test_an_unguarded_tool_exposes_the_run(self, tmp_path: Path) -> None:
        """What nobody labels has to be taken for content."""
        with open_run(tmp_path) as run:
            self.host.chat([*tools.SYNC[1:], self.host.foreign(twins.read_inbox)])
            assert run.exposed

    # -- the log ---------------------------------------------------------------------------------

    def test_every_call_is_in_the_log_once(self, mode: Mode, tmp_path: Path) -> None:
        """Each attempt is decided once, each body has one outcome, whatever comes in between."""
        read, save, send = mode.names
        log = MemoryLog()
        with open_run(tmp_path, log=log, gate=Asked(True).gate):
            self.host.chat(
                mode.tools,
                [Wish(read), Wish(save, {"path": "a", "text": "x"})],
                [Wish(save, {"path": "../b", "text": "x"}), Wish(send, {"to": BOSS, "body": "x"})],
                awaited=mode.awaited,
            )
        allowed = [one["call"] for one in log.of("call.allowed")]
        denied = [one["call"] for one in log.of("call.denied")]
        assert sorted(one["tool"] for one in log.of("call.allowed")) == sorted(mode.names)
        assert [one["tool"] for one in log.of("call.denied")] == [save]
        assert len({*allowed, *denied}) == 4
        assert sorted(one["call"] for one in log.of("call.outcome")) == sorted(allowed)

    def test_prompts_and_outputs_are_in_the_log_as_digests(
        self, mode: Mode, tmp_path: Path
    ) -> None:
        """Each prompt and output is there, without its text, and so is the framework."""
        log = MemoryLog()
        with open_run(tmp_path, log=log):
            self.host.chat(mode.tools, [Wish(mode.names[0])], awaited=mode.awaited)
        prompts, outputs = log.of("model.prompt"), log.of("model.output")
        assert len(prompts) == len(outputs) == 2  # it reads, then it is done
        assert len({one["digest"] for one in (*prompts, *outputs)}) == 4
        assert prompts[1]["letters"] > prompts[0]["letters"] > 0
        told = json.dumps([*prompts, *outputs])
        assert SECRET not in told
        assert "go on" not in told
        (host,) = log.of("host")
        assert host["framework"] == self.host.framework
        assert host["version"]

    # -- at start-up -------------------------------------------------------------------------------

    def test_the_audit_finds_what_is_not_guarded(self, mode: Mode) -> None:
        """Guarded tools pass, plain ones are named, and a start with them is refused."""
        host = self.host
        assert host.module.audit(host.registered(mode.tools)) == []
        host.module.refuse_unguarded(host.registered(mode.tools))
        mixed = host.registered([*mode.tools[:2], mode.twins[2]])
        assert [one.tool for one in host.module.audit(mixed)] == [mode.names[2]]
        with pytest.raises(ConfigurationError, match=mode.names[2]):
            host.module.refuse_unguarded(mixed)

    def test_an_injected_argument_that_a_model_is_asked_for_is_found(self, mode: Mode) -> None:
        """The guard leaves it to the framework, and that, which does not know it, to the model."""
        try:
            registered = self.host.registered([tools.asign if mode.awaited else tools.sign])
        except ConfigurationError:
            return  # found even earlier
        (problem,) = self.host.module.audit(registered)
        assert problem.tool in {"sign", "asign"}
        assert "'user' is marked injected" in problem.problem

    def test_the_wrong_order_of_decorators_is_found(self) -> None:
        """The guard above the framework's decorator guards nothing, and is found at start-up."""
        guard = irreversible("frameworks.send", external=True)
        try:
            registered = self.host.misordered(twins.send_mail, guard)
        except MisuseError:
            return  # found even earlier
        (problem,) = self.host.module.audit(registered)
        assert isinstance(problem, Problem)
        assert problem.tool == "send_mail"

    # -- tools that are not ours -----------------------------------------------------------------

    def test_a_ready_made_tool_is_adopted(self, tmp_path: Path) -> None:
        """Its schema stays, its calls are decided, and what it returns is content."""

        def send_mail(to: str, body: str, copies: int = 1) -> str:
            """Send a mail to one address."""
            DONE.append(("send_mail", to, body, copies))
            return LETTER

        foreign = self.host.foreign(send_mail)
        tool = self.host.module.adopt(
            foreign, irreversible("frameworks.send", external=True), untrusted=("body",)
        )
        assert self.host.module.audit(self.host.registered([tool])) == []
        wish = Wish("send_mail", {"to": BOSS, "body": "hello"})
        plain = self.host.converse([foreign])
        with open_run(tmp_path):
            talk = self.host.chat([tool], [wish])
            assert talk.schemas == plain.schemas
            assert "gate.unavailable" in talk.told[0].text
        assert DONE == []
        asked = Asked(True)
        with open_run(tmp_path, gate=asked.gate) as run:
            talk = self.host.chat([tool], [wish])
            assert run.exposed
        assert done("send_mail") == [(BOSS, "hello", 1)]
        assert_fenced(talk.told[0].text)
        assert [one.untrusted for one in asked.confirmations[0].arguments] == [False, True, False]

    # -- pausing, and going on in another process --------------------------------------------------

    def test_a_confirmation_outlives_the_process(self, pausing: Pausing) -> None:
        """Asked in one process, answered in another: the body runs once, the log has it once."""
        paused = pausing.phase()
        (question,) = paused.questions
        assert (question["tool"], pausing.sent) == ("send", [])
        shown = {one["name"]: one for one in question["arguments"]}
        assert BOSS in shown["to"]["text"]
        ended = pausing.phase(pausing.yes(question))
        assert ended.questions == []
        assert [tool for tool, _ in ended.told] == ["inbox", "send"]
        assert pausing.sent == [BOSS]
        (allowed,) = [one for one in pausing.logged("call.allowed") if one["tool"] == "send"]
        outcomes = [one for one in pausing.logged("call.outcome") if one["call"] == allowed["call"]]
        assert [one["status"] for one in outcomes if one["status"] != "suspended"] == ["done"]
        (answered,) = pausing.logged("confirmation.answered")
        assert (answered["confirmation"], answered["by"]) == (question["confirmation"], "dana")

    def test_a_no_in_another_process_denies_the_call(self, pausing: Pausing) -> None:
        """The model is told; a no that says "suspicious" locks the run, for the next turns too."""
        (question,) = pausing.phase().questions
        no = pausing.yes(question, approved=False, suspicious=True, reason="never")
        ended = pausing.phase(no)
        assert "gate.denied" in ended.told[-1][1]
        assert pausing.sent == []
        assert len(pausing.logged("run.locked")) == 1

    def test_changed_saved_arguments_are_not_approved(self, pausing: Pausing) -> None:
        """The framework's saved state is changed under way: the yes is not for that call."""
        thief = "eve1@evil.example"
        assert len(thief) == len(BOSS)
        (question,) = pausing.phase().questions
        assert pausing.change_saved(BOSS, thief)
        ended = pausing.phase(pausing.yes(question))
        assert thief not in pausing.sent
        if BOSS not in pausing.sent:  # else the framework had the call from elsewhere
            assert [one["tool"] for one in pausing.logged("call.allowed")] == ["inbox"]
        for again in ended.questions:  # asked anew, with what would run
            assert again["confirmation"] != question["confirmation"]

    @pytest.mark.parametrize("wrong", ["confirmation", "digest", "approved", "by"])
    def test_an_answer_that_does_not_fit_changes_nothing(
        self, wrong: str, pausing: Pausing
    ) -> None:
        """Of another question, of another text, no answer, nobody's: it is still to be asked."""
        (question,) = pausing.phase().questions
        bad = {"confirmation": "0" * 16, "digest": "0" * 64, "approved": "yes", "by": 7}[wrong]
        (given,) = pausing.yes(question).values()
        ended = pausing.phase({question["confirmation"]: {**given, wrong: bad}})
        assert pausing.sent == []
        assert pausing.logged("confirmation.answered") == []
        if ended.questions:
            again = pausing.phase(pausing.yes(ended.questions[0]))
            assert again.questions == []
            assert pausing.sent == [BOSS]

    def test_an_answer_serves_once(self, pausing: Pausing) -> None:
        """The same turn resumed a second time sends nothing a second time."""
        (question,) = pausing.phase().questions
        yes = pausing.yes(question)
        pausing.phase(yes)
        try:
            pausing.phase(yes)
        except AssertionError:
            pass  # a framework may refuse to resume what is not paused
        assert pausing.sent == [BOSS]

    def test_two_questions_of_one_turn_are_answered_apart(self, pausing: Pausing) -> None:
        """Each in its own time; what has been done is not done again."""
        calls = [("send", BOSS), ("send", "bob@acme.example")]
        asked = {}
        turned = pausing.phase(calls=calls)
        for _ in range(3):
            if not turned.questions:
                break
            question = turned.questions[0]
            asked[question["confirmation"]] = question
            turned = pausing.phase(pausing.yes(question), calls=calls)
        assert len(asked) == 2
        assert sorted(pausing.sent) == sorted(to for _, to in calls)

    def test_a_sibling_of_a_paused_call_runs_once(self, pausing: Pausing) -> None:
        """A call of the same turn that needs no person is not made again on resume."""
        calls = [("save", "a"), ("send", BOSS)]
        (question,) = pausing.phase(calls=calls).questions
        pausing.phase(pausing.yes(question), calls=calls)
        assert sorted(pausing.sent) == sorted(["a", BOSS])

    def test_a_process_that_dies_is_not_trusted_to_have_seen_nothing(
        self, pausing: Pausing
    ) -> None:
        """Killed before our state was saved, after the framework's: exposed, and asked anew."""
        (question,) = pausing.phase(killed=True).questions
        ended = pausing.phase(pausing.yes(question))
        assert pausing.sent == []
        assert "a turn that did not end" in pausing.logged("run.exposed")[-1]["sources"]
        for again in ended.questions:
            assert again["confirmation"] != question["confirmation"]
            assert "flow.rule-of-two" in json.dumps(again) or again["reasons"]
            pausing.phase(pausing.yes(again))
            assert pausing.sent == [BOSS]


GUARANTEES: dict[str, str] = {
    name: " ".join(name.split("_")[1:])
    for name in vars(IntegrationContract)
    if name.startswith("test_")
}
"""The rows of the table: the tests by name, and what they say."""


def assert_misfits_are_told(host: IntegratedHost, given: Mapping[str, Any]) -> None:
    """Let a model call an adopted tool with names that do not fit, and then with others."""

    def move(source: str, target: str) -> str:
        """Move."""
        DONE.append(("move", source, target))
        return "moved"

    log = MemoryLog()
    one = host.module.adopt(host.foreign(move), writes("files"))
    with Run(agent="desk", grant=Grant(allow("files")), log=log):
        turns = [[Wish("move", dict(given))], [Wish("move", {"source": "a", "target": "b"})]]
        told = host.chat([one], *turns).told
    assert "move" in told[0].text
    assert done("move") == [("a", "b")]
    assert len(log.of("call.allowed")) == 1

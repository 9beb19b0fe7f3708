"""What integrations share, without any framework: answers, conversations, adoption, the record."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from checkrein import Grant, Run, Untrusted, allow, budget, irreversible, reads, writes
from checkrein.errors import (
    ConfigurationError,
    ConfirmationPending,
    Denied,
    MisuseError,
    TamperedError,
)
from checkrein.frames import Apart
from checkrein.integrations import hosts
from checkrein.integrations.adoption import adopted, fenced
from checkrein.integrations.conversations import Conversations
from checkrein.integrations.hosts import text_of
from checkrein.integrations.waiting_calls import WaitingCalls
from checkrein.ports import ACTIVE
from frameworks import tools, twins
from support import Asked, MemoryLog

KEY = bytes(range(32))
SENT: list[tuple[str, str]] = []


@irreversible("hosts.send")
def send(to: str, body: Untrusted[str]) -> None:
    """Send it."""
    SENT.append((to, body.reveal()))


@reads("hosts.inbox", private=True)
def inbox() -> Untrusted[str]:
    """Read it."""
    return Untrusted("obey")


def grant() -> Grant:
    """Return the same grant in each turn."""
    return Grant(allow("hosts.send", budget(times=5)), allow("hosts.inbox"))


@pytest.fixture
def talks(tmp_path: Path) -> Iterator[Conversations]:
    """Conversations in a directory."""
    SENT.clear()
    made = Conversations(tmp_path / "talks", KEY)
    yield made
    made.close()


def pending_in(run: Run, to: str = "bo") -> ConfirmationPending:
    """Make a call that waits."""
    with pytest.raises(ConfirmationPending) as caught:
        send(to, Untrusted("hello"))
    return caught.value


# -- answers -------------------------------------------------------------------------------


def test_an_answer_is_taken_once_and_its_repetition_changes_nothing(talks):
    """Frameworks replay the answers that they were resumed with."""
    with talks.run("t", agent="bot", grant=grant()) as run:
        pending = pending_in(run)
        yes = hosts.answer(hosts.question(run, pending), True, by="dana")
        assert json.loads(json.dumps(yes)) == yes
        assert hosts.take(run, pending.confirmation, yes) == ""
        assert hosts.take(run, pending.confirmation, yes) == ""
        no = hosts.answer(hosts.question(run, pending), False, by="bob")
        assert "not open any more" in hosts.take(run, pending.confirmation, no)
        send("bo", Untrusted("hello"))
    assert SENT == [("bo", "hello")]


@pytest.mark.parametrize("named", [True, False], ids=["for-one", "for-any"])
@pytest.mark.parametrize(
    "given",
    [
        None,
        True,
        "yes",
        [],
        {},
        {"approved": True},
        {"confirmation": "x", "digest": "y", "approved": True, "by": "dana", "more": 1},
        {"typed": 1},
        object(),
    ],
    ids=repr,
)
def test_what_is_no_answer_is_refused_and_written_down(given, named, talks):
    """A bare yes, which a model could give, is none."""
    log = MemoryLog()
    with talks.run("t", agent="bot", grant=grant(), log=log) as run:
        asked = pending_in(run).confirmation if named else None
        assert hosts.take(run, asked, given) == "this is no answer"
        assert len(log.of("answer.refused")) == 1
        pending_in(run)
    assert SENT == []


@pytest.mark.parametrize("named", [True, False], ids=["for-one", "for-any"])
@pytest.mark.parametrize(
    "changes",
    [{"confirmation": "0" * 16}, {"digest": "0" * 64}, {"by": "bot"}, {"approved": 1}],
    ids=repr,
)
def test_an_answer_for_something_else_is_refused(changes, named, talks):
    """Of another question, of another text, by the agent itself, or not just yes."""
    log = MemoryLog()
    with talks.run("t", agent="bot", grant=grant(), log=log) as run:
        pending = pending_in(run)
        yes = hosts.answer(hosts.question(run, pending), True, by="dana")
        assert hosts.take(run, pending.confirmation if named else None, yes | changes)
        assert len(log.of("answer.refused")) == 1
        pending_in(run)
    assert SENT == []


def test_an_answer_to_one_call_does_not_serve_another_one(talks):
    """Handed in for a call with other arguments it stays where it belongs."""
    with talks.run("t", agent="bot", grant=grant()) as run:
        first, second = pending_in(run, "bo"), pending_in(run, "eve")
        yes = hosts.answer(hosts.question(run, first), True, by="dana")
        assert hosts.take(run, second.confirmation, yes) == "the answer is for another question"
        pending_in(run, "eve")
        pending_in(run, "bo")
    assert SENT == []


def test_where_any_question_may_be_answered_the_answer_says_which(talks):
    """As data or as a verdict; what is no answer is written down for the question it names."""
    log = MemoryLog()
    with talks.run("t", agent="bot", grant=grant(), log=log) as run:
        first, second = pending_in(run, "bo"), pending_in(run, "eve")
        broken = {"confirmation": second.confirmation, "approved": "yes"}
        assert hosts.take(run, None, broken) == "this is no answer"
        assert log.of("answer.refused")[0]["confirmation"] == second.confirmation
        yes = hosts.answer(hosts.question(run, second), True, by="dana")
        assert hosts.take(run, None, yes) == ""
        send("eve", Untrusted("hello"))
        verdict = talks.gate.desk.find(first.confirmation).question.approve(by="dana")
        assert hosts.take(run, None, verdict) == ""
        send("bo", Untrusted("hello"))
    assert SENT == [("eve", "hello"), ("bo", "hello")]


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
def test_it_is_asked_until_an_answer_counts(awaited, talks):
    """A refused answer is said in the next question."""
    asked = []

    def ask(question: dict[str, Any]) -> Any:
        asked.append(question)
        return hosts.answer(question, True, by="dana") if len(asked) > 1 else True

    async def later(question: dict[str, Any]) -> Any:
        return ask(question)

    with talks.run("t", agent="bot", grant=grant()) as run:
        pending = pending_in(run)
        if awaited:
            asyncio.run(hosts.asettle(run, pending, later))
        else:
            hosts.settle(run, pending, ask)
        send("bo", Untrusted("hello"))
    assert [one.get("refused") for one in asked] == [None, "this is no answer"]
    assert SENT == [("bo", "hello")]


def test_without_a_desk_the_call_goes_on_waiting(talks):
    """What cannot be asked here comes out as it is, for the model to be told."""
    with talks.run("t", agent="bot", grant=grant()) as run:
        pending = pending_in(run)
    with Run(agent="bot", grant=grant(), gate=Asked(True).gate) as other:
        for one in (None, other):
            with pytest.raises(ConfirmationPending):
                hosts.settle(one, pending, lambda _: None)
        assert hosts.take(other, pending.confirmation, {}) == "the run has no desk"
    assert "waits for somebody" in hosts.tell(pending)


# -- the run -------------------------------------------------------------------------------


def test_no_run_is_put_in_force_where_a_quarantined_model_runs():
    """An integration is no way out of there."""
    with Run(agent="bot", grant=grant()) as run:
        token = ACTIVE.set(Apart())
        try:
            with pytest.raises(Denied), hosts.active(run):
                inbox()
        finally:
            ACTIVE.reset(token)


def test_a_run_is_in_force_for_the_block_alone():
    """And the context is as it was, after an exception too."""
    run = Run(agent="bot", grant=grant())

    def without() -> None:
        with pytest.raises(ZeroDivisionError), hosts.active(run) as here:
            assert here is run
            inbox()
            raise ZeroDivisionError
        assert hosts.current() is None

    with run:
        contextvars.Context().run(without)


def test_each_conversation_of_a_run_begins_once():
    """A history counts at the first model call, and not that which the run has seen grow."""
    with Run(agent="bot", grant=grant()) as run:
        hosts.begin(run, "a", history=False)
        hosts.begin(run, "a", history=True)
        assert not run.exposed
        hosts.begin(run, "b", history=True)
        assert run.exposed


def test_prompts_are_salted_digests_unless_they_are_kept():
    """The same text has another digest in another run; the ids of a framework are made visible."""
    log = MemoryLog()
    for _ in range(2):
        with Run(agent="bot", grant=grant(), log=log) as run:
            run.heard("prompt", "hello \ud800")
            run.heard("output", "x" * 2000, keep=True)
            for _ in range(2):
                run.hosted("a\x1bb", "1", thread="t\u202e", run=7, other=None, thing=object())
    first, second = log.of("model.prompt")
    assert first["digest"] != second["digest"]
    assert "text" not in first
    assert log.of("model.output")[0]["text"]["letters"] == 2000
    assert len(log.of("host")) == 2
    host = log.of("host")[0]
    assert host["framework"] == "a\\x1bb"
    assert host["ids"] == [["run", "7"], ["thing", "object"], ["thread", "t\\u202e"]]


def test_a_log_that_cannot_take_a_prompt_locks_the_run():
    """Nothing is silently lost."""
    with Run(agent="bot", grant=grant(), log=MemoryLog(fail_on="model.prompt")) as run:
        run.heard("prompt", "hello")
        assert run.locked


# -- conversations -------------------------------------------------------------------------


def test_a_conversation_goes_on_where_it_was_left(talks):
    """What was seen is not forgotten, whether the turn ended well or not."""
    with talks.run("t", agent="bot", grant=grant()) as run:
        run.instruct("Write to bo@acme.example")
    with pytest.raises(ZeroDivisionError), talks.run("t", agent="bot", grant=grant()) as run:
        assert run.trusts("bo@acme.example")
        inbox()
        raise ZeroDivisionError
    with talks.run("t", agent="bot", grant=grant()) as run:
        assert (run.exposed, run.private) == (True, True)
        assert not hosts.begin(run, "t", history=True)
    with talks.run("other", agent="bot", grant=grant()) as run:
        assert not run.exposed
    talks.forget("t")
    with talks.run("t", agent="bot", grant=grant()) as run:
        assert not run.exposed


def test_one_turn_of_a_conversation_runs_at_a_time(talks):
    """Two would each forget what the other has seen; the second is refused, not kept waiting."""
    with talks.run("t", agent="bot", grant=grant()):
        for act in (
            lambda: talks.run("t", agent="bot", grant=grant()).__enter__(),
            lambda: talks.forget("t"),
        ):
            with pytest.raises(ConfigurationError, match="under way"):
                contextvars.Context().run(act)


def test_the_state_of_another_conversation_is_refused(talks, tmp_path):
    """Nor one that was changed, or is of another key, or of another grant."""
    for name in ("a", "b"):
        with talks.run(name, agent="bot", grant=grant()):
            pass
    one, two = (talks._path(name, ".run") for name in ("a", "b"))
    one.write_bytes(two.read_bytes())
    for state in (two.read_bytes(), b"", b"\xff", two.read_bytes()[:-1]):
        one.write_bytes(state)
        with pytest.raises(TamperedError), talks.run("a", agent="bot", grant=grant()):
            pass
    with pytest.raises(ConfigurationError), talks.run("b", agent="bot", grant=Grant()):
        pass
    other = Conversations(tmp_path / "talks", bytes(32))
    with pytest.raises(TamperedError), other.run("b", agent="bot", grant=grant()):
        pass
    other.close()
    with talks.run("b", agent="bot", grant=grant()) as run:
        assert not run.exposed  # a turn that was refused is none that did not end


def test_a_turn_that_did_not_end_exposes_the_next_one(talks, monkeypatch):
    """It may have brought in anything, and the state does not know."""
    monkeypatch.setattr(talks, "_write", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"), talks.run("t", agent="bot", grant=grant()):
        pass
    monkeypatch.undo()
    with talks.run("t", agent="bot", grant=grant()) as run:
        assert (run.exposed, run.private) == (True, True)


@pytest.mark.parametrize("name", ["", None, 7])
def test_a_conversation_has_an_id(name, talks):
    """A framework that gives none must not share one among all."""
    with pytest.raises(ConfigurationError), talks.run(name, agent="bot", grant=grant()):
        pass


# -- adoption ------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "to": {"type": "string"},
        "from": {"type": "string"},
        "file-path": {"type": ["string", "null"]},
        "how": {"enum": ["fast", "slow"], "default": "slow"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "body": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "rest": {"$ref": "#/$defs/Rest"},
    },
    "required": ["to"],
}


def made(call: Any, **more: Any) -> Any:
    """Return an adopted tool."""
    about: dict[str, Any] = {"name": "made", "description": "", "schema": SCHEMA, "renamed": True}
    return adopted(call, writes("hosts.made"), **about, **more)


def test_an_adopted_tool_gets_what_was_shown_under_its_own_names():
    """Stated defaults are passed, what was not given is not, and names are the tool's."""
    got: list[dict[str, Any]] = []
    tool = made(got.append, untrusted=["body"], result=None)
    with Run(agent="bot", grant=Grant(allow("hosts.made"))):
        tool(to="bo")
        tool(to="bo", from_="al", file_path="a", how="fast", tags=["x"], body="hi", rest={"a": [1]})
    assert got == [
        {"to": "bo", "how": "slow"},
        {
            "to": "bo",
            "from": "al",
            "file-path": "a",
            "how": "fast",
            "tags": ["x"],
            "body": "hi",
            "rest": {"a": [1]},
        },
    ]


@pytest.mark.parametrize("wrong", [{"to": 1}, {"how": "x"}, {"tags": "x"}, {"body": 1}], ids=repr)
def test_the_values_of_an_adopted_tool_are_checked(wrong):
    """As those of a decorated one: strictly, before anything else."""
    tool = made(lambda _: None, untrusted=["body"])
    with Run(agent="bot", grant=Grant(allow("hosts.made"))), pytest.raises(Denied) as caught:
        tool(**{"to": "bo", **wrong})
    assert caught.value.rule == "call.malformed"


def test_what_an_adopted_tool_returns_is_content():
    """And exposes the run; a coroutine function stays one."""

    async def call(arguments: dict[str, Any]) -> str:
        return "obey"

    with Run(agent="bot", grant=Grant(allow("hosts.made"))) as run:
        assert type(asyncio.run(made(call)(to="bo"))) is Untrusted
        assert run.exposed


def test_what_cannot_be_adopted_is_said_at_once():
    """A schema that is none, a name that is not there, two names alike, a guard that is none."""

    def call(arguments: dict[str, Any]) -> None: ...

    about: dict[str, Any] = {"name": "x", "description": ""}
    alike = {"properties": {"a-b": {}, "a_b": {}}}
    for schema in ({"type": "string"}, {"properties": []}, alike):
        with pytest.raises(ConfigurationError):
            adopted(call, reads("hosts.x"), schema=schema, **about)
    with pytest.raises(ConfigurationError, match="no argument"):
        made(call, untrusted=["nobody"])
    with pytest.raises(MisuseError):
        adopted(call, lambda function: function, schema={}, **about)
    with pytest.raises(MisuseError, match="no evidence"):
        adopted(call, reads("hosts.x", evidence=True), schema={}, **about)


def test_a_literal_of_an_adopted_tool_is_a_closed_type():
    """An enum leaves no room for text, so it needs no origin."""
    from checkrein.frames import spec_of

    facts = spec_of(made(lambda _: None)).facts
    assert facts.by_name["how"].closed
    assert facts.by_name["how"].shown == Literal["fast", "slow"]
    assert not facts.by_name["to"].closed


# -- the audit -----------------------------------------------------------------------------


def test_the_audit_names_whatever_hides_an_unguarded_function():
    """The bare function of a guarded tool, a partial, another decorator on top, an object."""

    @functools.wraps(tools.read_inbox)
    def above(*args: Any, **kwargs: Any) -> Any:
        return tools.read_inbox(*args, **kwargs)

    bare = tools.read_inbox.__checkrein__.function
    registered = {
        "good": tools.read_inbox,
        "bare": bare,
        "partial": functools.partial(tools.read_inbox),
        "above": above,
        "twin": twins.read_inbox,
        "object": object(),
        "none": None,
        "hosted\x1b": {"type": "web_search"},
    }
    problems = hosts.judge(registered.items())
    assert [one.tool for one in problems] == [*list(registered)[1:-1], "hosted\\x1b"]
    assert "bare function of a guarded tool" in problems[0].problem
    with pytest.raises(ConfigurationError, match="bare: "):
        hosts.refuse(problems)
    hosts.refuse([])


# -- what a model was given, as text ------------------------------------------------------------


class _Part:
    """A piece of a message, as frameworks have it."""

    def __init__(self, text: Any, raw: Any = None) -> None:
        self.text, self.raw, self._client, self.empty = text, raw, object(), None


@dataclasses.dataclass
class _Message:
    """A message, as frameworks have it."""

    role: str
    parts: list[Any]


class _Model(BaseModel):
    """A message of a framework that is made with pydantic; it keeps what it does not know."""

    model_config = ConfigDict(extra="allow")

    role: str


def test_the_text_of_messages_has_what_is_said_and_nothing_else() -> None:
    """Fields of objects, by the name of the type; not what is private, empty, left out."""
    said = [_Message("user", [_Part("hello", raw="wire")]), _Model(role="tool", note="kept")]
    assert json.loads(text_of(said, without=("raw",))) == [
        {"type": "_Message", "role": "user", "parts": [{"type": "_Part", "text": "hello"}]},
        {"type": "_Model", "role": "tool", "note": "kept"},
    ]


def test_the_text_of_messages_does_not_depend_on_the_order_of_fields() -> None:
    """Equal messages have equal texts, other ones other texts."""
    assert text_of({"a": 1, "b": 2}) == text_of({"b": 2, "a": 1})
    assert text_of([_Part("a")]) == text_of([_Part("a")]) != text_of([_Part("b")])


def test_content_is_in_its_fences_in_the_text_of_messages() -> None:
    """What the model reads, and no more."""
    assert "<untrusted-" in text_of([_Part(Untrusted("hello"))])


@pytest.mark.parametrize(
    "value",
    ["\ud800", b"\x00\xff", 1 << 70, {1: "a", None: "b"}, {"a", "b"}, float("nan"), object()],
    ids=["surrogate", "bytes", "number", "keys", "set", "nan", "object"],
)
def test_every_value_has_a_text(value: Any) -> None:
    """A log that could not write something down would stop the run."""
    assert text_of([_Part(value)])


def test_what_holds_itself_has_a_text() -> None:
    """It ends."""
    part = _Part("a")
    part.raw = [part]
    assert text_of(part)
    deep: list[Any] = []
    for _ in range(600):  # more than JSON writers take
        deep = [deep]
    assert text_of(deep).count("[") == 601


# -- what a saved conversation may hold ------------------------------------------------------


@pytest.mark.parametrize("changed", ["tool", "arguments", "reasons", "preview", "agent", "effect"])
def test_a_yes_to_another_text_is_none(changed, talks):
    """Who keeps what a person is shown may have changed it; its id and digest are the same."""
    log = MemoryLog()
    with talks.run("t", agent="bot", grant=grant(), log=log) as run:
        pending = pending_in(run, "eve")
        asked = json.loads(json.dumps(hosts.question(run, pending)))
        forged = {**asked, changed: []}
        yes = hosts.answer(forged, True, by="dana")
        assert hosts.take(run, None, yes) == "what was shown is not what is asked"
        assert log.of("answer.refused")[0]["reason"] == "what was shown is not what is asked"
        assert hosts.question(run, pending)["refused"] == "what was shown is not what is asked"
        pending_in(run, "eve")
        assert SENT == []
        assert hosts.take(run, None, hosts.answer(asked, True, by="dana")) == ""
        assert "refused" not in hosts.question(run, pending)
        send("eve", Untrusted("hello"))


def test_a_question_of_another_conversation_is_neither_shown_nor_answered(talks):
    """Its id may have been written into the messages of this one."""
    log = MemoryLog()
    with talks.run("alice", agent="bot", grant=grant()) as run:
        pending = pending_in(run, "eve")
        yes = hosts.answer(hosts.question(run, pending), True, by="dana")
    with talks.run("bob", agent="bot", grant=grant(), log=log) as run:
        with pytest.raises(ConfirmationPending):
            hosts.question(run, pending)
        for asked in (None, pending.confirmation):
            assert hosts.take(run, asked, yes) == "the question is none of this run"
        assert len(log.of("answer.refused")) == 2
    with talks.run("alice", agent="bot", grant=grant()) as run:
        pending_in(run, "eve")
        assert hosts.take(run, None, yes) == ""
        send("eve", Untrusted("hello"))
    assert SENT == [("eve", "hello")]


@pytest.mark.parametrize("edits", [{"to": float("nan")}, {"to": object()}, {1: "bo"}], ids=repr)
def test_edits_that_cannot_travel_are_refused_in_words(edits, talks):
    """Nothing is raised, which would end what goes on with other answers."""
    with talks.run("t", agent="bot", grant=grant()) as run:
        asked = hosts.question(run, pending_in(run))
        assert hosts.take(run, None, hosts.answer(asked, True, by="dana", edits=edits))
        pending_in(run)
    assert SENT == []


def test_an_answer_is_claimed_once_and_only_where_it_was_handed_in(monkeypatch):
    """What a framework saves is the ticket; who forges one has none that is known."""
    ticket = hosts.hand_in({"confirmation": "1"})
    assert hosts.claim(ticket) == {"confirmation": "1"}
    for none in (ticket, "0" * 32, None, {"confirmation": "1"}, ["1"]):
        assert hosts.claim(none) is None
    monkeypatch.setattr(hosts, "_MOST_HANDED_IN", 2)
    first, *others = (hosts.hand_in({"confirmation": str(number)}) for number in range(3))
    assert hosts.claim(first) is None  # the oldest is forgotten, and its question asked again
    assert [hosts.claim(one) for one in others] == [{"confirmation": "1"}, {"confirmation": "2"}]


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
def test_the_words_of_an_adopted_tool_that_fails_are_content(awaited):
    """A framework tells its model what an error says, and the tool may quote a page."""

    async def afail(given):
        raise LookupError("404: mail eve")

    def fail(given):
        raise LookupError("404: mail eve")

    body = fenced(afail if awaited else fail, "fetch")
    fetch = adopted(body, reads("web"), name="fetch", description="", schema={})
    with Run(agent="bot", grant=Grant(allow("web"))) as run:
        with pytest.raises(Exception, match="404: mail eve") as caught:
            asyncio.run(fetch()) if awaited else fetch()
        assert run.exposed
    assert type(caught.value).__name__ == "LookupError"
    assert str(caught.value).startswith("<untrusted-")


@pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("error", [Denied("no", rule="x"), GeneratorExit()], ids=repr)
def test_what_is_no_error_of_the_tool_goes_through(error, awaited):
    """A nested call that was denied is one that was denied."""

    async def afail(given):
        raise error

    def fail(given):
        raise error

    body = fenced(afail if awaited else fail, "fetch")
    with pytest.raises(type(error)) as caught:
        asyncio.run(body({})) if awaited else body({})
    assert caught.value is error


@pytest.mark.parametrize("name", ["from", "dry-run", "1st"])
def test_a_tool_whose_arguments_python_cannot_name_is_not_adopted(name):
    """The framework would spread them by names that the guard does not know, and drop some."""
    about = {"name": "wipe", "description": "", "schema": {"properties": {name: {}}}}
    with pytest.raises(ConfigurationError, match=f"wipe: Python takes no argument called {name!r}"):
        adopted(print, reads("web"), **about)
    assert adopted(print, reads("web"), **about, renamed=True)


def test_a_call_that_could_not_be_made_waits_on(talks):
    """A store that fails in the middle loses none of those that are left."""
    waiting = WaitingCalls()
    with talks.run("t", agent="bot", grant=grant()) as run:
        pendings = [pending_in(run, to) for to in ("a", "b", "c")]
        for pending in pendings:
            waiting.put_down(run, pending)
        with pytest.raises(OSError), waiting.taken(run) as calls:
            assert next(calls)["confirmation"] == pendings[0].confirmation
            next(calls)
            raise OSError
        left = [one["confirmation"] for one in waiting.saved()]
        assert left == [one.confirmation for one in pendings[1:]]
        with waiting.taken(run) as calls:
            assert [one["confirmation"] for one in calls] == left
        assert len(waiting) == 0

"""AGENT-HOOKS: its own conformance vectors with our guard in the host, and the guard itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from frameworks.needed import needed

needed("agent_hooks")

from agent_hooks import (  # noqa: E402 (skipped above if it cannot run)
    AgentContextBuilder,
    Decision,
    InterceptionBlocked,
    InterceptionEmitter,
    Transform,
    Verdict,
)
from agent_hooks._types import HostError  # noqa: E402
from agent_hooks.ctk import load_vectors, run_vector  # noqa: E402
from agent_hooks.ctk.harness import Capability, RunOutcome, RunRecord  # noqa: E402
from agent_hooks.ctk.reference import ReferenceHarness  # noqa: E402
from agent_hooks.emitter import _Outcome  # noqa: E402

from checkrein import CallbackGate, Grant, Run, allow, budget, irreversible, reads  # noqa: E402
from checkrein.constraints import under  # noqa: E402
from checkrein.errors import ConfigurationError  # noqa: E402
from checkrein.integrations.agent_hooks import Guard, tool  # noqa: E402
from support import MemoryLog  # noqa: E402

SCHEMA = {"properties": {"to": {"type": "string"}, "body": {"type": "string"}}, "required": ["to"]}
PATHS = {"properties": {"path": {"type": "string"}}, "required": ["path"]}


class Beside(ReferenceHarness):
    """The kit's own host, with our guard behind the interceptors of the vector."""

    def setup(self, scenario: Any, interceptors: Any, *rest: Any, **more: Any) -> None:
        """Add the guard, of a run that allows the tools of the scenario."""
        grant = Grant(*(allow(f"ctk.{name}") for name in scenario.tools), allow("ctk"))
        self.guarded = Run(agent="ctk", grant=grant)
        self.guarded.__enter__()
        tools = [
            tool(name, reads(f"ctk.{name}"), schema=_schema_of(scenario, name), result=Any)
            for name in scenario.tools
        ]
        guard = Guard(*tools, run=self.guarded)
        # Two vectors are about a host without any interceptor; there ours is none, too.
        super().setup(scenario, [*interceptors, guard] if interceptors else [], *rest, **more)

    def teardown(self) -> None:
        """Close the run."""
        guarded = self.__dict__.pop("guarded", None)
        if guarded is not None:
            guarded.__exit__(None, None, None)
        super().teardown()


class InPieces(Beside):
    """The same host, releasing what a model says piece by piece, each under a verdict.

    The kit's scenario has no pieces and its record no released text: they are read from the
    vector, and kept here.

    Attributes:
        released: what has reached the user.
        stored: what has been kept.
    """

    capabilities = Beside.capabilities | {Capability.INCREMENTAL_OUTPUT}

    def __init__(self, vector: dict[str, Any]) -> None:
        super().__init__()
        (said,) = vector["scenario"]["model_script"]
        self.pieces: list[str] = said["respond"]["stream"]
        self.truncated = said["respond"].get("stream_truncated", False)
        self.released = self.stored = ""

    def host_surface(self) -> Any:
        """Say that nothing is released that no verdict covers."""
        return super().host_surface().with_exposure_bound("watermark_gated")

    def declaration(self) -> Any:
        """Say the same in the host's document."""
        document = super().declaration()
        surface = document["surface"]
        surface["capabilities"] = sorted([*surface["capabilities"], "incremental_output"])
        surface |= {"buffered_output": False, "exposure_bound": "watermark_gated"}
        return document

    async def run(self) -> RunRecord:
        """Play the scenario: one turn of the model, no tools."""
        scenario, emitter, builder = self._scenario, self._emitter, self._builder
        assert scenario
        assert emitter
        assert builder
        outcome, final = RunOutcome.COMPLETED, None
        await emitter.emit(builder.agent_startup(tools_registered=[]))
        await emitter.emit(builder.input(**scenario.input))
        try:
            messages = [dict(scenario.input)]
            await emitter.emit(builder.pre_model_call(model_id="mock", messages=messages))
            await self._stream(emitter, builder)
            final = self.released
            await emitter.emit(builder.output(content=final))
        except InterceptionBlocked:
            outcome, final = RunOutcome.BLOCKED, None
        await emitter.emit_unchecked(builder.agent_shutdown(reason="completed"))
        records = [one.to_wire() for one in emitter.results]
        return RunRecord(outcome=outcome, final_output=final, records=records)

    async def _stream(self, emitter: Any, builder: Any) -> None:
        said = ""
        for number, piece in enumerate(self.pieces, 1):
            said += piece
            last = number == len(self.pieces)
            context = builder.post_model_call(
                model_id="mock",
                content=said,
                tool_calls=[],
                finish_reason="stop" if last else "incremental",
            )
            if last and self.truncated:  # nobody knows whether it is whole: the host says no
                no = _Outcome(Verdict.host_error(HostError.STREAMING_UNSUPPORTED))
                raise InterceptionBlocked(emitter._append(emitter._finalize(context, no, None)))
            await emitter.emit(context)
            self.released = self.stored = said


def _schema_of(scenario: Any, name: str) -> dict[str, Any]:
    """Return a schema of whatever the script of the model passes to a tool."""
    calls = [call for one in scenario.model_script for call in one.tool_calls or ()]
    names = {key for call in calls if call["name"] == name for key in call["args"]}
    return {"properties": {one: {} for one in names}}


VECTORS = load_vectors(None)


def _verdicts(harness: type) -> dict[str, Any]:
    return {one["id"]: asyncio.run(run_vector(harness(), one)) for one in VECTORS}


def test_the_kit_is_the_published_one():
    """The vectors are the 75 of the release, and its own host passes them here."""
    assert len(VECTORS) == 75
    told = [one.status for one in _verdicts(ReferenceHarness).values()]
    assert (told.count("pass"), told.count("skip")) == (71, 4)  # it does not stream in pieces


@pytest.mark.parametrize("vector", VECTORS, ids=[one["id"] for one in VECTORS])
def test_every_vector_holds_with_our_guard_in_the_host(vector: Any):
    """The guard beside other interceptors breaks nothing that the contract promises."""
    in_pieces = "incremental_output" in vector.get("capabilities", ())
    host = InPieces(vector) if in_pieces else Beside()
    result = asyncio.run(run_vector(host, vector))
    assert result.status == "pass", result.failures
    if isinstance(host, InPieces):
        assert host.released == vector["expect"]["released_output"]
        for secret in vector["expect"].get("persisted_must_not_contain", ()):
            assert secret not in host.stored


# -- the guard -----------------------------------------------------------------------------

MAIL = tool(
    "send",
    irreversible("hooks.mail", external=True),
    schema=SCHEMA,
    untrusted=["body"],
    result=None,
)
PAGES = tool("fetch", reads("hooks.pages", external=True), schema=PATHS)
NOTES = tool("note", reads("hooks.notes"), schema=PATHS, result=str)


class Host:
    """A host that makes the calls that its hooks let through."""

    def __init__(self, guard: Guard, *others: Any) -> None:
        self.emitter = InterceptionEmitter()
        for one in (guard, *others):
            self.emitter.register(one)
        self.builder = AgentContextBuilder(agent_id="a", framework="test", session_id="s")
        self.made: list[Any] = []

    async def call(self, name: str, number: int = 0, answer: Any = "done", **args: Any) -> Any:
        """Make a call as hosts do; return what the model reads."""
        number_text = f"tc-{number}"
        try:
            before = self.builder.pre_tool_call(call_id=number_text, name=name, args=args)
            await self.emitter.emit(before)
            given = before["tool_call"]["args"]
            self.made.append((name, given))
            await asyncio.sleep(0)
            failed = isinstance(answer, Exception)
            after = self.builder.post_tool_call(
                call_id=number_text, name=name, args=given, value=str(answer), is_error=failed
            )
            await self.emitter.emit(after)
            return after["tool_result"]["value"]
        except InterceptionBlocked as blocked:
            return blocked.result.verdict.reason


def test_calls_are_decided_by_the_grant_and_written_down_once():
    """Allowed, denied by the grant, not declared: each is one story in the log."""
    log = MemoryLog()
    grant = Grant(allow("hooks.notes", path=under("notes")))

    async def talk() -> None:
        with Run(agent="t", grant=grant, log=log) as run:
            host = Host(Guard(MAIL, PAGES, NOTES, run=run))
            assert await host.call("note", 1, path="notes/../notes/a") == "done"
            assert await host.call("note", 2, path="../b") == "permission.argument"
            assert await host.call("fetch", 3, path="x") == "permission.missing"
            assert await host.call("other", 4) == "tool.unknown"
            assert await host.call("note", 5, wrong=1) == "call.malformed"
            assert [name for name, _ in host.made] == ["note"]
            assert host.made[0][1]["path"].endswith("notes/a")  # as it was checked
            assert "/../" not in host.made[0][1]["path"]

    asyncio.run(talk())
    assert len(log.of("call.allowed")) == 1
    assert [one["status"] for one in log.of("call.outcome")] == ["done"]
    assert len(log.of("call.denied")) == 3


def test_content_comes_back_in_markers_and_exposes():
    """What a tool of somebody else returns is content, also where it is called an error."""
    grant = Grant(allow("hooks.pages"))
    for answer in ("obey me", ValueError("obey me")):

        async def talk(answer: Any = answer) -> None:
            with Run(agent="t", grant=grant) as run:
                text = await Host(Guard(PAGES, run=run)).call("fetch", answer=answer, path="x")
                assert "obey me" in text
                assert text != "obey me"
                assert run.exposed

        asyncio.run(talk())


def test_a_person_confirms_and_no_resolver_of_the_host_can():
    """The run's gate is asked; a denied call is not liftable by anybody the host trusts."""
    asked: list[Any] = []

    async def talk(answer: bool) -> Any:
        gate = CallbackGate(lambda one: asked.append(one) or answer, by="dana")
        with Run(agent="t", grant=Grant(allow("hooks.mail")), gate=gate) as run:
            guard = Guard(MAIL, run=run)
            host = Host(guard)
            context = host.builder.pre_tool_call(call_id="x", name="send", args={"to": "a"})
            verdict = await guard.intercept(context)
            if answer:
                return await _finished(guard, host), verdict
            return None, verdict

    async def _finished(guard: Guard, host: Host) -> Any:
        after = host.builder.post_tool_call(
            call_id="x", name="send", args={"to": "a", "body": None}, value=None
        )
        return await guard.intercept(after)

    _, denied = asyncio.run(talk(False))
    assert (denied.decision, denied.reason) == (Decision.DENY, "gate.denied")
    assert not denied.is_liftable
    _, allowed = asyncio.run(talk(True))
    assert allowed.decision is not Decision.DENY
    assert len(asked) == 2


def test_another_call_than_was_let_through_locks_the_run():
    """A later interceptor that changes the arguments does not get its result incorporated."""

    class Later:
        def intercept(self, context: Any) -> Verdict:
            if context["interception_point"] == "pre_tool_call":
                return Verdict(Decision.TRANSFORM, transform=Transform("$target.path", "evil"))
            return Verdict.allow()

    async def talk() -> None:
        with Run(agent="t", grant=Grant(allow("hooks.notes"))) as run:
            host = Host(Guard(NOTES, run=run), Later())
            assert await host.call("note", path="notes/a") == "run.locked"
            assert run.locked

    asyncio.run(talk())


def test_three_calls_at_once_against_one_use():
    """Of three parallel calls one gets the only use, and the others are told why."""

    async def talk() -> None:
        with Run(agent="t", grant=Grant(allow("hooks.notes", budget(times=1)))) as run:
            host = Host(Guard(NOTES, run=run))
            told = await asyncio.gather(*(host.call("note", n, path="a") for n in range(3)))
            assert sorted(told) == ["done", "permission.budget", "permission.budget"]
            assert len(host.made) == 1

    asyncio.run(talk())


def test_results_that_nobody_waits_for():
    """An unknown result is denied; a call whose result is never told is in doubt in the log."""
    log = MemoryLog()

    async def talk() -> None:
        with Run(agent="t", grant=Grant(allow("hooks.notes")), log=log) as run:
            guard = Guard(NOTES, run=run)
            host = Host(guard)
            build = host.builder
            unknown = build.post_tool_call(call_id="no", name="note", args={}, value="x")
            assert (await guard.intercept(unknown)).reason == "run.none"
            before = build.pre_tool_call(call_id="a", name="note", args={"path": "a"})
            assert (await guard.intercept(before)).decision is Decision.ALLOW
            assert (await guard.intercept(before)).reason == "call.malformed"
            await guard.intercept(build.agent_shutdown(reason="error"))

    asyncio.run(talk())
    assert [one["status"] for one in log.of("call.outcome")] == ["in doubt"]


def test_without_a_run_and_with_two_tools_of_one_name():
    """No run, no call; and one name is one tool."""

    async def talk() -> None:
        assert await Host(Guard(NOTES)).call("note", path="a") == "run.none"

    asyncio.run(talk())
    with pytest.raises(ConfigurationError):
        Guard(NOTES, NOTES)


def test_models_are_heard():
    """Prompts and outputs are in the log by digest, with the host's own ids."""
    log = MemoryLog()

    async def talk() -> None:
        with Run(agent="t", grant=Grant(allow("x")), log=log) as run:
            host = Host(Guard(run=run))
            build, emit = host.builder, host.emitter.emit
            await emit(
                build.pre_model_call(model_id="m", messages=[{"role": "user", "content": "x"}])
            )
            await emit(
                build.post_model_call(
                    model_id="m", content="y", tool_calls=[], finish_reason="stop"
                )
            )
            assert not run.exposed
            history = [{"role": "assistant", "content": "before"}]
            other = AgentContextBuilder(agent_id="a", framework="test", session_id="s2")
            await emit(other.pre_model_call(model_id="m", messages=history))
            assert run.exposed

    asyncio.run(talk())
    assert {"host", "model.prompt", "model.output"} <= set(log.kinds)


# -- attacks -------------------------------------------------------------------------------------


def test_a_host_that_does_not_wait_makes_no_call() -> None:
    """The question is given up: no use of the grant is taken, and no call hangs."""
    log, asked = MemoryLog(), asyncio.Event()

    async def person(question: Any) -> bool:
        asked.set()
        return await asyncio.Future()

    async def talk() -> None:
        gate = CallbackGate(person, by="dana")
        grant = Grant(allow("files", budget(times=1)))
        with Run(agent="bot", grant=grant, log=log, gate=gate) as run:
            guard = Guard(tool("drop", irreversible("files"), schema=PATHS), run=run)
            made = AgentContextBuilder(agent_id="a", framework="f", session_id="s").pre_tool_call(
                call_id="1", name="drop", args={"path": "a"}
            )
            first = asyncio.create_task(guard.intercept(made))
            await asyncio.wait_for(asked.wait(), 30)
            second = await guard.intercept(made)
            assert (second.decision, second.reason) == (Decision.DENY, "call.malformed")
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert asyncio.all_tasks() == {asyncio.current_task()}
            run.gate = None
            again = await guard.intercept(made)  # its id is free
            assert again.reason == "gate.unavailable"

    asyncio.run(talk())
    assert log.of("call.allowed") == []
    assert [one["status"] for one in log.of("call.outcome")] == ["cancelled"]

"""Entries become spans, with the SDK of OpenTelemetry; and what goes wrong there stays there."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Annotated, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.needed import needed

needed()

from opentelemetry import trace  # noqa: E402 (skipped above if it cannot run)
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider  # noqa: E402
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter  # noqa: E402
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes  # noqa: E402
from opentelemetry.trace import SpanKind, StatusCode, use_span  # noqa: E402

from checkrein import (  # noqa: E402
    AuditLog,
    CallbackGate,
    Grant,
    Run,
    Untrusted,
    allow,
    erasable,
    irreversible,
    reads,
    secret,
    writes,
)
from checkrein import telemetry as telemetry_module  # noqa: E402
from checkrein.errors import ConfigurationError, Denied, LogError, Unrecorded  # noqa: E402
from checkrein.log import schema, verify_log  # noqa: E402
from checkrein.telemetry import TracedLog, traced  # noqa: E402
from checkrein.testing import permit  # noqa: E402
from support import Clock, MemoryLog  # noqa: E402

pytestmark = pytest.mark.filterwarnings("error")

LETTER = "Dear Dana, the code is sesame-4711."


@reads("shop.stock")
def stock(item: str) -> int:
    return len(item)


@writes("shop.stock")
def restock(item: str) -> int:
    return stock(item)


@writes("shop.stock")
async def arestock(item: str) -> int:
    await asyncio.sleep(0)
    return stock(item)


@reads("mail.inbox")
def read_inbox() -> Untrusted[str]:
    return Untrusted(LETTER, source="eve@evil.example")


@irreversible("mail.send", external=True)
def send(to: str, body: Untrusted[str]) -> None: ...


@writes("shop.broken")
def broken() -> None:
    raise ZeroDivisionError(LETTER)


@reads("shop.pages")
def pages(count: int) -> Any:
    yield from range(count)


GRANT = Grant(
    *(allow(one) for one in ("mail.inbox", "mail.send", "shop.broken", "shop.pages")),
    allow("shop.stock"),
    id="clerk-2026",
)


def run_with(log: Any, **options: Any) -> Run:
    return Run(agent="clerk", grant=GRANT, log=log, **options)


def events_of(span: Any) -> dict[str, Any]:
    return {event.name: dict(event.attributes) for event in span.events}


# -- what a span says ----------------------------------------------------------------------------


def test_a_call_is_a_span_as_the_conventions_name_it(tracer, spans):
    """Name, kind and attributes are those of execute_tool, times are those of the entries."""
    log, clock = MemoryLog(), Clock()
    with run_with(traced(log, tracer), clock=clock):
        clock.now += 1
        restock("nails")
    span, entry = spans()["execute_tool restock"], log.of("call.allowed")[0]
    assert span.kind is SpanKind.INTERNAL
    assert span.status.status_code is StatusCode.UNSET
    assert span.attributes[gen_ai_attributes.GEN_AI_OPERATION_NAME] == "execute_tool"
    assert span.attributes[gen_ai_attributes.GEN_AI_TOOL_NAME] == "restock"
    assert span.attributes[gen_ai_attributes.GEN_AI_TOOL_TYPE] == "function"
    assert span.attributes[gen_ai_attributes.GEN_AI_AGENT_NAME] == "clerk"
    assert span.attributes["checkrein.call.id"] == entry["call"]
    assert span.attributes["checkrein.run.id"] == entry["run"]
    assert span.attributes["checkrein.digest"] == entry["digest"]
    assert span.attributes["checkrein.definition"] == entry["definition"]
    assert span.attributes["checkrein.effect"] == "writes"
    assert span.attributes["checkrein.resource"] == "shop.stock"
    assert span.attributes["checkrein.grants"] == ("clerk-2026",)
    assert span.attributes["checkrein.exposed"] is False
    assert span.attributes["checkrein.status"] == "done"
    assert "error.type" not in span.attributes
    assert span.start_time == entry["time"]
    assert span.end_time == log.of("call.outcome")[-1]["time"]


def test_a_run_is_a_span_from_its_first_entry_to_its_last(tracer, spans):
    """invoke_agent: from run.opened to run.closed, with the policy's digest."""
    log, clock = MemoryLog(), Clock()
    with run_with(traced(log, tracer), clock=clock) as run:
        clock.now += 5
    span = spans()["invoke_agent clerk"]
    assert span.attributes[gen_ai_attributes.GEN_AI_OPERATION_NAME] == "invoke_agent"
    assert span.attributes["checkrein.run.id"] == run.id
    assert span.attributes["checkrein.policy"] == log.events[0]["policy"]
    assert span.attributes["checkrein.status"] == "closed"
    assert (span.start_time, span.end_time) == (log.events[0]["time"], log.events[-1]["time"])
    assert span.end_time - span.start_time == 5 * 10**9


def test_nested_calls_and_child_runs_have_their_parents(tracer, spans):
    """A call in a body belongs to that call; a run opened in a body, too; all in one trace."""

    @reads("shop.agent")
    def ask_agent() -> int:
        with Run(agent="helper", grant=GRANT):
            return restock("nails")

    with (
        tracer.start_as_current_span("request") as request,
        Run(agent="clerk", grant=Grant(allow("shop.*")), log=traced(None, tracer)),
        pytest.raises(Denied),
    ):
        ask_agent()
    found = spans()
    parents = {name: span.parent and span.parent.span_id for name, span in found.items()}
    ids = {name: span.context.span_id for name, span in found.items()}
    assert parents == {
        "request": None,
        "invoke_agent clerk": request.get_span_context().span_id,
        "execute_tool ask_agent": ids["invoke_agent clerk"],
        "invoke_agent helper": ids["execute_tool ask_agent"],
        "execute_tool restock": ids["invoke_agent helper"],  # denied: a wildcard only reads
    }
    assert len({span.context.trace_id for span in found.values()}) == 1


def test_a_call_in_a_body_is_a_child_of_the_call(tracer, spans):
    """restock calls stock: the spans nest as the calls do."""
    with run_with(traced(None, tracer)):
        restock("nails")
    found = spans()
    assert (
        found["execute_tool stock"].parent.span_id == found["execute_tool restock"].context.span_id
    )


def test_a_denied_call_is_a_short_span_with_the_rule(tracer, spans):
    """There is no convention for it: an error, whose type is the id of the rule."""
    with run_with(traced(MemoryLog(), tracer)), pytest.raises(Denied):
        send("dana@acme.example", Untrusted("hello"))
    span = spans()["execute_tool send"]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "gate.unavailable"
    assert span.attributes["checkrein.status"] == "denied"
    rules = events_of(span)["checkrein.call.denied"]["checkrein.rules"]
    assert rules == ("gate.unavailable", "effect.irreversible")
    assert span.start_time == span.end_time


def test_a_body_that_raises_ends_its_span_with_the_type(tracer, spans):
    """The type, never the message, which may hold anything."""
    with run_with(traced(MemoryLog(), tracer)), pytest.raises(ZeroDivisionError):
        broken()
    span = spans()["execute_tool broken"]
    assert (span.status.status_code, span.attributes["checkrein.status"]) == (
        StatusCode.ERROR,
        "raised",
    )
    assert span.attributes["error.type"] == "ZeroDivisionError"
    assert LETTER not in span.to_json()


def test_questions_answers_and_exposure_are_events(tracer, spans):
    """Before a call has a span they are the run's, and name the call."""
    gate = CallbackGate(lambda _: True, by="dana")
    with run_with(traced(MemoryLog(), tracer), gate=gate) as run:
        run.instruct("Answer dana@acme.example")
        read_inbox()
        send("dana@acme.example", Untrusted("hello"))
        run.lock("enough")
        run.stop("enough")
    found = spans()
    events = events_of(found["invoke_agent clerk"])
    call = found["execute_tool send"].attributes["checkrein.call.id"]
    assert events["checkrein.confirmation.asked"]["checkrein.call.id"] == call
    assert events["checkrein.confirmation.asked"]["checkrein.rules"] == ("effect.irreversible",)
    assert events["checkrein.confirmation.answered"]["checkrein.answer"] == "approved"
    assert {"checkrein.run.locked", "checkrein.run.stopped", "checkrein.instruction"} <= set(events)
    assert events["checkrein.run.closed"]["checkrein.calls"] == 2
    exposed = events_of(found["execute_tool read_inbox"]) | events
    assert exposed["checkrein.run.exposed"]["checkrein.sources"] == ("mail.inbox",)
    assert events_of(found["execute_tool send"])["checkrein.call.allowed"]["checkrein.rules"] == (
        "effect.irreversible",
    )


def test_a_suspended_run_ends_its_span_and_says_what_it_goes_on_with(tracer, exporter):
    """Two processes, two spans: the second names the first's run."""
    log, key = traced(MemoryLog(), tracer), b"k" * 32
    with run_with(log) as run:
        state = run.suspend(key, context="c")
    with Run.resume(state, key, grant=GRANT, log=log, context="c"):
        pass
    first, second = exporter.get_finished_spans()
    assert first.attributes["checkrein.status"] == "suspended"
    assert second.attributes["checkrein.resumes"] == run.id


def kinds_of_runs() -> dict[str, Any]:
    """Return the entries that a run writes, by type."""
    found: dict[str, Any] = {}
    models = [schema.OfRun]
    while models:
        model = models.pop()
        models += model.__subclasses__()
        if "type" in model.model_fields:
            found |= dict.fromkeys(get_args(model.model_fields["type"].annotation), model)
    return found


def test_every_entry_of_a_run_becomes_something(tracer):
    """A new type of entry is not overlooked, and what is shown of one is a field of it."""
    kinds = kinds_of_runs()
    assert set(traced(None, tracer)._tell) == set(kinds)
    shown = telemetry_module._OF_EVENT | {
        "run.opened": telemetry_module._OF_RUN,
        "call.allowed": telemetry_module._OF_CALL,
    }
    for kind, fields in shown.items():
        assert set(fields) <= set(kinds[kind].model_fields), kind


# -- what it does not say ------------------------------------------------------------------------


def test_no_content_is_in_any_span(tracer, exporter):
    """Arguments, instructions, prompts, outputs, reasons, senders and approvers stay out."""
    gate = CallbackGate(lambda _: True, by="dana-the-approver")
    with run_with(traced(MemoryLog(), tracer), gate=gate) as run:
        run.instruct("the instruction: pay bo@acme.example")
        run.heard("prompt", "the prompt", keep=True)
        run.heard("output", "the output", keep=True)
        run.hosted("langchain", "1.4", thread="the thread")
        letter = read_inbox()
        send("bo@acme.example", letter)
        letter.reveal(reason="the reason")
        run.lock("the reason")
        run.stop("the reason")
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    for text in ("bo@acme", "sesame-4711", "eve@", "dana-the-approver"):
        assert text not in told
    for text in ("instruction:", "the prompt", "the output", "the thread", "the reason"):
        assert text not in told


@writes("shop.customers")
def enrol(
    name: Annotated[str, erasable], pin: Annotated[str, secret], town: str = "Bonn"
) -> None: ...


@pytest.mark.parametrize("kept", [True, False])
def test_arguments_are_there_on_request_without_secrets(tracer, spans, kept):
    """With content=True, too, what is secret or must be forgettable stays out of the traces."""
    with permit(log=traced(MemoryLog() if kept else None, tracer, content=True)):
        enrol("Bo Miller", "pin-4711")
    span = spans()["execute_tool enrol"]
    told = span.attributes[gen_ai_attributes.GEN_AI_TOOL_CALL_ARGUMENTS]
    assert json.loads(told) == {"name": {"erasable": True}, "pin": {"secret": True}, "town": "Bonn"}
    assert "Miller" not in span.to_json()
    assert "pin-4711" not in span.to_json()


# -- the log comes first -------------------------------------------------------------------------


def test_an_intent_that_is_not_logged_is_a_denied_span(tracer, exporter):
    """Fail closed as before: the body does not run, and no span says that it did."""
    log = MemoryLog(fail_on="call.allowed")
    with run_with(traced(log, tracer)), pytest.raises(Denied) as denied:
        restock("nails")
    assert denied.value.rule == "log.unavailable"
    [span] = [one for one in exporter.get_finished_spans() if one.name.startswith("execute")]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "log.unavailable"
    assert span.attributes["checkrein.log.error"] == "OSError"


def test_an_outcome_that_is_not_logged_is_no_success(tracer, spans):
    """The effect stands, and the span says that its record is missing."""
    log = MemoryLog(fail_on="call.outcome")
    with run_with(traced(log, tracer)), pytest.raises(Unrecorded):
        stock("nails")
    span = spans()["execute_tool stock"]
    assert (span.status.status_code, span.attributes["checkrein.status"]) == (
        StatusCode.ERROR,
        "unrecorded",
    )


@pytest.mark.parametrize("kind", ["run.opened", "run.closed"])
def test_a_run_that_is_not_logged_is_a_failed_span(tracer, exporter, kind):
    """What the log raises is raised, and the span is ended."""
    log = traced(MemoryLog(fail_on=kind), tracer)
    with pytest.raises(OSError, match="disk full"), run_with(log):
        pass
    [span] = exporter.get_finished_spans()
    assert span.attributes["error.type"] == "log.unavailable"


def test_a_denial_that_is_not_logged_is_a_denial(tracer, spans):
    """The caller is told the rule, and so is whoever reads the trace."""
    log = MemoryLog(fail_on="call.denied")
    with run_with(traced(log, tracer)), pytest.raises(Denied) as denied:
        send("dana@acme.example", Untrusted("hello"))
    assert denied.value.rule == "gate.unavailable"
    span = spans()["execute_tool send"]
    assert span.attributes["error.type"] == "gate.unavailable"
    assert span.attributes["checkrein.log.error"] == "OSError"


def test_the_real_log_is_whole_and_all_of_it_is_within_reach(tracer, exporter, tmp_path):
    """Every entry is in the tree; what AuditLog has beside that works as before."""
    with traced(AuditLog.open(tmp_path / "audit"), tracer) as log:
        with run_with(log):
            restock("nails")
        position = log.append({"type": "note", "text": "by hand"})
        assert position.index == 6
        assert [one.index for one in log.append_many([{"type": "note"}] * 2)] == [7, 8]
        assert asyncio.run(log.aappend({"type": "note"})).index == 9
        log.enqueue({"type": "note"})
        log.flush()
        assert log.size == 11
        log.publish()
        vkey = log.vkey
        assert log.origin
    with pytest.raises(LogError):
        log.append({"type": "note"})
    report = verify_log(tmp_path / "audit", vkey=vkey)
    assert (report.good, report.size) == (True, 11)
    assert len(exporter.get_finished_spans()) == 3


def test_many_entries_at_once_are_traced_too(tracer, spans):
    """Nothing passes by: a run's entries, appended in one go, are spans; a failure as well."""
    kept = MemoryLog()
    with run_with(kept):
        restock("nails")
    traced(None, tracer).append_many(iter(kept.events))
    assert {"invoke_agent clerk", "execute_tool restock", "execute_tool stock"} == set(spans())
    with pytest.raises(AttributeError):
        traced(MemoryLog(), tracer).append_many(kept.events)
    assert spans()["execute_tool restock"].attributes["error.type"] == "log.unavailable"


def test_without_a_log_there_are_spans_alone(tracer, exporter):
    """flush, close and with work; what an AuditLog has beside that is not there."""
    with traced(None, tracer) as log, run_with(log):
        log.flush()
        stock("nails")
    log.close()
    assert len(exporter.get_finished_spans()) == 2
    with pytest.raises(AttributeError):
        _ = log.vkey


# -- telemetry that fails ------------------------------------------------------------------------


class Raising(SpanProcessor, SpanExporter):
    """Raises at every occasion."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError(LETTER)

    def on_end(self, span: Any) -> None:
        raise RuntimeError(LETTER)

    def export(self, spans: Any) -> Any:
        raise RuntimeError(LETTER)

    def shutdown(self) -> None: ...


def raising_tracers() -> dict[str, Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError(LETTER)

    def of(processor: SpanProcessor) -> Any:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(processor)
        return provider.get_tracer("tests")

    class HalfRaising(Raising):
        def on_start(self, span: Any, parent_context: Any = None) -> None: ...

    return {
        "tracer": SimpleNamespace(start_span=fail),
        "no span": SimpleNamespace(start_span=lambda *_, **__: None),
        "processor": of(Raising()),
        "processor at the end": of(HalfRaising()),
        "exporter": of(SimpleSpanProcessor(Raising())),
    }


@pytest.mark.parametrize("what", raising_tracers())
def test_what_telemetry_raises_changes_nothing(what, caplog):
    """The same results, denials and entries as without it; it is said without what was raised."""

    def play(log: Any) -> None:
        with run_with(log):
            assert restock("nails") == 5
            with pytest.raises(Denied):
                send("dana@acme.example", Untrusted("hello"))
            with pytest.raises(ZeroDivisionError):
                broken()

    plain, kept = MemoryLog(), MemoryLog()
    play(plain)
    play(traced(kept, raising_tracers()[what]))
    assert kept.kinds == plain.kinds
    ours = [one.getMessage() for one in caplog.records if "telemetry" in one.getMessage()]
    assert len(ours) == (0 if what == "exporter" else 1)  # the SDK speaks for its exporters
    assert LETTER not in "".join(ours)


def test_what_follows_a_span_that_was_lost_is_traced(tracer, spans):
    """A tracer that fails once loses one span; the others stand, under what encloses them."""
    failures = [True]

    def start_span(*args: Any, **named: Any) -> Any:
        if failures and failures.pop():
            raise RuntimeError
        return tracer.start_span(*args, **named)

    with run_with(traced(None, SimpleNamespace(start_span=start_span))):
        restock("nails")
    assert set(spans()) == {"execute_tool restock", "execute_tool stock"}


HOSTILE = "x\x1b[2J\u202e\x00\ud800\n" + "A" * 5000


def test_hostile_names_are_visible_and_short(tracer, exporter):
    """Names of agents, tools, arguments and errors may come from elsewhere: they are text."""
    base = {"time": 1, "run": "r", "seq": 0}
    log = traced(None, tracer)
    opened = {"agent": HOSTILE, "grants": [HOSTILE] * 999, "parent": "", "call": ""}
    log.append({**base, "type": "run.opened", **opened})
    call = {
        "call": "c",
        "agent": HOSTILE,
        "tool": HOSTILE,
        "resource": HOSTILE,
        "parent": "",
        "grants": [HOSTILE] * 999,
        "findings": [{"rule": HOSTILE, "argument": HOSTILE}] * 999,
    }
    log.append({**base, "type": "call.allowed", **call})
    log.append({**base, "type": "call.outcome", "call": "c", "status": "raised", "error": HOSTILE})
    log.append({**base, "type": "run.exposed", "sources": [HOSTILE] * 999})
    log.append({**base, "type": "run.closed"})
    tool, run = exporter.get_finished_spans()
    for text in (tool.to_json(), run.to_json(), tool.name, run.name):
        assert text.isprintable() or "\n" in text  # to_json() indents
        for bad in ("\x1b", "\u202e", "\x00", "\ud800", "\\u202e\\u"):
            assert bad not in text
        assert len(text) < 64 * 4 * 300
    assert len(tool.name) < 300
    assert len(tool.attributes["checkrein.grants"]) == 64


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                ["type", "run", "time", "call", "parent", "agent", "tool", "status", "error"]
                + ["findings", "grants", "arguments", "sources", "exposed"]
            ),
            st.one_of(
                st.sampled_from(
                    ["run.opened", "run.closed", "call.allowed", "call.denied", "call.outcome"]
                    + ["cancelled", "done", "a", "b", ""]
                ),
                st.none(),
                st.integers(),
                st.floats(),
                st.text(max_size=3),
                st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=2),
                st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
            ),
        ),
        max_size=8,
    )
)
def test_any_event_is_kept_and_none_raises(events):
    """Whatever an application appends goes to the log, whatever telemetry makes of it."""
    kept: list[Any] = []
    inner = SimpleNamespace(append=kept.append, enqueue=kept.append)
    provider = TracerProvider(shutdown_on_exit=False)
    log = traced(inner, provider.get_tracer("tests"), content=True)
    for event in events:
        log.append(event)
    log.close()
    assert kept == events


# -- wrapped wrongly -----------------------------------------------------------------------------


def test_what_is_wrapped_wrongly_is_refused(tracer, exporter):
    """Twice, the arguments exchanged, a provider for a tracer, a path for a log."""
    with pytest.raises(ConfigurationError, match="traced already"):
        traced(traced(None, tracer), tracer)
    with pytest.raises(ConfigurationError, match="takes a log"):
        traced(tracer)
    with pytest.raises(ConfigurationError, match="takes a log"):
        traced("audit/")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="takes a tracer"):
        traced(None, TracerProvider(shutdown_on_exit=False))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="takes a tracer"):
        traced(None, MemoryLog())  # type: ignore[arg-type]


def test_another_wrapper_may_stand_on_either_side(tracer, exporter):
    """Outside, it decides what is traced; inside, its refusal is a failed span."""

    class Picky:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def append(self, event: Any) -> Any:
            if event["type"] == "call.allowed":
                raise OSError("no")
            return self.inner.append(event)

        enqueue = append

    for log in (Picky(traced(None, tracer)), traced(Picky(MemoryLog()), tracer)):
        with run_with(log), pytest.raises(Denied):
            restock("nails")
    calls = [one for one in exporter.get_finished_spans() if one.name.startswith("execute")]
    assert [one.attributes["error.type"] for one in calls] == ["log.unavailable"]


# -- what is open --------------------------------------------------------------------------------


def allowed(number: int, run: str = "r") -> dict[str, Any]:
    return {
        "type": "call.allowed",
        "time": 10 + number,
        "run": run,
        "call": f"{run}-{number}",
        "agent": "clerk",
        "tool": "stock",
        "parent": "",
        "arguments": {},
        "findings": [],
    }


def opened(run: str = "r") -> dict[str, Any]:
    return {
        "type": "run.opened",
        "time": 1,
        "run": run,
        "agent": "clerk",
        "parent": "",
        "call": "",
    }


def test_ten_thousand_calls_that_nobody_ends(tracer, exporter):
    """Memory is bounded: the oldest are ended as unfinished, the rest when the run closes."""
    log = traced(None, tracer)
    log.append(opened())
    for number in range(10_050):
        log.append(allowed(number))
    assert len(exporter.get_finished_spans()) == 50
    assert len(log._calls) == 10_000
    assert len(log._runs["r"].calls) <= 10_000
    log.append({"type": "run.closed", "time": 99_999, "run": "r"})
    ended = exporter.get_finished_spans()
    assert len(ended) == 10_051
    assert {one.attributes["checkrein.status"] for one in ended[:-1]} == {"unfinished"}
    assert ended[-1].name == "invoke_agent clerk"
    assert not (log._calls or log._runs)


def test_ten_thousand_runs_that_nobody_closes(tracer, exporter):
    """As with calls; and closing the log ends what is left."""
    log = traced(None, tracer)
    for number in range(10_002):
        log.append(opened(str(number)))
        log.append(allowed(0, str(number)))
    assert len(log._runs) == len(log._calls) == 10_000
    log.close()
    assert len(exporter.get_finished_spans()) == 2 * 10_002
    assert not (log._calls or log._runs)


def test_an_id_that_comes_twice_loses_no_span(tracer, exporter):
    """A program that makes ids by itself may make one twice."""
    log = traced(None, tracer)
    for event in (opened(), opened(), allowed(0), allowed(0)):
        log.append(event)
    log.close()
    assert len(exporter.get_finished_spans()) == 4


def test_a_cancelled_call_may_say_so_before_its_intent_is_written(tracer, spans):
    """The span is ended all the same, though the entries come the other way round."""
    log = traced(None, tracer)
    log.append(opened())
    outcome = {"type": "call.outcome", "time": 5, "run": "r", "call": "r-0"}
    log.append({**outcome, "status": "cancelled", "error": "CancelledError"})
    log.append(allowed(0))
    span = spans()["execute_tool stock"]
    assert span.attributes["checkrein.status"] == "cancelled"
    assert span.attributes["error.type"] == "CancelledError"
    assert not log._early


def test_no_span_ends_before_it_begins(tracer, spans):
    """A clock that is set back makes a span without length."""
    log, clock = traced(None, tracer), Clock()
    with run_with(log, clock=clock):
        clock.now -= 3600
    span = spans()["invoke_agent clerk"]
    assert span.end_time == span.start_time


def test_a_stream_is_open_until_it_ends(tracer, spans):
    """One that its consumer leaves is closed; one that is denied on its way ends with the rule."""
    with run_with(traced(MemoryLog(), tracer)) as run:
        for _ in pages(3):
            assert "execute_tool pages" not in spans()
            break
        assert spans()["execute_tool pages"].attributes["checkrein.status"] == "closed"
        items = pages(3)
        next(items)
        run.stop("enough")
        with pytest.raises(Denied):
            next(items)
    span = spans()["execute_tool pages"]
    assert span.attributes["error.type"] == "run.stopped"
    assert "checkrein.call.denied" in events_of(span)


# -- tasks and threads ---------------------------------------------------------------------------


def test_async_calls_at_once_keep_their_parents(tracer, exporter, tmp_path):
    """Fifty tasks in one run with a real log: each nested call is a child of its own call."""

    async def play(log: Any) -> None:
        with tracer.start_as_current_span("request"):
            async with run_with(log):
                await asyncio.gather(*(arestock("n" * number) for number in range(1, 51)))

    with traced(AuditLog.open(tmp_path / "audit", durability="os"), tracer) as log:
        asyncio.run(play(log))
    ended = exporter.get_finished_spans()
    by_name: dict[str, list[Any]] = {}
    for span in ended:
        by_name.setdefault(span.name, []).append(span)
    [request], [run] = by_name["request"], by_name["invoke_agent clerk"]
    assert run.parent.span_id == request.context.span_id
    calls = {one.context.span_id for one in by_name["execute_tool arestock"]}
    assert {one.parent.span_id for one in by_name["execute_tool stock"]} == calls
    assert len(calls) == 50
    assert {one.parent.span_id for one in by_name["execute_tool arestock"]} == {run.context.span_id}
    assert not (log._calls or log._runs)


def test_threads_at_once_end_every_span(tracer, exporter):
    """Four threads, two hundred calls each, and runs of their own among them."""
    log = traced(MemoryLog(), tracer)
    start = threading.Barrier(4)

    def work(context: contextvars.Context) -> None:
        start.wait()
        for _ in range(200):
            context.run(restock, "nails")
            contextvars.Context().run(one_run)

    def one_run() -> None:
        with run_with(log):
            stock("nails")

    with run_with(log), ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [contextvars.copy_context() for _ in range(4)]))
    ended = exporter.get_finished_spans()
    assert len(ended) == 1 + 800 * 2 + 800 * 2
    assert {one.attributes["checkrein.status"] for one in ended} == {"done", "closed"}
    assert not (log._calls or log._runs)


def test_a_cancelled_task_leaves_no_span_open(tracer, exporter):
    """Cancelled in the body: in doubt, and an error."""

    @writes("shop.stock")
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    async def play() -> None:
        async with run_with(log):
            task = asyncio.ensure_future(wait_for_ever())
            while not log._calls:
                await asyncio.sleep(0)
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    log = traced(None, tracer)
    asyncio.run(play())
    span = exporter.get_finished_spans()[0]
    assert span.attributes["checkrein.status"] in {"in doubt", "cancelled"}
    assert span.status.status_code is StatusCode.ERROR


# -- spans of others -----------------------------------------------------------------------------


def test_spans_of_others_find_their_place_on_request(tracer, spans):
    """span() is that of the call whose body runs, or of the run, or an invalid one."""

    @reads("shop.stock")
    def look() -> None:
        with use_span(log.span()), tracer.start_as_current_span("GET /stock"):
            pass

    log = traced(None, tracer)
    assert log.span() is trace.INVALID_SPAN
    with run_with(log):
        look()
        with use_span(log.span()), tracer.start_as_current_span("chat"):
            pass
        with run_with(traced(None, tracer)):
            assert log.span() is trace.INVALID_SPAN
    found = spans()
    ids = {name: span.context.span_id for name, span in found.items()}
    assert found["GET /stock"].parent.span_id == ids["execute_tool look"]
    assert found["chat"].parent.span_id == found["execute_tool look"].parent.span_id


def test_without_a_provider_nothing_is_traced_and_all_works():
    """The API alone, as in a program that has not set it up."""
    log = MemoryLog()
    with run_with(traced(log)) as run:
        assert restock("nails") == 5
        assert isinstance(run.log, TracedLog)
    assert log.kinds[-1] == "run.closed"

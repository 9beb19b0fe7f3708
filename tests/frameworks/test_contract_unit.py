"""What agent frameworks demand of the decorators, without any framework.

Probing fourteen agent frameworks gave 39 numbered requirements. Those about the
decorators are tested here, in tests named after their number. The others:

==  ==================================================================================
 5  replaced by 21 (functions and methods only); the audit of what a framework has
    registered waits for the integrations
13  waits for the integrations: the state of a run beside the framework's own state
18  replaced by 22 (plain types are shown, the guard wraps)
19  here as far as the ids are the run's own; the framework's ids as extras wait for
    the integrations
20  here as far as attempts reach the guard; unknown tools and hosted tools wait for
    the integrations
26  waits for the integrations: rendering results to plain text at the boundary
34  waits for the integrations: did the call that was approved really run?
35  no decorator matter: siblings of a paused call differ by framework
38  waits for the integrations: ways to pause, chosen per framework
39  a matter for the documentation: source code that is sent elsewhere loses its guard
==  ==================================================================================

Of 1 and 3, "keep ``__wrapped__``" is replaced by 23; of 7, "subclass
PermissionError" by its opposite; 16 holds for rendering, not for parameters. The
resuming half of 10, 11 and 33 waits for the durable queue of confirmations.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
import functools
import inspect
import json
import pickle
import threading
import traceback
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic_core import to_json

from checkrein import (
    CallbackGate,
    Confirmation,
    Grant,
    Run,
    Untrusted,
    Verdict,
    allow,
    budget,
    call_id,
    composed,
    injected,
    irreversible,
    mediation,
    reads,
    writes,
)
from checkrein.errors import Denied, MisuseError, Suspended
from checkrein.ports import ACTIVE
from checkrein.testing import permit
from frameworks import tools, twins
from frameworks.shapes import SHAPES, assert_fenced, fences
from frameworks.tools import DONE, LETTER, SECRET, Desk, open_run
from support import Asked, MemoryLog


class Context:
    """What a framework would inject."""


@writes("contract.note")
def note(title: str, text: Untrusted[str], stars: int = 3) -> str:
    """Write a note."""
    DONE.append(("note", title, text.reveal(), stars))
    return "noted"


@writes("contract.note")
async def anote(title: str, text: Untrusted[str], stars: int = 3) -> str:
    """Write a note."""
    DONE.append(("note", title, text.reveal(), stars))
    return "noted"


@reads("contract.lines")
def lines(count: int) -> Iterator[Untrusted[str]]:
    """Yield lines."""
    for number in range(count):
        DONE.append(("line", number))
        yield Untrusted(f"line {number}")


@reads("contract.lines")
async def alines(count: int) -> AsyncIterator[Untrusted[str]]:
    """Yield lines."""
    for number in range(count):
        DONE.append(("line", number))
        yield Untrusted(f"line {number}")


@irreversible("contract.send", external=True)
def send(to: str, body: Untrusted[str], how: Literal["fast", "slow"] = "slow") -> None:
    """Send it."""
    DONE.append(("send", to, body.reveal(), how))


@reads("contract.context")
def contextual(ctx: Annotated[Context, injected], name: str) -> str:
    """Read with a context."""
    DONE.append(("contextual", ctx, name))
    return name


GUARDED = (note, anote, lines, alines, send, contextual)
ALLOWED = tuple(
    allow(f"contract.{one}")
    for one in ("note", "lines", "send", "context", "any", "raises", "sentinel")
)


def run(**more: Any) -> Run:
    """Return a run that may use all tools of this module."""
    return Run(agent="contract", grant=Grant(*ALLOWED), **more)


async def _consume(stream: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in stream]


def call_of_any_kind(tool: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a tool to its end, whatever kind of function it is."""
    if inspect.iscoroutinefunction(tool):
        return asyncio.run(tool(*args, **kwargs))
    if inspect.isasyncgenfunction(tool):
        return asyncio.run(_consume(tool(*args, **kwargs)))
    if inspect.isgeneratorfunction(tool):
        return list(tool(*args, **kwargs))
    return tool(*args, **kwargs)


# -- 1, 2, 3, 22, 23: the wrapper ----------------------------------------------------------------


@pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
@pytest.mark.parametrize(
    "tool", [*GUARDED, *tools.SYNC, *tools.ASYNC], ids=lambda one: one.__name__
)
def test_01_the_wrapper_is_a_plain_function_with_the_names_of_the_original(
    tool: Any, bound: bool
) -> None:
    """It is no callable object, and carries name, docstring and module."""
    original = tool.__checkrein__.function
    if bound:
        (tool,) = run().tools(tool)
    assert inspect.isfunction(tool)
    assert tool is not original
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        assert getattr(tool, name) == getattr(original, name)
    kinds = {one.kind for one in inspect.signature(tool).parameters.values()}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}


@pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
@pytest.mark.parametrize(
    ("tool", "is_kind"),
    [
        (note, lambda one: not one.__code__.co_flags & inspect.CO_GENERATOR),
        (anote, inspect.iscoroutinefunction),
        (lines, inspect.isgeneratorfunction),
        (alines, inspect.isasyncgenfunction),
    ],
    ids=["plain", "coroutine", "generator", "async generator"],
)
def test_02_the_kind_of_function_is_kept(tool: Any, is_kind: Any, bound: bool) -> None:
    """Frameworks choose by kind how to call: each of the four stays what it was."""
    if bound:
        (tool,) = run().tools(tool)
    kinds = (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    )
    assert is_kind(tool)
    assert sum(kind(tool) for kind in kinds) == (0 if tool.__name__ == "note" else 1)


def test_02_a_plain_function_that_returns_a_coroutine_is_refused() -> None:
    """Its body would run after the call was over, outside the guard."""

    async def later() -> None:
        DONE.append(("later",))

    @reads("contract.any")
    def naive() -> Any:
        return later()

    with run(), pytest.raises(MisuseError, match="async"):
        naive()
    assert DONE == []


@pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
@pytest.mark.parametrize(
    ("tool", "twin"),
    list(zip(tools.SYNC + tools.ASYNC, twins.SYNC + twins.ASYNC, strict=True)),
    ids=lambda one: one.__name__,
)
def test_03_22_23_signature_and_annotations_are_resolved_and_plain(
    tool: Any, twin: Any, bound: bool
) -> None:
    """In a module with string annotations too, a framework meets types, and only plain ones."""
    if bound:
        (tool,) = run().tools(tool)
    assert not hasattr(tool, "__wrapped__")
    assert vars(tool)["__signature__"] == inspect.signature(tool)
    shown = inspect.signature(tool)
    assert shown == inspect.signature(tool, follow_wrapped=False)
    assert not any(isinstance(one, str) for one in tool.__annotations__.values())
    plain = typing.get_type_hints(twin)
    del plain["return"]
    assert {name: one.annotation for name, one in shown.parameters.items()} == plain
    returns = {"return": shown.return_annotation}
    assert tool.__annotations__ == plain | returns
    assert typing.get_type_hints(tool) == {
        name: type(None) if one is None else one for name, one in tool.__annotations__.items()
    }
    assert [one.default for one in shown.parameters.values()] == [
        one.default for one in inspect.signature(twin).parameters.values()
    ]


def test_22_wrappers_are_taken_out_of_every_spelling() -> None:
    """Optional, annotated and unions: what is left is what the content is."""

    @writes("contract.any")
    def spelt(
        a: Untrusted[str] | None,
        b: Annotated[Untrusted[list[str]], "words"],
        c: Annotated[str, composed],
        d: Untrusted[str] | int = 1,
    ) -> None:
        """Take untrusted content, spelt in several ways."""

    hints = typing.get_type_hints(spelt, include_extras=True)
    assert hints == {
        "a": str | None,
        "b": Annotated[list[str], "words"],
        "c": str,
        "d": str | int,
        "return": type(None),
    }
    assert "ntrusted" not in str(inspect.signature(spelt)).replace("spelt", "")


def test_22_the_guard_wraps_plain_content_once() -> None:
    """A plain ``str`` arrives wrapped; what is wrapped already is not wrapped again."""
    arrived: list[Any] = []

    @writes("contract.any")
    def take(text: Untrusted[str]) -> None:
        arrived.append((type(text), text.reveal(), text.label.names))

    with run():
        take("plain")
        take(Untrusted("wrapped", source="web"))
    assert arrived == [
        (Untrusted, "plain", ("agent_generated",)),
        (Untrusted, "wrapped", ("external:web",)),
    ]


@given(
    st.one_of(
        st.text(),
        st.sampled_from(['{"a": 1}', "[1, 2]", "null", "true", "1", '"quoted"', "{", "1e5"]),
        st.recursive(st.integers() | st.text() | st.none(), st.lists, max_leaves=4).map(json.dumps),
    )
)
def test_22_text_that_looks_like_json_reaches_the_body_untouched(text: str) -> None:
    """No value is converted on its way into an ``Untrusted[str]``, not even helpfully."""
    DONE.clear()
    with run():
        note("t", text)
    assert DONE == [("note", "t", text, 3)]


def test_23_the_decorator_says_what_it_cannot_resolve() -> None:
    """An annotation that names nothing is an error at decoration, not inside a framework."""

    def unresolvable(text: Nowhere) -> None:  # noqa: F821 # type: ignore[name-defined]
        """Take what cannot be named."""

    with pytest.raises(MisuseError, match="Nowhere"):
        reads("contract.any")(unresolvable)


# -- 4, 36: arguments ----------------------------------------------------------------------------


def test_04_every_way_of_passing_arguments_gives_the_same_frozen_call() -> None:
    """Positional, by name, mixed, defaults left out or given: one call, one digest."""
    log, asked = MemoryLog(), Asked(True)
    with run(log=log, gate=asked.gate):
        send("dana", "hi", "slow")
        send(to="dana", body="hi", how="slow")
        send("dana", how="slow", body="hi")
        send(body="hi", to="dana")
        send("dana", "hi")
    assert DONE == [("send", "dana", "hi", "slow")] * 5
    (digest, *others) = {event["digest"] for event in log.of("call.allowed")}
    assert not others
    assert digest
    for confirmation in asked.confirmations:
        shown = {one.name: one.value for one in confirmation.arguments if not one.untrusted}
        assert shown == {"to": "dana", "how": "slow"}
    assert len({confirmation.digest for confirmation in asked.confirmations}) == 5  # single use


def test_04_a_person_is_shown_the_arguments_in_the_order_of_the_signature() -> None:
    """The order in which a model happens to write arguments changes nothing that is shown."""
    asked = Asked(True)
    with run(gate=asked.gate):
        send("dana", "hi")
        send(how="slow", body="hi", to="dana")
    shown = [[one.name for one in confirmation.arguments] for confirmation in asked.confirmations]
    assert shown == [["to", "body", "how"]] * 2


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ((), {}, "missing a required argument: 'title'"),
        (("a",), {}, "missing a required argument: 'text'"),
        ((), {"text": "b"}, "missing a required argument: 'title'"),
        (("a", "b", 1, 2), {}, "too many positional arguments"),
        (("a",), {"title": "b"}, "multiple values for argument 'title'"),
        (("a", "b"), {"more": 1}, "unexpected keyword argument 'more'"),
        (("a", "b", 1), {"more": 1}, "unexpected keyword argument 'more'"),
        ((), {"title": "a", "text": "b", "more": 1}, "unexpected keyword argument 'more'"),
        (("a",), {"stars": 1, "more": 1}, "missing a required argument: 'text'"),
    ],
)
@pytest.mark.parametrize("tool", [note, anote], ids=["plain", "coroutine"])
def test_04_arguments_that_do_not_fit_are_refused_and_the_error_says_why(
    tool: Any, args: Any, kwargs: Any, problem: str
) -> None:
    """What Python would refuse is refused, before the body, as a misuse, and is in the log."""
    log = MemoryLog()
    with run(log=log), pytest.raises(MisuseError) as caught:
        call_of_any_kind(tool, *args, **kwargs)
    assert problem in str(caught.value)
    assert DONE == []
    assert len(log.of("call.denied")) == 1


def test_04_what_is_injected_goes_by_identity_and_leaves_no_trace() -> None:
    """A context is outside digest and log, whatever it is."""
    log, one, other = MemoryLog(), Context(), Context()
    with run(log=log):
        contextual(one, "a")
        contextual(name="a", ctx=other)
    assert [effect[1] for effect in DONE] == [one, other]
    allowed = log.of("call.allowed")
    assert len({event["digest"] for event in allowed}) == 1
    assert "Context" not in json.dumps(allowed)
    assert inspect.signature(contextual).parameters["ctx"].annotation is Context


def test_04_a_receiver_goes_by_identity() -> None:
    """``self`` is no argument; a bound method, bare or bound to a run, finds its object."""
    desk = Desk("dana")
    with open_run(Path()) as here:
        desk.note("one")
        (bound,) = here.tools(desk.note)
        bound(text="two")
        Desk.note(desk, "three")
    assert DONE == [("note", "dana", "one"), ("note", "dana", "two"), ("note", "dana", "three")]
    assert list(inspect.signature(bound).parameters) == ["text"]
    assert list(bound.__annotations__) == ["text", "return"]


@pytest.mark.parametrize("stars", ["abc", "3", 3.0, True, None, [3]])
def test_36_values_are_checked_and_never_converted(stars: Any) -> None:
    """Some frameworks pass unvalidated arguments; the guard checks what a policy relies on."""
    with run(), pytest.raises(Denied) as caught:
        note("t", "x", stars)
    assert caught.value.rule == "call.malformed"
    assert caught.value.arguments == ("stars",)
    assert DONE == []


def test_36_defaults_reach_policy_and_body() -> None:
    """A framework that leaves defaults out gets the same decision as one that fills them in."""
    asked = Asked(True)
    with run(gate=asked.gate):
        send("dana", "hi")
    shown = {one.name: one.value for one in asked.confirmations[0].arguments}
    assert shown["how"] == "slow"


# -- 5, 21: only functions -----------------------------------------------------------------------


class _Callable:
    def __call__(self, text: str) -> str:
        return text


class _ToolObject(_Callable):
    """Like the tool objects of frameworks: callable, named, and bound by attribute access."""

    __name__ = "tool"

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self


TARGETS: dict[str, Any] = {
    "callable object": _Callable(),
    "tool object": _ToolObject(),
    "partial": functools.partial(lambda text: text, "x"),
    "classmethod": classmethod(lambda cls: None),
    "staticmethod": staticmethod(lambda: None),
    "class": _Callable,
    "property": property(lambda self: None),
    "partialmethod": functools.partialmethod(lambda self: None),
    "cached function": functools.lru_cache(lambda: None),
    "builtin": len,
    "slot": str.upper,
    "nothing": None,
    "name": "tool",
}


@pytest.mark.parametrize("target", list(TARGETS))
def test_21_only_functions_and_methods_are_taken(target: str) -> None:
    """A tool object above which the guard would guard nothing is refused at decoration."""
    for decorator in (reads, writes, irreversible):
        with pytest.raises(MisuseError):
            decorator("contract.any")(TARGETS[target])
    with run() as here, pytest.raises(MisuseError):
        here.tools(TARGETS[target])


@pytest.mark.parametrize("outside", [classmethod, staticmethod])
def test_21_below_classmethod_and_staticmethod_it_works(outside: Any) -> None:
    """The refusal says where the decorator belongs, and there it guards."""

    class Shop:
        if outside is classmethod:

            @classmethod
            @reads("contract.any")
            def stock(cls, item: str) -> int:
                return len(item)
        else:

            @staticmethod
            @reads("contract.any")
            def stock(item: str) -> int:
                return len(item)

    with pytest.raises(Denied):
        Shop.stock("nails")
    with run() as here:
        assert Shop.stock("nails") == 5
        assert Shop().stock(item="nails") == 5
        assert here.tools(Shop.stock)[0]("nails") == 5


def test_21_a_bound_method_can_be_decorated() -> None:
    """``reads(...)(object.method)`` guards that method of that object."""

    class Shop:
        def __init__(self, size: int) -> None:
            self.size = size

        def stock(self, item: str) -> int:
            """Count."""
            return self.size + len(item)

    guarded = reads("contract.any")(Shop(10).stock)
    assert inspect.isfunction(guarded)
    assert list(inspect.signature(guarded).parameters) == ["item"]
    with run():
        assert guarded("nails") == 15


# -- 6, 8, 14, 15, 29, 30: runs and contexts -----------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "args"),
    [(note, ("a", "b")), (anote, ("a", "b")), (lines, (2,)), (alines, (2,)), (send, ("a", "b"))],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_06_08_without_a_run_every_kind_is_denied_before_any_effect(tool: Any, args: Any) -> None:
    """The denial does not rest on the caller stopping: nothing has begun when it is raised."""
    with pytest.raises(Denied) as caught:
        call_of_any_kind(tool, *args)
    assert caught.value.rule == "run.none"
    assert DONE == []


def test_08_siblings_that_go_on_after_a_denial_are_decided_alone() -> None:
    """Frameworks let sibling calls run on when one was denied: each has its own decision."""
    with Run(agent="a", grant=Grant(allow("contract.note"))):

        async def turn() -> list[Any]:
            calls = [anote("a", "x"), anote("b", "x"), anote("c", 5)]
            return await asyncio.gather(*calls, return_exceptions=True)

        first, second, third = asyncio.run(turn())
    assert (first, second) == ("noted", "noted")
    assert type(third) is Denied
    assert [effect[1] for effect in DONE] == ["a", "b"]


def test_14_one_run_is_shared_and_its_budget_holds_between_threads() -> None:
    """Eight threads that start together find three uses, not more."""
    start = threading.Barrier(8, timeout=30)
    outcomes: list[str] = []
    with Run(agent="a", grant=Grant(allow("contract.note", budget(times=3)))) as here:
        (bound,) = here.tools(note)

        def work(number: int) -> None:
            start.wait()
            try:
                outcomes.append(bound(str(number), "x"))
            except Denied as denial:
                outcomes.append(denial.rule)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert sorted(outcomes) == ["noted"] * 3 + ["permission.budget"] * 5
    assert len(DONE) == 3


def test_14_what_one_call_has_seen_the_next_one_knows_in_any_context() -> None:
    """Exposure lies in the shared run, not in a context variable that a framework drops."""
    with open_run(Path()) as here:
        contextvars.copy_context().run(tools.read_inbox)
        assert here.exposed
        thread = threading.Thread(target=here.tools(tools.read_inbox)[0])
        thread.start()
        thread.join(30)
    assert len(DONE) == 2


@pytest.mark.parametrize("kind", ["returns", "raises", "denied"])
def test_14_a_call_leaves_the_context_as_it_was(kind: str) -> None:
    """No value that a call has set is seen after it, however it ended."""
    inner: list[Any] = []

    @reads("contract.raises")
    def body(fail: bool) -> str:
        inner.append(ACTIVE.get())
        if fail:
            raise KeyError("x")
        return "x"

    @reads("contract.raises")
    async def abody(fail: bool) -> str:
        return body.__checkrein__.function(fail)

    assert ACTIVE.get() is None
    with run() as here:
        frame = ACTIVE.get()

        async def both() -> None:
            for call in (lambda: body(kind == "raises"), lambda: abody(kind == "raises")):
                try:
                    result = note("t", 5) if kind == "denied" else call()
                    if inspect.isawaitable(result):
                        await result
                except (KeyError, Denied):
                    pass
                assert ACTIVE.get() is frame

        context = contextvars.copy_context()
        context.run(asyncio.run, both())
        assert ACTIVE.get() is frame
        assert frame is here.top
    assert ACTIVE.get() is None
    assert all(one is not frame for one in inner)
    assert len(inner) == (0 if kind == "denied" else 2)


def test_14_between_the_items_of_a_stream_the_context_is_the_callers() -> None:
    """The body's frame is active for its steps only, never while the consumer works."""
    frames: list[Any] = []

    @reads("contract.lines")
    def watched() -> Iterator[int]:
        for number in range(2):
            frames.append(ACTIVE.get())
            yield number

    with run() as here:
        for _ in watched():
            assert ACTIVE.get() is here.top
    assert len(frames) == 2
    assert here.top not in frames


def test_15_a_run_opened_in_an_outer_task_is_found_in_tasks_and_to_thread() -> None:
    """What inherits the context finds the run: tasks, and threads started with it."""

    async def main() -> None:
        async with run():
            await asyncio.create_task(anote("task", "x"))
            await asyncio.to_thread(note, "thread", "x")

    asyncio.run(main())
    assert [effect[1] for effect in DONE] == ["task", "thread"]


def test_15_the_block_of_a_run_ends_in_the_context_it_began_in() -> None:
    """A run that something closed in another context does not stay active after its block."""

    def blocks() -> None:
        with run():
            with run() as inner:
                contextvars.copy_context().run(inner.__exit__, None, None, None)
            assert note("t", "x") == "noted"
        assert ACTIVE.get() is None

    contextvars.copy_context().run(blocks)


def test_29_30_a_bare_thread_has_no_run_and_a_bound_tool_brings_its_own() -> None:
    """A new thread or an emptied context fails closed; ``run.tools`` is the way through."""
    outcomes: list[Any] = []

    def work(*offered: Any) -> None:
        for tool in offered:
            try:
                outcomes.append(call_of_any_kind(tool, "t", "x"))
            except Denied as denial:
                outcomes.append(denial.rule)

    with run() as here:
        for offered in ([note, anote], here.tools(note, anote)):
            thread = threading.Thread(target=work, args=offered)
            thread.start()
            thread.join(30)
            contextvars.Context().run(work, *offered)
    assert outcomes == ["run.none"] * 4 + ["noted"] * 4
    work(*here.tools(note))
    assert outcomes[-1] == "run.closed"


@pytest.mark.parametrize("planted", [object(), Run, {"run": "open"}, True])
def test_30_an_object_that_tool_code_put_into_the_variable_is_no_run(planted: Any) -> None:
    """Authority is in the run object itself: what merely stands in its place grants nothing."""

    def attempt() -> None:
        ACTIVE.set(planted)
        note("t", "x")

    with run(), pytest.raises(Denied) as caught:
        contextvars.copy_context().run(attempt)
    assert caught.value.rule == "run.none"
    assert DONE == []


# -- 7, 28, 37: the denial -----------------------------------------------------------------------


def _denials() -> Iterator[Denied]:
    attempts: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (note, {"title": SECRET, "text": SECRET, "stars": SECRET}),
        (send, {"to": SECRET, "body": SECRET, "how": SECRET}),
        (send, {"to": SECRET, "body": SECRET}),
        (note, {"title": {SECRET: {1, SECRET}}, "text": SECRET}),
        (note, {"title": Untrusted(SECRET), "text": SECRET}),
        (tools.save_report, {"path": f"../{SECRET}", "text": SECRET}),
        (tools.read_inbox, {"folder": SECRET}),
    ]
    grant = Grant(*ALLOWED[:3], *open_run(Path()).grant.permissions[1:2])
    for active in (False, True):
        for tool, arguments in attempts:
            with Run(agent="a", grant=grant) if active else nullcontext():
                try:
                    tool(**arguments)
                except Denied as denial:
                    yield denial
                else:
                    raise AssertionError(tool)


def test_07_28_37_a_denial_is_an_exception_with_one_safe_text() -> None:
    """No file code, no retry loop and no model can take it for something else."""
    rules = set()
    for denial in _denials():
        rules.add(denial.rule)
        assert isinstance(denial, Exception)
        assert not isinstance(denial, OSError | TypeError | ValueError | RuntimeError)
        assert type(denial) is Denied
        assert len(denial.args) == 1
        assert type(denial.args[0]) is str
        assert str(denial) == denial.args[0]
        assert SECRET not in str(denial)
        assert SECRET not in repr(denial)
        assert "\n" not in str(denial)
        assert all(name in {"title", "text", "stars", "to", "body", "how", "path", "folder"}
                   for name in denial.arguments)  # fmt: skip
        # Some frameworks show a model the whole traceback, causes included.
        frames = "".join(traceback.format_exception(denial))
        assert SECRET not in frames
    assert rules == {
        "run.none", "call.malformed", "gate.unavailable", "permission.argument",
        "permission.missing",
    }  # fmt: skip
    assert DONE == []


@pytest.mark.parametrize("swallow", [OSError, PermissionError, TypeError, ValueError, LookupError])
def test_07_code_that_handles_other_errors_lets_a_denial_through(swallow: type[Exception]) -> None:
    """``except OSError`` around a file tool never swallows a denial."""

    def careless() -> None:
        try:
            note("t", "x")
        except swallow:
            return

    with pytest.raises(Denied):
        careless()


def test_07_a_denial_survives_copies_and_pickles() -> None:
    """A framework that carries errors between processes keeps the text."""
    with pytest.raises(Denied) as caught:
        note("t", "x")
    for again in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):
        assert type(again) is Denied
        assert (str(again), again.rule) == (str(caught.value), "run.none")


# -- 9, 10, 11, 12, 27, 33: control flow and gates -----------------------------------------------


class _Interrupt(Exception):
    """How some frameworks pause."""


class _Stop(BaseException):
    """How others do."""


@pytest.mark.parametrize("kind", [_Interrupt, _Stop, KeyError, asyncio.CancelledError, Suspended])
@pytest.mark.parametrize("form", ["plain", "coroutine", "generator", "async generator"])
def test_09_what_the_body_raises_goes_on_as_the_same_object(
    kind: type[BaseException], form: str
) -> None:
    """Interrupts and errors reach the framework untouched: same object, nothing chained to it."""
    signal = kind("pause")
    log = MemoryLog()

    @reads("contract.raises")
    def plain() -> str:
        raise signal

    @reads("contract.raises")
    async def coroutine() -> str:
        raise signal

    @reads("contract.raises")
    def generator() -> Iterator[str]:
        yield "first"
        raise signal

    @reads("contract.raises")
    async def asyncgen() -> AsyncIterator[str]:
        yield "first"
        raise signal

    async def guarded(call: Callable[[], Any]) -> BaseException | None:
        try:
            result = call()
            if inspect.isawaitable(result):
                await result
            elif inspect.isasyncgen(result):
                await _consume(result)
            else:
                list(result)
        except BaseException as error:
            return error
        return None

    tool = {"plain": plain, "coroutine": coroutine, "generator": generator}.get(form, asyncgen)
    with run(log=log):
        caught = asyncio.run(guarded(tool))
    assert caught is signal
    assert signal.__cause__ is None
    assert signal.__context__ is None
    (outcome,) = log.of("call.outcome")
    assert outcome["error"] == kind.__name__
    assert "pause" not in json.dumps(log.events)


def test_09_a_pause_is_logged_as_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an integration registers as control flow is no failure in the log."""
    monkeypatch.setattr(mediation, "_HOST_CONTROL", [*mediation._HOST_CONTROL, _Interrupt])
    log = MemoryLog()

    @reads("contract.raises")
    def pausing() -> str:
        raise _Interrupt

    with run(log=log), pytest.raises(_Interrupt):
        pausing()
    assert [event["status"] for event in log.of("call.outcome")] == ["suspended"]


@dataclasses.dataclass
class _Sentinel:
    """What a framework understands when a tool returns it."""

    update: Any = None


def _without_annotation():
    return SENTINEL


def _annotated_any() -> Any:
    return SENTINEL


def _annotated_text() -> str:
    return SENTINEL  # type: ignore[return-value]


def _annotated_sentinel() -> _Sentinel:
    return SENTINEL


SENTINEL = _Sentinel({"messages": ["x"]})


@pytest.mark.parametrize(
    "function", [_without_annotation, _annotated_any, _annotated_text, _annotated_sentinel]
)
def test_09_sentinels_come_back_as_the_same_object(function: Any) -> None:
    """A ``Command``, a ``ToolMessage``, an ``InputRequiredResult``: returned by identity."""
    tool = reads("contract.sentinel")(function)
    with run() as here:
        assert tool() is SENTINEL
        assert here.tools(tool)[0]() is SENTINEL
        assert not here.exposed


def test_10_a_gate_may_pause_the_call_by_a_suspension() -> None:
    """``Suspended`` from a gate is neither a yes nor a no, and passes as it is."""
    suspension = Suspended("ask later")

    def ask(confirmation: Confirmation) -> Any:
        raise suspension

    with run(gate=CallbackGate(ask)), pytest.raises(Suspended) as caught:
        send("dana", "hi")
    assert caught.value is suspension
    assert DONE == []


def test_10_what_a_tool_is_can_be_read_off_the_function() -> None:
    """Frameworks that decide about approval before the call find the facts, static."""
    facts = send.__checkrein__.facts
    assert (facts.effect, facts.resources, facts.external) == (
        "irreversible", frozenset({"contract.send"}), True,
    )  # fmt: skip
    with run() as here:
        (bound,) = here.tools(send)
        assert bound.__checkrein__.facts is facts
        assert "effect.irreversible" in str(here.explain(send, to="dana", body="hi"))
    assert DONE == []


def test_11_the_gate_comes_first_and_one_call_has_one_id_in_the_log() -> None:
    """Asked, answered, allowed, done: four entries about one call, the effect after three."""
    log = MemoryLog()
    ids: list[str] = []

    def ask(confirmation: Confirmation) -> bool:
        assert DONE == []
        ids.append(confirmation.call)
        return True

    @irreversible("contract.send", external=True)
    def identified(to: str) -> None:
        assert log.kinds[-1] == "call.allowed"
        ids.append(call_id())

    with run(log=log, gate=CallbackGate(ask)):
        identified("dana")
    kinds = [kind for kind in log.kinds if kind.startswith(("call.", "confirmation."))]
    assert kinds == [
        "confirmation.asked", "confirmation.answered", "call.allowed", "call.outcome",
    ]  # fmt: skip
    ids += [event["call"] for event in log.events if event.get("call")]
    assert len(ids) == 6
    assert len(set(ids)) == 1


def test_12_33_a_verdict_serves_for_its_own_call_once() -> None:
    """An approval that is kept and shown again, for the same or an edited call, is no approval."""
    kept: list[Verdict] = []

    def ask(confirmation: Confirmation) -> Verdict:
        kept.append(confirmation.approve(by="dana"))
        return kept[0]

    with run(gate=CallbackGate(ask)):
        send("dana", "hi")
        for to in ("dana", "eve"):
            with pytest.raises(Denied) as caught:
                send(to, "hi")
            assert caught.value.rule == "gate.mismatch"
    assert DONE == [("send", "dana", "hi", "slow")]


def test_12_33_what_was_shown_is_what_runs() -> None:
    """Whoever edits the arguments while the gate is asked edits a copy."""

    @irreversible("contract.send", external=True)
    def send_all(to: list[str]) -> None:
        DONE.append(tuple(to))

    addresses = ["dana"]

    def ask(confirmation: Confirmation) -> bool:
        addresses[:] = ["eve"]
        return list(confirmation.arguments[0].value) == ["dana"]

    with run(gate=CallbackGate(ask)):
        send_all(addresses)
    assert DONE == [("dana",)]


@pytest.mark.parametrize("answer", [1, "yes", None, object(), KeyError("x"), TimeoutError()])
def test_27_a_gate_that_fails_or_answers_nonsense_says_no(answer: Any) -> None:
    """Only ``True`` and a matching verdict are yes; an exception inside a gate never is."""

    def ask(confirmation: Confirmation) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    with run(gate=CallbackGate(ask)), pytest.raises(Denied) as caught:
        send("dana", "hi")
    assert caught.value.rule == "gate.unavailable"
    assert DONE == []


# -- 16, 17, 24, 25, 31: untrusted content -------------------------------------------------------

RENDERINGS: dict[str, Callable[[Any], str]] = {
    "str": str,
    "repr": repr,
    "format": lambda value: f"{value}",
    "format repr": lambda value: f"{value!r}",
    "percent": lambda value: "%s" % (value,),
    "json": lambda value: json.dumps(value, default=str),
    "json repr": lambda value: json.dumps(value, default=repr),
    "to_json": lambda value: to_json(value).decode(),
    "to_json fallback": lambda value: to_json(value, fallback=str).decode(),
    "dump_python": lambda value: str(TypeAdapter(Any).dump_python(value)),
    "dump_python json": lambda value: str(TypeAdapter(Any).dump_python(value, mode="json")),
    "dump_json": lambda value: TypeAdapter(Any).dump_json(value).decode(),
}


@pytest.mark.parametrize("rendering", list(RENDERINGS))
@pytest.mark.parametrize("shape", list(SHAPES))
def test_16_25_every_rendering_of_every_shape_is_fenced(shape: str, rendering: str) -> None:
    """However a framework makes text of a result, content stands between markers."""
    with open_run(Path()):
        result = SHAPES[shape]()
        assert_fenced(RENDERINGS[rendering](result))
    assert_fenced(RENDERINGS[rendering](result))  # rendered after the run as well


@pytest.mark.parametrize("shape", list(SHAPES))
def test_16_25_content_in_any_shape_exposes_the_run(shape: str) -> None:
    """Content that a model can read is content that the run has seen."""
    with open_run(Path()) as here:
        SHAPES[shape]()
        assert here.exposed


@pytest.mark.parametrize("shape", list(SHAPES))
def test_16_a_typed_dump_of_a_result_is_fenced(shape: str) -> None:
    """A framework that serialises by the return annotation gets the same text."""
    annotation = typing.get_type_hints(SHAPES[shape]).get("return", Any)
    with open_run(Path()):
        result = SHAPES[shape]()
    adapter = TypeAdapter(annotation)
    assert_fenced(adapter.dump_json(result).decode())
    assert_fenced(str(adapter.dump_python(result, mode="json")))


def test_16_content_is_no_json_value_by_itself() -> None:
    """The standard encoder has no short cut around the rendering: it asks for a default."""
    with pytest.raises(TypeError):
        json.dumps(Untrusted(LETTER))


def test_17_rendering_twice_gives_the_same_text_and_one_fence() -> None:
    """Rendered content that comes in again is recognised, not fenced a second time."""
    with open_run(Path()):
        result = tools.read_inbox()
        assert result.render() == result.render() == str(result)
        (fence,) = fences(result.render())
        assert fence == result.render()
        tools.save_report("a", Untrusted(fence))
        tools.save_report("a", f"{fence}{fence}")
    saved = [effect[2] for effect in DONE if effect[0] == "save_report"]
    assert saved == [LETTER, LETTER + LETTER]


def test_24_untrusted_content_has_exactly_these_attributes() -> None:
    """A framework that looks for a short cut to the text finds none."""
    content = Untrusted(LETTER)
    assert [name for name in dir(content) if not name.startswith("_")] == [
        "endorse", "label", "map", "render", "reveal", "seal", "unseal",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    """
    text content value data body message output result raw payload parts items keys values get
    json dict to_dict as_dict to_json model_dump model_dump_json model_fields dump serialize
    to_string to_text decode encode read getvalue page_content artifact structured_content
    __dict__ __iter__ __next__ __len__ __getitem__ __contains__ __add__ __radd__ __mod__ __mul__
    __html__ __json__ __int__ __float__ __index__ __bytes__ __fspath__ __buffer__ __array__
    __aiter__ __await__ __enter__ __call__ __length_hint__ __reversed__ __weakref__ __wrapped__
    __dataclass_fields__ __attrs_attrs__ __pydantic_fields__ __struct_fields__ _asdict _fields
    __rich__ __rich_repr__ __rich_console__ __pretty__ _repr_html_ _repr_json_ _repr_mimebundle_
    _repr_pretty_ __get_validators__ __match_args__ __getnewargs__
    """.split(),
)
def test_24_untrusted_content_is_no_duck(name: str) -> None:
    """None of the names by which frameworks recognise containers and models is there."""
    assert not hasattr(Untrusted(LETTER), name)


USES: dict[str, Callable[[Any], Any]] = {
    "or": lambda content: content or "nothing",
    "not": lambda content: not content,
    "equal": lambda content: content == "x",
    "unequal": lambda content: content != "x",
    "key": lambda content: {content: 1},
    "len": lambda content: len(content),
    "add": lambda content: content + "x",
    "added": lambda content: "x" + content,
    "slice": lambda content: content[:10],
    "in": lambda content: "x" in content,
    "iterate": lambda content: list(content),
    "less": lambda content: content < "x",
    "join": lambda content: "".join([content]),
    "unpack": lambda content: {**content},
    "vars": lambda content: vars(content),
    "set": lambda content: setattr(content, "_value", "x"),
}


@pytest.mark.parametrize("use", list(USES))
def test_24_what_has_no_safe_meaning_raises_a_type_error_without_content(use: str) -> None:
    """``result or ""`` and its kin end in an error that quotes nothing."""
    with pytest.raises(TypeError) as caught:
        USES[use](Untrusted(LETTER))
    assert SECRET not in str(caught.value)


def test_24_the_parametrised_class_can_be_called() -> None:
    """``Untrusted[str](...)``, as type checkers allow it, makes what ``Untrusted(...)`` makes."""
    assert Untrusted[str]("x", source="web") == Untrusted("x", source="web")


def test_31_code_of_a_model_that_holds_the_wrapper_leaves_a_trace() -> None:
    """Outside the tool that got it, ``reveal`` needs a reason, and the log keeps it."""
    log = MemoryLog()
    with open_run(Path(), log=log):
        content = tools.read_inbox()
        with pytest.raises(MisuseError, match="reason"):
            content.reveal()
        assert content.reveal(reason="to see") == LETTER
    (entry,) = log.of("reveal")
    assert entry["reason"] == "to see"
    assert SECRET not in json.dumps(log.events)


def test_31_in_a_guarded_body_marker_text_cannot_slip_into_data() -> None:
    """``str()`` of the call's own argument is a misuse there: it would mail the markers."""

    @writes("contract.any")
    def careless(text: Untrusted[str]) -> str:
        return f"{text}"

    with run(), pytest.raises(MisuseError, match="reveal"):
        careless("x")


# -- 19, 20, 32: the log -------------------------------------------------------------------------


def test_19_every_entry_has_the_runs_own_ids() -> None:
    """Identity comes from the run, since no two frameworks agree on one."""
    log = MemoryLog()
    with run(log=log, ids=iter(f"id{number}" for number in range(9)).__next__) as here:
        note("t", "x")
    assert here.id == "id0"
    assert {event["run"] for event in log.events} == {"id0"}
    (allowed,) = log.of("call.allowed")
    assert (allowed["agent"], allowed["call"]) == ("contract", "id0-0")


def test_20_every_attempt_that_reaches_the_guard_is_in_the_log() -> None:
    """Allowed, denied, malformed and misfitting calls alike leave an entry."""
    log = MemoryLog()
    with Run(agent="a", grant=Grant(allow("contract.note")), log=log):
        note("t", "x")
        for attempt in (
            lambda: send("dana", "hi"),
            lambda: note("t", 5),
            lambda: note("t", "x", unknown=1),
        ):
            with pytest.raises((Denied, MisuseError)):
                attempt()
    assert len(log.of("call.allowed")) == 1
    rules = [event["findings"][0]["rule"] for event in log.of("call.denied")]
    assert rules == ["permission.missing", "call.malformed", "call.misuse"]


def test_32_a_repeat_is_a_new_call() -> None:
    """The guard caches nothing: an equal call has an id, an entry and an effect of its own."""
    log = MemoryLog()
    with run(log=log):
        note("t", "x")
        note("t", "x")
    assert len(DONE) == 2
    assert len({event["call"] for event in log.of("call.allowed")}) == 2


# -- the application's own tests -----------------------------------------------------------------


def test_a_guarded_tool_is_tested_in_one_line() -> None:
    """``permit`` opens a run in which a body can be tried without a policy."""
    with permit():
        send("dana", "hi", "fast")
    assert DONE == [("send", "dana", "hi", "fast")]

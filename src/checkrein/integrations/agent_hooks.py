"""AGENT-HOOKS 0.1: a guard for every host that speaks the neutral hook contract.

The host, not we, makes the tool call; it asks an *interceptor* before and after. So a call is
mediated in two halves, by the guard of a function whose body waits for the host's result::

    pre_tool_call     decide, ask, log the intent: allow, with what was normalised; or deny
                      (the host runs the tool)
    post_tool_call    label the result, log the outcome: content in markers, or the value

Tools are declared here, by name: what the host says of them is not asked. A name that is not
declared is denied, and so is a result of a call that nobody let through, or that ran with other
arguments than were let through (a later interceptor has changed them): then the run is locked.

A deny is never *liftable*: the contract would let any resolver of the host approve a call of
which it sees no digest. Who confirms is the run's gate. Where that does not wait, the call is
denied with that reason, and the same call, made again, gets the answer.

Register it last among the interceptors, in a host that enforces. The contract is cooperative:
a host that does not ask, is not guarded.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, final

from checkrein.errors import CheckreinError, ConfigurationError, Denied, Suspended
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted
from checkrein.runs import Run
from checkrein.untrusted import Untrusted

try:
    from agent_hooks import Decision, Transform, Verdict
except ModuleNotFoundError as error:
    if error.name != "agent_hooks":
        raise
    raise ImportError(
        "checkrein.integrations.agent_hooks needs: pip install 'checkrein[agent_hooks]'"
    ) from error


class ToolFailed(Exception):
    """The host's tool failed; what it said is the host's to show."""


@final
class _Call:
    """One call, from before the host makes it until after."""

    def __init__(self) -> None:
        self.begun: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[Any] | None = None
        self.given: dict[str, Any] = {}


_CALL: Final[ContextVar[_Call]] = ContextVar("checkrein_agent_hooks_call")


async def _wait_for_host(given: dict[str, Any]) -> Any:
    call = _CALL.get()
    call.begun.set_result(given)
    return await call.result


class Tool(NamedTuple):
    """A tool of the host: its name, and the guard of it."""

    name: str
    guarded: Any


def tool(
    name: str,
    guard: Decorator,
    *,
    schema: Mapping[str, Any],
    description: str = "",
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> Tool:
    """Declare a tool of the host; the arguments are those of `adoption.adopted`.

    Example:
        >>> from checkrein import reads
        >>> schema = {"properties": {"url": {"type": "string"}}, "required": ["url"]}
        >>> tool("http_get", reads("web.pages", external=True), schema=schema).name
        'http_get'
    """
    guarded = adopted(
        _wait_for_host,
        guard,
        name=name,
        description=description,
        schema=schema,
        untrusted=untrusted,
        result=result,
    )
    return Tool(name, guarded)


class Guard:
    """An interceptor that decides every tool call of a host, by the grant of a run.

    Args:
        tools: what :func:`tool` has declared.
        run: the run; whichever is active, if left out.

    Raises:
        ConfigurationError: two tools have one name.
    """

    def __init__(self, *tools: Tool, run: Run | None = None) -> None:
        self._tools = {one.name: one.guarded for one in tools}
        if len(self._tools) < len(tools):
            raise ConfigurationError("two tools have one name")
        self._run = run
        self._calls: dict[str, _Call] = {}

    async def intercept(self, context: Mapping[str, Any]) -> Verdict:
        """Return the verdict at one point of the host's loop. It never raises to mean no."""
        point = context["interception_point"]
        try:
            if point == "pre_tool_call":
                return await self._before(context["tool_call"])
            if point == "post_tool_call":
                return await self._after(context["tool_call"], context["tool_result"])
            if point in {"pre_model_call", "post_model_call"}:
                self._hear(context)
            if point == "agent_shutdown":
                await self._end()
        except CheckreinError as error:
            return Verdict.deny(reason=getattr(error, "rule", "") or type(error).__name__)
        return Verdict.allow()

    async def _before(self, asked: Mapping[str, Any]) -> Verdict:
        guarded = self._tools.get(asked["name"])
        if guarded is None:
            return Verdict.deny(reason="tool.unknown", message="the tool is not declared")
        if asked["id"] in self._calls:
            return Verdict.deny(reason="call.malformed", message="the call is under way")
        call = self._calls[asked["id"]] = _Call()
        call.task = asyncio.create_task(self._make(guarded, dict(asked["args"]), call))
        try:
            await asyncio.wait({call.task, call.begun}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the host has waited for long enough, and makes no call
            del self._calls[asked["id"]]
            await _abandon(call)
            raise
        if not call.begun.done():
            del self._calls[asked["id"]]
            return self._refusal(call.task)
        call.given = call.begun.result()
        if call.given == asked["args"]:
            return Verdict.allow()
        return Verdict(Decision.TRANSFORM, transform=Transform("$target", call.given))

    async def _make(self, guarded: Any, arguments: dict[str, Any], call: _Call) -> Any:
        _CALL.set(call)
        with hosts.active(self._run):
            return await guarded(**arguments)

    @staticmethod
    def _refusal(task: asyncio.Task[Any]) -> Verdict:
        error = task.exception()
        if isinstance(error, Denied | Suspended):
            rule = error.rule if isinstance(error, Denied) else "gate.pending"
            return Verdict.deny(reason=rule, message=hosts.tell(error))
        return Verdict.deny(reason="call.malformed", message="the call cannot be decided")

    async def _after(self, made: Mapping[str, Any], told: Mapping[str, Any]) -> Verdict:
        call = self._calls.get(made["id"])
        if call is None or call.task is None or not call.begun.done():
            return Verdict.deny(reason="run.none", message="nobody let this call through")
        del self._calls[made["id"]]
        if made["args"] != call.given:
            run = hosts.current(self._run)
            if run is not None:
                run.lock("the host made another call than was let through")
            await _abandon(call)
            return Verdict.deny(reason="run.locked", message="another call was let through")
        if told.get("is_error"):
            call.result.set_exception(ToolFailed())
        else:
            call.result.set_result(told["value"])
        try:
            result = await call.task
        except ToolFailed:
            return self._isolated(told["value"])
        shown = result if not isinstance(result, Untrusted) else str(result)
        if shown == told["value"]:
            return Verdict.allow()
        return Verdict(Decision.TRANSFORM, transform=Transform("$target", shown))

    def _isolated(self, text: Any) -> Verdict:
        """Return the text of an error as content: nobody here knows who wrote it."""
        run = hosts.current(self._run)
        if run is None:
            return Verdict.deny(reason="run.none")
        run.expose("an error of a tool")
        with hosts.active(run):
            shown = str(Untrusted(text, source="error"))
        return Verdict(Decision.TRANSFORM, transform=Transform("$target", shown))

    def _hear(self, context: Mapping[str, Any]) -> None:
        run = hosts.current(self._run)
        if run is None:
            return
        agent, session = context["agent"], context["session"]
        ids = {"agent": agent.get("id"), "session": session.get("id")}
        run.hosted(str(agent.get("framework")), str(agent.get("version", "")), **ids)
        if context["interception_point"] == "pre_model_call":
            said = any(one.get("role") != "user" for one in context["messages"])
            hosts.begin(run, session.get("id"), history=said)
            run.heard("prompt", str(context["messages"]))
        else:
            run.heard("output", str(context["response"]))

    async def _end(self) -> None:
        """Give up on calls whose result the host never told; the log says "in doubt"."""
        calls = list(self._calls.values())
        self._calls.clear()
        for call in calls:
            await _abandon(call)


async def _abandon(call: _Call) -> None:
    if call.task is not None:
        call.task.cancel()
        await asyncio.wait({call.task})

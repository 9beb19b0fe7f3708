"""Microsoft's Agent Framework: middleware, an audit, guards for ready-made tools.

::

    agent = Agent(client=client, tools=[...], middleware=Guard())
    refuse_unguarded(agent)
    with talks.run(session.session_id, agent="clerk", grant=grant, log=log):
        response = await agent.run("...", session=session)

A call that a person has to confirm ends the turn with the framework's own approval request, which
carries the question: :func:`questions` finds them in ``response.user_input_requests``. Go on with
the same session and a message made by :func:`reply`, in this process or in another one.
Without the session the framework takes no answer, and says so only in its own log.

The framework's approval is not ours: what lets a call run is the answer on the desk.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (the framework is not installed where types are checked)
from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_jsonable_python

from checkrein.errors import Denied, MisuseError, Suspended
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted, fenced
from checkrein.integrations.hosts import Problem, answer
from checkrein.mediation import register_control_flow
from checkrein.untrusted import Untrusted
from checkrein.waiting import off_loop

try:
    from agent_framework import (
        Agent,
        ChatMiddleware,
        Content,
        FunctionMiddleware,
        FunctionTool,
        Message,
        MiddlewareFailure,
        MiddlewareTermination,
    )
    from agent_framework.exceptions import UserInputRequiredException
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.agent_framework needs Agent Framework: "
        "pip install 'checkrein[agent_framework]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["Guard", "adopt", "answer", "audit", "questions", "refuse_unguarded", "reply"]

register_control_flow(MiddlewareTermination, MiddlewareFailure, UserInputRequiredException)

_VERSION: Final = hosts.installed("agent-framework-core")
_OURS: Final = "checkrein"


class Guard(list[Any]):
    """Middleware that puts a run in force, says no to the model, asks people, and keeps a record.

    It is a list of two, one for calls of tools and one for calls of the model. Others go before
    it, ``middleware=[other, *Guard()]``: what stands inside of it, next to the tools, escapes it.

    Args:
        run: the run, for where the context does not carry one; the active one serves otherwise.
        abort: let the agent's run end with ``MiddlewareFailure``, caused by the denial,
            instead of telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Example:
        >>> agent = Agent(client=client, tools=[send], middleware=Guard())  # doctest: +SKIP
    """

    def __init__(self, run: Run | None = None, *, abort: bool = False, texts: bool = False) -> None:
        super().__init__([_Calls(run, abort), _Models(run, texts)])


class _Calls(FunctionMiddleware):
    """What is done around a tool call."""

    def __init__(self, run: Run | None, abort: bool) -> None:
        self._run, self._abort = run, abort

    async def process(self, context: Any, call_next: Callable[[], Awaitable[None]]) -> None:
        """Make a tool call."""
        try:
            with hosts.active(self._run) as run:
                given = context.metadata.get("approval_response")
                if run is not None and given is not None:
                    await off_loop(partial(_take, run, given))
                try:
                    await call_next()
                except Suspended as pending:
                    if run is None:
                        raise
                    shown = await off_loop(partial(hosts.question, run, pending))
                    context.result = _request(context, shown)
        except (Denied, Suspended) as no:
            if self._abort:
                raise MiddlewareFailure(hosts.tell(no)) from no
            context.result = hosts.tell(no)


class _Models(ChatMiddleware):
    """What is done around a model call."""

    def __init__(self, run: Run | None, texts: bool) -> None:
        self._run, self._texts = run, texts

    async def process(self, context: Any, call_next: Callable[[], Awaitable[None]]) -> None:
        """Call the model."""
        run = hosts.current(self._run)
        if run is None:
            await call_next()
            return
        session = None if context.session is None else context.session.session_id
        run.hosted("agent_framework", _VERSION, session_id=session)
        history = any(str(one.role) in {"assistant", "tool"} for one in context.messages)
        hosts.begin(run, session, history=history)
        tools = (context.options or {}).get("tools")
        hosts.expose_unguarded(run, audit(tools if isinstance(tools, list | tuple) else ()))
        system = str((context.options or {}).get("instructions") or "")
        run.heard("prompt", f"{system}\n{_text(context.messages)}", keep=self._texts)
        hear = partial(self._hear, run)
        if context.stream:
            context.stream_result_hooks.append(hear)
            await call_next()
        else:
            await call_next()
            hear(context.result)

    def _hear(self, run: Run, response: Any) -> Any:
        run.heard("output", _text(getattr(response, "messages", ())), keep=self._texts)
        return response


def _text(messages: Iterable[Any]) -> str:
    return hosts.text_of(list(messages), without=("raw_representation",))


# -- people --------------------------------------------------------------------------------


def _request(context: Any, shown: Mapping[str, Any]) -> Content:
    """Return the framework's request, with the question in it."""
    about = context.metadata
    call = Content.from_function_call(
        call_id=about["call_id"],
        name=context.function.name,
        arguments=json.dumps(to_jsonable_python(dict(context.arguments), fallback=str)),
        id=about.get("function_call_occurrence_id"),
    )
    return Content.from_function_approval_request(
        id=call.id or call.call_id,
        function_call=call,
        additional_properties={_OURS: dict(shown)},
    )


def _take(run: Run, response: Any) -> None:
    """Lay the answer to an approval on the desk, if it was given in this process."""
    given = hosts.claim(response.additional_properties.get(_OURS))
    if given is not None:  # else another call of the turn was answered, and this one asks again
        hosts.take(run, None, given)


def questions(requests: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the questions in a response's ``user_input_requests``."""
    found = (one.additional_properties.get(_OURS) for one in requests)
    return [one for one in found if isinstance(one, dict)]


def reply(requests: Iterable[Any], *answers: Mapping[str, Any]) -> Message:
    """Return the message that goes on with a session.

    To the framework it approves those that hold questions: so that each call is made again, and
    the guard decides. What is in it of the answers is a ticket: it is made in the process in
    which the agent goes on.

    Args:
        requests: all of the response's ``user_input_requests``. Add your own replies to those
            without a question: ``message.contents.append(...)``.
        answers: each an :func:`answer` to one of the questions.
    """
    by_question = {one.get("confirmation"): one for one in answers}
    contents = []
    for request in requests:
        asked = request.additional_properties.get(_OURS)
        if isinstance(asked, dict):
            said = request.to_function_approval_response(True)
            given = by_question.get(asked.get("confirmation"))
            ticket = {} if given is None else {_OURS: hosts.hand_in(given)}
            said.additional_properties = ticket
            contents.append(said)
    return Message(role="user", contents=contents)


# -- at start-up ---------------------------------------------------------------------------


def audit(agent_or_tools: Any) -> list[Problem]:
    """Return which tools of an agent, or of a list, are not guarded.

    A server of tools is named as a whole: what it offers is known when the model is called, and
    is judged then.
    """
    found: list[Problem] = []
    if isinstance(agent_or_tools, Agent):
        if any(isinstance(one, Guard) for one in agent_or_tools.middleware or ()):
            way = "Guard() is a list, which is passed over in a list: middleware=Guard()"
            found.append(Problem("middleware", way))
        offered = agent_or_tools.default_options.get("tools") or ()
        agent_or_tools = [*offered, *agent_or_tools.mcp_tools]
    return [*found, *hosts.judge(_callable(one) for one in agent_or_tools)]


def refuse_unguarded(agent_or_tools: Any) -> None:
    """Refuse an agent, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(agent_or_tools))


def _arguments(tool: Any) -> Collection[str]:
    """Return the names of the arguments that a model is shown."""
    names: Collection[str] = tool.parameters().get("properties", {})
    return names


def _callable(tool: Any) -> tuple[Any, ...]:
    """Return what a call of *tool* runs; of tools that we do not know, the tool itself."""
    if type(tool) is FunctionTool:
        return tool.name, tool.func, partial(_arguments, tool)
    if isinstance(tool, dict):
        return str(tool.get("name") or tool.get("type")), tool
    return hosts.name_of(tool), tool


# -- tools that are not ours -----------------------------------------------------------------


def adopt(
    tool: FunctionTool,
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> FunctionTool:
    """Return a ready-made tool with a guard in front: same name, description and schema.

    Args:
        tool: the tool, one that has a function; of a server, what its ``functions`` hold.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    function = tool.func if type(tool) is FunctionTool else None
    if function is None or isinstance(function, FunctionTool):
        raise MisuseError("adopt(tool, ...) takes a FunctionTool that has a function")
    calls = _acall if inspect.iscoroutinefunction(function) else _call
    context = tool._context_parameter_name  # noqa: SLF001 (what the framework passes by that name)
    guarded = adopted(
        fenced(calls(function), tool.name),
        guard,
        name=tool.name,
        description=tool.description,
        schema=tool.parameters(),
        untrusted=untrusted,
        injected=[] if context is None else [context],
        result=result,
    )
    new = copy.copy(tool)
    new.func = guarded
    return new


def _call(function: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    def call(arguments: dict[str, Any]) -> Any:
        return function(**arguments)

    return call


def _acall(function: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    async def call(arguments: dict[str, Any]) -> Any:
        return await function(**arguments)

    return call

"""Pydantic AI: a capability, an audit, guards for ready-made tools.

::

    outputs = [str, DeferredToolRequests]
    agent = Agent(model, tools=[...], capabilities=[Guard()], output_type=outputs)
    refuse_unguarded(agent)
    with talks.run("thread-7", agent="clerk", grant=grant, log=log):
        result = agent.run_sync("...")

A call that a person has to confirm ends the framework's run with ``DeferredToolRequests``. Keep
these and ``result.all_messages_json()``; then, in this process or in another one::

    with talks.run("thread-7", agent="clerk", grant=grant, log=log):
        asked = questions(result.output)
        results = resume(result.output, answer(asked[0], True, by="dana"))
        result = agent.run_sync(message_history=..., deferred_tool_results=results)

Without ``DeferredToolRequests`` in ``output_type`` the framework raises a ``UserError`` there; the
question can be answered at the desk all the same.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (Pydantic AI is not installed where types are checked)
from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, final

from pydantic import ValidationError

from checkrein.errors import Denied, MisuseError, Suspended
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted, fits
from checkrein.integrations.hosts import Problem, answer
from checkrein.mediation import register_control_flow
from checkrein.untrusted import Untrusted

try:
    from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, RunContext, Tool
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed
    from pydantic_ai.messages import ModelResponse
    from pydantic_ai.toolsets import AbstractToolset, FunctionToolset
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.pydantic_ai needs Pydantic AI: pip install 'checkrein[pydantic_ai]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["Guard", "adopt", "answer", "audit", "questions", "refuse_unguarded", "resume"]

register_control_flow(ApprovalRequired, CallDeferred)  # how Pydantic AI pauses

_QUESTION = frozenset({"confirmation", "digest", "tool", "arguments", "reasons", "expires"})
_VERSION = hosts.installed("pydantic-ai-slim")


class Guard(AbstractCapability[Any]):
    """Capability that puts a run in force, says no to the model, asks people, and keeps a record.

    Put it last in ``capabilities=``, next to the tools: what stands inside of it escapes it.

    Args:
        run: the run, for where the context does not carry one; the active one serves otherwise.
        abort: let ``Denied`` end the framework's run, instead of telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Example:
        >>> agent = Agent(model, tools=[send], capabilities=[Guard()])  # doctest: +SKIP
    """

    def __init__(self, run: Run | None = None, *, abort: bool = False, texts: bool = False) -> None:
        self._run, self._abort, self._texts = run, abort, texts

    async def wrap_tool_execute(
        self,
        ctx: RunContext[Any],
        *,
        call: Any,
        tool_def: Any,
        args: dict[str, Any],
        handler: Callable[[dict[str, Any]], Awaitable[Any]],
    ) -> Any:
        """Make a tool call."""
        answers = _answers_for(ctx)

        def ask(question: dict[str, Any]) -> Any:
            if answers:
                return answers.pop()
            raise ApprovalRequired(metadata=question)

        try:
            with hosts.active(self._run) as run:
                while True:
                    try:
                        return _rendered(await handler(args))
                    except Suspended as pending:
                        await hosts.asettle(run, pending, ask)
        except (Denied, Suspended) as no:
            if self._abort:
                raise
            raise ToolFailed(hosts.tell(no)) from no

    async def wrap_model_request(
        self,
        ctx: RunContext[Any],
        *,
        request_context: Any,
        handler: Callable[[Any], Awaitable[ModelResponse]],
    ) -> ModelResponse:
        """Call the model."""
        run = hosts.current(self._run)
        if run is None:
            return await handler(request_context)
        agent = None if ctx.agent is None else ctx.agent.name
        run.hosted("pydantic_ai", _VERSION, conversation_id=ctx.conversation_id, agent=agent)
        messages = request_context.messages
        history = any(isinstance(one, ModelResponse) for one in messages)
        hosts.begin(run, ctx.conversation_id, history=history)
        hosts.expose_unguarded(run, _offered(ctx, request_context))
        run.heard("prompt", hosts.text_of(messages), keep=self._texts)
        response = await handler(request_context)
        run.heard("output", hosts.text_of([response]), keep=self._texts)
        return response


def _answers_for(ctx: RunContext[Any]) -> list[Any]:
    """Return what was answered to the question of a call, if anything."""
    given = ctx.tool_call_metadata if ctx.tool_call_approved else None
    return [given["answer"]] if isinstance(given, Mapping) and "answer" in given else []


def _rendered(result: Any) -> Any:
    """Return content as the text that the model reads, so that no live value stays behind."""
    return str(result) if isinstance(result, Untrusted) else result


# -- going on --------------------------------------------------------------------------------


def questions(requests: DeferredToolRequests) -> list[dict[str, Any]]:
    """Return what a paused run waits for; what the framework itself asks about is left out."""
    return [question for _, question in _asked(requests)]


def resume(requests: DeferredToolRequests, *answers: Any) -> DeferredToolResults:
    """Return results to go on with; a question that is not answered here goes on being asked.

    Call it where the run is active. What else is deferred has to be added to the results.

    Args:
        requests: what the paused run returned.
        answers: made by ``answer``, from the questions.
    """
    run = hosts.current()
    if run is None:
        raise MisuseError("resume(requests, ...) is called where the run is active")
    asked = {question["confirmation"]: id_ for id_, question in _asked(requests)}
    results = DeferredToolResults(approvals=dict.fromkeys(asked.values(), True))
    for given in answers:
        named = hosts.meant(given)
        if named in asked:
            results.metadata[asked[named]] = {"answer": given}
        else:  # it is for nothing that is asked here, and that is written down
            hosts.take(run, "", given)
    return results


def _asked(requests: DeferredToolRequests) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in requests.approvals:
        question = requests.metadata.get(one.tool_call_id)
        if question is not None and set(question) >= _QUESTION:
            yield one.tool_call_id, question


# -- at start-up -----------------------------------------------------------------------------


def audit(tools: Any) -> list[Problem]:
    """Return which tools of an agent, or of a list, are not guarded.

    Toolsets that are not made of functions are among them: what they hold is known when a
    model is called. So are tools that a provider runs, then; both expose the run.
    """
    return hosts.judge(_callables(tools))


def refuse_unguarded(tools: Any) -> None:
    """Refuse an agent, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(tools))


def _offered(ctx: RunContext[Any], request: Any) -> list[Problem]:
    """Return which tools that a model is offered now are not guarded."""
    native = request.model_request_parameters.native_tools
    hosted = [(str(getattr(one, "kind", type(one).__name__)), one) for one in native]
    manager = ctx.tool_manager
    return hosts.judge([*(() if manager is None else _callables([manager.toolset])), *hosted])


def _callables(tools: Any) -> Iterator[tuple[Any, ...]]:
    for one in tools.toolsets if isinstance(tools, Agent) else tools:
        if isinstance(one, AbstractToolset):
            leaves: list[Any] = []
            one.apply(leaves.append)
            for leaf in leaves:
                yield from _held(leaf)
        elif isinstance(one, Tool):
            yield one.name, _function_of(one), partial(_arguments, one)
        else:
            yield hosts.name_of(one), one


def _held(toolset: Any) -> Iterator[tuple[Any, ...]]:
    """Return the functions of a toolset, or itself if it is not one of functions."""
    if isinstance(toolset, FunctionToolset) and (
        type(toolset).call_tool is FunctionToolset.call_tool
    ):
        tools = toolset.tools.items()
        yield from ((name, _function_of(one), partial(_arguments, one)) for name, one in tools)
    elif toolset.id != "<output>":  # the framework's own: how a model says what comes out
        yield toolset.label, toolset


def _arguments(tool: Tool[Any]) -> Collection[str]:
    """Return the names of the arguments that a model is shown."""
    names: Collection[str] = tool.function_schema.json_schema.get("properties", {})
    return names


def _function_of(tool: Tool[Any]) -> Any:
    """Return what a call of *tool* runs."""
    function = tool.function_schema.function
    return function.function if type(function) is _Adopted else function


# -- tools that are not ours -----------------------------------------------------------------


_CONTEXT = "checkrein_context"


@final
class _Adopted:
    """Calls a guarded function by the names that a tool's schema gives."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    async def __call__(self, ctx: RunContext[Any], /, **arguments: Any) -> Any:
        named = {**arguments, _CONTEXT: ctx}
        try:
            return await self.function(**named)
        except MisuseError as error:
            if fits(self.function, named):
                raise
            raise ModelRetry(str(error)) from None  # as the framework does with its own tools


def adopt(
    tool: Tool[Any],
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> Tool[Any]:
    """Return a ready-made tool with a guard in front: same name, description and schema.

    Args:
        tool: the tool.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    if not isinstance(tool, Tool):
        raise MisuseError("adopt(tool, ...) takes a Tool; decorate functions of your own")

    schema = tool.function_schema

    async def call(arguments: dict[str, Any]) -> Any:
        ctx = arguments.pop(_CONTEXT)
        try:
            checked = schema.validator.validate_python(arguments)
        except ValidationError:
            raise ModelRetry("the arguments do not fit the tool's schema") from None
        if tool.args_validator is not None:
            found: Any = tool.args_validator(ctx, **checked)
            if inspect.isawaitable(found):
                await found
        return await schema.call(checked, ctx)

    function = adopted(
        call,
        guard,
        name=tool.name,
        description=tool.description or "",
        schema=schema.json_schema,
        untrusted=untrusted,
        injected=(_CONTEXT,),
        result=result,
    )
    made = Tool.from_schema(
        _Adopted(function), tool.name, tool.description, schema.json_schema, takes_ctx=True
    )
    made.function_schema.return_schema = schema.return_schema
    found = copy(tool)  # with all else that was said about it
    found.function, found.function_schema = made.function, made.function_schema
    found.takes_ctx, found.args_validator = True, None
    return found

"""Google's Agent Development Kit: a plugin, an audit, guards for ready-made tools.

::

    app = App(name="desk", root_agent=agent, plugins=[Guard()])
    runner = Runner(app=app, session_service=service)
    refuse_unguarded(agent)
    with talks.run(session.id, agent="clerk", grant=grant, log=log):
        async for event in runner.run_async(user_id=..., session_id=session.id, new_message=...):
            ...

A call that a person has to confirm ends the invocation with the framework's own request, a call of
``adk_request_confirmation``. :func:`questions` finds the questions in the events; a message made
by :func:`reply` goes on, in this process or in another one. Whoever may post a message can
answer: the framework knows no approvers, the run's ``approvers`` do.

The framework takes an answer once. One that does not count leaves the call undone, and the model
is told so; if that makes the call again, the question comes anew.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (the framework is not installed where types are checked)
from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from checkrein.errors import Denied, MisuseError, Suspended
from checkrein.frames import spec_of
from checkrein.guards import frame_for
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted
from checkrein.integrations.hosts import Problem, answer
from checkrein.mediation import register_control_flow
from checkrein.ports import ACTIVE
from checkrein.untrusted import Untrusted
from checkrein.waiting import off_loop

try:
    from google.adk.plugins.base_plugin import BasePlugin
    from google.adk.tools.base_tool import BaseTool
    from google.adk.tools.function_tool import FunctionTool
    from google.adk.tools.long_running_tool import LongRunningFunctionTool
    from google.adk.tools.transfer_to_agent_tool import TransferToAgentTool
    from google.adk.workflow._errors import NodeInterruptedError
    from google.genai import types
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.google_adk needs Google ADK: pip install 'checkrein[google_adk]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["Guard", "adopt", "answer", "audit", "questions", "refuse_unguarded", "reply"]

register_control_flow(NodeInterruptedError)  # how a node of a workflow pauses

_VERSION: Final = hosts.installed("google-adk")
_REQUEST: Final = "adk_request_confirmation"


class Guard(BasePlugin):
    """Plugin that puts a run in force, says no to the model, asks people, and keeps a record.

    Put it first in ``plugins=``: an error that another plugin has answered is not shown to it.

    Args:
        run: the run, for where the context does not carry one; the active one serves otherwise.
        abort: let ``Denied`` end the invocation, instead of telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Example:
        >>> app = App(name="desk", root_agent=agent, plugins=[Guard()])  # doctest: +SKIP
    """

    def __init__(self, run: Run | None = None, *, abort: bool = False, texts: bool = False) -> None:
        super().__init__(name="checkrein")
        self._run, self._abort, self._texts = run, abort, texts
        self._posted: dict[str, list[Any]] = {}  # answers in the message that began an invocation

    async def on_user_message_callback(self, *, invocation_context: Any, user_message: Any) -> None:
        """Note which answers are given now: one that was in the session already is nobody's."""
        answered = (one.function_response for one in user_message.parts or ())
        given = [
            (one.response or {}).get("payload")
            for one in answered
            if one is not None and one.name == _REQUEST
        ]
        if given:
            self._posted[invocation_context.invocation_id] = given

    async def after_run_callback(self, *, invocation_context: Any) -> None:
        """Forget them."""
        self._posted.pop(invocation_context.invocation_id, None)

    # -- tools -----------------------------------------------------------------------------

    async def before_tool_callback(
        self, *, tool: Any, tool_args: Any, tool_context: Any
    ) -> dict[str, Any] | None:
        """Put the run in force for one call, which is a task of its own; take an answer."""
        try:
            if self._run is not None:
                ACTIVE.set(frame_for(self._run))
        except Denied as no:
            return self._told(no)
        run, given = hosts.current(self._run), tool_context.tool_confirmation
        posted = self._posted.get(tool_context.invocation_id, ())
        if run is not None and given is not None and given.payload in posted:
            await off_loop(partial(_take, run, given))
        return None  # the framework makes the call, and the guard decides

    async def on_tool_error_callback(
        self, *, tool: Any, tool_args: Any, tool_context: Any, error: Exception
    ) -> dict[str, Any] | None:
        """Say no in the framework's way, or ask; any other error is not ours."""
        if isinstance(error, Suspended) and tool_context.tool_confirmation is None:
            run = hosts.current(self._run)
            try:
                if run is None:
                    raise error
                shown = await off_loop(partial(hosts.question, run, error))
            except Suspended:
                return None if self._abort else self._told(error)  # its question is on no desk
            tool_context.request_confirmation(hint=hosts.tell(error), payload=shown)
            tool_context.actions.skip_summarization = True
            return {"error": hosts.tell(error)}
        if isinstance(error, Denied | Suspended) and not self._abort:
            return self._told(error)
        return None

    async def after_tool_callback(
        self, *, tool: Any, tool_args: Any, tool_context: Any, result: Any
    ) -> dict[str, Any] | None:
        """Give the framework text for untrusted content: it compares results, and keeps them."""
        shown = _rendered(result)
        if shown is result:
            return None
        return shown if isinstance(shown, dict) else {"result": shown}

    def _told(self, no: Denied | Suspended) -> dict[str, Any]:
        if self._abort:
            raise no
        return {"error": hosts.tell(no)}

    # -- the model -------------------------------------------------------------------------

    async def before_model_callback(self, *, callback_context: Any, llm_request: Any) -> None:
        """Take in what the model is given."""
        run = hosts.current(self._run)
        if run is None:
            return
        session = callback_context.session.id
        run.hosted("google_adk", _VERSION, session_id=session, agent=callback_context.agent_name)
        # The framework makes another agent's words the user's, so the session is looked at, too.
        history = any(one.author != "user" for one in callback_context.session.events) or any(
            one.role == "model" or any(part.function_response for part in one.parts or ())
            for one in llm_request.contents
        )
        hosts.begin(run, session, history=history)
        hosts.expose_unguarded(run, hosts.judge(_offered(llm_request)))
        system = llm_request.config.system_instruction
        prompt = [str(system or ""), *llm_request.contents]
        run.heard("prompt", hosts.text_of(prompt), keep=self._texts)

    async def after_model_callback(self, *, callback_context: Any, llm_response: Any) -> None:
        """Take in what the model has said; pieces of a stream come again as a whole."""
        run = hosts.current(self._run)
        if run is not None and not llm_response.partial:
            run.heard("output", hosts.text_of(llm_response.content), keep=self._texts)


def _rendered(result: Any) -> Any:
    """Return a result with its untrusted parts as text, *result* itself if there are none."""
    if isinstance(result, Untrusted):
        return str(result)
    if isinstance(result, dict):
        pairs = {name: _rendered(one) for name, one in result.items()}
        return pairs if any(pairs[name] is not result[name] for name in result) else result
    if isinstance(result, list | tuple):
        items = [_rendered(one) for one in result]
        return (
            items if any(one is not old for one, old in zip(items, result, strict=True)) else result
        )
    return result


def _take(run: Run, given: Any) -> None:
    """Lay an answer on the desk: the payload of a confirmation that does not contradict it."""
    tree = given.payload if isinstance(given.payload, Mapping) else {}
    fits = bool(given.confirmed) == (tree.get("approved") is True)
    hosts.take(run, hosts.meant(tree), tree if fits else None)


# -- people --------------------------------------------------------------------------------


def questions(events: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """Return the questions that events of a session leave open, by the id of the request."""
    asked: dict[str, dict[str, Any]] = {}
    for event in events:
        for call in event.get_function_calls():
            shown = (call.args or {}).get("toolConfirmation", {}).get("payload")
            if call.name == _REQUEST and isinstance(shown, dict) and "confirmation" in shown:
                asked[call.id] = shown
        for response in event.get_function_responses():
            asked.pop(response.id, None)
    return asked


def reply(answers: Mapping[str, Mapping[str, Any]]) -> types.Content:
    """Return the message that goes on with a session.

    Args:
        answers: by the id of the request, as in :func:`questions`; each an :func:`answer`.
    """
    parts = [
        types.Part(
            function_response=types.FunctionResponse(
                id=request,
                name=_REQUEST,
                response={"confirmed": given.get("approved") is True, "payload": dict(given)},
            )
        )
        for request, given in answers.items()
    ]
    return types.Content(role="user", parts=parts)


# -- at start-up ---------------------------------------------------------------------------


def audit(agent_or_tools: Any) -> list[Problem]:
    """Return which tools of an agent and of those below it, or of a list, are not guarded.

    A toolset is named as a whole: what is in it is known when the model is called, and is
    judged then. An agent that is used as a tool is named, too.
    """
    return hosts.judge(_registered(agent_or_tools))


def refuse_unguarded(agent_or_tools: Any) -> None:
    """Refuse an agent, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(agent_or_tools))


def _registered(agent_or_tools: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(agent_or_tools, "sub_agents", None)
    if below is None:
        yield from (_callable(one) for one in agent_or_tools)
        return
    yield from (_callable(one) for one in getattr(agent_or_tools, "tools", ()))
    executor = getattr(agent_or_tools, "code_executor", None)
    if executor is not None:  # runs what a model has written
        yield "code_executor", executor
    for one in below:
        yield from _registered(one)


def _arguments(tool: Any) -> Collection[str]:
    """Return the names of the arguments that a model is shown."""
    shown = tool._get_declaration()  # noqa: SLF001 (nothing public says it)
    if shown is None:
        return ()
    if shown.parameters_json_schema is not None:
        return tuple(shown.parameters_json_schema.get("properties", {}))
    return () if shown.parameters is None else tuple(shown.parameters.properties or ())


def _callable(tool: Any) -> tuple[Any, ...]:
    """Return what a call of *tool* runs; of tools that we do not know, the tool itself."""
    if type(tool) in {FunctionTool, LongRunningFunctionTool, _Adopted}:
        return tool.name, tool.func, partial(_arguments, tool)
    if spec_of(tool) is not None:  # the framework makes a tool of it when the model is called
        return hosts.name_of(tool), tool, lambda: _arguments(FunctionTool(tool))
    return hosts.name_of(tool), tool


def _offered(request: Any) -> Iterator[tuple[str, Any]]:
    """Return what a model may call, tools among it that the provider runs."""
    steering = {TransferToAgentTool}  # the framework's own: it returns nothing
    tools = (one for one in request.tools_dict.values() if type(one) not in steering)
    yield from (_callable(one) for one in tools)
    for one in request.config.tools or ():
        known = one.model_dump(exclude_none=True) if isinstance(one, types.Tool) else {"tool": one}
        yield from ((name, one) for name in known if name != "function_declarations")


# -- tools that are not ours -----------------------------------------------------------------


class _Adopted(FunctionTool):
    """A guarded function that is shown to the model as the tool that it calls."""

    def __init__(self, guarded: Any, tool: Any) -> None:
        super().__init__(guarded)
        self._shown = tool
        self.description = tool.description

    def _get_declaration(self) -> Any:
        return self._shown._get_declaration()  # noqa: SLF001 (the framework's own hook)


def adopt(
    tool: BaseTool,
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> FunctionTool:
    """Return a ready-made tool with a guard in front: same name, description and schema.

    Args:
        tool: the tool, one that has a declaration; of a toolset, what ``get_tools`` returns.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    shown = tool._get_declaration() if isinstance(tool, BaseTool) else None  # noqa: SLF001
    if shown is None:
        raise MisuseError("adopt(tool, ...) takes an ADK tool that has a declaration")

    async def call(arguments: dict[str, Any]) -> Any:
        context = arguments.pop("tool_context")
        return await tool.run_async(args=arguments, tool_context=context)

    guarded = adopted(
        call,
        guard,
        name=tool.name,
        description=tool.description,
        schema=_schema(shown),
        untrusted=untrusted,
        injected=["tool_context"],
        result=result,
    )
    return _Adopted(guarded, tool)


def _schema(declaration: Any) -> dict[str, Any]:
    """Return the JSON schema of a declaration, whichever of its two forms that has."""
    if declaration.parameters_json_schema is not None:
        return dict(declaration.parameters_json_schema)
    if declaration.parameters is None:
        return {}
    return dict(_lowered(declaration.parameters.model_dump(mode="json", exclude_none=True)))


def _lowered(tree: Any) -> Any:
    """Return a schema of the provider's with the names of types in JSON schema's spelling."""
    if isinstance(tree, list):
        return [_lowered(one) for one in tree]
    if not isinstance(tree, dict):
        return tree
    spelt = {"any_of": "anyOf"}
    return {
        spelt.get(name, name): one.lower()
        if name == "type" and isinstance(one, str)
        else _lowered(one)
        for name, one in tree.items()
    }

"""The Claude Agent SDK: guarded functions as its tools, a pause by ``defer``, an audit.

::

    guard = Guard([read_inbox, send_email])
    options = guard.options(ClaudeAgentOptions(tools=[], strict_mcp_config=True))
    refuse_unguarded(options)
    with talks.run("thread-7", agent="clerk", grant=grant, log=log):
        async for message in guard.follow(query(prompt="...", options=options)):
            if isinstance(message, ResultMessage):
                session, asked = message.session_id, await guard.questions(message)

A call that a person has to confirm is deferred: the result message has it, and the SDK's
session ends there. The SDK decides about that before the call, in a hook, so it is foreseen
there (:mod:`checkrein.integrations.foresight`), and decided anew when the call is made. Later,
in this process or in another one::

    with talks.run("thread-7", agent="clerk", grant=grant, log=log):
        await guard.take(answer(asked[0], True, by="dana"))
        options = guard.options(ClaudeAgentOptions(resume=session, ...))
        async with ClaudeSDKClient(options) as client:
            async for message in guard.follow(client.receive_response()): ...

The deferred call is made first, and then the model goes on. The hook says "defer" or nothing: if it
fails, the call is made, and the guard decides.
"""

# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, final
from weakref import WeakKeyDictionary

from pydantic import TypeAdapter
from pydantic_core import to_json

from checkrein.errors import (
    ConfigurationError,
    Denied,
    MisuseError,
    Suspended,
)
from checkrein.frames import spec_of
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted
from checkrein.integrations.foresight import foresee
from checkrein.integrations.hosts import Problem, answer
from checkrein.untrusted import Untrusted
from checkrein.waiting import off_loop

try:
    from claude_agent_sdk import (
        AssistantMessage,
        ClaudeAgentOptions,
        HookMatcher,
        ResultMessage,
        SdkMcpTool,
        ToolAnnotations,
        UserMessage,
        create_sdk_mcp_server,
    )
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.claude_agent_sdk needs the Claude Agent SDK: "
        "pip install 'checkrein[claude_agent_sdk]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["Guard", "adopt", "answer", "audit", "refuse_unguarded"]

_VERSION = hosts.installed("claude-agent-sdk")
_SERVERS: WeakKeyDictionary[Any, list[tuple[str, Any]]] = WeakKeyDictionary()


@final
class Guard:
    """Serves tools to one agent, puts a run in force around calls, pauses, and keeps a record.

    One conversation at a time; for several at once make several.

    Args:
        tools: guarded functions, ``async`` or not, and the SDK's ``@tool``s above a guard.
        run: the run, for where the context does not carry one; the active one serves otherwise.
        name: of the server that the tools are on; a model sees ``mcp__<name>__<tool>``.
        abort: let ``Denied`` end the conversation, and come out of :meth:`follow`, instead of
            telling it to the model.
        texts: keep the text of prompts and outputs in the log, not only digests.

    Raises:
        ConfigurationError: a tool wants something injected; this SDK injects nothing.

    Example:
        >>> guard = Guard([read_inbox, send_email])  # doctest: +SKIP
    """

    def __init__(
        self,
        tools: Sequence[Any],
        run: Run | None = None,
        *,
        name: str = "tools",
        abort: bool = False,
        texts: bool = False,
    ) -> None:
        self._run, self._name, self._abort, self._texts = run, name, abort, texts
        self._tools = {one.name: one for one in map(_tool_of, tools)}
        self._problems: list[Problem] = []
        self._said: list[Any] = []
        self._deferred = self._goes_on = False
        self._denied: Denied | Suspended | None = None

    def options(self, options: ClaudeAgentOptions | None = None) -> ClaudeAgentOptions:
        """Return a copy of *options* with the tools, and with hooks beside those it has.

        Guarded tools are in its ``allowed_tools``, unless it has a ``can_use_tool`` that wants to
        be asked as well.

        Raises:
            ConfigurationError: its servers are in a file, or one of them has the name.
        """
        chosen: Any = options or ClaudeAgentOptions()
        servers = chosen.mcp_servers
        if not isinstance(servers, dict) or self._name in servers:
            raise ConfigurationError(
                f"mcp_servers= has to be a dict, without {self._name!r} in it: "
                "another name can be given to Guard(name=...)"
            )
        served = [dataclasses.replace(one, handler=self._serving(one)) for one in self._all]
        server = create_sdk_mcp_server(self._name, tools=served)
        _SERVERS[server["instance"]] = [*map(_callable_of, self._all)]
        ours = [self._wire(one.name) for one in self._all if _call_of(one) is not None]
        hooks = {
            "UserPromptSubmit": self._on_prompt,
            "PreToolUse": self._on_call,
            "PostToolUse": self._on_result,
        }
        known: dict[Any, Any] = dict(chosen.hooks or {})
        made = dataclasses.replace(
            chosen,
            mcp_servers={**servers, self._name: server},
            allowed_tools=[
                *chosen.allowed_tools,
                *(ours if chosen.can_use_tool is None else ()),
            ],
            hooks=known
            | {
                event: [*known.get(event, ()), HookMatcher(hooks=[hook])]
                for event, hook in hooks.items()
            },
        )
        self._problems, self._deferred = audit(made), False
        self._said, self._denied = [], None  # what a conversation before has left
        self._goes_on = bool(made.resume or made.continue_conversation)
        return made

    # -- tools -----------------------------------------------------------------------------

    @property
    def _all(self) -> list[Any]:
        return list(self._tools.values())

    def _wire(self, name: str) -> str:
        return f"mcp__{self._name}__{name}"

    def _serving(self, tool: Any) -> Callable[[dict[str, Any]], Any]:
        call = _call_of(tool) or tool.handler

        async def serve(given: dict[str, Any]) -> dict[str, Any]:
            try:
                with hosts.active(self._run):
                    result: dict[str, Any] = await call(given)
                    return result
            except (Denied, Suspended) as no:
                told = {"content": [{"type": "text", "text": hosts.tell(no)}]}
                if self._abort:  # the CLI can be stopped after a result, not after an error
                    self._denied = no
                    return told
                return {**told, "is_error": True}

        return serve

    async def _question(self, name: str, given: Any) -> dict[str, Any] | None:
        """Return the question that a call waits for, ``None`` if it does not wait."""
        prefix = self._wire("")
        tool = self._tools.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        call = None if tool is None else _call_of(tool)
        if call is None or not isinstance(given, Mapping):
            return None
        with hosts.active(self._run) as run:
            args, kwargs = call.arguments(given)
            return await off_loop(partial(foresee, run, call.function, args, kwargs))

    async def questions(self, result: ResultMessage) -> list[dict[str, Any]]:
        """Return what a conversation waits for, while its run is in force: a question, or none."""
        one = result.deferred_tool_use
        asked = None if one is None else await self._question(one.name, one.input)
        return [] if asked is None else [asked]

    async def take(self, given: Mapping[str, Any]) -> str:
        """Take an answer; return why it does not count, ``""`` if it does.

        Args:
            given: made by ``answer``, from the question.

        Raises:
            MisuseError: no run is active.
        """
        run = hosts.current(self._run)
        if run is None:
            raise MisuseError("take(answer) is called where the run is active")
        return await off_loop(partial(hosts.take, run, None, given))

    # -- hooks -----------------------------------------------------------------------------

    async def _on_call(self, given: Any, _: Any, __: Any) -> dict[str, Any]:
        try:
            self._begin(given)
            run, name = hosts.current(self._run), given["tool_name"]
            asked = await self._question(name, given["tool_input"])
            if run is not None and not self._guards(name):
                run.expose(f"unguarded tool {name}")
        except Exception:  # noqa: BLE001 (a hook that fails says nothing; the call is decided)
            return {}
        if asked is None or self._deferred:  # the CLI would forget all but one
            return {}
        self._deferred = True
        said = {"hookEventName": "PreToolUse", "permissionDecision": "defer"}
        return {"hookSpecificOutput": said}

    def _guards(self, name: str) -> bool:
        if name == "StructuredOutput":  # the CLI's own: it takes the model's words, no more
            return True
        return any(name == self._wire(one.name) and _call_of(one) is not None for one in self._all)

    async def _on_prompt(self, given: Any, _: Any, __: Any) -> dict[str, Any]:
        self._begin(given)
        self._deferred = False
        self._said.append({"role": "user", "content": given["prompt"]})
        return {}

    async def _on_result(self, _: Any, __: Any, ___: Any) -> dict[str, Any]:
        if self._denied is None:
            return {}
        return {"continue_": False, "stopReason": hosts.tell(self._denied)}

    def _begin(self, given: Any) -> None:
        run = hosts.current(self._run)
        if run is not None:
            session = given["session_id"]
            run.hosted("claude_agent_sdk", _VERSION, session=session)
            hosts.begin(
                run, session, history=_has_history(given["transcript_path"], missing=self._goes_on)
            )
            hosts.expose_unguarded(run, self._problems)

    # -- messages --------------------------------------------------------------------------

    async def follow(self, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Pass on the SDK's messages, and keep a record of prompts and outputs.

        Args:
            messages: of ``query(...)`` or ``client.receive_response()``.

        Raises:
            Denied: a call was, with ``abort=True``.
            Suspended: a call waits for a person, with ``abort=True``.
        """
        answer: list[Any] = []
        async for message in messages:
            if answer and (type(message) is not AssistantMessage or _other(answer[-1], message)):
                self._heard(answer)
                answer = []
            if type(message) is AssistantMessage:
                answer.append(message)
            elif type(message) is UserMessage:
                self._said.append({"role": "user", "content": message.content})
            elif type(message) is ResultMessage and self._denied is not None:
                continue  # who reads messages may stop at this one
            yield message
        if answer:
            self._heard(answer)
        denied, self._denied = self._denied, None
        if denied is not None:
            raise denied

    def _heard(self, answer: list[Any]) -> None:
        """Write down what the model was told, as far as it is seen here, and what it said."""
        said = {"role": "assistant", "content": [block for one in answer for block in one.content]}
        run = hosts.current(self._run)
        if run is not None:
            run.heard("prompt", hosts.text_of(self._said), keep=self._texts)
            run.heard("output", hosts.text_of(said), keep=self._texts)
        self._said.append(said)


def _other(one: Any, message: Any) -> bool:
    """Say whether two messages are of two answers: one comes in pieces."""
    return one.message_id is None or one.message_id != message.message_id


def _has_history(path: str, *, missing: bool) -> bool:
    """Say whether a session's transcript holds anything that a model or a tool has said.

    Where there is none yet, *missing* says so: a session has just begun, or is a copy of one.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return any('"assistant"' in line or '"tool_result"' in line for line in file)
    except FileNotFoundError:
        return missing
    except (OSError, ValueError):
        return True


# -- calls -----------------------------------------------------------------------------------


@final
class _Call:
    """Makes the calls of one guarded function, given arguments as the SDK gives them: a dict."""

    def __init__(self, function: Callable[..., Any], *, named: bool) -> None:
        self.function, self._named = function, named

    def arguments(self, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional arguments, and arguments by name."""
        return ((), dict(given)) if self._named else ((dict(given),), {})

    async def __call__(self, given: Mapping[str, Any]) -> dict[str, Any]:
        args, kwargs = self.arguments(given)
        call = partial(self.function, *args, **kwargs)
        result = await (call() if inspect.iscoroutinefunction(self.function) else off_loop(call))
        if not self._named and isinstance(result, dict) and "content" in result:
            blocks: dict[str, Any] = json.loads(to_json(result, fallback=str))  # fenced text
            return blocks
        text = result if isinstance(result, str) else _rendered(result)
        return {"content": [{"type": "text", "text": text}]}


def _rendered(result: Any) -> str:
    """Return a result as the text that the model reads."""
    if isinstance(result, Untrusted):
        return str(result)
    return to_json(result, fallback=str, inf_nan_mode="strings", bytes_mode="base64").decode()


def _call_of(tool: Any) -> _Call | None:
    """Return what makes the calls of a guarded tool, ``None`` for any other one."""
    if isinstance(tool.handler, _Call):
        return tool.handler if spec_of(tool.handler.function) is not None else None
    return None if spec_of(tool.handler) is None else _Call(tool.handler, named=False)


def _callable_of(tool: Any) -> tuple[str, Any]:
    """Return the name of a tool, and what a call of it runs."""
    if not isinstance(tool, SdkMcpTool):
        return hosts.name_of(tool), tool
    one = tool.handler
    return tool.name, one.function if isinstance(one, _Call) else one


def _tool_of(one: Any) -> Any:
    """Return the SDK's tool for a function: its schema is that of the function's arguments."""
    if isinstance(one, SdkMcpTool):
        return one
    spec = spec_of(one)
    if spec is not None and any(each.injected for each in spec.facts.parameters):
        raise ConfigurationError(f"{spec.facts.name}: nothing is injected by this SDK")
    schema = TypeAdapter(one).json_schema()
    for each in schema.get("properties", {}).values():
        each.pop("title", None)  # the name once more
    reads = spec is not None and spec.facts.reads
    return SdkMcpTool(
        name=one.__name__,
        description=inspect.getdoc(one) or "",
        input_schema=schema,
        handler=_Call(one, named=True),
        annotations=ToolAnnotations(readOnlyHint=True) if reads else None,
    )


# -- at start-up -----------------------------------------------------------------------------


def audit(tools: Any) -> list[Problem]:
    """Return which tools of options, or of a list, are not guarded.

    Of options the built-in tools are among them, servers that a :class:`Guard` has not made, what
    plugins may bring, and what the CLI may read from settings.
    """
    if not isinstance(tools, ClaudeAgentOptions):
        return hosts.judge(map(_callable_of, tools))
    return [*hosts.judge(_served(tools)), *_elsewhere(tools)]


def refuse_unguarded(tools: Any) -> None:
    """Refuse options, or a list of tools, of which one is not guarded.

    Raises:
        ConfigurationError: it lists them all.
    """
    hosts.refuse(audit(tools))


def _served(options: ClaudeAgentOptions) -> Iterator[tuple[str, Any]]:
    servers = options.mcp_servers if isinstance(options.mcp_servers, dict) else {}
    for one in servers.values():
        instance = one.get("instance")
        yield from _SERVERS.get(instance, ()) if instance is not None else ()


def _elsewhere(options: ClaudeAgentOptions) -> Iterator[Problem]:
    """Return what no guard of ours can stand before."""
    builtin = options.tools if isinstance(options.tools, list) else ["the built-in tools"]
    for name in builtin:
        yield Problem(name, "runs in the CLI, unguarded: leave it out of tools=")
    servers = options.mcp_servers
    if not isinstance(servers, dict):
        yield Problem("the servers in mcp_servers=", "are not guarded: give a dict")
        servers = {}
    for name, one in servers.items():
        if one.get("instance") is None or one["instance"] not in _SERVERS:
            yield Problem(f"MCP server {name}", "is not guarded: hand its tools to Guard([...])")
    if not options.strict_mcp_config:
        yield Problem("MCP servers of settings", "are unknown here: say strict_mcp_config=True")
    for name in sorted({"mcp-config", "tools", "plugin-dir", "agents"} & set(options.extra_args)):
        yield Problem(
            f"--{name}", "may bring tools that nobody guards: leave it out of extra_args="
        )
    if options.plugins:
        yield Problem("plugins", "may bring tools that nobody guards: leave them out")


# -- tools that are not ours -----------------------------------------------------------------


def adopt(
    tool: SdkMcpTool[Any],
    guard: Decorator,
    *,
    untrusted: Collection[str] = (),
    result: Any = Untrusted[Any],
) -> SdkMcpTool[Any]:
    """Return a ready-made tool with a guard in front: same name, description and schema.

    Args:
        tool: the tool. Of what it returns the text comes back, or all of it as JSON if there is
            none; that it calls this an error is lost.
        guard: ``irreversible("mail.send", external=True)`` for example.
        untrusted: the parameters that take untrusted content.
        result: the type of the result, for the guard; see
            :func:`~checkrein.integrations.adoption.adopted`.

    Raises:
        MisuseError: *tool* is none, or *guard* no decorator of ours.
    """
    if not isinstance(tool, SdkMcpTool):
        raise MisuseError("adopt(tool, ...) takes an SdkMcpTool; decorate functions of your own")

    async def call(arguments: dict[str, Any]) -> Any:
        given = await tool.handler(arguments)
        blocks = given.get("content", ())
        texts = [one["text"] for one in blocks if one.get("type") == "text"]
        return "\n".join(texts) if len(texts) == len(blocks) else given

    function = adopted(
        call,
        guard,
        name=tool.name,
        description=tool.description,
        schema=_schema(tool.input_schema),
        untrusted=untrusted,
        result=result,
    )
    return dataclasses.replace(tool, handler=_Call(function, named=True))


def _schema(given: Any) -> dict[str, Any]:
    """Return a tool's schema as JSON schema: it may be one, types by name, or a ``TypedDict``."""
    if not isinstance(given, dict):
        return TypeAdapter(given).json_schema()
    if "properties" in given and isinstance(given.get("type"), str):
        return given
    properties = {name: TypeAdapter(one).json_schema() for name, one in given.items()}
    return {"type": "object", "properties": properties, "required": list(properties)}

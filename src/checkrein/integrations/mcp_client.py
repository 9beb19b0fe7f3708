"""Tools of an MCP server that is not ours, guarded in the client.

::

    async with Client(server) as client:
        session = GuardedSession(client, {"send": Policy(irreversible("mail.send"), pinned=PIN)})
        await session.call_tool("send", {"to": "dana@acme.example"})

* The facts are declared here, by name; a tool that no policy names is not there. The server's
  annotations may only tighten: a guard that is milder than what the server says of the
  tool is refused; what it says in its favour is not read.
* The definition, all that the server sends about the tool, is pinned by its :func:`fingerprint`.
  What a server does behind an unchanged definition is its own affair.
* All that comes back is untrusted content, errors too.
"""

# pyright: reportMissingImports=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from checkrein.errors import (
    ConfigurationError,
    Denied,
    InDoubt,
    MisuseError,
    Suspended,
    TamperedError,
)
from checkrein.facts import Effect
from checkrein.frames import spec_of
from checkrein.integrations import hosts
from checkrein.integrations.adoption import Decorator, adopted, spelt
from checkrein.integrations.hosts import Problem
from checkrein.untrusted import Untrusted
from checkrein.visible import visible

try:
    from mcp.shared.exceptions import MCPError
    from mcp.types import (
        CONNECTION_CLOSED,
        REQUEST_TIMEOUT,
        AudioContent,
        CallToolResult,
        ImageContent,
        ListToolsResult,
        TextContent,
        Tool,
    )
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.mcp_client needs the MCP SDK: pip install 'checkrein[mcp]'"
    ) from missing

from checkrein.integrations.mcp import hints_of, told

if TYPE_CHECKING:
    from checkrein.facts import ToolFacts

__all__ = ["GuardedSession", "Policy", "adopt", "fingerprint"]

Progress = Callable[[float, float | None], Awaitable[None]]

_MOST_PAGES: Final = 100
_IN_DOUBT: Final = (CONNECTION_CLOSED, REQUEST_TIMEOUT)


def fingerprint(tool: Tool) -> str:
    """Return the SHA-256, in hexadecimal, of a tool's definition as the server sent it.

    It covers the canonical JSON (sorted keys, no spaces, ASCII) of all fields that are not null.

    Args:
        tool: from ``list_tools``.
    """
    text = json.dumps(_sent(tool), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sent(one: Any) -> Any:
    return one.model_dump(mode="json", by_alias=True, exclude_none=True)


# -- one tool ------------------------------------------------------------------------------


def adopt(
    client: Any, tool: Tool, guard: Decorator, *, pinned: str, untrusted: Collection[str] = ()
) -> Callable[..., Any]:
    """Return a guarded coroutine function that calls a tool of a server.

    Args:
        client: the SDK's ``Client`` or ``ClientSession``, connected when the tool is called.
        tool: the definition, from ``list_tools``.
        guard: ``irreversible("mail.send", external=True)`` for example.
        pinned: the :func:`fingerprint` of the definition that somebody has reviewed.
        untrusted: the parameters that take untrusted content.

    Raises:
        TamperedError: the definition is not the pinned one.
        ConfigurationError: the server says worse of the tool than *guard* does.
        MisuseError: *tool* is no tool, or *guard* no decorator of ours.
    """
    policy = Policy(guard, pinned, untrusted)

    async def call(arguments: dict[str, Any]) -> Any:
        return _sent(await _answer(client, tool.name, arguments))

    return _guarded(call, tool, policy)


async def _answer(client: Any, name: str, arguments: dict[str, Any], **more: Any) -> CallToolResult:
    """Return what a server answers to a call. An error of the protocol is its words as well.

    So is what the client says of an answer that does not fit its schema: it quotes that.

    Raises:
        InDoubt: it does not answer.
    """
    try:
        found: CallToolResult = await client.call_tool(name, arguments, **more)
    except MCPError as error:
        if error.code in _IN_DOUBT:
            raise InDoubt("the server did not answer; it may have done it") from None
        return _error(error.message)
    except (RuntimeError, ValueError) as error:
        return _error(str(error))
    return found


def _error(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _guarded(
    call: Callable[[dict[str, Any]], Any], tool: Tool, policy: Policy
) -> Callable[..., Any]:
    if not isinstance(tool, Tool):
        raise MisuseError("adopt(client, tool, ...) takes a tool from list_tools()")
    _check_pin(tool, policy)
    sent = _sent(tool)
    guarded = adopted(
        call,
        policy.guard,
        name=tool.name,
        description=tool.description or "",
        schema=sent["inputSchema"],
        untrusted=policy.untrusted,
        result=Untrusted[Any],
        renamed=True,
    )
    _tighten(_facts(guarded), sent.get("annotations", {}))
    return guarded


def _check_pin(tool: Tool, policy: Policy) -> None:
    if fingerprint(tool) != policy.pinned:
        raise TamperedError("the tool's definition is not the pinned one; review it and pin it")


def _facts(guarded: Callable[..., Any]) -> ToolFacts:
    spec = spec_of(guarded)
    if spec is None:  # adopted() has seen to it
        raise MisuseError("a policy takes reads(...), writes(...) or irreversible(...)")
    return spec.facts


def _tighten(facts: ToolFacts, said: dict[str, Any]) -> None:
    """Refuse a guard that is milder than the server's own words."""
    read_only, destructive = said.get("readOnlyHint"), said.get("destructiveHint")
    if facts.effect is Effect.READS and (read_only is False or destructive is True):
        raise ConfigurationError(
            "the server says that the tool changes things: reads() is too mild"
        )
    if destructive is True and facts.effect is not Effect.IRREVERSIBLE:
        raise ConfigurationError("the server says that the tool destroys: use irreversible(...)")
    if said.get("openWorldHint") is True and not facts.external:
        raise ConfigurationError("the server says that the tool reaches outside: external=True")


# -- a session -----------------------------------------------------------------------------


class Policy(NamedTuple):
    """What is declared about a tool of a server.

    Attributes:
        guard: ``irreversible("mail.send", external=True)`` for example.
        pinned: the :func:`fingerprint` of the definition that somebody has reviewed.
        untrusted: the parameters that take untrusted content.
    """

    guard: Decorator
    pinned: str
    untrusted: Collection[str] = ()


class GuardedSession:
    """The tools of a server as far as policies name them; in place of the SDK's client.

    Args:
        client: the SDK's ``Client``, connected.
        policies: what is declared, by the name of the tool.

    Attributes:
        problems: why tools that a policy names are not there, as of the last look at the server.
        offered: the names of all tools that the server had then.
        stale: the server has said that its tools have changed: they are looked at again. It
            is set to ``True`` when the server says so, and holds until a look that began later.

    Example:
        >>> session = GuardedSession(client, {"send": policy})  # doctest: +SKIP
    """

    def __init__(self, client: Any, policies: Mapping[str, Policy]) -> None:
        self._client, self._policies = client, dict(policies)
        self._tools: dict[str, tuple[Tool, Callable[..., Any]]] = {}
        self._made: dict[str, Callable[..., Any]] = {}  # by name; each for its one pinned tool
        self.problems: list[Problem] = []
        self.offered: set[str] = set()
        self._changes, self._seen = 1, 0

    @property
    def stale(self) -> bool:
        """Whether no look at the tools has begun since the server said that they had changed."""
        return self._seen < self._changes

    @stale.setter
    def stale(self, changed: bool) -> None:
        self._changes += changed

    @property
    def tools(self) -> dict[str, Tool]:
        """The definitions of the tools that are there."""
        return {name: tool for name, (tool, _) in self._tools.items()}

    @property
    def server(self) -> str:
        """What the server calls itself."""
        info = self._client.server_info
        return "" if info is None else f"{info.name} {info.version}"

    async def refresh(self) -> None:
        """Look at the server's tools; those whose definition is not the pinned one are left out."""
        as_of = self._changes
        found = {one.name: one for one in await all_tools(self._client)}
        if as_of < self._seen:  # a look that began later was faster
            return
        self._tools, self.problems, self._seen = {}, [], as_of
        self.offered = set(found)
        for name, policy in self._policies.items():
            try:
                if name not in found:
                    raise ConfigurationError("the server has no such tool")  # noqa: TRY301
                tool = found[name]
                self._tools[name] = tool, self._guarded(tool, policy)
            except (ConfigurationError, MisuseError, TamperedError) as error:
                self.problems.append(Problem(name, visible(str(error))))
            except Exception as error:  # noqa: BLE001 (the other tools have not deserved that)
                odd = f"its definition cannot be taken in ({type(error).__name__})"
                self.problems.append(Problem(name, odd))

    def _guarded(self, tool: Tool, policy: Policy) -> Callable[..., Any]:
        """Return the guarded function of a tool; a definition that is pinned needs one only."""
        if tool.name in self._made:
            _check_pin(tool, policy)
        else:
            self._made[tool.name] = _guarded(self._body(tool.name), tool, policy)
        return self._made[tool.name]

    async def list_tools(self) -> ListToolsResult:
        """Return the tools that are there, with hints that say what their guards say.

        What a server may say besides the name, the title, the description and the arguments is
        left out: icons, metadata, and the schema of a result that goes out as text.
        """
        await self.refresh()
        shown = [
            Tool(
                name=tool.name,
                title=tool.title,
                description=tool.description,
                input_schema=tool.input_schema,
                annotations=hints_of(_facts(guarded)),
            )
            for tool, guarded in self._tools.values()
        ]
        return ListToolsResult(tools=shown)

    async def call_tool(
        self, name: str, arguments: Mapping[str, Any] | None = None
    ) -> CallToolResult:
        """Call a tool. What the guard says no to is told as an error of the tool."""
        try:
            return await self.call(name, arguments)
        except (Denied, Suspended) as no:
            return told(no)

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        progress: Progress | None = None,
    ) -> CallToolResult:
        """Call a tool.

        Args:
            name: of the tool.
            arguments: by the tool's own names for them.
            progress: told how far the call is, in numbers; what the server says to them is not
                passed on.

        Raises:
            Denied: the call is not allowed, or there is no such tool.
            Suspended: it waits for a person.
        """
        if self.stale:
            await self.refresh()
        if name not in self._tools:
            run = hosts.current()
            if run is not None:
                run.missed(name)
            raise Denied("there is no tool of this name here", rule="tool.unknown")
        tool, guarded = self._tools[name]
        call = _Call(progress)
        token = _CALL.set(call)
        try:
            result = await guarded(**_by_parameter(tool, arguments or {}))
        except MisuseError as error:  # an argument that is missing or unknown
            raise Denied(str(error), rule="call.misuse", tool=name) from None
        finally:
            _CALL.reset(token)
        return call.rendered(result)

    def _body(self, name: str) -> Callable[[dict[str, Any]], Any]:
        async def body(arguments: dict[str, Any]) -> list[Any]:
            call = _CALL.get()
            if self.stale:  # somebody may have thought about the call for an hour
                await self.refresh()
            if name not in self._tools:
                raise Denied("the tool is not what it was any more", rule="tool.unknown", tool=name)
            progress = call.tell if call.progress else None
            found = await _answer(self._client, name, arguments, progress_callback=progress)
            return call.taken(found)

        return body


def _by_parameter(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments by parameter; one that belongs to none gets a name that is refused."""
    known = {name: spelt(name) for name in tool.input_schema.get("properties", {})}
    taken = set(known.values())
    made: dict[str, Any] = {}
    for name, value in arguments.items():
        other = f"{name} (unknown)" if name in taken else name
        made[known.get(name, other)] = value
    return made


async def all_tools(client: Any) -> list[Tool]:
    """Return all the tools of a server, page by page.

    Raises:
        ConfigurationError: there is no end to them.
        ConnectionError: the server does not list them; what it says instead is not passed on.
    """
    found: list[Tool] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        try:
            page = await client.list_tools(cursor=cursor, cache_mode="bypass")
        except MCPError:
            raise ConnectionError("the server does not list its tools") from None
        found += page.tools
        cursor = page.next_cursor
        if not cursor:
            return found
    raise ConfigurationError("the server's list of tools does not end")


# -- what comes back -----------------------------------------------------------------------


class _Call:
    """One call, beside its content: how far it is, and the shape of what came back.

    The content goes through the guard, which labels it; that there are two texts and an image,
    and that it is an error, is the protocol's and stays here.

    Attributes:
        progress: who is told how far it is.
    """

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self._error = False
        self._kinds: list[str] = []

    async def tell(self, done: float, total: float | None, _: str | None) -> None:
        """Pass progress on, without what the server says to it."""
        if self.progress is not None and math.isfinite(done) and math.isfinite(total or 0.0):
            await self.progress(done, total)

    def taken(self, found: CallToolResult) -> list[Any]:
        """Take in a result; return its content, a piece for each block."""
        pieces = [_piece(one) for one in found.content]
        if found.structured_content is not None and not _said(found):
            text = json.dumps(found.structured_content, ensure_ascii=False, default=str)
            pieces.append(("text", text))
        self._error, self._kinds = found.is_error, [kind for kind, _ in pieces]
        return [content for _, content in pieces]

    def rendered(self, result: Untrusted[list[Any]]) -> CallToolResult:
        """Return the result for a model: texts in fences."""
        blocks = [
            _shown(result.map(itemgetter(number)), kind) for number, kind in enumerate(self._kinds)
        ]
        return CallToolResult(content=blocks, is_error=self._error)


_CALL: Final[ContextVar[_Call]] = ContextVar("checkrein_mcp_call")


def _piece(one: Any) -> tuple[str, Any]:
    """Return the kind of a block, and what of it is content."""
    if isinstance(one, TextContent):
        return "text", one.text
    if isinstance(one, ImageContent | AudioContent) and _is_media(one):
        return one.type, {"data": one.data, "mimeType": one.mime_type}
    # a link, a resource that is inside, a text that calls itself an image: all the server's words
    return "text", json.dumps(_sent(one), ensure_ascii=False)


def _is_media(one: ImageContent | AudioContent) -> bool:
    """Say whether it is what it says; its type and its data stand outside of fences."""
    if not re.fullmatch(rf"{one.type}/[A-Za-z0-9][A-Za-z0-9.+-]{{0,31}}", one.mime_type):
        return False
    try:
        base64.b64decode(one.data, validate=True)
    except ValueError:
        return False
    return True


def _shown(piece: Untrusted[Any], kind: str) -> TextContent | ImageContent | AudioContent:
    if kind == "text":
        return TextContent(type="text", text=str(piece))
    about = piece.reveal(reason=f"{kind} content cannot be shown in fences")
    if kind == "image":
        return ImageContent(type="image", data=about["data"], mime_type=about["mimeType"])
    return AudioContent(type="audio", data=about["data"], mime_type=about["mimeType"])


def _said(found: CallToolResult) -> bool:
    """Say whether what is structured stands in a text as well, as it should."""
    for one in found.content:
        if isinstance(one, TextContent):
            try:
                tree = json.loads(one.text)
            except (ValueError, RecursionError):
                tree = one.text
            if found.structured_content in (tree, {"result": tree}, {"content": tree}):
                return True
    return False

"""MCP tools of a server that is not ours, guarded in the client.

::

    async with Client(server) as client:
        tools = {one.name: one for one in (await client.list_tools()).tools}
        send = adopt(client, tools["send"], irreversible("mail.send", external=True), pinned=PIN)
        await send(to="dana@acme.example", body="hello")

* The facts are declared here, by name. The server's annotations may only tighten: a guard that
  is milder than what the server says of the tool is refused; what it says in its favour is
  not read.
* The definition, all that the server sends about the tool, is pinned by its :func:`fingerprint`.
  It is compared when the tool is adopted. What a server does behind an unchanged definition
  is its own affair, and a definition that it changes later reaches nobody until it is adopted.
* All that comes back is untrusted content, errors too.
"""

# pyright: reportMissingImports=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from typing import Any

from checkrein.errors import ConfigurationError, MisuseError, TamperedError
from checkrein.facts import Effect
from checkrein.frames import spec_of
from checkrein.integrations.adoption import Decorator, adopted
from checkrein.untrusted import Untrusted

try:
    from mcp.types import Tool
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.mcp needs the MCP SDK: pip install 'checkrein[mcp]'"
    ) from missing

__all__ = ["adopt", "fingerprint"]


def fingerprint(tool: Tool) -> str:
    """Return the SHA-256, in hexadecimal, of a tool's definition as the server sent it.

    It covers the canonical JSON (sorted keys, no spaces, UTF-8) of all fields that are not null.

    Args:
        tool: from ``list_tools``.
    """
    sent = tool.model_dump(mode="json", by_alias=True, exclude_none=True)
    text = json.dumps(sent, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


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
    if not isinstance(tool, Tool):
        raise MisuseError("adopt(client, tool, ...) takes a tool from list_tools()")
    if fingerprint(tool) != pinned:
        raise TamperedError("the tool's definition is not the pinned one; review it and pin it")

    async def call(arguments: dict[str, Any]) -> Any:
        found = await client.call_tool(tool.name, arguments)
        return found.model_dump(mode="json", by_alias=True, exclude_none=True)

    sent = tool.model_dump(mode="json", by_alias=True, exclude_none=True)
    guarded = adopted(
        call,
        guard,
        name=tool.name,
        description=tool.description or "",
        schema=sent["inputSchema"],
        untrusted=untrusted,
        result=Untrusted[Any],
    )
    _tighten(guarded, sent.get("annotations", {}))
    return guarded


def _tighten(guarded: Callable[..., Any], said: dict[str, Any]) -> None:
    """Refuse a guard that is milder than the server's own words."""
    spec = spec_of(guarded)
    if spec is None:  # adopted() has seen to it
        raise MisuseError(
            "adopt(client, tool, ...) takes reads(...), writes(...) or irreversible(...)"
        )
    facts = spec.facts
    read_only, destructive = said.get("readOnlyHint"), said.get("destructiveHint")
    if facts.effect is Effect.READS and (read_only is False or destructive is True):
        raise ConfigurationError(
            "the server says that the tool changes things: reads() is too mild"
        )
    if destructive is True and facts.effect is not Effect.IRREVERSIBLE:
        raise ConfigurationError("the server says that the tool destroys: use irreversible(...)")
    if said.get("openWorldHint") is True and not facts.external:
        raise ConfigurationError("the server says that the tool reaches outside: external=True")

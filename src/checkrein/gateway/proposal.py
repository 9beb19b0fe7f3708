"""A first ``gateway.toml`` for a server, to be reviewed by a person.

It takes the server at its worst: a tool that does not say otherwise is irreversible and
reaches outside, and one that says of itself that it reads only is proposed as a read that
reaches outside. Nothing is limited yet: arguments are commented out.
"""

# pyright: reportMissingImports=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

from checkrein.integrations.mcp_client import fingerprint
from checkrein.visible import visible

if TYPE_CHECKING:
    from mcp.types import Tool

_HEAD = """\
# Read it line by line: it says what the tools of this server are and what they may do.
agent = "agent"
exposed = true            # the client reads what the gateway cannot see

[log]
directory = "audit"

[confirm]
by = "inbox"              # answer with: checkrein inbox checkrein.db
store = "checkrein.db"
"""


def propose(server: str, tools: list[Tool]) -> str:
    """Return the text of a configuration.

    Args:
        server: what the server calls itself, for the names of resources.
        tools: all that it offers.
    """
    prefix = _segment(server) or "server"
    parts, taken = [_HEAD], set[str]()
    by_name = {one.name: one for one in tools}  # of two of one name, the last, as for a session
    for one in by_name.values():
        resource = own = f"{prefix}.{_segment(one.name) or 'tool'}"
        numbers = count(2)
        while resource in taken:
            resource = f"{own}-{next(numbers)}"
        taken.add(resource)
        parts.append(_tool(one, resource))
    return "\n".join(parts)


def _tool(tool: Tool, resource: str) -> str:
    said = tool.annotations
    reads = said is not None and said.read_only_hint is True
    closed = said is not None and said.open_world_hint is False
    words = visible(" ".join((tool.description or "").split()))[:300]
    properties = tool.input_schema.get("properties", {})
    arguments = list(properties) if isinstance(properties, dict) else []
    limits = ", ".join(f"{_key(name)} = {{ ... }}" for name in arguments)
    lines = [
        f"# {words}",
        f"[tools.{_key(tool.name)}]",
        f"effect = {_text('reads' if reads else 'irreversible')}",
        f"resource = {_text(resource)}",
        f"external = {'false' if closed else 'true'}",
        f"pinned = {_text(fingerprint(tool))}",
        f"# untrusted = [{', '.join(_text(name) for name in arguments)}]   # which take content?",
        *([f"# arguments = {{ {limits} }}"] if limits else []),
        "",
    ]
    return "\n".join(lines)


def _segment(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")


def _text(value: str) -> str:
    plain = (
        one if one.isprintable() and one not in '"\\' else f"\\U{ord(one):08X}" for one in value
    )
    return f'"{"".join(plain)}"'


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)

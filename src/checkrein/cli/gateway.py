"""``checkrein gateway``: starts a gateway, or proposes its configuration."""

# pyright: reportMissingImports=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from checkrein.errors import ConfigurationError
from checkrein.gateway import config as configuration
from checkrein.visible import visible

_NEEDED = "checkrein gateway needs its extra: pip install 'checkrein[gateway]'\n"


def gateway(
    path: Path | None, command: Sequence[str], *, http: str, propose: bool, check: bool
) -> int:
    """Run a gateway until its client goes away; return the exit code.

    Raises:
        ConfigurationError: the configuration says what cannot be.
    """
    try:
        from checkrein.gateway import running  # noqa: PLC0415 (needs the extra)
    except ImportError:
        sys.stderr.write(_NEEDED)
        return 2
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    if propose:
        sys.stdout.write(asyncio.run(_proposed(path, command)))
        return 0
    if path is None:
        raise ConfigurationError("--config names the configuration; --propose makes a first one")
    config = configuration.read(path)
    if check:
        return asyncio.run(_checked(config, command))
    if http:
        host, _, port = http.rpartition(":")
        if not port.isdecimal() or not host:
            raise ConfigurationError("--http takes HOST:PORT, 127.0.0.1:8080 for example")
        asyncio.run(running.over_http(config, command, host.strip("[]"), int(port)))
    else:
        asyncio.run(running.over_stdio(config, command))
    return 0


async def _checked(config: configuration.Config, command: Sequence[str]) -> int:
    """Say of each tool whether it would be offered; 1 if one that is declared would not be."""
    from checkrein.gateway import running  # noqa: PLC0415 (as above)

    async with running.guarded(config, command) as session:
        problems = {one.tool: one.problem for one in session.problems}
        for name in sorted(session.offered):
            told = problems.get(name) or ("offered" if name in config.tools else "not declared")
            sys.stdout.write(f"{visible(name)}: {told}\n")
        for name in sorted(problems.keys() - session.offered):
            sys.stdout.write(f"{visible(name)}: {problems[name]}\n")
    return 1 if problems else 0


async def _proposed(path: Path | None, command: Sequence[str]) -> str:
    from checkrein.gateway import running  # noqa: PLC0415 (as above)
    from checkrein.gateway.proposal import propose  # noqa: PLC0415 (as above)
    from checkrein.integrations.mcp_client import all_tools  # noqa: PLC0415 (as above)

    config = (
        configuration.read(path)
        if path is not None
        else configuration.Config(agent="nobody", log=configuration.Log(directory=Path()), tools={})
    )
    async with running.connected(config, command) as client:
        info = client.server_info
        return propose("" if info is None else info.name, await all_tools(client))

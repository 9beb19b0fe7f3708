"""``checkrein gateway``: starts a gateway, or proposes its configuration."""

# pyright: reportMissingImports=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from checkrein.errors import CheckreinError, ConfigurationError
from checkrein.gateway import config as configuration
from checkrein.visible import visible

_HIGHEST = 65535
_NEEDED = "checkrein gateway needs its extra: pip install 'checkrein[gateway]'\n"


class Visible(logging.Formatter):
    """Writes records in which nothing that a server or a client has said acts on a terminal.

    Lines after the first one are indented: none looks like a record of its own.
    """

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return "\n    ".join(map(visible, super().format(record).splitlines()))


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
    errors = logging.StreamHandler(sys.stderr)
    errors.setFormatter(Visible())
    logging.basicConfig(handlers=[errors], level=logging.WARNING)
    try:
        if propose:
            sys.stdout.write(asyncio.run(_proposed(path, command)))
            return 0
        return _gateway(running, path, command, http=http, check=check)
    except BaseExceptionGroup as several:  # task groups wrap what is raised inside them
        raise _plain(several) from None


def _plain(error: BaseException) -> BaseException:
    """Return what somebody can mend, from inside of groups; *error* itself if that is unknown."""
    below = [error]
    for one in below:
        if isinstance(one, BaseExceptionGroup):
            below += one.exceptions
        elif isinstance(one, (CheckreinError, SystemExit)):
            return one
        elif isinstance(one, ConnectionError):
            return ConfigurationError(str(one))
    return error


def _gateway(
    running: Any, path: Path | None, command: Sequence[str], *, http: str, check: bool
) -> int:
    if path is None:
        raise ConfigurationError("--config names the configuration; --propose makes a first one")
    config = configuration.read(path)
    if check:
        return asyncio.run(_checked(config, command))
    if http:
        host, _, port = http.rpartition(":")
        if not port.isdecimal() or not host or int(port) > _HIGHEST:
            raise ConfigurationError("--http takes HOST:PORT, 127.0.0.1:8080 for example")
        return _served(running.over_http(config, command, host.strip("[]"), int(port)))
    return _served(running.over_stdio(config, command))


def _served(work: Coroutine[Any, Any, None]) -> int:
    """Serve until the client goes away or the process is told to end; return the exit code."""

    async def until_told() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is None:  # there is one: this is a coroutine
            return
        signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(task.cancel))
        try:
            await work
        except Exception:
            if not task.cancelling():
                raise
            raise asyncio.CancelledError from None  # what the transport says to being ended

    try:
        asyncio.run(until_told())
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except asyncio.CancelledError:  # the log is closed
        return 128 + signal.SIGTERM
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

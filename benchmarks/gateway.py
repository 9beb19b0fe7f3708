"""What a call costs behind the gateway, beside the same call of the same server without it.

Run it with ``python benchmarks/gateway.py [--json] [--calls N]``, with ``checkrein[gateway]``.
Server, gateway and client are in one process and in the newer era of the protocol, so that nothing
but the gateway is between the two; a pipe or a socket comes on top. In milliseconds a call,
the median over rounds in which both alternate:

* ``bare_ms``: the call of the server;
* ``hop_ms``: the same, with a proxy of the SDK in between that passes calls on, unguarded;
* ``read_added_ms``, ``write_added_ms``: what a guarded and logged read, and a write, cost beyond
  that proxy; a write waits for ``sync_ms``, one bare ``fdatasync``, in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT / "tests")

from mcp import Client  # noqa: E402
from mcp.server.lowlevel import Server  # noqa: E402

from gateway.facing import Facing, Notes, talk, written  # noqa: E402


async def timed(call: Callable[[int], Awaitable[Any]], calls: int) -> float:
    """Return the milliseconds that a call takes."""
    started = time.perf_counter()
    for number in range(calls):
        await call(number)
    return (time.perf_counter() - started) * 1000 / calls


async def hop(server: Notes, calls: int) -> tuple[float, float]:
    """Return what a call takes without, and with a proxy that only passes it on."""
    async with Client(server, cache=None) as behind:
        direct = await timed(lambda n: behind.call_tool("read", {"name": f"n{n}"}), calls)

        async def tools(*_: Any) -> Any:
            return await behind.list_tools(cache_mode="bypass")

        async def call(_: Any, params: Any) -> Any:
            return await behind.call_tool(params.name, params.arguments)

        proxy = Server("proxy", on_list_tools=tools, on_call_tool=call)
        async with Client(proxy, cache=None) as front:
            return direct, await timed(lambda n: front.call_tool("read", {"name": f"n{n}"}), calls)


def guarded(server: Notes, calls: int, directory: Path) -> tuple[float, float]:
    """Return what a read and a write take behind the gateway."""
    config = written(directory, server)

    async def go(face: Facing) -> tuple[float, float]:
        read = await timed(lambda n: face.client.call_tool("read", {"name": f"n{n}"}), calls)
        given = {"text": "hello", "mode": "new", "name": "a"}
        return read, await timed(lambda _: face.client.call_tool("write", given), calls)

    return talk(config, server, go)


def synced(directory: Path) -> float:
    """Return the milliseconds of a bare write of an entry and its sync."""
    with open(directory / "bare", "ab", buffering=0) as file:
        started = time.perf_counter()
        for _ in range(20):
            os.write(file.fileno(), bytes(570))
            os.fdatasync(file.fileno())
        return (time.perf_counter() - started) * 1000 / 20


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["CHECKREIN_DATA"] = str(Path(name) / "keys")
        for _ in range(options.rounds):
            server = Notes()
            rounds.append(
                (
                    *asyncio.run(hop(server, options.calls)),
                    *guarded(server, options.calls, Path(name)),
                    synced(Path(name)),
                )
            )
    bare, hopped, read, write, sync = (statistics.median(one) for one in zip(*rounds, strict=True))
    figures = {
        "bare_ms": bare,
        "hop_ms": hopped,
        "read_added_ms": read - hopped,
        "write_added_ms": write - hopped,
        "sync_ms": sync,
    }
    figures = {key: round(one, 3) for key, one in figures.items()}
    print(json.dumps(figures) if options.json else figures)


if __name__ == "__main__":
    main()

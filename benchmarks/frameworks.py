"""What a guarded call costs inside an agent framework, beside the bare call of the same framework.

Run it with ``python benchmarks/frameworks.py [--json] [--calls N]``, in an environment that has
the frameworks to be measured; the others are left out. A scripted model makes N calls, one a turn;
16 if nothing is said, since some frameworks stop a conversation at twenty.
For each framework, in milliseconds a call, the median over rounds in which bare and guarded
alternate:

* ``bare_ms``: an undecorated function, without the integration;
* ``read_added_ms``, ``read_added_percent``: what the guarded read costs beyond that, in a run
  with a signed log, under the integration;
* ``write_added_ms``: what the guarded write costs beyond the bare one, and
  ``write_beyond_sync_ms``: less the bare ``fdatasync`` of the same run, which it has to wait for.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT / "tests")  # in place of this folder, in which this file has its name

from checkrein import AuditLog, Grant, Run, allow, reads, writes  # noqa: E402
from frameworks.contract import Wish  # noqa: E402


def bare_stock(item: str) -> int:
    """Tell how many there are of an item."""
    return len(item)


async def abare_stock(item: str) -> int:
    """Tell how many there are of an item."""
    return len(item)


@reads("bench.stock")
def stock(item: str) -> int:
    """Tell how many there are of an item."""
    return len(item)


@reads("bench.stock")
async def astock(item: str) -> int:
    """Tell how many there are of an item."""
    return len(item)


@writes("bench.stock")
def restock(item: str) -> int:
    """Order an item."""
    return len(item)


@writes("bench.stock")
async def arestock(item: str) -> int:
    """Order an item."""
    return len(item)


def timed(work: Callable[[], object]) -> float:
    """Return the milliseconds that *work* takes."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def measured(host: Any, calls: int, rounds: int, directory: Path) -> dict[str, float]:
    """Measure one framework."""
    awaited = host.asynchronous
    names = ("abare_stock", "astock", "arestock") if awaited else ("bare_stock", "stock", "restock")
    bare, read, write = (globals()[name] for name in names)

    def turns(tool: Any) -> list[list[Wish]]:
        return [[Wish(tool.__name__, {"item": f"nails {n}"})] for n in range(calls)]

    found: dict[str, list[float]] = {"bare": [], "read": [], "write": [], "sync": []}
    grant = Grant(allow("bench.stock"))
    with AuditLog.open(directory / host.framework, origin=f"example.com/{host.framework}") as log:
        for _ in range(rounds):
            found["bare"].append(
                timed(lambda: host.converse([bare], *turns(bare), awaited=awaited)) / calls
            )
            for name, tool in (("read", read), ("write", write)):
                with Run(agent="bench", grant=grant, log=log) as run:
                    found[name].append(
                        timed(
                            lambda tool=tool, run=run: host.chat(
                                [tool], *turns(tool), run=run, awaited=awaited
                            )
                        )
                        / calls
                    )
            found["sync"].append(synced(directory))
    bare_ms, read_ms, write_ms, sync_ms = (statistics.median(one) for one in found.values())
    return {
        "bare_ms": bare_ms,
        "read_added_ms": read_ms - bare_ms,
        "read_added_percent": 100 * (read_ms - bare_ms) / bare_ms,
        "write_added_ms": write_ms - bare_ms,
        "sync_ms": sync_ms,
        "write_beyond_sync_ms": write_ms - bare_ms - sync_ms,
    }


def synced(directory: Path) -> float:
    """Return the milliseconds of a bare write of an entry and its sync."""
    with open(directory / "bare", "ab", buffering=0) as file:

        def write() -> None:
            for _ in range(20):
                os.write(file.fileno(), bytes(570))
                os.fdatasync(file.fileno())

        return timed(write) / 20


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--calls", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        os.environ["CHECKREIN_DATA"] = name
        for path in sorted((ROOT / "tests" / "frameworks" / "hosts").glob("*.py")):
            try:
                host = importlib.import_module(f"frameworks.hosts.{path.stem}").HOST
            except ImportError:
                continue
            found = measured(host, options.calls, options.rounds, Path(name))
            figures[host.framework] = {key: round(one, 3) for key, one in found.items()}
    if options.json:
        print(json.dumps(figures))
        return
    for framework, found in figures.items():
        print(framework)
        for key, value in found.items():
            print(f"  {key:22} {value}")


if __name__ == "__main__":
    main()

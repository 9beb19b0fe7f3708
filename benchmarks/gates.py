"""What it takes to wait for a person: round trips through a queue, and many who wait at once.

Run it with ``python benchmarks/gates.py [--json] [--postgres URL] [--parked N]``.

``queue_roundtrip_ms_*``: a plain tool waits in place, parked; another connection gives the
answer. The time from the moment before the answer is given until the tool's body has
started, the median over rounds. ``fsync_ms`` is a write of 4 kB and its ``fdatasync`` on the
file system of the SQLite file, measured between these rounds: a round trip has to sync
the answer and that it was taken, and PostgreSQL syncs its own log for each.

``parked``: so many calls of a coroutine wait at once in one process, with one SQLite file;
``parked_mb`` is by how much its resident memory grew, ``looks_per_s`` how often the desk was
looked at while they waited, ``load`` the share of a processor that this took.

Without a URL a PostgreSQL server is started for the time of the run, if one is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from checkrein import Grant, Run, allow, irreversible
from checkrein.gates import Desk, QueueGate
from checkrein.store import SqliteStore, open_store

ROUNDS = 40
STARTED: list[float] = []
LONG = timedelta(hours=2)


@irreversible("bench.pay")
def pay(to: int) -> None:
    STARTED.append(time.perf_counter())


@irreversible("bench.pay")
async def apay(to: int, text: str) -> None:
    STARTED.append(time.perf_counter())


GRANT = Grant(allow("bench.pay"))


def synced(directory: Path) -> float:
    """Return the milliseconds of one write and its sync."""
    with open(directory / "sync", "ab", buffering=0) as file:
        started = time.perf_counter()
        file.write(b"x" * 4096)
        os.fdatasync(file.fileno())
        return (time.perf_counter() - started) * 1e3


def round_trips(where: str, directory: Path) -> tuple[float, float]:
    """Return the median milliseconds from an answer to the body, and those of a sync."""
    waiting, answering = open_store(where), open_store(where)
    gate, desk = QueueGate(waiting), Desk(answering)
    taken: list[float] = []
    syncs: list[float] = []
    with Run(agent="bench", grant=GRANT, gate=gate) as run:
        (tool,) = run.tools(pay)
        for number in range(ROUNDS):
            STARTED.clear()
            thread = threading.Thread(target=tool, args=(number,))
            thread.start()
            while not (pending := desk.pending()):
                time.sleep(0.005)
            time.sleep(0.05)  # it is parked by now, however it waits
            started = time.perf_counter()
            desk.answer(pending[0].approve(by="dana"))
            thread.join()
            taken.append((STARTED[0] - started) * 1e3)
            syncs.append(synced(directory))
    gate.close()
    answering.close()
    return statistics.median(taken), statistics.median(syncs)


def resident() -> float:
    """Return the resident memory of this process in MB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def park(number: int, directory: Path) -> dict[str, float]:
    """Let *number* calls wait; return what that takes."""
    # What is measured is waiting: the syncs of as many questions would only take long.
    store = SqliteStore.open(directory / "parked.db")
    store.transact(lambda session: session.ask("PRAGMA synchronous = OFF"))
    gate = QueueGate(store)
    before = resident()
    async with Run(agent="bench", grant=GRANT, gate=gate, confirm_within=LONG):
        tasks = [asyncio.ensure_future(apay(n, f"text {n}")) for n in range(number)]
        busy = time.process_time() - 1
        while len(gate.watch) < number or time.process_time() - busy > 0.5:
            busy = time.process_time()
            await asyncio.sleep(1)  # until nothing goes on any more
        grown = resident() - before
        looks, used, started = gate.watch.looks, time.process_time(), time.perf_counter()
        await asyncio.sleep(5)
        seconds = time.perf_counter() - started
        found = {
            "parked": len(gate.watch),
            "parked_mb": grown,
            "looks_per_s": (gate.watch.looks - looks) / seconds,
            "load": (time.process_time() - used) / seconds,
        }
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    gate.close()
    return found


@contextmanager
def server(url: str) -> Iterator[str]:
    """Return the URL of a PostgreSQL server, ``""`` where there is none."""
    if url:
        yield url
        return
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from stores.cluster import Cluster, Missing  # noqa: PLC0415 (the tests know how)

    try:
        running = Cluster(tempfile.gettempdir())
    except Missing:
        yield ""
        return
    try:
        yield running.url
    finally:
        running.stop()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--postgres", default="", metavar="URL")
    parser.add_argument("--parked", type=int, default=10_000)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        took, sync = round_trips(str(directory / "queue.db"), directory)
        figures |= {"queue_roundtrip_ms_sqlite": took, "fsync_ms": sync}
        with server(options.postgres) as url:
            if url:
                took, sync = round_trips(url, directory)
                figures |= {"queue_roundtrip_ms_postgres": took, "fsync_ms_postgres": sync}
                figures["postgres_goal_ms"] = 10 + 6 * sync
        figures |= asyncio.run(park(options.parked, directory))
    figures = {key: round(value, 3) for key, value in figures.items()}
    if options.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:28} {value}")


if __name__ == "__main__":
    main()

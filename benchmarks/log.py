"""How fast the audit log takes and verifies entries, against what the machine can do.

Run it with ``python benchmarks/log.py [--json] [--seconds S] [--entries N] [--curve M]``. An
entry is what a decision of a run looks like, about 570 bytes of JSON. Everything is measured
in one run, on one file system, since disks differ. ``*_ratio`` is a figure over the physical
limit beside it:

* ``fdatasync_per_s``: a bare write of one entry and its ``fdatasync``;
* ``append_1_per_s``: one thread that waits for each entry, and ``append_1_extra_us``: by how
  much that is slower for each entry than the bare write;
* ``append_64_per_s``: 64 threads, each waiting for its own; ``append_64_gain`` over one thread;
  its limit is ``bare_64_per_s``: the bare write of 64 entries and one sync;
* ``append_many_per_s``: a thousand entries at a time, waited for, tiles included; its limit is
  ``bare_1000_per_s``: the bare write of a thousand entries and one sync;
* ``append_os_per_s``: one thread, ``durability="os"``; its limit is ``bare_os_per_s``: the bare
  write without a sync;
* ``enqueue_us``: what it costs not to wait;
* ``verify_per_s``: ``verify_log`` with the public key, over N entries, in one process, and
  ``verify_2_per_s`` in two; ``leaf_hash_per_s``: the bare hashes of the same leaves;
* ``growth``: what an append in a log of N entries costs, over one in an empty log;
* ``curve``, with ``--curve M``: for 1/10 M, 2/10 M ... M entries, the microseconds of one append,
  and how much memory the process has at most; then how long the whole takes to verify.

``postgres_4_writers_per_s`` and its companions are those of ``benchmarks/postgres_log.py``, where
PostgreSQL's programs and ``checkrein[postgres]`` are installed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from checkrein import AuditLog
from checkrein.log import verify_log
from checkrein.log.audit import encode
from checkrein.log.merkle import leaf_hash

EVENT: dict[str, Any] = {
    "v": 1,
    "type": "call.allowed",
    "time": 1_800_000_000_000_000_000,
    "run": "3f2a9c01d4e5b6a7",
    "seq": 0,
    "call": "3f2a9c01d4e5b6a7-0",
    "agent": "support-bot",
    "tool": "send_email",
    "effect": "irreversible",
    "resource": "mail.send",
    "arguments": {
        "to": "dana@acme.example",
        "body": {"untrusted": ["tool_output:mail"], "size": 900},
    },
    "digest": "ab" * 32,
    "definition": "cd" * 32,
    "grants": ["5d1e0a7c93b2f486"],
    "parent": "",
    "findings": [{"rule": "effect.irreversible", "argument": ""}],
    "exposed": True,
}


def event(number: int) -> dict[str, Any]:
    return {**EVENT, "seq": number, "call": f"3f2a9c01d4e5b6a7-{number}"}


def bare(directory: Path, seconds: float) -> float:
    """Return bare writes with their sync a second."""
    data = encode(EVENT)
    with open(directory / "bare", "ab", buffering=0) as file:
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            os.write(file.fileno(), data)
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - started)


def bare_batches(directory: Path, entries: int, seconds: float, *, sync: bool = True) -> float:
    """Return entries a second that are written so many at a time, bare."""
    data = encode(EVENT) * entries
    with open(directory / "bare-batches", "ab", buffering=0) as file:
        count, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            os.write(file.fileno(), data)
            if sync:
                os.fdatasync(file.fileno())
            count += entries
        return count / (time.perf_counter() - started)


def appended(log: AuditLog, threads: int, seconds: float) -> float:
    """Return entries a second that so many threads append, each waiting for its own."""
    counts = [0] * threads
    barrier = threading.Barrier(threads + 1)
    over = threading.Event()

    def work(place: int) -> None:
        barrier.wait()
        while not over.is_set():
            log.append(event(counts[place]))
            counts[place] += 1

    workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    for one in workers:
        one.start()
    barrier.wait()
    started = time.perf_counter()
    over.wait(seconds)
    taken, elapsed = sum(counts), time.perf_counter() - started
    over.set()
    for one in workers:
        one.join()
    return taken / elapsed


def appended_many(log: AuditLog, seconds: float) -> float:
    """Return entries a second, a thousand at a time."""
    batch = [event(number) for number in range(1000)]
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        log.append_many(batch)
        count += len(batch)
    return count / (time.perf_counter() - started)


def enqueued(log: AuditLog) -> float:
    """Return the microseconds of an ``enqueue``, the median over batches."""
    figures: list[float] = []
    for _ in range(40):
        log.flush()
        started = time.perf_counter()
        for _ in range(500):
            log.enqueue(EVENT)
        figures.append((time.perf_counter() - started) / 500 * 1e6)
    return statistics.median(figures)


def single(log: AuditLog) -> float:
    """Return the microseconds of an append, the median."""
    figures: list[float] = []
    for number in range(300):
        started = time.perf_counter()
        log.append(event(number))
        figures.append((time.perf_counter() - started) * 1e6)
    return statistics.median(figures)


def verified(directory: Path, vkey: str) -> dict[str, float]:
    """Measure verification against the bare hashes of the leaves, before and after."""
    gc.collect()
    before = hashed()
    one, two = (verify_rate(directory, vkey, processes) for processes in (1, 2))
    limit = (before + hashed()) / 2
    return {
        "verify_per_s": one,
        "verify_2_per_s": two,
        "leaf_hash_per_s": limit,
        "verify_ratio": one / limit,
        "verify_2_ratio": two / limit,
    }


def hashed() -> float:
    """Return bare leaf hashes a second."""
    leaves = [encode(event(number)) for number in range(50_000)]
    began = time.perf_counter()
    for leaf in leaves:
        leaf_hash(leaf)
    return len(leaves) / (time.perf_counter() - began)


def verify_rate(directory: Path, vkey: str, processes: int) -> float:
    """Return entries a second that are verified."""
    started = time.perf_counter()
    report = verify_log(directory, vkey=vkey, processes=processes)
    seconds = time.perf_counter() - started
    assert report.good, report
    return report.size / seconds


def curve(directory: Path, most: int) -> list[dict[str, float]]:
    """Return what an append costs as the log grows, and the memory of this process."""
    rows: list[dict[str, float]] = []
    with AuditLog.open(directory / "curve", origin="example.com/curve") as log:
        for step in range(1, 11):
            while log.size < most * step // 10:
                log.append_many([entry(log.size + number) for number in range(1000)])
            log.publish()
            rows.append({"entries": log.size, "append_us": single(log), "rss_mb": memory()})
        vkey = log.vkey
    started = time.perf_counter()
    report = verify_log(directory / "curve", vkey=vkey, processes=2)
    assert report.good, report
    seconds = time.perf_counter() - started
    rows.append({"entries": report.size, "verify_s": seconds, "rss_mb": memory()})
    return rows


def entry(number: int) -> dict[str, Any]:
    """Return an event of a run that ends after fifty entries, as runs do."""
    run, seq = divmod(number, 50)
    kind = {0: "run.opened", 49: "run.closed"}.get(seq, "call.denied")
    return {**EVENT, "type": kind, "run": f"{run:016x}", "seq": seq, "call": f"{run:016x}-{seq}"}


def in_postgres(seconds: float) -> dict[str, float]:
    """Return the figures of a log in PostgreSQL, none where it is not installed."""
    script = Path(__file__).with_name("postgres_log.py")
    done = subprocess.run(
        [sys.executable, str(script), "--json", "--seconds", str(seconds)],
        stdout=subprocess.PIPE,
        check=False,
    )
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def memory() -> float:
    """Return the megabytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--entries", type=int, default=200_000)
    parser.add_argument("--curve", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.environ["CHECKREIN_DATA"] = name
        if options.curve:
            print(json.dumps({"curve": curve(directory, options.curve)}))
            return
        syncs = bare(directory, options.seconds)
        limits = {
            "bare_64_per_s": bare_batches(directory, 64, options.seconds),
            "bare_1000_per_s": bare_batches(directory, 1000, options.seconds),
            "bare_os_per_s": bare_batches(directory, 1, 0.5, sync=False),
        }
        with AuditLog.open(directory / "a", origin="example.com/bench") as log:
            fresh = single(log)
            one = appended(log, 1, options.seconds)
            many_threads = appended(log, 64, options.seconds)
            queued = enqueued(log)
        syncs = (syncs + bare(directory, options.seconds)) / 2
        with AuditLog.open(directory / "c", origin="example.com/bench3", durability="os") as log:
            unsynced = appended(log, 1, options.seconds)
        with AuditLog.open(directory / "b", origin="example.com/bench2") as log:
            batches = appended_many(log, options.seconds)
            while log.size < options.entries:
                log.append_many([event(log.size + number) for number in range(1000)])
            log.publish()  # what the bulk has left to do is no cost of an append
            grown = single(log)
            vkey = log.vkey
        figures = {
            "fdatasync_per_s": syncs,
            "append_1_per_s": one,
            "append_1_extra_us": 1e6 / one - 1e6 / syncs,
            "append_1_ratio": one / syncs,
            "append_64_per_s": many_threads,
            "append_64_gain": many_threads / one,
            "append_64_ratio": many_threads / limits["bare_64_per_s"],
            "append_many_per_s": batches,
            "append_many_ratio": batches / limits["bare_1000_per_s"],
            "append_os_per_s": unsynced,
            "append_os_ratio": unsynced / limits["bare_os_per_s"],
            **limits,
            "enqueue_us": queued,
            "growth": grown / fresh,
            **verified(directory / "b", vkey),
        }
    figures |= in_postgres(options.seconds)
    figures = {key: round(value, 3) for key, value in figures.items()}
    if options.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:20} {value}")


if __name__ == "__main__":
    main()

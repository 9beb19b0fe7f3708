"""How fast the audit log takes and verifies entries, against what the machine can do.

Run it with ``python benchmarks/log.py [--json] [--seconds S] [--entries N]``. An entry is
what a decision of a run looks like, about 500 bytes of JSON. Everything is measured in one
run, on one file system, since disks differ:

* ``fdatasync_per_s``: a bare write of one entry and its ``fdatasync``;
* ``append_1_per_s``: one thread that waits for each entry, and ``append_1_extra_us``: by how
  much that is slower for each entry than the bare write;
* ``append_64_per_s``: 64 threads, each waiting for its own; ``append_64_ratio`` over one;
* ``append_many_per_s``: a thousand entries at a time, waited for;
* ``enqueue_us``: what it costs not to wait;
* ``verify_per_s``: ``verify_log`` with the public key, over N entries; ``leaf_hash_per_s``: the
  bare hashes of the same leaves; ``verify_ratio`` is the first over the second;
* ``growth``: what an append in a log of N entries costs, over one in an empty log.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
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


def verified(directory: Path, vkey: str, entries: int) -> dict[str, float]:
    """Measure verification against the bare hashes of the leaves."""
    gc.collect()
    started = time.perf_counter()
    report = verify_log(directory, vkey=vkey)
    seconds = time.perf_counter() - started
    assert report.good, report
    leaves = [encode(event(number)) for number in range(10_000)]
    began = time.perf_counter()
    for leaf in leaves:
        leaf_hash(leaf)
    hashed = len(leaves) / (time.perf_counter() - began)
    rate = entries / seconds
    return {"verify_per_s": rate, "leaf_hash_per_s": hashed, "verify_ratio": rate / hashed}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--entries", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.environ["CHECKREIN_DATA"] = name
        syncs = bare(directory, options.seconds)
        with AuditLog.open(directory / "a", origin="example.com/bench") as log:
            fresh = single(log)
            one = appended(log, 1, options.seconds)
            many_threads = appended(log, 64, options.seconds)
            queued = enqueued(log)
        syncs = (syncs + bare(directory, options.seconds)) / 2
        with AuditLog.open(directory / "b", origin="example.com/bench2") as log:
            batches = appended_many(log, options.seconds)
            while log.size < options.entries:
                log.append_many([event(log.size + number) for number in range(1000)])
            log.publish()  # what the bulk has left to do is no cost of an append
            grown, size = single(log), log.size
            vkey = log.vkey
        figures = {
            "fdatasync_per_s": syncs,
            "append_1_per_s": one,
            "append_1_extra_us": 1e6 / one - 1e6 / syncs,
            "append_64_per_s": many_threads,
            "append_64_ratio": many_threads / one,
            "append_many_per_s": batches,
            "enqueue_us": queued,
            "growth": grown / fresh,
            **verified(directory / "b", vkey, size),
        }
    figures = {key: round(value, 3) for key, value in figures.items()}
    if options.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:20} {value}")


if __name__ == "__main__":
    main()

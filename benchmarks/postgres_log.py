"""How fast several processes write one log in PostgreSQL, against what the database can do.

Run it with ``python benchmarks/postgres_log.py [--json] [--seconds S]``. It starts a PostgreSQL
server of its own in a temporary directory, on the disk, as the tests do. Everything is measured
in one run, by four processes that each wait for commits of 64 entries of about 500 bytes:

* ``postgres_4_writers_bare_per_s``: entries a second with BEGIN, COPY and COMMIT into a table
  of the same columns, without a head, a lock, hashes or signatures: the four commit side by side;
* ``postgres_4_writers_turns_per_s``: the same, with a row that all lock and update first, so that
  commits take turns as those of a log must;
* ``postgres_4_writers_per_s``: ``AuditLog.append_many``; ``postgres_4_writers_ratio`` over the
  first, ``postgres_4_writers_turns_ratio`` over the second;
* ``postgres_1_writer_per_s``: one process.

Bare and log take turns, three times, and each figure is the median.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from checkrein import AuditLog
from checkrein.log.audit import encode
from log import event  # the one beside this

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from stores.cluster import Cluster

BATCH = 64
ORIGIN = "example.com/bench"


def bare(url: str, seconds: float, *, turns: bool) -> int:
    """Commit batches until the time is over; return how many entries that were."""
    entries = [encode(event(number)) for number in range(BATCH)]
    hashes, count = bytes(64), 0
    with psycopg.connect(url, autocommit=True) as connection:
        start()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            connection.execute("BEGIN")
            if turns:
                connection.execute("SELECT note FROM bare_head FOR UPDATE")
            place = os.getpid() << 32 | count
            with connection.cursor().copy("COPY bare_entry FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["text", "int8", "bytea", "bytea", "bytea"])
                for number, entry in enumerate(entries):
                    copy.write_row((ORIGIN, place + number, entry, hashes, None))
            if turns:
                connection.execute("UPDATE bare_head SET note = %s", (bytes(250),))
            connection.execute("COMMIT")
            count += BATCH
    return count


def logged(url: str, seconds: float) -> int:
    """Append batches until the time is over; return how many entries that were."""
    batch, count = [event(number) for number in range(BATCH)], 0
    with AuditLog.open(url, origin=ORIGIN) as log:
        start()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            log.append_many(batch)
            count += BATCH
    return count


def start() -> None:
    """Say that all is ready, and wait for the others."""
    print("ready", flush=True)
    sys.stdin.readline()


def rate(kind: str, url: str, seconds: float, processes: int = 4) -> float:
    """Return entries a second of so many processes that do the same."""
    arguments = [sys.executable, __file__, "--work", kind, "--url", url, "--seconds", str(seconds)]
    workers = [
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for one in workers:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in workers:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    return sum(int(one.communicate()[0]) for one in workers) / seconds


def measured(url: str, seconds: float) -> dict[str, float]:
    """Return the figures."""
    kinds = ("bare", "turns", "log")
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    rate("log", url, 0.2)  # makes the key and the tables
    for _ in range(3):
        for kind in kinds:
            found[kind].append(rate(kind, url, seconds))
    middle = {kind: statistics.median(found[kind]) for kind in kinds}
    return {
        "postgres_4_writers_bare_per_s": middle["bare"],
        "postgres_4_writers_turns_per_s": middle["turns"],
        "postgres_4_writers_per_s": middle["log"],
        "postgres_4_writers_ratio": middle["log"] / middle["bare"],
        "postgres_4_writers_turns_ratio": middle["log"] / middle["turns"],
        "postgres_1_writer_per_s": rate("log", url, seconds, processes=1),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--work", choices=["bare", "turns", "log"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options: Any = parser.parse_args()
    if options.work == "log":
        print(logged(options.url, options.seconds))
        return
    if options.work:
        print(bare(options.url, options.seconds, turns=options.work == "turns"))
        return

    with tempfile.TemporaryDirectory() as name:
        os.environ["CHECKREIN_DATA"] = name
        cluster = Cluster("/tmp")
        try:
            cluster.run(
                "CREATE TABLE bare_head (note bytea)",
                "INSERT INTO bare_head VALUES ('')",
                "CREATE TABLE bare_entry (origin text, index bigint, entry bytea, hashes bytea,"
                " batch bytea, PRIMARY KEY (origin, index))",
            )
            figures = measured(cluster.url, options.seconds)
        finally:
            cluster.stop()
    figures = {key: round(value, 3) for key, value in figures.items()}
    if options.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:32} {value}")


if __name__ == "__main__":
    main()

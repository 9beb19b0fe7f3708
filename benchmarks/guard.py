"""What a guarded call costs on the allow path, against ``inspect.Signature.bind``.

Run it with ``python benchmarks/guard.py [--json]``. Each round measures, one
after the other in one process, the binding of a three-argument call by
:mod:`inspect`, the bare call, and the guarded call

* ``check``: without a log, in a run that has seen nothing untrusted;
* ``logged``: with a signed log, entries enqueued (a read does not wait);
* ``exposed``: a write that reaches outside, in an exposed run that holds
  100 kB of evidence, so that each plain argument needs a trusted origin.

The cost of a guard is guarded minus bare; a ratio is that cost divided by the
cost of binding in the same round. A figure is the median over short batches of
calls, then over the rounds. The grant constrains one argument by ``one_of`` and
one by ``between``; the third is let through by ``others(anything)``.

The median leaves out the moments in which the log's own thread writes what was
enqueued; ``logged_mean_ratio`` is the mean by the wall clock, with all of it.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import random
import statistics
import string
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from checkrein import AuditLog, Grant, Run, allow, others, reads, writes
from checkrein.constraints import anything, between, one_of

ROUNDS = 15
BATCHES = 40
CALLS = 50
EVIDENCE = 100_000


def bare(customer: str, status: str, limit: int = 10) -> int:
    return limit


find = reads("shop.orders")(bare)
put = writes("shop.orders", external=True)(bare)


def grant() -> Grant:
    return Grant(
        allow(
            "shop.orders",
            others(anything),
            status=one_of(["open", "closed"]),
            limit=between(1, 100),
        )
    )


def batches(call: Callable[[], object]) -> list[float]:
    """Return the microseconds that a call takes, one figure for each batch."""
    figures: list[float] = []
    for _ in range(BATCHES):
        started = time.perf_counter()
        for _ in range(CALLS):
            call()
        figures.append((time.perf_counter() - started) / CALLS * 1e6)
    return figures


def words(size: int) -> str:
    rng = random.Random(1)
    text = ["dana@acme.com wants the open orders, 5 at most."]
    while sum(map(len, text)) + len(text) < size:
        text.append("".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 9))))
    return " ".join(text)


def one_round(log: AuditLog, evidence: str) -> dict[str, float]:
    """Measure everything once, in turn, so that a slow moment hits all alike."""
    bind = inspect.signature(bare).bind

    def call(function: Callable[..., object]) -> float:
        return statistics.median(batches(lambda: function("dana@acme.com", status="open", limit=5)))

    row = {"bind": call(bind), "bare": call(bare)}
    with Run(agent="bench", grant=grant()):
        row["check"] = call(find)
    with Run(agent="bench", grant=grant(), log=log):
        all_of_it = batches(lambda: find("dana@acme.com", status="open", limit=5))
        row["logged"] = statistics.median(all_of_it)
        row["mean"] = statistics.mean(all_of_it)
    with Run(agent="bench", grant=grant(), exposed=True) as run:
        run.trust(evidence)
        row["exposed"] = call(put)
    return row


def measure() -> dict[str, float]:
    """Return the medians that the module's docstring names."""
    evidence = words(EVIDENCE)
    with tempfile.TemporaryDirectory() as directory:
        os.environ["CHECKREIN_DATA"] = str(Path(directory, "keys"))
        with AuditLog.open(Path(directory, "log")) as log:
            rows = [one_round(log, evidence) for _ in range(ROUNDS)]

    def cost(name: str) -> float:
        return statistics.median(row[name] - row["bare"] for row in rows)

    def ratio(name: str) -> float:
        return statistics.median((row[name] - row["bare"]) / row["bind"] for row in rows)

    return {
        "bind_us": statistics.median(row["bind"] for row in rows),
        "check_us": cost("check"),
        "check_ratio": ratio("check"),
        "logged_us": cost("logged"),
        "logged_ratio": ratio("logged"),
        "logged_mean_ratio": ratio("mean"),
        "exposed_us": cost("exposed"),
        "exposed_ratio": ratio("exposed"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="the cost of a guarded call")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    figures = {name: round(value, 3) for name, value in measure().items()}
    if parser.parse_args().json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<20}{value:>10.3f}")


if __name__ == "__main__":
    main()

"""What a check costs with 1, 10, 100 and 1,000 permissions in the grant.

Run it with ``python benchmarks/permissions.py [--json]``. The guarded tool takes
three arguments, two of them constrained; the grant holds the permission for it
and others, for other resources, every fourth of them a wildcard. A figure is
the cost of the guard, guarded minus bare call, in microseconds, the median over
batches, then over rounds; sizes take turns within a round. ``ratio`` is
``p1000_us`` over ``p1_us``, both of one round. ``open_ratio`` is the same for a
run that is opened for one call, so that nothing is prepared yet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

from checkrein import Grant, Run, allow, others, reads
from checkrein.constraints import anything, between, one_of

SIZES = (1, 10, 100, 1000)
ROUNDS = 15
BATCHES = 20
CALLS = 50


def bare(customer: str, status: str, limit: int = 10) -> int:
    return limit


find = reads("shop.orders")(bare)


def grant(size: int) -> Grant:
    wanted = allow(
        "shop.orders", others(anything), status=one_of(["open", "closed"]), limit=between(1, 100)
    )
    beside = [
        allow(f"area{number}.*" if number % 4 == 0 else f"area{number}.thing")
        for number in range(size - 1)
    ]
    middle = len(beside) // 2
    return Grant(*beside[:middle], wanted, *beside[middle:])


def batch(call: Callable[[], object], calls: int = CALLS) -> float:
    """Return the microseconds that one call takes, the median over batches."""
    figures: list[float] = []
    for _ in range(BATCHES):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        figures.append((time.perf_counter() - started) / calls * 1e6)
    return statistics.median(figures)


def one_round(grants: dict[int, Grant]) -> dict[str, float]:
    """Measure every size once."""
    row: dict[str, float] = {}
    plain = batch(lambda: bare("dana", status="open", limit=5))
    for size, one in grants.items():
        with Run(agent="bench", grant=one):
            row[f"p{size}_us"] = batch(lambda: find("dana", status="open", limit=5)) - plain

        def opened(one: Grant = one) -> None:
            with Run(agent="bench", grant=one):
                find("dana", status="open", limit=5)

        row[f"open{size}_us"] = batch(opened, 5)
    return row


def measure() -> dict[str, float]:
    """Return the medians that the module's docstring names."""
    grants = {size: grant(size) for size in SIZES}
    rows = [one_round(grants) for _ in range(ROUNDS)]
    figures = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    figures["ratio"] = statistics.median(row["p1000_us"] / row["p1_us"] for row in rows)
    figures["open_ratio"] = statistics.median(row["open1000_us"] / row["open1_us"] for row in rows)
    return {name: round(value, 2) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    figures = measure()
    if parser.parse_args().json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:12} {value:10.2f}")


if __name__ == "__main__":
    main()

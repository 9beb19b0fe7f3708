"""What importing the library costs, beside importing pydantic.

Run it with ``python benchmarks/imports.py [--json]``. Each figure is the median
over fresh interpreters, less the median of an interpreter that imports nothing.
Both libraries are byte-compiled once, before, into a directory of their own.
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

ROUNDS = 15
STATEMENTS = {
    "nothing": "pass",
    "pydantic": "from pydantic import BaseModel",
    "checkrein": "from checkrein import Run, Grant, allow, reads",
}


def milliseconds(statement: str, env: dict[str, str]) -> float:
    """Return how long a fresh interpreter takes for *statement*."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=env)
    return (time.perf_counter() - started) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="the cost of the import")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    rows: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    with tempfile.TemporaryDirectory() as compiled:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        for statement in STATEMENTS.values():
            milliseconds(statement, env)
        for _ in range(ROUNDS):
            for name, statement in STATEMENTS.items():
                rows[name].append(milliseconds(statement, env))
    base = statistics.median(rows["nothing"])
    figures = {
        f"{name}_ms": round(statistics.median(rows[name]) - base, 1)
        for name in ("pydantic", "checkrein")
    }
    figures["difference_ms"] = round(figures["checkrein_ms"] - figures["pydantic_ms"], 1)
    if parser.parse_args().json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:<16}{value:>8.1f}")


if __name__ == "__main__":
    main()

"""Says whether a framework has a newer release than the one in the table.

``python docs/frameworks/releases.py langchain``, in an environment that has the framework.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def compared(framework: str) -> str:
    """Return a line that says what was tested, and what is installed."""
    file = RESULTS / f"{framework}.json"
    if not file.exists():
        return f"{framework} is not in the table"
    found = json.loads(file.read_text(encoding="utf-8"))
    installed = version(found["distribution"])
    if installed == found["version"]:
        return f"{framework} {installed} is the release in the table"
    return f"{framework} {installed} is here, the table has {found['version']}"


if __name__ == "__main__":
    sys.stdout.write(f"{compared(sys.argv[1])}\n")

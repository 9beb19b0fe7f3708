"""Writes the table in ``README.md`` anew, from the test results in ``results/``.

``python3 -m nox -s table`` makes both. Nothing in the table is typed by hand: a row is a test of
``tests/frameworks/integration.py``, a column is a framework in which it was run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def results() -> list[dict[str, Any]]:
    """Return what is known of each framework, by name."""
    return [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((HERE / "results").glob("*.json"))
    ]


def table(found: list[dict[str, Any]]) -> str:
    """Return the table, and below it the reasons where a framework cannot do something."""
    rows: dict[str, None] = {}
    for one in found:
        rows |= dict.fromkeys(one["results"])
    reasons: dict[str, int] = {}
    heads = [f"[{one['framework']}]({one['framework']}.md) {one['version']}" for one in found]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(found) + 1) + "|"]
    for row in sorted(rows):
        cells = [_cell(one["results"].get(row, ""), reasons) for one in found]
        lines.append(f"| {' '.join(row.split('_')[1:])} | {' | '.join(cells)} |")
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def _cell(result: str, reasons: dict[str, int]) -> str:
    if not result.startswith("no: "):
        return result or "not run"
    number = reasons.setdefault(result.removeprefix("no: "), len(reasons) + 1)
    return f"no ({number})"


def main() -> None:
    """Write the table."""
    page = HERE / "README.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{before}{BEGIN}\n{table(results())}\n{END}{after}"
    page.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()

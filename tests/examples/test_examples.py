"""Every example runs as a program of its own, and tells the story that it should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
TELLS = {
    "quickstart.py": [
        "denied: send_email was denied (permission.argument)",
        "denied: send_email was denied (gate.denied)",
        "sent: [('lead@example.com', 'One mail today.')]",
        "entries, good",
    ]
}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_example_runs(program, tmp_path):
    """It ends well, without warnings, prints what it is for, and leaves nothing behind."""
    result = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert all(words in result.stdout for words in TELLS[program.name])
    assert list(tmp_path.iterdir()) == []


def test_every_example_is_described():
    """The page about the examples names each of them, and none that is not there."""
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = {word.strip("*`") for word in page.split() if word.strip("*`").endswith(".py")}
    assert named == {path.name for path in PROGRAMS} == set(TELLS)

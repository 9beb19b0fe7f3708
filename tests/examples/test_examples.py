"""Every example runs as a program of its own, and tells the story that it should."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
INTEGRATIONS = Path(__file__).parents[2] / "src" / "checkrein" / "integrations"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
AGENTS = sorted(EXAMPLES.glob("*_agent.py"))  # one for each framework
TELLS = {
    "quickstart.py": [
        "denied: send_email was denied (permission.argument)",
        "denied: send_email was denied (gate.denied)",
        "sent: [('lead@example.com', 'One mail today.')]",
        "entries, good",
    ]
}


def told_by(program: Path) -> list[str]:
    """Return what a program prints; that of a framework says so at the end of its docstring."""
    if program not in AGENTS:
        return TELLS[program.name]
    framework = program.name.removesuffix("_agent.py")
    if framework not in os.environ.get("CHECKREIN_REQUIRE_FRAMEWORKS", "").split(","):
        name = f"checkrein.integrations.{framework}"
        pytest.importorskip(name, reason=f"needs checkrein[{framework}]", exc_type=ImportError)
    told = (ast.get_docstring(ast.parse(program.read_text(encoding="utf-8"))) or "").splitlines()
    assert told[-1].startswith("    ")
    return [told[-1].strip()]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_example_runs(program, tmp_path):
    """It ends well, without warnings, prints what it is for, and leaves nothing behind."""
    told = told_by(program)
    result = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert all(words in result.stdout for words in told)
    assert list(tmp_path.iterdir()) == []


def test_every_example_is_described():
    """The page about the examples names each of them, and none that is not there."""
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = {word.strip("*`") for word in page.split() if word.strip("*`").endswith(".py")}
    assert named == {path.name for path in PROGRAMS if path not in AGENTS} == set(TELLS)
    assert "`<framework>_agent`" in page


@pytest.mark.parametrize("program", AGENTS, ids=lambda path: path.name)
def test_an_agent_is_short(program):
    """Each framework's example fits on a page, and there is an integration of its name."""
    assert len(program.read_text(encoding="utf-8").splitlines()) < 60
    assert (INTEGRATIONS / f"{program.name.removesuffix('_agent.py')}.py").exists()

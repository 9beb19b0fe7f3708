"""The entry point: a missing extra is one clear line, not a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest


def main(*arguments: str, without: str = ""):
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({without.split()!r}))\n"
        "from checkrein.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("missing", ["typer", "rich", "typer rich"])
def test_a_missing_command_line_is_one_line(missing):
    """Without typer or rich the program says what to install and exits with 2."""
    result = main("--help", without=missing)
    assert result.returncode == 2
    assert result.stderr == "checkrein needs its command line: pip install 'checkrein[cli]'\n"
    assert result.stdout == ""


def test_a_missing_mail_server_is_one_line():
    """Without aiosmtpd only the demo is missing, and it says what to install."""
    pytest.importorskip("typer")
    result = main("demo", "--yes", without="aiosmtpd")
    assert result.returncode == 2
    assert result.stderr == "checkrein needs its demo: pip install 'checkrein[demo]'\n"


def test_another_missing_module_is_not_hidden():
    """A broken installation is not mistaken for a missing extra."""
    pytest.importorskip("typer")
    result = main("--help", without="orjson")
    assert result.returncode == 1
    assert "orjson" in result.stderr


def test_help_names_the_commands():
    """The help lists demo, log and keys, without control codes."""
    pytest.importorskip("typer")
    result = main("--help")
    assert result.returncode == 0
    assert all(name in result.stdout for name in ("demo", "log", "keys"))
    assert "\x1b" not in result.stdout


def test_importing_the_room_needs_no_extra():
    """The package of the command line can be imported on a bare install."""
    code = "import sys; sys.modules.update(dict.fromkeys(['typer', 'rich'])); import checkrein.cli"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_the_package_runs_as_a_module():
    """``python -m checkrein`` is the same program."""
    pytest.importorskip("typer")
    result = subprocess.run(
        [sys.executable, "-m", "checkrein", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0
    assert result.stdout == main("--help").stdout

"""``oversight`` prints what a log says about approvers, and exits 3 if somebody only clicks."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from checkrein import AuditLog
from checkrein.cli.app import app

HOSTILE = "\x1b[2J[bold red]dana[/]\u202e"


def cli(*arguments: object):
    return CliRunner().invoke(app, ["oversight", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize(("seconds", "code"), [(0.5, 3), (30.0, 0)], ids=["clicks", "reads"])
def test_who_clicks_is_named(tmp_path, seconds, code):
    with AuditLog.open(tmp_path / "audit", origin="example.com/tests") as log:
        for number in range(40):
            began = (1_800_000_000 + number * 600) * 10**9
            named = {"confirmation": f"q{number}", "run": "r", "seq": 2 * number}
            log.enqueue({"type": "confirmation.asked", "time": began, "letters": 300, **named})
            answered = {"type": "confirmation.answered", "time": began + int(seconds * 1e9)}
            log.enqueue({**answered, **named, "by": HOSTILE, "answer": "approved"})
    result = cli(tmp_path / "audit")
    assert result.exit_code == code
    assert ("too-fast" in result.stdout) is (code == 3)
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", result.stdout)
    (found,) = json.loads(cli(tmp_path / "audit", "--json").stdout)
    assert found["rubber_stamping"] is (code == 3)
    assert found["yeses"]["part"] == 40


def test_an_empty_log_and_none(tmp_path):
    with AuditLog.open(tmp_path / "audit", origin="example.com/tests") as log:
        log.append({"type": "x"})
    assert "nobody has answered" in cli(tmp_path / "audit").stdout
    assert cli(tmp_path / "none").exit_code == 2

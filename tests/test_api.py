"""The public surface, the documentation, and what importing costs in modules."""

from __future__ import annotations

import doctest
import importlib
import logging
import pickle
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import checkrein
from checkrein import Untrusted, errors, writes
from checkrein.testing import permit
from support import MemoryLog

ROOT = Path(__file__).parent.parent


def test_the_public_names_are_sorted_and_there():
    """__all__ is the surface, and every name in it loads."""
    assert checkrein.__all__ == sorted(checkrein.__all__)
    for name in checkrein.__all__:
        assert getattr(checkrein, name) is not None
    with pytest.raises(AttributeError):
        checkrein.no_such_name


def test_heavy_libraries_load_when_first_used():
    """Importing the core loads neither cryptography, tenacity, orjson nor asyncio."""
    code = (
        "import sys; from pydantic import BaseModel; before = set(sys.modules);"
        "from checkrein import Run, Grant, allow, reads;"
        "print([m for m in ('cryptography', 'tenacity', 'orjson', 'asyncio', 'typer', 'rich')"
        " if m in set(sys.modules) - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(checkrein.__path__, "checkrein.")
    if ".cli" not in name and ".web." not in name and "__main__" not in name
]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for_and_its_examples_run(name: str):
    """Docstrings are the specification; examples in them are executed."""
    if name.startswith(("checkrein.integrations.", "checkrein.gateway.", "checkrein.telemetry")):
        pytest.importorskip(name, reason="what it is for is not installed", exc_type=ImportError)
    module = importlib.import_module(name)
    assert module.__doc__
    results = doctest.testmod(
        module, optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    )
    assert results.failed == 0


def test_the_readmes_python_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The two blocks are one program, and print what their comments say."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec("\n".join(blocks), {"__name__": "readme"})
    out = capsys.readouterr().out
    assert "sending to dana@acme.example" in out
    assert "ask: flow.origin" in out


def test_permit_is_one_line_for_a_unit_test():
    """A body runs with everything allowed and every question answered with yes."""

    @writes("api.x", external=True)
    def act(to: str, text: Untrusted[str]) -> None:
        sent.append((to, text.reveal()))

    sent: list[tuple[str, str]] = []
    log = MemoryLog()
    with permit(log=log, exposed=True):
        act("x", "y")
    assert sent == [("x", "y")]
    assert log.of("confirmation.answered")[0]["by"] == "checkrein.testing.permit"


def test_errors_survive_pickling_with_their_evidence():
    """Process pools carry errors; rule, tool and call stay with them."""
    error = errors.Denied("no", rule="permission.missing", tool="x", call="1", arguments=("to",))
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_denials_are_told_to_the_standard_logger(caplog: pytest.LogCaptureFixture):
    """One line per denial, with rule and tool, without values."""
    caplog.set_level(logging.INFO, "checkrein")

    @writes("api.y")
    def act(to: str) -> None: ...

    from checkrein import Grant, Run

    with Run(agent="bot", grant=Grant()), pytest.raises(errors.Denied):
        act("secret-value")
    assert "permission.missing" in caplog.text
    assert "secret-value" not in caplog.text

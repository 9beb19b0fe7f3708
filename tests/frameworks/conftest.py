"""Fixtures of the framework tests, and the results that the table of the documentation is made of.

With ``CHECKREIN_TABLE=<directory>`` each framework's results in
:class:`frameworks.integration.IntegrationContract` are written to ``<framework>.json`` there.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("frameworks.contract", "frameworks.integration", "frameworks.shapes")

from checkrein.integrations.hosts import installed  # noqa: E402 (after its helpers are registered)
from frameworks import tools  # noqa: E402

_RESULTS: dict[str, dict[str, Any]] = {}


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    tools.DONE.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Take in the result of each guarantee."""
    report = yield
    host = getattr(getattr(item, "cls", None), "host", None)
    if "IntegrationContract" not in [
        one.__name__ for one in getattr(getattr(item, "cls", None), "__mro__", ())
    ]:
        return report
    about = _RESULTS.setdefault(
        host.framework,
        {
            "framework": host.framework,
            "distribution": host.distribution,
            "version": installed(host.distribution),
            "python": platform.python_version(),
            "results": {},
        },
    )
    name = getattr(item, "originalname", item.name)
    results = about["results"]
    if report.failed:
        results[name] = "failed"
    elif report.skipped:
        results.setdefault(name, f"no: {report.longrepr[2].partition('unsupported: ')[2]}")
    elif report.when == "call" and results.get(name) != "failed":
        results[name] = "yes"
    return report


def pytest_sessionfinish() -> None:
    """Write the results down."""
    where = os.environ.get("CHECKREIN_TABLE")
    for framework, about in _RESULTS.items() if where else ():
        text = json.dumps(about, indent=2, sort_keys=True)
        Path(where, f"{framework}.json").write_text(f"{text}\n", encoding="utf-8")

"""Fixtures of the framework tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("frameworks.contract", "frameworks.shapes")

from frameworks import tools  # noqa: E402 (after its helpers are registered)


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    tools.DONE.clear()

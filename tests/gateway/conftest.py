"""Where the gateway's tests cannot run they are skipped; where they have to, that is an error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def missing(reason: str) -> None:
    """Skip, or fail where it is required."""
    if os.environ.get("CHECKREIN_REQUIRE_GATEWAY"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def servers() -> Path:
    """Where npm has put the servers that nobody here wrote."""
    named = os.environ.get("CHECKREIN_MCP_SERVERS", "")
    if not named or not shutil.which("node"):
        missing("CHECKREIN_MCP_SERVERS names no directory, or there is no node: nox -s gateway")
    found = Path(named) / "node_modules" / ".bin"
    if not (found / "mcp-server-filesystem").exists():
        missing(f"there is no mcp-server-filesystem in {named}")
    return found

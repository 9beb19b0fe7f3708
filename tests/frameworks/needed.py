"""Skip where a framework is missing; fail there where it is required."""

from __future__ import annotations

import importlib
import os

import pytest


def needed(name: str) -> None:
    """Skip the calling test module if *name* cannot be imported.

    With ``CHECKREIN_REQUIRE_FRAMEWORKS=1`` a missing framework is an error.
    """
    if os.environ.get("CHECKREIN_REQUIRE_FRAMEWORKS") == "1":
        importlib.import_module(name)
    else:
        pytest.importorskip(name, reason=f"{name} is not installed: run the frameworks session")

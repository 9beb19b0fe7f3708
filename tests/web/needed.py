"""Skip where the web inbox or a browser is missing; fail there where they are required."""

from __future__ import annotations

import importlib
import os
import shutil

import pytest

_PLACES = ("chromium", "chromium-browser", "google-chrome")


def required() -> bool:
    """Say whether what is missing is an error."""
    return os.environ.get("CHECKREIN_REQUIRE_BROWSER") == "1"


def needed(*names: str) -> None:
    """Skip the calling test module if one of the modules *names* cannot be imported.

    With ``CHECKREIN_REQUIRE_BROWSER=1`` a missing one is an error.
    """
    for name in names:
        if required():
            importlib.import_module(name)
        else:
            pytest.importorskip(name, reason=f"{name} is not installed: run the inbox session")


def chromium() -> str:
    """Return the path of the browser; skip or fail if there is none."""
    for one in _PLACES:
        found = shutil.which(one)
        if found:
            return found
    reason = "chromium is not installed: apt-get install chromium"
    if required():
        pytest.fail(reason)
    pytest.skip(reason)

"""Skip where a framework is missing; fail there where it is required."""

from __future__ import annotations

import importlib
import os

import pytest


def needed(framework: str, *modules: str) -> None:
    """Skip the calling test module if a framework's *modules* cannot be imported.

    Where the environment variable ``CHECKREIN_REQUIRE_FRAMEWORKS`` names the framework, that
    is an error.

    Args:
        framework: its name, as of its file in ``frameworks/hosts``.
        modules: what its tests import; a module of the same name if left out.
    """
    for name in modules or (framework,):
        if framework in os.environ.get("CHECKREIN_REQUIRE_FRAMEWORKS", "").split(","):
            importlib.import_module(name)
        else:
            reason = f"{name} is not installed: run the session frameworks(framework={framework!r})"
            pytest.importorskip(name, reason=reason, exc_type=ImportError)

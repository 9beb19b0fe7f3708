"""OpenTelemetry's SDK, or a skip; a failure where it has to be there."""

from __future__ import annotations

import os

import pytest


def needed() -> None:
    """Skip the module without the SDK, unless ``CHECKREIN_REQUIRE_OTEL`` is set."""
    if not os.environ.get("CHECKREIN_REQUIRE_OTEL"):
        pytest.importorskip("opentelemetry.sdk.trace", reason="needs OpenTelemetry's SDK")

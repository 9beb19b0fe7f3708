"""The contract, and what is special, in Google ADK: newest release, scripted model."""

from __future__ import annotations

from frameworks.needed import needed

needed("google_adk", "google.adk")

from frameworks.contract import FrameworkContract  # noqa: E402 (skipped above if it cannot run)
from frameworks.hosts.google_adk import HOST  # noqa: E402
from frameworks.integration import IntegrationContract  # noqa: E402


class TestGoogleADK(FrameworkContract):
    """Everything in the contract."""

    host = HOST


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST

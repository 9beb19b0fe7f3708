"""The contract, and what is special, in AG2: newest release, scripted model."""

from __future__ import annotations

from frameworks.needed import needed

needed("ag2")

from frameworks.contract import FrameworkContract  # noqa: E402 (skipped above if it cannot run)
from frameworks.hosts.ag2 import HOST  # noqa: E402
from frameworks.integration import IntegrationContract  # noqa: E402


class TestAG2(FrameworkContract):
    """Everything in the contract, with a model that lets our errors out."""

    host = HOST


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST

"""The contract, and what is special, in Microsoft's Agent Framework: newest release, a script."""

from __future__ import annotations

from frameworks.needed import needed

needed("agent_framework")

from frameworks.contract import FrameworkContract  # noqa: E402 (skipped above if it cannot run)
from frameworks.hosts.agent_framework import HOST  # noqa: E402
from frameworks.integration import IntegrationContract  # noqa: E402


class TestAgentFramework(FrameworkContract):
    """Everything in the contract, with middleware that lets our errors out."""

    host = HOST


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST

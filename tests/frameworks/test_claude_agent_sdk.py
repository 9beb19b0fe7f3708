"""The contract, and what is special, in the Claude Agent SDK: its own CLI, scripted model."""

from __future__ import annotations

from frameworks.needed import needed

needed("claude_agent_sdk")

from frameworks.contract import FrameworkContract  # noqa: E402 (skipped above if it cannot run)
from frameworks.hosts.claude_agent_sdk import HOST  # noqa: E402
from frameworks.integration import IntegrationContract  # noqa: E402


class TestContract(FrameworkContract):
    """Everything in the contract."""

    host = HOST


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST

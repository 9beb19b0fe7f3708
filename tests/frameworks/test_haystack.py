"""The contract, and what is special, in Haystack: newest release, scripted model."""

from __future__ import annotations

from frameworks.needed import needed

needed("haystack")

from frameworks.contract import FrameworkContract  # noqa: E402
from frameworks.hosts.haystack import HOST  # noqa: E402
from frameworks.integration import IntegrationContract  # noqa: E402


class TestContract(FrameworkContract):
    """Everything in the contract; errors of tools are let out."""

    host = HOST


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST

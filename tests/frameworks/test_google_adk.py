"""The contract, and what is special, in Google ADK: newest release, scripted model."""

from __future__ import annotations

from pathlib import Path

import pytest

from frameworks.needed import needed

needed("google_adk", "google.adk")

from frameworks.contract import FrameworkContract, Wish  # noqa: E402 (skipped above if it cannot run)
from frameworks.hosts.google_adk import HOST  # noqa: E402
from frameworks.integration import IntegrationContract  # noqa: E402
from frameworks.tools import Meeting, open_run  # noqa: E402


class TestGoogleADK(FrameworkContract):
    """Everything in the contract, with a plugin that turns content into text."""

    host = HOST

    @pytest.mark.parametrize("bound", [False, True], ids=["bare", "bound"])
    @pytest.mark.parametrize("awaited", [False, True], ids=["sync", "async"])
    def test_bodies_of_one_turn_overlap(self, awaited: bool, bound: bool, tmp_path: Path) -> None:
        """The run's lock is held over no body; plain functions overlap in the tools' threads."""
        meeting = Meeting()
        meet = meeting.ameet if awaited else meeting.meet
        with open_run(tmp_path) as run:
            talk = HOST.converse(
                run.tools(meet) if bound else [meet],
                [Wish(meet.__name__, {"who": "A"}), Wish(meet.__name__, {"who": "B"})],
                awaited=awaited,
                threads=True,
            )
        assert sorted(one.text for one in talk.told) == ["A was there", "B was there"]


class TestIntegration(IntegrationContract):
    """Everything in the contract of integrations."""

    host = HOST

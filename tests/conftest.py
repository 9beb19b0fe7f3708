"""Fixtures for every test: keys stay out of the account, hypothesis stays quick."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from checkrein.store import PROCESS_STORE

settings.register_profile(
    "checkrein", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("checkrein")


@pytest.fixture(autouse=True)
def _own_keys(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKREIN_DATA", str(tmp_path_factory.mktemp("keys")))


@pytest.fixture(autouse=True)
def _untainted() -> Iterator[None]:
    """No test has to know what another one has written where."""
    yield
    for notice in PROCESS_STORE.notices():
        if notice.startswith("tainted:"):
            PROCESS_STORE.withdraw(notice)

"""Fixtures for every test: keys stay out of the account, hypothesis stays quick."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from checkrein.store import PROCESS_STORE

settings.register_profile(
    "desk",
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=False,  # hypothesis would read it off the environment
)
# A change lands for what it changes, not by luck: .ci/run tries the same examples every time.
# Others are looked for at every desk, and more of them by .ci/weekly.
settings.register_profile("landing", settings.get_profile("desk"), derandomize=True)
settings.register_profile("search", settings.get_profile("desk"), max_examples=1000)
settings.load_profile(os.environ.get("CHECKREIN_EXAMPLES", "desk"))

# A shell's background job ignores SIGINT, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


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

"""Fixtures: a desk with an inbox over it, on which the clock is told the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkrein.gates.desk import Desk
from checkrein.gates.inbox import Inbox
from checkrein.store import SqliteStore
from support import Clock


@pytest.fixture
def clock() -> Clock:
    """A clock that begins with the real time, and stands still."""
    return Clock(time.time())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the questions are."""
    return tmp_path / "questions.db"


@pytest.fixture
def desk(place: Path, clock: Clock) -> Iterator[Desk]:
    with SqliteStore.open(place) as store:
        yield Desk(store, clock=clock)


@pytest.fixture
def inbox(desk: Desk, clock: Clock) -> Inbox:
    return Inbox(desk, clock=clock)

"""Fixtures: a PostgreSQL server, a place for each kind of store, and a store in each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from checkrein.store import MemoryStore, PostgresStore, SqliteStore
from stores.cluster import Cluster, Missing

POSTGRES = pytest.param("postgres", marks=pytest.mark.service("postgres"))
_MADE: list[object] = []


def missing(reason: str) -> None:
    """Skip, or fail where services are required."""
    if os.environ.get("CHECKREIN_REQUIRE_SERVICES"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The server, started once."""
    try:
        import psycopg  # noqa: F401

        running = Cluster()
    except (ImportError, Missing) as error:
        missing(str(error))
        raise AssertionError from error
    yield running
    running.stop()


class Place(NamedTuple):
    """Where a store is, and how it is opened: there, or by a child process."""

    kind: str
    where: str
    schema: str = ""

    def open(self, **options: Any) -> Any:
        """Open the store; the caller closes it."""
        if self.kind == "memory":
            return MemoryStore(**options)
        if self.kind == "sqlite":
            return SqliteStore.open(self.where, **options)
        return PostgresStore.open(self.where, schema=self.schema, **options)


def _place(kind: str, request: pytest.FixtureRequest) -> Place:
    if kind == "postgres":
        place = Place(kind, request.getfixturevalue("cluster").url, "shared_room")
        if _MADE:  # to empty tables is quicker than to make them
            tables = ("budgets", "reservations", "notices", "questions")
            request.getfixturevalue("cluster").run(
                *(f"DELETE FROM {place.schema}.{table}" for table in tables)
            )
        else:
            place.open().close()
            _MADE.append(place)
        return place
    return Place(kind, str(request.getfixturevalue("tmp_path") / "store.db"))


@pytest.fixture(params=["memory", "sqlite", POSTGRES])
def place(request: pytest.FixtureRequest) -> Place:
    """An empty place for each kind of store."""
    return _place(request.param, request)


@pytest.fixture(params=["sqlite", POSTGRES])
def shared(request: pytest.FixtureRequest) -> Place:
    """An empty place for each kind of store that processes share."""
    return _place(request.param, request)


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    """Opens stores, and closes them at the end."""
    stores: list[Any] = []

    def open_it(place: Place, **options: Any) -> Any:
        stores.append(place.open(**options))
        return stores[-1]

    yield open_it
    for one in stores:
        if hasattr(one, "close"):
            one.close()


@pytest.fixture
def store(place: Place, opened: Callable[..., Any]) -> Any:
    """An empty store of each kind."""
    return opened(place)

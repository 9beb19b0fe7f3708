"""Fixtures: verifiers that nobody here wrote, and logs for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from oracles.golang import GoCosigner, GoVerifier, Missing
from oracles.logs import Grown, grow
from oracles.witness import Witness


def missing(reason: str) -> None:
    """Skip, or fail where oracles are required."""
    if os.environ.get("CHECKREIN_REQUIRE_ORACLES"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> GoVerifier:
    """The verifier in Go, built once."""
    try:
        return GoVerifier(tmp_path_factory.mktemp("go"))
    except Missing as error:
        missing(str(error))
        raise AssertionError from error


@pytest.fixture(scope="session")
def cosigner(tmp_path_factory: pytest.TempPathFactory) -> GoCosigner:
    """The cosigner in Go, built once."""
    try:
        return GoCosigner(tmp_path_factory.mktemp("cosigner"))
    except Missing as error:
        missing(str(error))
        raise AssertionError from error


@pytest.fixture(scope="session")
def aics() -> None:
    """The packages aics-tlog and aics-witness."""
    try:
        import aics_tlog  # noqa: F401
        import aics_witness  # noqa: F401
    except ImportError as error:
        missing(f"aics-tlog and aics-witness are not installed: {error}")


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """One log, at all sizes; nobody may change it."""
    return grow(tmp_path_factory.mktemp("grown"))


@pytest.fixture
def witness(aics: None, tmp_path: Path, grown: Grown) -> Iterator[Witness]:
    """A witness of the grown log that has seen nothing yet."""
    running = Witness(tmp_path / "witness", grown.vkey)
    yield running
    running.stop()

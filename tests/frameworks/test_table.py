"""The table in the documentation is the one that the results make, and has every guarantee."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from frameworks.integration import GUARANTEES

DOCS = Path(__file__).parents[2] / "docs" / "frameworks"
TABLE = runpy.run_path(str(DOCS / "table.py"))
HOSTS = {path.stem for path in (Path(__file__).parent / "hosts").glob("*.py")}


def test_the_page_shows_the_results():
    """Nobody has typed into the table, or forgotten to make it anew."""
    assert TABLE["table"](TABLE["results"]()) in (DOCS / "README.md").read_text(encoding="utf-8")


def test_every_framework_has_a_page_and_results():
    """What is tested is in the table, and what is in the table is tested and explained."""
    assert {path.stem for path in (DOCS / "results").glob("*.json")} == HOSTS
    assert {path.stem for path in DOCS.glob("*.md")} >= HOSTS


@pytest.mark.parametrize("about", TABLE["results"](), ids=lambda one: one["framework"])
def test_the_results_are_those_of_the_contract_as_it_is(about):
    """A guarantee that was added or renamed since has no result, and none has failed."""
    assert set(about["results"]) == set(GUARANTEES), "run: python3 -m nox -s table"
    assert about["version"]
    assert {one for one in about["results"].values() if not one.startswith("no: ")} <= {"yes"}
    assert "no: " not in about["results"].values(), "a reason is given"

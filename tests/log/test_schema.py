"""The schema of the entries, and what a reader of a later log may rely on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from checkrein import CallbackGate, Grant, Run, Untrusted, allow, events, irreversible
from checkrein.errors import TamperedError
from checkrein.log import AuditLog, read_entries
from checkrein.log.schema import CallDecided, CallOutcome, json_schema, parse_entry

DOCS = Path(__file__).parents[2] / "docs" / "log"
GOOD = {"v": 1, "type": "trusted", "time": 5, "run": "r", "seq": 0, "values": 2}


@irreversible("schema.send", external=True)
def send(to: str, body: Untrusted[str]) -> Untrusted[str]:
    return Untrusted(f"sent to {to}")


def test_the_entries_of_a_run_are_of_the_schema(tmp_path):
    """What a real run writes is read back as models, with nothing left over."""
    gate = CallbackGate(lambda one: True, by="dana")
    with AuditLog.open(tmp_path / "log", origin="example.com/schema") as log:
        grant = Grant(allow("schema.send"))
        with Run(agent="bot", grant=grant, gate=gate, log=log, subject="customer-1") as run:
            run.instruct("Write to bo.")
            send("bo", Untrusted("hello"))
        log.erase(subject="customer-1", by="dana", reason="asked")
    found = [parse_entry(event) for _, event in read_entries(tmp_path / "log")]
    allowed = next(one for one in found if isinstance(one, CallDecided))
    assert (allowed.tool, allowed.arguments["to"]) == ("send", "bo")
    outcome = next(one for one in found if isinstance(one, CallOutcome))
    assert (outcome.status, len(outcome.digest)) == ("done", 64)
    assert {one.type for one in found} >= {"run.opened", "instruction", "run.closed", "erasure"}


def test_the_schema_in_the_docs_is_this_one():
    """The JSON Schema that others read is made anew when an entry changes."""
    kept = json.loads((DOCS / "events.schema.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(json_schema())), "run: python docs/log/schema.py"


def test_every_type_is_in_the_specification():
    """The table in checkrein.events has the types of the schema, and no other."""
    table = events.__doc__.split("======================  =====")[2]
    told = set(re.findall(r"^``([a-z.]+)``", table, re.MULTILINE))
    assert told == set(json_schema()["discriminator"]["mapping"])


@pytest.mark.parametrize(
    "wrong",
    [
        GOOD | {"v": 2},
        GOOD | {"values": "2"},
        GOOD | {"seq": -1},
        GOOD | {"seq": True},
        {name: value for name, value in GOOD.items() if name != "run"},
        GOOD | {"type": None},
        {},
    ],
)
def test_what_is_not_of_the_schema(wrong):
    """A wrong field is refused, strictly or not; its value is in no message."""
    for strict in (True, False):
        with pytest.raises(TamperedError, match="not one of this schema"):
            parse_entry(wrong, strict=strict)


def test_a_later_log_is_read_by_an_earlier_reader():
    """Fields and types that are not known are left out if one asks for that, refused if not."""
    later = GOOD | {"new": 1}
    assert parse_entry(later, strict=False) == parse_entry(GOOD)
    assert parse_entry({**GOOD, "type": "brand.new"}, strict=False) is None
    for one in (later, {**GOOD, "type": "brand.new"}):
        with pytest.raises(TamperedError):
            parse_entry(one)

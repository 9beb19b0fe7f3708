"""What entries say of runs and calls, told at once or in parts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein.errors import TamperedError
from checkrein.log import completeness
from checkrein.log.completeness import Runs, Story


def entry(kind, run="a", seq=0, **more):
    return {"type": kind, "run": run, "seq": seq, **more}


def told(events):
    story = Story()
    story.tell_all(events)
    return story


def joined(parts):
    story = Story()
    for events in parts:
        part = Story(whole=False)
        part.tell_all(events)
        story.join(part)
    return story


CALLS = st.sampled_from(["c1", "c2", "c3"])
EVENTS = st.lists(
    st.builds(
        lambda kind, run, seq, call, status: entry(kind, run, seq, call=call, status=status),
        st.sampled_from(
            ["run.opened", "run.closed", "run.suspended", "call.allowed", "call.outcome",
             "call.denied", "other"]
        ),
        st.sampled_from(["a", "b"]),
        st.integers(0, 6),
        CALLS,
        st.sampled_from(["done", "raised", "cancelled", 5]),
    ),
    max_size=25,
)  # fmt: skip


@given(EVENTS, st.lists(st.integers(0, 25), max_size=3))
def test_parts_tell_the_whole_story(events, cuts):
    """However a log is cut into parts, joined they say what the whole says."""
    intents: set[str] = set()  # an intent is written once; who forges a second one is told less
    events = [
        one
        for one in events
        if one["type"] != "call.allowed"
        or (one["call"] not in intents and not intents.add(one["call"]))
    ]
    bounds = [0, *sorted(cuts), len(events)]
    parts = [events[a:b] for a, b in pairwise(bounds)]
    whole, again = told(events), joined(parts)
    assert again.in_doubt() == whole.in_doubt()
    ours, theirs = whole.runs(), again.runs()
    assert (ours.opened, ours.closed) == (theirs.opened, theirs.closed)
    assert set(ours.open) == set(theirs.open)
    assert set(ours.orphans) == set(theirs.orphans)
    assert {one.partition(" repeated")[0].rpartition(" ")[0] for one in ours.gaps} == {
        one.partition(" repeated")[0].rpartition(" ")[0] for one in theirs.gaps
    }


@given(st.permutations(range(8)))
def test_the_order_of_numbers_does_not_matter(order):
    """Threads may hand in their entries out of turn; all numbers make no gap."""
    events = [entry("other", "a", seq) for seq in order]
    assert told([*events, entry("run.closed", "a", 8, calls=0)]).runs() == Runs(closed=1)


def test_orphans():
    """A body that ran without an intent is named; what never ran needs none."""
    events = [
        entry("call.outcome", "a", 0, call="ran", status="done"),
        entry("call.outcome", "a", 1, call="gone", status="cancelled"),
        entry("call.denied", "a", 2, call="no"),
        entry("call.outcome", "a", 3, call="odd", status=["done"]),
    ]
    assert told(events).runs().orphans == ("ran",)
    part = Story(whole=False)  # its intent may lie before this part
    part.tell_all(events)
    assert part.runs().orphans == ()


def test_the_closing_count():
    """A run whose last entry counts other calls than there are has lost some, or gained."""
    events = [entry("run.opened"), entry("call.allowed", seq=1, call="c"), entry("x", seq=2)]
    assert told([*events, entry("run.closed", seq=3, calls=1)]).runs().gaps == ()
    (problem,) = told([*events, entry("run.closed", seq=3, calls=2)]).runs().gaps
    assert problem == "a: closed with 2 calls, 1 are here"


def test_runs_that_are_over_are_forgotten_but_not_at_once(monkeypatch):
    """Late entries of a run that is over make no gap; much later ones are named."""
    monkeypatch.setattr(completeness, "REMEMBERED", 2)
    story = Story()
    for name in "abc":
        story.tell_all([entry("run.opened", name), entry("run.closed", name, 1)])
    story.tell(entry("call.outcome", "c", 2))
    assert story.runs() == Runs(3, 3)
    story.tell(entry("call.outcome", "a", 2))
    assert story.runs() == Runs(3, 3, ("a",), ("a: 0 to 1 missing",))


@pytest.mark.parametrize("wrong", [[], None, 5, "x", {}, {"type": 5}])
def test_what_is_no_event(wrong):
    """What cannot be an event is refused, whatever it is; those before it count."""
    story = Story()
    with pytest.raises(TamperedError):
        story.tell_all([entry("run.opened"), wrong])
    assert story.runs().opened == 1


@pytest.mark.parametrize("run", [None, 5, ["a"], {}])
@pytest.mark.parametrize("seq", [True, "1", 1.0, None, 10**30, -1])
def test_odd_fields(run, seq):
    """A forged entry may hold anything: nothing is counted that is no number of a run."""
    story = told([{"type": "call.allowed", "run": run, "seq": seq, "call": ["c"]}])
    assert story.runs() == Runs()
    assert story.in_doubt() == ()

"""What an incident responder asks, answered from the entries alone.

::

    answers = Answers.about("3f2a9c01-4", read_entries("audit/"))
    answers.explain()

The ten questions, each a method that returns plain data:

===================  ======================================================================
``who``              which person and agent caused it, on whose behalf, by which delegation
``what``             the tool, the exact arguments, and what an approver was asked
``context``          which untrusted sources the run, and those around it, had read by then
``why``              what was decided, by which rules, under which grants; who approved
``touched``          what else the run, and its kin, have done: the blast radius
``timeline``         all of it in order, the denied attempts included
``outcome``          whether it succeeded, or is in doubt
``complete``         whether entries of these runs are missing
``contained``        what was stopped, locked or called suspicious, when and by whom
``versions``         the definition of the tool, the policy, the prompts, the library
===================  ======================================================================

The entries are taken as they are: that they are unaltered is for
:func:`checkrein.log.verify_log` to say. An empty answer means that the entries hold none.
Every value may be what a stranger wrote: show it with :func:`checkrein.visible.visible`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, final

from checkrein.errors import LogError
from checkrein.log.completeness import Story

Event = dict[str, Any]

_DECISIONS: Final = frozenset({"call.allowed", "call.denied", "confirmation.asked"})
_CONTAINED: Final = frozenset({"run.stopped", "run.locked"})
_DEEPEST: Final = 10_000
QUESTIONS: Final = (
    *("who", "what", "context", "why", "touched", "timeline"),
    *("outcome", "complete", "contained", "versions"),
)
"""The names of the ten methods."""


@final
class Answers:
    """The ten answers about one call.

    Args:
        call: the id of the call.
        events: the entries of its run and of the kin of that; see :meth:`about`.
    """

    def __init__(self, call: str, events: Iterable[Event]) -> None:
        self.call = call
        self._events = list(events)
        self._places = {id(one): place for place, one in enumerate(self._events)}
        self._own = [one for one in self._events if one.get("call") == call]
        # The call that was put off, and the one that a person had made of another.
        decided = [one for one in self._own if _text(one, "type") in _DECISIONS]
        if not decided:
            raise LogError(f"the log has no decision about a call {call!r}")
        self._first, self._last = decided[0], decided[-1]
        self._run = _text(self._last, "run")
        kin = _Kin()
        for one in self._events:
            kin.learn(one)
        # The run of the call, those it went on with, and those it was inside of.
        self._line = kin.line(self._run)

    @classmethod
    def about(cls, call: str, read: Callable[[], Iterable[Event]]) -> Answers:
        """Return the answers about *call*, from a log that is read twice.

        Args:
            call: the id of the call.
            read: returns all events of the log, in order, each time that it is called.

        Raises:
            LogError: the log has no decision about such a call.
        """
        family = runs_about(call, read())
        return cls(call, (one for one in read() if _text(one, "run") in family))

    def explain(self) -> dict[str, Any]:
        """Return all ten answers, by name."""
        return {name: getattr(self, name)() for name in QUESTIONS}

    def who(self) -> dict[str, Any]:
        """Q1: the agent, the runs it acted inside of, the grants, and the user's own words."""
        opened = [one for run in self._line for one in self._of(run, "run.opened")]
        words = [
            _text(one, "text")
            for run in self._line
            for one in self._of(run, "instruction")
            if self._before(one)
        ]
        return {
            "agent": _text(self._last, "agent"),
            "run": self._run,
            "on_behalf_of": [_text(one, "agent") for one in opened if one.get("run") != self._run],
            "runs": list(self._line),
            "within": _text(self._last, "parent"),
            "grants": self._last.get("grants", []),
            "holders": [key for one in opened for key in _list(one, "holders")],
            "instructions": words,
            "approved_by": [_text(one, "by") for one in self._answers() if _is_yes(one)],
        }

    def what(self) -> dict[str, Any]:
        """Q2: the tool and its arguments, and what was asked about them."""
        one = self._last
        asked = [event for event in self._own if event.get("type") == "confirmation.asked"]
        return {
            **{name: one.get(name) for name in ("tool", "effect", "resource", "arguments")},
            "digest": _text(one, "digest"),
            "asked": [
                {
                    "confirmation": _text(event, "confirmation"),
                    "shown": event.get("arguments"),
                    "bound_to": _text(event, "bound_to"),
                    "letters": event.get("letters"),
                }
                for event in asked
            ],
        }

    def context(self) -> list[dict[str, Any]]:
        """Q3: the untrusted sources that were read before, each with the call that read it."""
        line = set(self._line)
        return [
            {"sources": sources, "call": _text(one, "call"), "entry": _text(one, "type")}
            for one in self._events
            if _text(one, "run") in line and self._before(one)
            for sources in (_list(one, "sources"),)
            if sources
        ]

    def why(self) -> dict[str, Any]:
        """Q4: the decision, the rules that spoke, the grants, and the answers of people."""
        return {
            "decision": _text(self._last, "type"),
            "findings": self._last.get("findings", []),
            "asked_for": self._first.get("findings", []),
            "exposed": self._last.get("exposed"),
            "grants": self._last.get("grants", []),
            "permissions": [
                text
                for run in self._line
                for one in self._of(run, "run.opened")
                for text in _list(one, "permissions")
            ],
            "standing": _text(self._last, "standing"),
            "answers": [
                {name: one.get(name) for name in ("answer", "by", "reason", "suspicious")}
                for one in self._answers()
            ],
        }

    def touched(self) -> list[dict[str, Any]]:
        """Q5: the other calls of the same runs that were let through."""
        return [
            {name: one.get(name) for name in ("call", "run", "tool", "resource", "arguments")}
            for one in self._events
            if one.get("type") == "call.allowed" and one.get("call") != self.call
        ]

    def timeline(self) -> list[dict[str, Any]]:
        """Q6: every entry of these runs, in order: when, what, about which call."""
        return [
            {name: one.get(name) for name in ("time", "type", "run", "call", "tool", "status")}
            for one in self._events
        ]

    def outcome(self) -> dict[str, Any]:
        """Q7: how it ended; ``in doubt`` if it may have run and nobody knows."""
        ended = [one for one in self._own if one.get("type") == "call.outcome"]
        if ended:
            last = ended[-1]
            return {name: last.get(name) for name in ("status", "error", "ms", "time")}
        allowed = self._last.get("type") == "call.allowed"
        return {"status": "in doubt" if allowed else "not run"}

    def complete(self) -> dict[str, Any]:
        """Q8: entries that are missing, runs that are open, calls in doubt among these."""
        story = Story()
        for one in self._events:
            story.tell(one)
        runs = story.runs()
        return {"gaps": runs.gaps, "open": runs.open, "in_doubt": story.in_doubt()}

    def contained(self) -> list[dict[str, Any]]:
        """Q9: what was stopped, locked, or called suspicious."""
        return [
            {name: one.get(name) for name in ("time", "type", "run", "reason", "by", "call")}
            for one in self._events
            if _text(one, "type") in _CONTAINED or one.get("suspicious") is True
        ]

    def versions(self) -> dict[str, Any]:
        """Q10: what the tool, the policy, the prompts and the library were at that time."""
        opened = self._of(self._run, "run.opened")
        prompts = [
            _text(one, "digest")
            for run in self._line
            for one in self._of(run, "prompt")
            if self._before(one)
        ]
        return {
            "definition": _text(self._last, "definition"),
            "policy": [_text(one, "policy") for one in opened],
            "checkrein": [_text(one, "version") for one in opened],
            "prompts": prompts,
        }

    # -- inside --------------------------------------------------------------------------------

    def _of(self, run: str, kind: str) -> list[Event]:
        return [one for one in self._events if one.get("run") == run and one.get("type") == kind]

    def _before(self, event: Event) -> bool:
        """Say whether an entry was written before the decision; the log is in order."""
        return self._places[id(event)] <= self._places[id(self._last)]

    def _answers(self) -> list[Event]:
        return [one for one in self._own if one.get("type") == "confirmation.answered"]


def runs_about(call: str, events: Iterable[Event]) -> set[str]:
    """Return the ids of the runs whose entries the answers about *call* are drawn from.

    These are the runs that decided about it, those around and inside of them, and those that
    they go on with; none, if there is no decision about such a call.
    """
    kin = _Kin()
    runs: set[str] = set()
    for event in events:
        kin.learn(event)
        if event.get("call") == call and _text(event, "type") in _DECISIONS:
            runs.add(_text(event, "run"))
    return kin.of(runs)


class _Kin:
    """Which run is inside which, and goes on with which."""

    def __init__(self) -> None:
        self._above: dict[str, list[str]] = {}
        self._below: dict[str, list[str]] = {}

    def learn(self, event: Event) -> None:
        if event.get("type") != "run.opened":
            return
        run = _text(event, "run")
        for above in (_text(event, "resumes"), _text(event, "parent")):
            if above and above != run:
                self._above.setdefault(run, []).append(above)
                self._below.setdefault(above, []).append(run)

    def line(self, run: str) -> list[str]:
        """Return *run* and what is above it, nearest first."""
        found = [run]
        for one in found:
            found += [above for above in self._above.get(one, ()) if above not in found]
            if len(found) > _DEEPEST:
                break
        return found

    def of(self, runs: Iterable[str]) -> set[str]:
        """Return *runs* with all that they are connected with."""
        waiting, found = list(runs), set[str]()
        while waiting:
            run = waiting.pop()
            if run not in found:
                found.add(run)
                waiting += self._above.get(run, []) + self._below.get(run, [])
        return found


def _is_yes(event: Event) -> bool:
    return _text(event, "answer") in {"approved", "standing"}


def _text(event: Event, name: str) -> str:
    """Return a field as text: a log may be forged, and hold anything."""
    value = event.get(name)
    return value if type(value) is str else ""


def _list(event: Event, name: str) -> list[Any]:
    value = event.get(name)
    return value if type(value) is list else []

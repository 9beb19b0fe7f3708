"""Why a harmless task asks: for each question the value, the argument, and the kind of reason.

==================  ============================================================
kind                the value that has no trusted origin
==================  ============================================================
``matching``        is in the user's words, in another form than the guard reads
``resolver``        names an object or a member that a look-up found
``third-party``     stands in text that strangers write
``derived``         was worked out or chosen: an amount, a date, an hour
``choice``          is one of a few that the tool's type lists
``irreversible``    no value: the effect alone is asked about
==================  ============================================================

A question may have several reasons, and goes only when the last of them goes.
The kinds are told apart by rules that know the tools and the data set a little;
they are for people who improve the matching, and decide nothing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple, get_origin

from benchmarks.agentdojo.harness import Score, environment_for, execute, suite_of
from benchmarks.agentdojo.humans import arguments_of
from benchmarks.agentdojo.policy import facts_of

from agentdojo.agent_pipeline.tool_execution import tool_result_to_str

KINDS: Final = {
    "matching": "in the user's words, in another form (matching could be better)",
    "resolver": "an object or a member that a look-up found (missing resolver)",
    "third-party": "stands in text that strangers write",
    "derived": "a derived or freely chosen amount, date or hour",
    "choice": "one of a few values that the tool's type lists",
    "irreversible": "nothing against the arguments, the effect cannot be taken back",
}

_REFERENCES: Final = frozenset(
    {"event_id", "file_id", "email_id", "attachments", "channel", "send_direct_message.recipient"}
)
_CHOSEN: Final = frozenset({"send_money.date"})  # no user names one; other dates stand in texts
_DIRECTORIES: Final = frozenset({"search_contacts_by_name", "get_users_in_channel"})


class Reason(NamedTuple):
    """One value that a question is about."""

    kind: str
    argument: str
    value: str
    task: str


def reasons_for(score: Score) -> list[list[Reason]]:
    """Return the reasons of each question of a harmless conversation."""
    task = f"{score.pair.suite} {score.pair.user.removeprefix('user_task_')}"
    found = []
    for question in score.asked:
        told = _Told(score, question.tool, question.arguments)
        one = [
            Reason(told.kind_of(name, leaf), f"{question.tool}.{name}", repr(leaf), task)
            for name in question.concerns
            for leaf in dict.fromkeys(_leaves(question.arguments[name]))
            if not told.is_said_plainly(leaf)
        ]
        found.append(one or [Reason("irreversible", question.tool, "", task)])
    return found


class _Told:
    """What the agent had been told before one call, and by whom."""

    def __init__(self, score: Score, tool: str, arguments: dict[str, Any]) -> None:
        pair = score.pair
        task = suite_of(pair.suite).user_tasks[pair.user]
        environment = environment_for(pair)
        self._tool = tool
        self._prompt: str = task.PROMPT
        self._results = ""
        self._directories = ""
        for call in task.ground_truth(environment.model_copy(deep=True)):
            if (call.function, arguments_of(call)) == (tool, arguments):
                break
            result = execute(pair.suite, environment, call.function, call.args)
            text = " ".join(tool_result_to_str(result).split())  # YAML breaks long lines
            self._results += f"{text}\n"
            if call.function in _DIRECTORIES:
                self._directories += f"{text}\n"

    def is_said_plainly(self, leaf: Any) -> bool:
        """Say whether the user said a part of a list word for word: it is not what is missing."""
        return isinstance(leaf, str) and leaf in _words(self._prompt)

    def kind_of(self, name: str, leaf: Any) -> str:
        """Return the kind of reason why *leaf* has no trusted origin."""
        parameter = f"{self._tool}.{name}"
        if name in _REFERENCES or parameter in _REFERENCES:
            return "resolver"
        if get_origin(facts_of(self._tool).by_name[name].shown) is Literal:
            return "choice"
        if parameter in _CHOSEN:
            return "derived"
        if _is_said(leaf, self._prompt):
            return "matching"
        if _is_said(leaf, self._directories):
            return "resolver"
        return "third-party" if _is_said(leaf, self._results) else "derived"


def _words(text: str) -> set[str]:
    return {word.strip(".,;:!?()'\"") for word in text.split()}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        # Of an attachment only what it refers to is a choice.
        yield from (item for name, item in value.items() if name != "type")
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None:
        yield value


# -- what counts as said, in any form --------------------------------------------------------

_MONTHS: Final = (
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
)
_MONTH_AND_DAY: Final = re.compile(
    rf"\b({'|'.join(_MONTHS)})[a-z]*\.? ([0-9]{{1,2}})(?:st|nd|rd|th)?\b"
    rf"|\b([0-9]{{1,2}})(?:st|nd|rd|th)? (?:of )?({'|'.join(_MONTHS)})[a-z]*\b"
)
_ISO: Final = re.compile(r"\b([0-9]{4})-([0-9]{2}-[0-9]{2})(?:[ T]([0-9]{2}:[0-9]{2}))?")
_CLOCK: Final = re.compile(r"\b([0-9]{1,2})(?::([0-9]{2}))?(?: ?(am|pm))?\b")


def _is_said(leaf: Any, text: str) -> bool:
    text = text.lower()
    if isinstance(leaf, str) and (moment := _ISO.fullmatch(leaf)):
        year, day, hour = moment.groups()
        return _moments((year, day, hour)) <= _moments_in(text)
    if isinstance(leaf, float):  # numbers without a point are ids more often than amounts
        return any(float(one) == leaf for one in re.findall(r"\b[0-9]+\.[0-9]+\b", text))
    return bool(leaf) and str(leaf).lower() in text


def _moments(parts: Iterable[str | None]) -> set[str]:
    return {part for part in parts if part}


def _moments_in(text: str) -> set[str]:
    """Return the years, days (``MM-DD``) and hours (``HH:MM``) that *text* speaks of."""
    found = set(re.findall(r"\b(?:19|20)[0-9]{2}\b", text))
    for _, day, hour in _ISO.findall(text):
        found |= _moments({day, hour})
    for month, after, before, other in _MONTH_AND_DAY.findall(text):
        found.add(f"{_MONTHS.index(month or other) + 1:02}-{int(after or before):02}")
    for hour, minute, half in _CLOCK.findall(text):
        if (minute or half) and int(hour) < 24:
            late = 12 if half == "pm" and int(hour) < 12 else 0
            found.add(f"{int(hour) + late:02}:{minute or '00'}")
    return found


# -- the list ------------------------------------------------------------------------------


def listing(scores: Iterable[Score]) -> str:
    """Return the reasons of all questions, grouped, as text."""
    scores = list(scores)
    questions = [one for score in scores for one in reasons_for(score)]
    asking = sum(bool(one.asked) for one in scores)
    lines = [
        f"{len(questions)} questions in {asking} of {len(scores)} tasks",
        "",
        "questions that need all of:",
    ]
    together = Counter(" + ".join(sorted({one.kind for one in each})) for each in questions)
    lines += [f"  {count:3}  {kinds}" for kinds, count in together.most_common()]
    for kind, meaning in KINDS.items():
        values: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for one in (reason for each in questions for reason in each if reason.kind == kind):
            values[one.argument][one.value].append(one.task)
        if values:
            lines += ["", f"{kind}: {meaning}"]
        for argument, by_value in sorted(values.items()):
            shown = "; ".join(
                f"{value} ({', '.join(dict.fromkeys(where))})".strip()
                for value, where in by_value.items()
            )
            lines.append(f"  {argument}: {shown}")
    return "\n".join(lines)

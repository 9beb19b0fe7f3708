"""``log show``, ``log follow``, ``log explain`` and ``log verify``.

Entries may hold what anybody wrote, and a log that is shown may be forged. So
every value is made visible before it is printed, nothing is taken for markup,
and every field may be of any type.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard, cast

from checkrein.cli.screen import Screen, progress_bar, safe_json
from checkrein.cli.witnessing import read_policy
from checkrein.errors import ConfigurationError, TamperedError
from checkrein.log import AuditLog, read_entries, verify_log
from checkrein.log.answers import Answers
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.reading import entry_count, follow_entries
from checkrein.visible import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from checkrein.log import Report

_Event = dict[str, Any]
_LARGE: Final = 500_000
NOT_VERIFIED: Final = "shown as it lies there, not verified: checkrein log verify does that"


class Row(NamedTuple):
    """One entry as it is printed; every part was made visible."""

    time: str
    run: str
    who: str
    what: str
    outcome: str

    def line(self, index: int | str) -> str:
        """Return the row as one line."""
        arrow = f"  ->  {self.outcome}" if self.outcome else ""
        return f"{index:>5}  {self.time:<20}  {self.run:<8}  {self.who:<12}  {self.what}{arrow}"


def show(directory: Path, *, run: str, as_json: bool) -> int:
    """Print the entries of the log in *directory*.

    Args:
        directory: the log's directory.
        run: print only the runs whose id begins like this.
        as_json: print one JSON object a line.

    Returns:
        The exit code.

    Raises:
        LogError: there is no log.
    """
    screen, notes = Screen(), Screen(stderr=True)
    reader, count, code = Reader(), 0, 0
    with suppress(TamperedError):  # a question comes before the entry that says what it is about
        for _, event in read_entries(directory):
            reader.learn(event)
    try:
        for index, event in read_entries(directory):
            row = reader.row(event)
            if not reader.names(event)[0].startswith(run):
                continue
            if as_json:
                screen.say(safe_json({"index": index, "event": event}))
            else:
                if not count:
                    screen.say(Row("time", "run", "who", "what", "outcome").line("entry"), "bold")
                screen.say(row.line(index))
            count += 1
    except TamperedError as error:
        notes.say(f"checkrein: {visible(str(error))}")
        code = 1
    (notes if as_json else screen).say(f"{count} entries, {NOT_VERIFIED}")
    return code or (2 if run and not count else 0)


def explain(directory: Path, call: str, *, as_json: bool) -> int:
    """Print the ten answers about a call.

    Args:
        directory: the log's directory.
        call: the id of the call.
        as_json: print one JSON object.

    Returns:
        The exit code.

    Raises:
        LogError: there is no log, or no decision about such a call in it.
        TamperedError: an entry cannot be read.
    """
    screen = Screen()
    found = Answers.about(call, lambda: (event for _, event in read_entries(directory))).explain()
    if as_json:
        screen.say(safe_json(found, indent=2))
        return 0
    for name, answer in found.items():
        screen.say(name, "bold")
        for line in _answer_lines(answer):
            screen.say(f"  {line}")
    screen.say(NOT_VERIFIED)
    return 0


def _answer_lines(answer: Any) -> list[str]:
    """Return an answer as lines in which every letter shows."""
    if isinstance(answer, dict):
        fields = cast("dict[str, Any]", answer)
        return [f"{visible(name):<14} {_answer_text(value)}" for name, value in fields.items()]
    return [_answer_text(one) for one in cast("list[Any]", answer)] or ["nothing"]


def _answer_text(value: Any) -> str:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        shown = (f"{visible(str(name))}={_answer_text(one)}" for name, one in fields.items())
        return " ".join(shown)
    if isinstance(value, list | tuple):
        return ", ".join(_answer_text(one) for one in cast("list[Any]", value)) or "-"
    return visible(str(value)) if value not in {None, ""} else "-"


class Asked(NamedTuple):
    """What a log is to be verified with, as it was typed.

    Attributes:
        key: the log's public key, or the path of a file that holds it.
        pin: a file with a signed head, kept elsewhere.
        after_pin: leave out what lies before it.
        policy: a file with a trust policy.
        jobs: how many processes, 0 for as many as make sense.
    """

    key: str = ""
    pin: Path | None = None
    after_pin: bool = False
    policy: Path | None = None
    jobs: int = 0


def verify(directory: Path, asked: Asked, *, strict: bool, as_json: bool) -> int:
    """Verify the log in *directory* and print the report.

    Args:
        directory: the log's directory.
        asked: what to verify it with.
        strict: tell by the exit code, too, whether the entries are complete.
        as_json: print the report as JSON.

    Returns:
        The exit code: 0 if the report is good, 1 if not, 3 if strict and not complete.

    Raises:
        LogError: there is no log.
        ConfigurationError: key, pin or policy cannot be read.
    """
    if asked.jobs < 0:
        raise ConfigurationError("--jobs takes a number from 0")
    with progress_bar("verifying") as progress:
        report = verify_log(
            directory,
            vkey=key_text(asked.key) if asked.key else None,
            pin=read_text(asked.pin) if asked.pin is not None else None,
            policy=None if asked.policy is None else read_policy(asked.policy),
            after_pin=asked.after_pin,
            processes=asked.jobs or _jobs_for(directory),
            progress=progress,
        )
    screen = Screen()
    if as_json:
        found = {**asdict(report), "good": report.good, "complete": report.complete}
        screen.say(safe_json(found, indent=2))
    else:
        screen.table(report_rows(report))
        screen.say(
            "good" if report.good else "NOT good", "bold green" if report.good else "bold red"
        )
        if report.signature == "self-asserted":
            screen.say("nobody vouches for this log: give its public key with --key")
    if not report.good:
        return 1
    return 3 if strict and not report.complete else 0


def _jobs_for(directory: Path) -> int:
    """Return how many processes are worth their start: one, for a log that is read in seconds."""
    try:
        size = open_checkpoint((directory / "checkpoint").read_bytes(), None).size
    except (OSError, TamperedError):
        return 1
    return (os.cpu_count() or 1) if size >= _LARGE else 1


def follow(directory: Path, *, run: str, start: int | None, as_json: bool) -> int:
    """Print entries as they are written, until interrupted.

    Args:
        directory: the log's directory.
        run: print only the runs whose id begins like this.
        start: the first entry to print; what is there already is left out otherwise.
        as_json: print one JSON object a line.

    Returns:
        The exit code.

    Raises:
        LogError: there is no log.
        TamperedError: an entry cannot be read.
    """
    screen, reader = Screen(), Reader()
    first = entry_count(directory) if start is None else start
    try:
        for index, event in follow_entries(directory, start=0):
            reader.learn(event)
            row = reader.row(event)
            if index < first or not reader.names(event)[0].startswith(run):
                continue
            screen.say(safe_json({"index": index, "event": event}) if as_json else row.line(index))
            screen.file.flush()
    except KeyboardInterrupt:
        return 0
    return 0


def erase(
    directory: Path, *, entry: int | None, field: str, subject: str, by: str, reason: str
) -> int:
    """Erase fields of an entry, or all that is sealed for a subject; needs the log's key.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: it is not said what, by whom or why; or there is no key.
        LogError: there is nothing of the kind, or it cannot be erased.
    """
    if not by or not reason:
        raise ConfigurationError("say who decided it and why: --by NAME --reason TEXT")
    if (entry is None) == (not subject) or (subject and field):
        raise ConfigurationError("name an entry with --entry N, or a subject with --subject NAME")
    require_log(directory)
    with AuditLog.open(directory) as log:
        count = log.erase(index=entry, field=field, subject=subject, by=by, reason=reason)
    screen = Screen()
    screen.say(f"{count} values were erased, and the log says so")
    screen.say("copies of the directory that were made before are not reached by this")
    return 0


def incident(directory: Path, *, about: str, by: str, reason: str) -> int:
    """Write into the log that something is an incident; needs the log's key.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: something is not said, or there is no log or no key.
    """
    if not (about and by and reason):
        raise ConfigurationError("say what, by whom and why: --about --by --reason")
    require_log(directory)
    told = {"about": about, "by": by, "reason": reason}
    with AuditLog.open(directory) as log:
        position = log.append({"v": 1, "type": "incident", "time": time.time_ns(), **told})
    Screen().say(f"written as entry {position.index}")
    return 0


def require_log(directory: Path) -> None:
    """Refuse a place where no log is: opening it would start one.

    Raises:
        ConfigurationError: there is none.
    """
    if not (directory / "checkpoint").exists():
        raise ConfigurationError(f"there is no log in {directory}")


def report_rows(report: Report) -> list[tuple[str, str]]:
    """Return a report as names and values to print."""
    runs = report.runs
    rows = [
        ("log", f"{report.origin}, {report.size} entries"),
        ("content", report.content),
        ("tree", report.tree),
        ("signature", report.signature),
        ("freshness", report.freshness),
        ("witnesses", report.witnesses),
        ("runs", f"{runs.opened} opened, {runs.closed} closed"),
    ]
    rows += [("not read", f"entries before {report.since}")] if report.since else []
    rows += [("open run", one) for one in runs.open]
    rows += [("gap", one) for one in runs.gaps]
    rows += [("orphan", f"call {one}, which ran without an intent") for one in runs.orphans]
    rows += [("in doubt", f"call {one}") for one in report.in_doubt] or [("in doubt", "no call")]
    rows += [("problem", one) for one in report.problems]
    return [(name, visible(value)) for name, value in rows]


def key_text(key: str) -> str:
    """Return a public key that was given as text, or as the path of a file that holds it.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    path = _existing(key)
    return key if path is None else read_text(path).strip()


def _existing(key: str) -> Path | None:
    from pathlib import Path  # noqa: PLC0415 (a type everywhere else)

    try:
        return Path(key) if Path(key).is_file() else None
    except (OSError, ValueError):  # too long for a name, or with a null character
        return None


def read_text(path: Path) -> str:
    """Return what is in a text file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{path} cannot be read") from error


# -- entries -------------------------------------------------------------------------------


class Reader:
    """Turns entries into rows; remembers which call was of which tool, and whose the run is."""

    def __init__(self) -> None:
        self._agents: dict[str, str] = {}
        self._tools: dict[str, str] = {}

    def learn(self, event: _Event) -> None:
        """Take in what *event* says about its run and its call."""
        if "agent" in event:
            self._agents[_text(event.get("run"))] = _text(event["agent"])
        if "tool" in event and "call" in event:
            self._tools[_text(event["call"])] = _text(event["tool"])

    def names(self, event: _Event) -> tuple[str, str, str]:
        """Return run, agent and tool that *event* is about, each ``""`` if it is about none."""
        run, call = _text(event.get("run")), _text(event.get("call"))
        return run, self._agents.get(run, ""), self._tools.get(call, "")

    def row(self, event: _Event) -> Row:
        """Return the row of *event*."""
        run, agent, tool = self.names(event)
        what, outcome = _WORDS.get(event["type"], _unknown)(event, tool or "a call")
        who = "the user" if event["type"] == "instruction" else agent
        if event.get("by"):
            who = _text(event["by"])
        return Row(_time(event.get("time")), run[:8], who, what, outcome)


def _allowed(event: _Event, tool: str) -> tuple[str, str]:
    rules = _rules(event)
    return _call(event, tool), f"allowed, a person approved: {rules}" if rules else "allowed"


def _denied(event: _Event, tool: str) -> tuple[str, str]:
    return _call(event, tool), f"denied: {_rules(event)}"


def _outcome(event: _Event, tool: str) -> tuple[str, str]:
    error = f" ({_text(event['error'])})" if event.get("error") else ""
    return tool, f"{_text(event.get('status'))}{error}"


def _asked(event: _Event, tool: str) -> tuple[str, str]:
    return f"a person is asked about {tool}", f"because of {_rules(event)}"


def _answered(event: _Event, tool: str) -> tuple[str, str]:
    reason = f": {_text(event['reason'])}" if event.get("reason") else ""
    suspicious = ", suspicious" if event.get("suspicious") is True else ""
    return f"answer about {tool}", f"{_text(event.get('answer'))}{suspicious}{reason}"


def _opened(event: _Event, _tool: str) -> tuple[str, str]:
    return f"the run begins: {_text(event.get('permissions'))}", ""


def _closed(event: _Event, _tool: str) -> tuple[str, str]:
    return "the run ends", f"{_text(event.get('calls'))} calls were allowed"


def _exposed(event: _Event, _tool: str) -> tuple[str, str]:
    return f"untrusted content was seen: {_text(event.get('sources'))}", ""


def _instruction(event: _Event, _tool: str) -> tuple[str, str]:
    return f"says: {_text(event.get('text'))}", ""


def _unknown(event: _Event, _tool: str) -> tuple[str, str]:
    known = {"v", "type", "time", "run", "seq", "agent"}
    rest = {name: value for name, value in event.items() if name not in known}
    return f"{_text(event['type'])} {_text(rest)}", ""


_WORDS: Final[Mapping[str, Callable[[_Event, str], tuple[str, str]]]] = {
    "run.opened": _opened,
    "run.closed": _closed,
    "run.exposed": _exposed,
    "instruction": _instruction,
    "call.allowed": _allowed,
    "call.denied": _denied,
    "call.outcome": _outcome,
    "confirmation.asked": _asked,
    "confirmation.answered": _answered,
}


def _call(event: _Event, tool: str) -> str:
    arguments = event.get("arguments")
    if not isinstance(arguments, dict):
        return f"{tool}(...)"
    given = cast("dict[str, Any]", arguments).items()
    return f"{tool}({', '.join(f'{_text(name)}={_argument(value)}' for name, value in given)})"


def _argument(value: Any) -> str:
    match value:
        case {"untrusted": sources, "size": size, **rest} if not rest:
            return f"<{_text(size)} letters from {_text(sources)}>"
        case {"commitment": str(), "size": size, **rest} if not rest:
            return f"<{_text(size)} bytes that are not here, or were erased>"
        case {"secret": True, **rest} if not rest:
            return "<a secret>"
        case str():
            return f'"{_text(value)}"'
        case _:
            return _text(value)


def _rules(event: _Event) -> str:
    findings = event.get("findings")
    if not _is_list(findings):
        return _text(findings)
    return ", ".join(dict.fromkeys(_rule(one) for one in findings))


def _rule(finding: Any) -> str:
    return _text(finding["rule"] if isinstance(finding, dict) and "rule" in finding else finding)


def _time(value: Any) -> str:
    try:
        moment = datetime.fromtimestamp(value / 1e9, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return _text(value)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def _text(value: Any) -> str:
    """Return any JSON value as one visible line."""
    if isinstance(value, str):
        return visible(value)
    if _is_list(value) and all(isinstance(one, str) for one in value):
        return visible(", ".join(value))
    return visible("" if value is None else safe_json(value))


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)

"""``log timeline``: what happened when, at the terminal or as one web page.

At the terminal an entry is a line: its time, the seconds since the one before, its
run, who, a mark, and what. A run inside a run is indented below it. The marks:

====  ======================================================================
mark  of an entry
====  ======================================================================
x     a call that was denied, and a refused answer
?     a question to a person, and its answer
+     a call that was allowed
=     what came of a call
!     untrusted content was seen, something was locked, stopped or suspicious
====  ======================================================================

The page is ``timeline.html`` beside this file, with the entries in it as a block of
JSON. It loads nothing and sends nothing: its policy allows its own script and its own
style, by their digests, and no more. Every value is made visible here already, is
ASCII in the block, without a letter that means something in HTML, and is put into
the page as text.

Times are what the writer's clock said, and the order is that of the log. Nothing
is verified.
"""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from checkrein.cli.evidence import write_new
from checkrein.cli.logs import NOT_VERIFIED, Reader
from checkrein.cli.screen import Screen, safe_json
from checkrein.errors import TamperedError
from checkrein.log import read_entries
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.tilereader import open_tree
from checkrein.visible import visible

_Event = dict[str, Any]
_TEMPLATE: Final = Path(__file__).with_name("timeline.html")
_DEEPEST: Final = 8
_MARKS: Final = {
    "call.allowed": "+",
    "call.denied": "x",
    "answer.refused": "x",
    "call.outcome": "=",
    "confirmation.asked": "?",
    "confirmation.answered": "?",
    "run.exposed": "!",
    "run.locked": "!",
    "run.stopped": "!",
}
_STYLES: Final = {"x": "red", "!": "bold yellow", "?": "cyan", "=": "dim"}


@dataclass(frozen=True, slots=True)
class Moment:
    """One entry as it is shown; every text was made visible."""

    index: int
    day: str
    time: str
    since: str
    run: str
    agent: str
    tool: str
    type: str
    who: str
    what: str
    outcome: str
    mark: str
    depth: int
    entry: str

    def line(self) -> str:
        """Return the moment as one line."""
        arrow = f"  ->  {self.outcome}" if self.outcome else ""
        told = f"{'  ' * self.depth}{self.what}{arrow}"
        when = f"{self.time:<12}  {self.since:>10}"
        return (
            f"{self.index:>5}  {when}  {self.run[:8]:<8}  {self.who:<12} {self.mark or ' '} {told}"
        )


def timeline(directory: Path, *, run: str, html: Path | None) -> int:
    """Print the timeline of a log, or write it as a page.

    Args:
        directory: the log's directory.
        run: only the runs whose id begins like this.
        html: where to write the page; it must not be there yet.

    Returns:
        The exit code: 1 if the log could not be read to its end, 2 if there is no such run.

    Raises:
        LogError: there is no log.
        ConfigurationError: the page is there already, or cannot be written.
    """
    found, problem = read_moments(directory, run)
    if html is not None:
        origin = open_checkpoint(open_tree(directory)[1], None).origin
        write_new(html, page_of(found, problem, origin).encode())
        Screen().say(f"{len(found)} entries in {visible(str(html))}, {NOT_VERIFIED}")
    else:
        _print(found)
    if problem:
        Screen(stderr=True).say(f"checkrein: {problem}")
        return 1
    return 2 if run and not found else 0


def read_moments(directory: Path, run: str) -> tuple[list[Moment], str]:
    """Return the entries of a log, and what kept from reading on, ``""`` if nothing did.

    Args:
        directory: the log's directory.
        run: only the runs whose id begins like this.

    Raises:
        LogError: there is no log.
    """
    teller, found, problem = _Teller(), list[Moment](), ""
    with suppress(TamperedError):  # a question comes before the entry that says what it is about
        for _, event in read_entries(directory):
            teller.learn(event)
    try:
        for index, event in read_entries(directory):
            if teller.reader.names(event)[0].startswith(run):
                found.append(teller.moment(index, event))
    except TamperedError as error:
        problem = visible(str(error))
    return found, problem


class _Teller:
    """Turns entries into moments; knows which run is inside which, and when the last one was."""

    def __init__(self) -> None:
        self.reader = Reader()
        self._parents: dict[str, str] = {}
        self._last: int | None = None

    def learn(self, event: _Event) -> None:
        self.reader.learn(event)
        run, parent = event.get("run"), event.get("parent")
        if event["type"] == "run.opened" and type(run) is str and type(parent) is str:
            self._parents[run] = parent

    def moment(self, index: int, event: _Event) -> Moment:
        run, agent, tool = self.reader.names(event)
        row = self.reader.row(event)
        day, time = _clock(event.get("time"))
        return Moment(
            index=index,
            day=day,
            time=time,
            since=self._since(event.get("time") if day else None),
            run=run,
            agent=agent,
            tool=tool,
            type=visible(event["type"]),
            who=row.who,
            what=row.what,
            outcome=row.outcome,
            mark="!" if event.get("suspicious") is True else _MARKS.get(event["type"], ""),
            depth=self._depth(event.get("run")),
            entry=safe_json(event, indent=1),
        )

    def _since(self, now: int | None) -> str:
        """Return the seconds since the entry before, which may be negative: clocks are set."""
        last, self._last = self._last, now
        return "" if now is None or last is None else f"{(now - last) / 1e9:+.3f}"

    def _depth(self, run: Any) -> int:
        depth = 0
        while depth < _DEEPEST and type(run) is str and run in self._parents:
            run, depth = self._parents[run], depth + 1
        return depth


def _clock(value: Any) -> tuple[str, str]:
    """Return day and time of day in UTC; of what is no time, no day."""
    if type(value) is not int:
        return "", "no time"
    try:
        moment = datetime.fromtimestamp(value / 1e9, UTC)
    except (ValueError, OverflowError, OSError):
        return "", "no time"
    return moment.strftime("%Y-%m-%d"), moment.strftime("%H:%M:%S.%f")[:-3]


def _print(found: list[Moment]) -> None:
    screen = Screen()
    day = None
    for one in found:
        if one.day != day:
            day = one.day
            screen.say(f"{day} UTC" if day else "no day", "bold")
        screen.say(one.line(), _STYLES.get(one.mark, ""))
    screen.say(f"{len(found)} entries, {NOT_VERIFIED}")


def page_of(found: list[Moment], problem: str = "", origin: str = "") -> str:
    """Return the page that shows *found*, whole and on its own.

    Args:
        found: what to show.
        problem: why that is not all, made visible; ``""`` if it is.
        origin: the log's name, as it says.
    """
    page = _TEMPLATE.read_text(encoding="utf-8")
    shown = {"log": visible(origin), "note": NOT_VERIFIED, "problem": problem}
    data = safe_json({**shown, "entries": [asdict(one) for one in found]})
    for letter in "<>&":  # no end of the block, no comment, no entity can be in it
        data = data.replace(letter, f"\\u{ord(letter):04x}")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_digest(page, 'script')}'",
            f"style-src '{_digest(page, 'style')}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return page.replace("{{policy}}", policy, 1).replace("{{entries}}", data, 1)


def _digest(page: str, element: str) -> str:
    """Return the digest by which a policy allows the one *element* without attributes."""
    (inside,) = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    return f"sha256-{base64.b64encode(sha256(inside.encode()).digest()).decode()}"

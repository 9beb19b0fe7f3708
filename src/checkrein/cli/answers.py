"""``checkrein inbox``: what its commands do. The commands are declared in ``inbox``.

Everything that is printed was made visible (:mod:`checkrein.gates.inbox`); nothing is
cut off. A yes is typed in full after the whole question was shown, or bound to what was
shown earlier by its digest.
"""

from __future__ import annotations

import json
import pydoc
import shutil
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from checkrein.approvers import principal_from, signed
from checkrein.cli.screen import Screen, safe_json
from checkrein.confirmations import Confirmation, Verdict, to_text
from checkrein.delegation import Principal
from checkrein.errors import ConfigurationError
from checkrein.gates.desk import AnswerRefused, Case, Desk
from checkrein.gates.inbox import (
    Inbox,
    NoSuchQuestion,
    answers_of,
    lasting,
    read_value,
    sheet_of,
)
from checkrein.store import open_store
from checkrein.visible import visible

_SHORTEST: Final = 16  # hex digits of a digest that bind an answer


@contextmanager
def opened(where: str, keys: Mapping[str, str] | None = None) -> Generator[Inbox]:
    """Open the inbox of a store, and close it at the end.

    Args:
        where: a path or a ``postgresql://`` URL.
        keys: files with private keys, by the names of who answers.

    Raises:
        ConfigurationError: there is no store, or no key.
        StoreError: it cannot be reached.
    """
    if not where:
        raise ConfigurationError("which store? name it, or set CHECKREIN_STORE")
    people = {name: principal_from(path) for name, path in (keys or {}).items()}
    with open_store(where, create=False) as store:
        yield Inbox(Desk(store), sign=signing(people))


def signing(people: Mapping[str, Principal]) -> Callable[[Verdict], Verdict]:
    """Return a function that signs the verdicts of *people*, and leaves those of others."""
    return lambda verdict: signed(verdict, people[verdict.by]) if verdict.by in people else verdict


def found(inbox: Inbox, id: str, *, digest: str = "") -> Case:  # noqa: A002 (by its natural name)
    """Return a question by its id, or by the first letters of the id of an open one.

    Raises:
        NoSuchQuestion: there is none, or more than one.
        AnswerRefused: it is not the one that was shown.
        TamperedError: it is not the one that was asked.
    """
    try:
        return inbox.find(id, digest=digest)
    except NoSuchQuestion:
        fitting = [one.id for one in inbox.open() if id and one.id.startswith(id)]
        if len(fitting) != 1:
            raise
    return inbox.find(fitting[0], digest=digest)


# -- showing -------------------------------------------------------------------------------


def list_open(inbox: Inbox, *, as_json: bool) -> int:
    """Print what waits for an answer; return the exit code."""
    questions = inbox.open()
    damaged = inbox.damaged(questions)
    if as_json:
        for one in questions:
            Screen().say(safe_json(json.loads(to_text(one))))
    else:
        screen = Screen()
        for line in summary(questions, inbox.now()):
            screen.say(line)
    return 1 if warn(damaged) else 0


def warn(damaged: Sequence[str]) -> bool:
    """Say which questions were tampered with; return whether there are any."""
    screen = Screen(stderr=True)
    for one in damaged:
        screen.say(f"checkrein: question {one} was tampered with in the database", "bold red")
    return bool(damaged)


def list_doubtful(inbox: Inbox) -> int:
    """Print the calls whose yes was taken and whose end nobody has reported."""
    questions, screen = inbox.desk.in_doubt(), Screen()
    if not questions:
        screen.say("no call is in doubt")
    for one in questions:
        sheet = sheet_of(one)
        screen.say(f"{sheet.id}  {sheet.tool}, call {sheet.call} in run {sheet.run}")
        screen.say("  it was approved and begun: it may have run, or not")
    return 0


def summary(questions: Sequence[Confirmation], now: float) -> list[str]:
    """Return the lines of a list, the oldest question first."""
    if not questions:
        return ["nothing waits for an answer"]
    lines: list[str] = []
    for number, one in enumerate(questions, 1):
        sheet = sheet_of(one)
        lines.append(f"{number:>3}  {sheet.agent} wants to call {sheet.tool}")
        effect = f"{sheet.effect} on {sheet.resource}"
        lines.append(f"     {effect}, {lasting(one.expires - now)} left, id {sheet.id}")
        lines += [f"     - {reason}" for reason in sheet.reasons]
    return lines


def question_lines(case: Case, now: float) -> list[str]:
    """Return a question as it is printed: whole, every letter visible."""
    one, sheet = case.question, sheet_of(case.question)
    lines = [
        f"{sheet.agent} wants to call {sheet.tool}",
        f"  effect     {sheet.effect} on {sheet.resource}",
    ]
    for argument in sheet.arguments:
        lines.append(f"  {argument.name:<10} {argument.text}")
        mark = "UNTRUSTED, " if argument.untrusted else ""
        lines.append(f"  {'':<10} origin: {mark}{argument.origin}")
        if argument.concern:
            lines.append(f"  {'':<10} ! {argument.concern}")
    if sheet.preview:
        lines.append("  what the tool says that it would do:")
        lines += [f"    | {line}" for line in sheet.preview.split("\n")]
    lines.append("  why you are asked:")
    lines += [f"    - {reason}" for reason in sheet.reasons]
    if sheet.chain:
        lines.append(f"  on behalf of {', '.join(sheet.chain)}")
    if sheet.needed > 1:
        lines.append(f"  needs a yes from {sheet.needed} different people")
    lines += [f"  answered by {line}" for line in answers_of(case)]
    left = f", {lasting(one.expires - now)} left" if case.state == "open" else ""
    lines.append(f"  {case.state}{left}")
    lines.append(f"  run {sheet.run}, call {sheet.call}")
    lines += [f"  id     {sheet.id}", f"  digest {sheet.digest}"]
    return lines


def show(inbox: Inbox, id: str) -> int:  # noqa: A002 (by its natural name)
    """Print one question, page by page where it is longer than the terminal."""
    out(question_lines(found(inbox, id), inbox.now()))
    return 0


def out(lines: Sequence[str]) -> None:
    """Print lines that were made visible; page by page where they are longer than the terminal."""
    width, height = shutil.get_terminal_size()
    rows = sum(1 + len(line) // max(1, width) for line in lines)
    if sys.stdin.isatty() and sys.stdout.isatty() and rows >= height:
        pydoc.pager("\n".join(lines) + "\n")
        return
    screen = Screen()
    for line in lines:
        screen.say(line)


# -- answering -----------------------------------------------------------------------------


def ask(prompt: str) -> str:
    """Ask at the terminal; return the line that was typed, without its end."""
    screen = Screen()
    screen.say(prompt)
    return sys.stdin.readline().removesuffix("\n")


def approve(
    inbox: Inbox,
    id: str,  # noqa: A002 (by its natural name)
    *,
    by: str,
    typed: str | None = None,
    digest: str = "",
) -> int:
    """Say yes to exactly what was shown.

    Args:
        inbox: the questions.
        id: of the question.
        by: who says so.
        typed: the value to be typed in, where the question wants one; asked for if left out.
        digest: of the question as it was shown earlier, at least 16 digits. If left out,
            the question is shown now, and ``yes`` has to be typed.

    Returns:
        The exit code: 1 if nothing was approved.

    Raises:
        AnswerRefused: the yes does not count.
    """
    if digest and len(digest) < _SHORTEST:
        raise ConfigurationError(f"--digest takes the first {_SHORTEST} digits, or more")
    case = found(inbox, id, digest=digest)
    question = case.question
    if case.state != "open":
        raise AnswerRefused(f"the question is not open any more: it is {case.state}")
    if not digest:
        out(question_lines(case, inbox.now()))
    if question.care.retype and typed is None:
        typed = ask(f"Type in the value of {visible(question.care.retype)}, from what you know:")
    if not digest and ask("Type 'yes', in full, to approve exactly this call:") != "yes":
        Screen().say("nothing was answered")
        return 1
    return _told(inbox.answer(question.approve(by=by), typed=typed), "approved")


def deny(
    inbox: Inbox,
    id: str,  # noqa: A002 (by its natural name)
    *,
    by: str,
    reason: str = "",
    suspicious: bool = False,
) -> int:
    """Say no; return the exit code.

    Raises:
        AnswerRefused: the no does not count.
    """
    question = found(inbox, id).question
    case = inbox.answer(question.deny(by=by, reason=reason, suspicious=suspicious))
    return _told(case, "denied as suspicious: its run is locked" if suspicious else "denied")


def edit(
    inbox: Inbox,
    id: str,  # noqa: A002 (by its natural name)
    *,
    by: str,
    settings: Sequence[str],
    reason: str = "",
) -> int:
    """Deny a call and make another one in its place; return the exit code.

    Raises:
        AnswerRefused: the edit does not count, or a value is no JSON.
        ConfigurationError: a setting is not ``name=JSON``, or names no argument.
    """
    question = found(inbox, id).question
    verdict = question.edit(changes_from(question, settings), by=by, reason=reason)
    return _told(inbox.answer(verdict), "denied; the edited call is made in its place")


def changes_from(question: Confirmation, settings: Sequence[str]) -> dict[str, Any]:
    """Return what ``name=JSON`` settings change.

    Raises:
        AnswerRefused: a value is no JSON.
        ConfigurationError: a setting is none, names no argument, or one twice.
    """
    names = {one.name for one in question.arguments}
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in names or name in changes:
            raise ConfigurationError(
                f"--set takes name=JSON, once for each: {visible(', '.join(sorted(names)))}"
            )
        changes[name] = read_value(name, text)
    if not changes:
        raise ConfigurationError("what is to be another? --set name=JSON")
    return changes


def _told(case: Case, what: str) -> int:
    tool = visible(case.question.tool)
    if case.state == "open":
        left = case.question.needed - len(case.verdicts)
        Screen().say(f"your yes to {tool} is taken; {left} more must say yes")
    else:
        Screen().say(f"{tool}: {what}")
    return 0

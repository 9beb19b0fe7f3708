r"""What a person sees of the questions on a desk, and how their answer is made.

The terminal and the web page show the same *sheet* and take the same answers; neither
decides anything. Three things are done here, so that both do them alike:

* **Every letter shows.** Texts that come escaped (values, previews) stay as they are; all
  others are made visible. Whoever can write to the database can store a question whose
  values are not escaped: their invisible letters are escaped here.
* **An answer is for what was shown.** :meth:`Inbox.find` takes the digest that stood on
  the sheet. A question that was exchanged in between is not answered.
* **An edit is what changed.** Each value is offered as text or as JSON; what comes back as
  it was offered is no change. Line breaks that a browser has rewritten are none either.

What was changed in the database is not shown as a question, but it is counted:
:meth:`Inbox.damaged`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, NoReturn, final

from checkrein.confirmations import Confirmation, Shown, Verdict
from checkrein.errors import CheckreinError, TamperedError
from checkrein.gates.desk import AnswerRefused, Case, Desk
from checkrein.ports import Clock
from checkrein.visible import visible

_OPEN: Final = "SELECT id, changed FROM {questions} WHERE state = 'open' AND expires > ?"


class NoSuchQuestion(CheckreinError):
    """There is no question of that id, or it was forgotten."""


# -- what is shown -------------------------------------------------------------------------


def still_visible(text: str) -> str:
    r"""Return *text*, which was escaped before, with what is invisible all the same escaped.

    Example:
        >>> print(still_visible('"a\\n\u202eb"'))
        "a\n\u202eb"
    """
    return "".join(letter if letter == "\\" else visible(letter) for letter in text)


class Line(NamedTuple):
    """One argument on a sheet; every letter shows.

    Attributes:
        name: the parameter.
        text: the value, whole.
        origin: in words, where it came from.
        untrusted: whether the parameter takes untrusted content.
        concern: what the rules say about it, ``""`` for nothing.
    """

    name: str
    text: str
    origin: str
    untrusted: bool
    concern: str


class Sheet(NamedTuple):
    """A question as a person sees it; every letter shows. Fields as in ``Confirmation``."""

    id: str
    tool: str
    effect: str
    resource: str
    agent: str
    run: str
    call: str
    arguments: tuple[Line, ...]
    preview: str
    reasons: tuple[str, ...]
    chain: tuple[str, ...]
    digest: str
    needed: int
    retype: str


def sheet_of(question: Confirmation) -> Sheet:
    """Return what is shown of *question*."""
    one = question
    return Sheet(
        id=visible(one.id),
        tool=visible(one.tool),
        effect=visible(one.effect),
        resource=visible(one.resource),
        agent=visible(one.agent),
        run=visible(one.run),
        call=visible(one.call),
        arguments=tuple(map(_line, one.arguments)),
        preview="\n".join(map(still_visible, one.preview.split("\n"))),
        reasons=tuple(map(visible, one.reasons)),
        chain=tuple(map(visible, one.chain)),
        digest=visible(one.digest),
        needed=one.needed,
        retype=visible(one.care.retype),
    )


def _line(one: Shown) -> Line:
    origin = f"from {one.origin}" if one.untrusted else one.origin
    return Line(
        visible(one.name),
        still_visible(one.text),
        visible(origin),
        bool(one.untrusted),
        visible(one.concern),
    )


def answers_of(case: Case) -> list[str]:
    """Return the answers so far, one line each; every letter shows."""
    return [visible(f"{one.by}: {_said(one)}") for one in case.verdicts]


def _said(verdict: Verdict) -> str:
    why = f" ({verdict.reason})" if verdict.reason else ""
    if verdict.approved is True:
        return f"yes{why}"
    if verdict.edits:
        return f"no, another call instead: {', '.join(verdict.edits)}{why}"
    return f"no, suspicious{why}" if verdict.suspicious else f"no{why}"


def lasting(seconds: float) -> str:
    """Return a time in words, cut to two units.

    Example:
        >>> lasting(75.9), lasting(7260), lasting(-1)
        ('1 min 15 s', '2 h 1 min', '0 s')
    """
    left = max(0, int(seconds))
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    parts: list[str] = []
    for size, name in units:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {name}")
    told = [one for one in parts[:2] if not one.startswith("0 ")]
    return " ".join(told) or "0 s"


# -- edits ---------------------------------------------------------------------------------


class Offer(NamedTuple):
    """A value to be edited.

    Attributes:
        name: the argument.
        kind: whether *text* is the value itself or JSON.
        text: what to begin with; apart from line breaks, every letter shows.
    """

    name: str
    kind: Literal["text", "json"]
    text: str


def offer_of(argument: Shown) -> Offer | None:
    r"""Return how *argument* is edited, ``None`` if it is no plain data.

    A text in which every letter shows is edited as it is, anything else as JSON, with
    escapes for what does not show.

    Example:
        >>> offer_of(Shown("to", None, False, "", plain='"bo"'))
        Offer(name='to', kind='text', text='bo')
        >>> offer_of(Shown("to", None, False, "", plain='"b\u202eo"')).text
        '"b\\u202eo"'
    """
    try:
        value = json.loads(argument.plain)
        pretty = json.dumps(value, ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, str) and all(_shows(one) for one in value):
        return Offer(argument.name, "text", value)
    return Offer(argument.name, "json", "".join(map(_escaped, pretty)))


def _shows(letter: str) -> bool:
    return letter in "\\\n" or visible(letter) == letter


def _escaped(letter: str) -> str:
    return letter if _shows(letter) else json.dumps(letter)[1:-1]


def changes_of(question: Confirmation, given: Mapping[str, str]) -> dict[str, Any]:
    """Return what was changed of the values that were offered.

    Args:
        question: what was asked.
        given: what came back, by the names of arguments; what is left out stays.

    Raises:
        AnswerRefused: nothing was changed, or something is no JSON.
    """
    changes: dict[str, Any] = {}
    for argument in question.arguments:
        offer = offer_of(argument)
        if offer is None or argument.name not in given:
            continue
        text = _one_break(given[argument.name])
        if text == _one_break(offer.text):
            continue
        value = text if offer.kind == "text" else read_value(argument.name, text)
        if offer.kind == "text" or not _same_json(value, argument.plain):
            changes[argument.name] = value
    if not changes:
        raise AnswerRefused("nothing was changed; the call as it is can be approved or denied")
    return changes


def _same_json(value: Any, plain: str) -> bool:
    return json.dumps(value) == json.dumps(json.loads(plain))  # for ==, true is 1 is 1.0


def _one_break(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_value(name: str, text: str) -> Any:
    """Return the JSON value that was given for an argument.

    Raises:
        AnswerRefused: it is no JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise AnswerRefused(
            f"what was given for {visible(name)!r} is no JSON; a text stands in double quotes"
        ) from None


def _refuse(_constant: str) -> NoReturn:
    raise ValueError


# -- the inbox -----------------------------------------------------------------------------


def _as_it_is(verdict: Verdict) -> Verdict:
    return verdict


@final
class Inbox:
    """The questions on a desk, for people.

    Args:
        desk: where they lie.
        sign: signs verdicts, for runs that believe signed ones only; returns them as they
            are if left out. See :func:`checkrein.approvers.signed`.
        clock: tells the time, for tests; the one of the desk.

    Example:
        >>> inbox = Inbox(Desk(open_store("questions.db")))  # doctest: +SKIP
        >>> [one.tool for one in inbox.open()]  # doctest: +SKIP
        ['send_email']
    """

    def __init__(
        self,
        desk: Desk,
        *,
        sign: Callable[[Verdict], Verdict] = _as_it_is,
        clock: Clock = time.time,
    ) -> None:
        self.desk = desk
        self.now = clock
        self._sign = sign

    def open(self) -> list[Confirmation]:
        """Return what waits for an answer, the oldest first.

        Raises:
            StoreError: the store cannot be read.
        """
        return self.desk.pending()

    def damaged(self, whole: Iterable[Confirmation] = ()) -> list[str]:
        """Return the ids of open questions that are not what was asked, visible.

        Args:
            whole: those that were read just now, and need no second look.

        Raises:
            StoreError: the store cannot be read.
        """
        known = {one.id for one in whole}
        return [visible(id_) for id_, _ in self._rows() if id_ not in known and self._bad(id_)]

    def news(self) -> str:
        """Return a text that is another one as soon as the open questions are others.

        Raises:
            StoreError: the store cannot be read.
        """
        return sha256(repr(sorted(self._rows())).encode()).hexdigest()[:16]

    def find(self, id: str, *, digest: str = "") -> Case:  # noqa: A002 (by its natural name)
        """Return a question and what became of it.

        Args:
            id: of the question.
            digest: what stood on the sheet, if one was shown; the first letters will do.

        Raises:
            NoSuchQuestion: there is none.
            AnswerRefused: it is not the one that was shown.
            TamperedError: it is not the one that was asked.
            StoreError: the store cannot be read.
        """
        case = self.desk.find(id)
        if case is None:
            raise NoSuchQuestion("there is no such question; it may be done with and forgotten")
        if not case.question.digest.startswith(digest):
            raise AnswerRefused("the question is not the one that was shown; read it again")
        return case

    def answer(self, verdict: Verdict, *, typed: str | None = None) -> Case:
        """Give an answer, signed if there is a key for who gives it.

        Args:
            verdict: by ``question.approve``, ``deny`` or ``edit``.
            typed: what was typed in, where the question wants that.

        Raises:
            AnswerRefused: it does not count; the message says why.
            MisuseError: its edits do not travel.
            StoreError: the store failed.
        """
        return self.desk.answer(self._sign(verdict), typed=typed)

    def _rows(self) -> list[tuple[str, float]]:
        now = self.now()
        rows = self.desk.store.transact(lambda session: session.ask(_OPEN, now))
        return [(str(id_), changed) for id_, changed in rows]

    def _bad(self, id: str) -> bool:  # noqa: A002 (by its natural name)
        try:
            self.desk.find(id)
        except TamperedError:
            return True
        return False

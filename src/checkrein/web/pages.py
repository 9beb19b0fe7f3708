"""What is rendered: every page from a template that escapes whatever it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from checkrein.confirmations import Confirmation, Shown
from checkrein.gates.desk import Case
from checkrein.gates.inbox import Inbox, Line, answers_of, lasting, offer_of, sheet_of
from checkrein.visible import visible
from checkrein.web.session import Session

_COLUMNS: Final = 72  # letters of a line in the field of an edit, about
_TEMPLATES: Final = Environment(
    loader=PackageLoader("checkrein.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["lasting"] = lasting


def page(
    template: str, session: Session | None, /, *, status: int = 200, **values: Any
) -> HTMLResponse:
    """Return a page.

    Args:
        template: its name.
        session: of who sees it.
        status: of the response.
        values: what the template needs, every letter visible.
    """
    text = _TEMPLATES.get_template(template).render(session=session, **values)
    return HTMLResponse(text, status)


def told(
    session: Session | None,
    title: str,
    *words: str,
    status: int,
    home: bool = False,
    warning: bool = False,
) -> HTMLResponse:
    """Return a page that only says something.

    Args:
        session: of who sees it.
        title: what it is about.
        words: a paragraph each; ours, or made visible before.
        status: of the response.
        home: whether it leads back to the list.
        warning: whether somebody should worry.
    """
    kind = {"home": home or session is not None, "warning": warning}
    return page("told.html", session, status=status, title=title, words=words, **kind)


def address_of(question: Confirmation, path: str = "/question") -> str:
    """Return the path of a question's page.

    Ids come out of a database and may hold anything, so they stand in the query.
    """
    return f"{path}?id={quote(question.id, safe='', errors='replace')}"


def list_page(
    inbox: Inbox,
    session: Session,
    questions: list[Confirmation],
    damaged: list[str],
    *,
    notice: str = "",
) -> HTMLResponse:
    """Return the page of all that waits for an answer.

    Args:
        inbox: tells the time.
        session: of who sees it.
        questions: what waits.
        damaged: the ids of what was changed in the database, visible.
        notice: what is said above.
    """
    now = inbox.now()
    rows = [
        {
            "address": address_of(one),
            "sheet": sheet_of(one),
            "left": one.expires - now,
            "ago": now - one.asked,
        }
        for one in questions
    ]
    return page("list.html", session, rows=rows, damaged=damaged, notice=notice)


def question_page(
    inbox: Inbox,
    session: Session,
    case: Case,
    *,
    notice: str = "",
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    """Return the page of one question: what there is to know first, then the buttons.

    Args:
        inbox: tells the time.
        session: of who sees it.
        case: the question, and what became of it.
        notice: what is said above.
        problem: why an answer was refused.
        status: of the response.
    """
    question, now = case.question, inbox.now()
    return page(
        "question.html",
        session,
        status=status,
        address=address_of(question),
        answer_address=address_of(question, "/answer"),
        edit_address=address_of(question, "/edit"),
        sheet=sheet_of(question),
        state=case.state,
        answers=answers_of(case),
        answered=_has_answered(session, case),
        left=question.expires - now,
        wait=max(0.0, question.asked + question.care.seconds - now),
        several_lines=_several_lines(question),
        letters=question.letters,
        notice=notice,
        problem=visible(problem),
    )


def _has_answered(session: Session, case: Case) -> bool:
    mine = session.name.strip().casefold()
    return any(one.by.strip().casefold() == mine for one in case.verdicts)


def _several_lines(question: Confirmation) -> bool:
    """Say whether what is to be typed in has line breaks, which one line cannot take."""
    offers = [offer_of(one) for one in question.arguments if one.name == question.care.retype]
    return any(one is not None and one.kind == "text" and "\n" in one.text for one in offers)


def edit_page(
    session: Session,
    question: Confirmation,
    given: Mapping[str, str],
    *,
    problem: str = "",
    status: int = 200,
) -> HTMLResponse:
    """Return the page on which another call is made of a question.

    Args:
        session: of who edits.
        question: what was asked.
        given: what was typed in before, by the names of arguments.
        problem: why that was refused.
        status: of the response.
    """
    sheet = sheet_of(question)
    fields = [
        _field(number, argument, line, given)
        for number, (argument, line) in enumerate(
            zip(question.arguments, sheet.arguments, strict=True)
        )
    ]
    return page(
        "edit.html",
        session,
        status=status,
        address=address_of(question),
        edit_address=address_of(question, "/edit"),
        sheet=sheet,
        fields=fields,
        problem=visible(problem),
    )


def _field(number: int, argument: Shown, line: Line, given: Mapping[str, str]) -> dict[str, Any]:
    offer = offer_of(argument)
    text = given.get(argument.name, "" if offer is None else offer.text)
    rows = sum(1 + len(one) // _COLUMNS for one in text.split("\n"))
    return {"number": number, "line": line, "offer": offer, "text": text, "rows": min(rows, 16)}

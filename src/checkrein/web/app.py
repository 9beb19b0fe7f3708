"""The routes of the inbox. What they protect is said in :mod:`checkrein.web`.

==========================  ==================================================
``GET /``                   what waits for an answer
``GET /question?id=``       one question
``POST /answer?id=``        a yes or a no
``GET, POST /edit?id=``     another call in its place
``GET /events``             news, as server-sent events
``GET, POST /enter/TOKEN``  sign in
``POST /leave``             sign out
``GET /static/...``         style, script, icon
==========================  ==================================================

The store is asked in threads: it blocks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar, final
from urllib.parse import parse_qsl

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from checkrein.confirmations import Confirmation, Verdict
from checkrein.errors import CheckreinError, MisuseError, TamperedError
from checkrein.gates.desk import AnswerRefused, Case
from checkrein.gates.inbox import Inbox, NoSuchQuestion, changes_of
from checkrein.store import StoreError
from checkrein.visible import visible
from checkrein.web.pages import address_of, edit_page, list_page, page, question_page, told
from checkrein.web.protection import Protected, origin_of
from checkrein.web.session import SESSION_LASTS, Session, Sessions

_LARGEST: Final = 64 << 20  # bytes of a form: a whole question, every letter as %XX
_FIELDS: Final = 1000
_HERE: Final = Path(__file__).parent
T = TypeVar("T")


class _Signed(NamedTuple):
    """A form of somebody who is signed in."""

    session: Session
    fields: Mapping[str, str]


class _Refused(Exception):
    """A request that ends here, with a page."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


def inbox_app(
    inbox: Inbox, sessions: Sessions, origins: Iterable[str], *, every: float = 1.0
) -> ASGIApp:
    """Return the inbox as an ASGI application.

    Args:
        inbox: the questions.
        sessions: who may sign in.
        origins: under which it is reached: ``http://127.0.0.1:8000``. Over ``https`` the
            cookie is sent over TLS only.
        every: how often the store is looked at for news, in seconds, for each open page.

    Raises:
        ConfigurationError: an origin is none.
    """
    known = [origin_of(one) for one in origins]
    pages = _Routes(inbox, sessions, known[0], every)
    routes = [
        Route("/", pages.list, methods=["GET"]),
        Route("/question", pages.question, methods=["GET"]),
        Route("/answer", pages.answer, methods=["POST"]),
        Route("/edit", pages.edit, methods=["GET"]),
        Route("/edit", pages.edited, methods=["POST"]),
        Route("/events", pages.events, methods=["GET"]),
        Route("/enter/{token}", pages.invited, methods=["GET"]),
        Route("/enter/{token}", pages.enter, methods=["POST"]),
        Route("/leave", pages.leave, methods=["POST"]),
        Mount("/static", StaticFiles(directory=_HERE / "static")),
    ]
    return Protected(Starlette(routes=routes, exception_handlers=_HANDLERS), known)


@final
class _Routes:
    """What is done for each route."""

    def __init__(self, inbox: Inbox, sessions: Sessions, origin: str, every: float) -> None:
        self._inbox = inbox
        self._sessions = sessions
        self._secure = origin.startswith("https://")
        # Cookies know no ports: two inboxes on one machine must not sign each other out.
        port = origin.rpartition(":")[2]
        self._cookie = "__Host-checkrein" if self._secure else f"checkrein-{port.strip('/')}"
        self._every = every

    # -- pages ---------------------------------------------------------------------------------

    async def list(self, request: Request) -> Response:
        """Show what waits for an answer."""
        session = self._session(request)
        questions = await run_in_threadpool(self._inbox.open)
        damaged = await run_in_threadpool(self._inbox.damaged, questions)
        rendered = partial(list_page, notice=_notice(request, session))
        return await run_in_threadpool(rendered, self._inbox, session, questions, damaged)

    async def question(self, request: Request) -> Response:
        """Show one question."""
        session = self._session(request)
        case = await self._case(request)
        rendered = partial(question_page, notice=_notice(request, session))
        return await run_in_threadpool(rendered, self._inbox, session, case)

    async def answer(self, request: Request) -> Response:
        """Take a yes or a no."""
        session, fields = await self._form(request)
        case = await self._case(request)
        typed = fields.get("typed", "").replace("\r\n", "\n")  # browsers rewrite line breaks
        try:
            question = await self._shown(request, fields)
            verdict = _verdict(question, fields, session.name)
            return await self._give(session, verdict, question, typed)
        except AnswerRefused as refused:
            case = await self._case(request)
            return await run_in_threadpool(
                question_page, self._inbox, session, case, problem=str(refused), status=409
            )

    async def edit(self, request: Request) -> Response:
        """Show the fields of an edit."""
        session = self._session(request)
        case = await self._case(request)
        return await run_in_threadpool(edit_page, session, case.question, {})

    async def edited(self, request: Request) -> Response:
        """Take an edit."""
        session, fields = await self._form(request)
        case = await self._case(request)
        given = {
            one.name: fields[f"argument-{number}"]
            for number, one in enumerate(case.question.arguments)
            if f"argument-{number}" in fields
        }
        try:
            question = await self._shown(request, fields)
            changes = await run_in_threadpool(changes_of, question, given)
            reason = fields.get("reason", "")
            verdict = question.edit(changes, by=session.name, reason=reason)
            return await self._give(session, verdict, question)
        except (AnswerRefused, MisuseError) as refused:
            render = partial(edit_page, problem=str(refused), status=409)
            return await run_in_threadpool(render, session, case.question, given)

    async def _give(
        self, session: Session, verdict: Verdict, question: Confirmation, typed: str = ""
    ) -> Response:
        case = await run_in_threadpool(self._inbox.answer, verdict, typed=typed)
        session.notice = _thanks(case, verdict)
        return RedirectResponse("/" if case.state != "open" else address_of(question), 303)

    # -- news ----------------------------------------------------------------------------------

    async def events(self, request: Request) -> Response:
        """Tell of news until the page is closed or the session ends."""
        self._session(request)
        headers = {"X-Accel-Buffering": "no"}  # a proxy that collects news first tells none
        return StreamingResponse(
            self._news(request), media_type="text/event-stream", headers=headers
        )

    async def _news(self, request: Request) -> AsyncIterator[str]:
        last = ""
        while self._sessions.find(request.cookies.get(self._cookie)) is not None:
            try:
                news = await run_in_threadpool(self._inbox.news)
            except StoreError:
                news = last  # the page itself says so when it is loaded
            yield ": still here\n\n" if news == last else f"event: news\ndata: {news}\n\n"
            last = news
            await anyio.sleep(self._every)
        yield "event: over\ndata:\n\n"

    # -- coming and going ----------------------------------------------------------------------

    async def invited(self, request: Request) -> Response:
        """Show the button that signs in; looking at it uses nothing up."""
        name = self._sessions.invited(request.path_params["token"])
        return _stale_link() if name is None else page("enter.html", None, name=name)

    async def enter(self, request: Request) -> Response:
        """Sign in."""
        key = self._sessions.enter(request.path_params["token"])
        if key is None:
            return _stale_link()
        self._sessions.leave(request.cookies.get(self._cookie))
        response = RedirectResponse("/", 303)
        response.set_cookie(
            self._cookie,
            key,
            max_age=int(SESSION_LASTS),
            httponly=True,
            samesite="strict",
            secure=self._secure,
        )
        return response

    async def leave(self, request: Request) -> Response:
        """Sign out."""
        await self._form(request)
        self._sessions.leave(request.cookies.get(self._cookie))
        response = told(None, "Signed out", "A new link lets you in again.", status=200)
        response.delete_cookie(self._cookie, httponly=True, samesite="strict", secure=self._secure)
        return response

    # -- what they have in common --------------------------------------------------------------

    def _session(self, request: Request) -> Session:
        session = self._sessions.find(request.cookies.get(self._cookie))
        if session is None:
            words = "Open the link that was printed in the terminal of the inbox."
            more = "A link is good once; whoever runs the inbox can print a new one."
            raise _Refused(told(None, "Nobody is signed in", words, more, status=401))
        return session

    async def _form(self, request: Request) -> _Signed:
        session = self._session(request)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _LARGEST:
                raise _Refused(told(session, "Too long", "This form is too long.", status=413))
        try:
            fields = await run_in_threadpool(_fields, bytes(body))
        except ValueError:
            raise _Refused(told(session, "No form", "This is no form.", status=400)) from None
        if not session.owns(fields.get("token", "")):
            words = "This form is not from this session. Open the page again."
            raise _Refused(told(session, "Not answered", words, status=403))
        return _Signed(session, fields)

    async def _case(self, request: Request) -> Case:
        return await run_in_threadpool(self._inbox.find, request.query_params.get("id", ""))

    async def _shown(self, request: Request, fields: Mapping[str, str]) -> Confirmation:
        """Return the question, if it is the one that stood on the page."""
        id_, digest = request.query_params.get("id", ""), fields.get("digest") or "none"
        case = await run_in_threadpool(self._inbox.find, id_, digest=digest)
        return case.question


def _fields(body: bytes) -> dict[str, str]:
    pairs = parse_qsl(
        body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS
    )
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a field is there twice")
    return dict(pairs)


def _verdict(question: Confirmation, fields: Mapping[str, str], name: str) -> Verdict:
    match fields.get("answer"):
        case "approve":
            return question.approve(by=name)
        case "deny" | "suspicious" as no:
            reason = fields.get("reason", "")
            return question.deny(by=name, reason=reason, suspicious=no == "suspicious")
        case _:
            raise AnswerRefused("that is no answer")


def _notice(request: Request, session: Session) -> str:
    """Return what is to be said once; not to the script that only looks whether there is news."""
    if "x-renew" in request.headers:
        return ""
    notice, session.notice = session.notice, ""
    return notice


def _thanks(case: Case, verdict: Verdict) -> str:
    tool = visible(case.question.tool)
    if case.state == "open":
        left = case.question.needed - len(case.verdicts)
        return f"Your yes to {tool} is taken. It needs {left} more from other people."
    if verdict.edits:
        return f"{tool} was denied, and your edited call sent in its place."
    if verdict.suspicious:
        return f"{tool} was denied as suspicious; the run is locked."
    return f"{tool} was {'approved' if verdict.approved is True else 'denied'}."


# -- what goes wrong -----------------------------------------------------------------------


def _stale_link() -> Response:
    words = "A link signs in once, and for ten minutes. Whoever runs the inbox can print a new one."
    return told(None, "This link is not good any more", words, status=403)


async def _on_refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, _Refused)
    return error.response


async def _on_missing(_request: Request, error: Exception) -> Response:
    return told(None, "No such question", visible(str(error)), status=404, home=True)


async def _on_tampered(_request: Request, _error: Exception) -> Response:
    words = (
        "What lies in the database under this id is not the question that was asked. It is not"
        " shown, it cannot be answered, and the call that waits for it will not run."
    )
    more = "Somebody who can write to the database has changed it. Tell whoever runs the agent."
    return told(
        None, "This question was tampered with", words, more, status=409, home=True, warning=True
    )


async def _on_store(_request: Request, error: Exception) -> Response:
    words = "The questions cannot be read or answered right now."
    return told(
        None, "The store failed", words, visible(str(error)), status=503, home=True, warning=True
    )


async def _on_ours(_request: Request, error: Exception) -> Response:
    return told(None, "That did not work", visible(str(error)), status=409, home=True)


_HANDLERS: Final[Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]] = {
    _Refused: _on_refused,
    NoSuchQuestion: _on_missing,
    TamperedError: _on_tampered,
    StoreError: _on_store,
    CheckreinError: _on_ours,
}

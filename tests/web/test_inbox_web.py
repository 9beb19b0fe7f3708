"""The web inbox under attack: sign-in, other sites, hostile values, answers that do not count."""

# ruff: noqa: E402 (skipped if it cannot run)

from __future__ import annotations

import doctest
import importlib
import itertools
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from web.needed import needed

needed("starlette", "uvicorn", "jinja2", "httpx")

import anyio
import httpx

from checkrein.approvers import Approvers, signed
from checkrein.confirmations import Care, Confirmation, Shown
from checkrein.delegation import Principal
from checkrein.errors import ConfigurationError
from checkrein.gates.desk import Desk
from checkrein.gates.inbox import Inbox, Offer, offer_of
from checkrein.store import SqliteStore
from checkrein.visible import visible
from checkrein.web.app import inbox_app
from checkrein.web.protection import HEADERS, origin_of
from checkrein.web.serving import invitations, listening, origins_of, serve
from checkrein.web.session import LINK_LASTS, SESSION_LASTS, Sessions
from support import Clock
from web.questions import HOSTILE, Page, argument, hostile, question

HERE = "http://127.0.0.1:8000"
IDS = itertools.count()
FORM = "application/x-www-form-urlencoded"


class Visitor:
    """A browser without pages: cookies, and the headers that a form of ours sends."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.cookies = httpx.Cookies()
        self.headers = {"Origin": HERE}
        self.responses: list[httpx.Response] = []

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._ask("GET", path, **options)

    def post(self, path: str, fields: Any = (), **options: Any) -> httpx.Response:
        body = urlencode(fields, errors="surrogatepass")
        headers = {"Content-Type": FORM, **self.headers, **options.pop("headers", {})}
        return self._ask("POST", path, content=body, headers=headers, **options)

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(
                transport=transport, base_url=HERE, cookies=self.cookies
            ) as client:
                response = await client.request(method, path, **options)
                self.cookies = client.cookies
                return response

        self.responses.append(anyio.run(ask))
        return self.responses[-1]

    def sign_in(self, sessions: Sessions, name: str) -> Visitor:
        assert self.post(f"/enter/{sessions.invite(name)}").status_code == 303
        return self

    def open(self, one: Confirmation | str, path: str = "/question") -> Page:
        """Return the page of a question."""
        id_ = one if isinstance(one, str) else one.id
        return Page(self.get(f"{path}?{urlencode({'id': id_})}").text)

    def answer(self, one: Confirmation, answer: str, **fields: str) -> httpx.Response:
        """Open a question, and press one of its buttons."""
        page = self.open(one)
        told = {name: page.fields.get(name, "") for name in ("token", "digest")}
        return self.post(f"/answer?id={one.id}", {**told, "answer": answer, **fields})


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(clock)


@pytest.fixture
def app(inbox: Inbox, sessions: Sessions) -> Any:
    return inbox_app(inbox, sessions, [HERE, "http://localhost:8000"])


@pytest.fixture
def nobody(app: Any) -> Visitor:
    """Somebody who is not signed in."""
    return Visitor(app)


@pytest.fixture
def dana(app: Any, sessions: Sessions) -> Visitor:
    return Visitor(app).sign_in(sessions, "dana")


@pytest.fixture
def lee(app: Any, sessions: Sessions) -> Visitor:
    return Visitor(app).sign_in(sessions, "lee")


def state(desk: Desk, one: Confirmation) -> str:
    case = desk.find(one.id)
    assert case is not None
    return case.state


# -- signing in ----------------------------------------------------------------------------


def test_a_link_signs_in_once(nobody: Visitor, app: Any, sessions: Sessions):
    """Looking at it uses nothing up; a thief who comes second gets nothing."""
    path = f"/enter/{sessions.invite('dana')}"
    assert "dana" in nobody.get(path).text
    assert nobody.get("/").status_code == 401
    assert nobody.post(path).status_code == 303
    assert nobody.get("/").status_code == 200
    thief = Visitor(app)
    assert thief.get(path).status_code == 403
    assert thief.post(path).status_code == 403
    assert thief.get("/").status_code == 401


def test_a_link_expires(nobody: Visitor, sessions: Sessions, clock: Clock):
    path = f"/enter/{sessions.invite('dana')}"
    clock.now += LINK_LASTS
    assert nobody.get(path).status_code == 403
    assert nobody.post(path).status_code == 403


def test_a_forged_link_is_none(nobody: Visitor, sessions: Sessions):
    """Neither a prefix of a link, nor another letter, nor nothing."""
    secret = sessions.invite("dana")
    for forged in (secret[:-1], secret + "A", secret.swapcase(), "x", "%00"):
        assert nobody.post(f"/enter/{forged}").status_code == 403
    assert nobody.post("/enter/").status_code in {404, 405}
    assert sessions.invited(secret) == "dana"


def test_a_link_of_another_site_signs_nobody_in(nobody: Visitor, sessions: Sessions):
    """Or somebody could be made to answer under the name of another."""
    path = f"/enter/{sessions.invite('dana')}"
    assert nobody.post(path, headers={"Origin": "https://evil.example"}).status_code == 403
    assert nobody.get("/").status_code == 401


def test_a_session_ends(dana: Visitor, clock: Clock):
    clock.now += SESSION_LASTS
    assert dana.get("/").status_code == 401


def test_who_signs_out_is_out(dana: Visitor, app: Any):
    """In the memory of the server too, not only in the browser."""
    thief = Visitor(app)
    thief.cookies = httpx.Cookies(dana.cookies)
    token = Page(dana.get("/").text).fields["token"]
    assert dana.post("/leave", {"token": token}).status_code == 200
    assert thief.get("/").status_code == 401


def test_nobody_sees_anything_without_a_session(nobody: Visitor, desk: Desk):
    """Not even whether there is a question."""
    one = question()
    desk.put(one)
    for path in ("/", f"/question?id={one.id}", "/question?id=no", f"/edit?id={one.id}", "/events"):
        response = nobody.get(path)
        assert response.status_code == 401
        assert "send_email" not in response.text
    assert nobody.post(f"/answer?id={one.id}", {"answer": "approve"}).status_code == 401
    assert nobody.post(f"/edit?id={one.id}").status_code == 401
    nobody.cookies.set("checkrein-8000", "forged")
    assert nobody.get("/").status_code == 401


def test_the_cookie_is_for_this_site_and_no_script(nobody: Visitor, sessions: Sessions):
    cookie = nobody.post(f"/enter/{sessions.invite('dana')}").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie


def test_over_tls_the_cookie_stays_there(inbox: Inbox, sessions: Sessions):
    visitor = Visitor(inbox_app(inbox, sessions, ["https://inbox.example"]))
    visitor.headers = {"Origin": "https://inbox.example"}
    path = f"/enter/{sessions.invite('dana')}"
    response = visitor.post(path, headers={"Host": "inbox.example"})
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("__Host-checkrein=")
    assert "Secure" in cookie


@pytest.mark.parametrize(
    "name", ["", " ", "dana, lee", "da\u200bna"], ids=["no", "blank", "two", "odd"]
)
def test_a_name_is_one_visible_name(sessions: Sessions, name: str):
    """The desk reads a comma as several people."""
    with pytest.raises(ConfigurationError):
        sessions.invite(name)


def test_links_are_printed_one_a_person(sessions: Sessions):
    first, second, note = invitations(sessions, ["dana", "lee", "dana"], HERE)
    assert first.startswith(f"dana: {HERE}/enter/")
    assert second.startswith(f"lee: {HERE}/enter/")
    assert "once" in note


# -- other sites ---------------------------------------------------------------------------


@pytest.mark.parametrize("token", [None, "", "x", "é"], ids=["missing", "empty", "wrong", "odd"])
def test_a_form_without_the_token_is_refused(dana: Visitor, desk: Desk, token: str | None):
    one = question()
    desk.put(one)
    fields = {"answer": "approve", "digest": one.digest}
    if token is not None:
        fields["token"] = token
    for path in (f"/answer?id={one.id}", f"/edit?id={one.id}", "/leave"):
        assert dana.post(path, fields).status_code == 403
    assert state(desk, one) == "open"
    assert dana.get("/").status_code == 200


def test_a_form_with_the_token_of_another_session_is_refused(
    dana: Visitor, lee: Visitor, desk: Desk
):
    one = question()
    desk.put(one)
    token = lee.open(one).fields["token"]
    fields = {"answer": "approve", "digest": one.digest, "token": token}
    assert dana.post(f"/answer?id={one.id}", fields).status_code == 403
    assert state(desk, one) == "open"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:8001"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "https://127.0.0.1:8000"},
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "null", "Sec-Fetch-Site": "same-site"},
        {"Origin": "null", "Sec-Fetch-Site": "none"},
        {"Origin": f"{HERE}, {HERE}"},
    ],
    ids=[
        "other",
        "port",
        "no-port",
        "scheme",
        "empty",
        "null",
        "null-cross",
        "null-same-site",
        "null-none",
        "two",
    ],
)
def test_a_form_of_another_site_is_refused(dana: Visitor, desk: Desk, headers: dict[str, str]):
    """With everything else right."""
    one = question()
    desk.put(one)
    token = dana.open(one).fields["token"]
    fields = {"answer": "deny", "digest": one.digest, "token": token}
    assert dana.post(f"/answer?id={one.id}", fields, headers=headers).status_code == 403
    assert state(desk, one) == "open"


def test_a_form_without_an_origin_is_refused(dana: Visitor, desk: Desk):
    one = question()
    desk.put(one)
    token = dana.open(one).fields["token"]
    dana.headers = {}
    fields = {"answer": "deny", "digest": one.digest, "token": token}
    assert dana.post(f"/answer?id={one.id}", fields).status_code == 403


def test_a_form_of_ours_counts_where_the_browser_hides_the_origin(dana: Visitor, desk: Desk):
    """Browsers do, since our pages send no referrer."""
    one = question()
    desk.put(one)
    dana.headers = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    assert dana.answer(one, "deny").status_code == 303


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:8001", "", "127.0.0.1:8000.evil"],
    ids=["other", "rebound", "no-port", "port", "empty", "longer"],
)
def test_another_host_name_is_refused(dana: Visitor, host: str):
    """A name of somebody else that points here would make his page one of ours."""
    response = dana.get("/", headers={"Host": host})
    assert response.status_code == 421
    assert "dana" not in response.text


def test_every_response_carries_the_policy(dana: Visitor, nobody: Visitor, desk: Desk):
    """Whatever the answer is."""
    one = question()
    desk.put(one)
    for visitor in (dana, nobody):
        for path in ("/", "/question?id=q1", "/edit?id=q1", "/question?id=no", "/nothing"):
            visitor.get(path)
        visitor.get("/static/inbox.css")
        visitor.get("/static/../app.py")
        visitor.get("/", headers={"Host": "evil.example"})
        visitor.post("/answer?id=q1", headers={"Origin": "https://evil.example"})
        visitor.post("/")
        visitor.get("/enter/forged")
    dana.answer(one, "deny")
    codes = {one.status_code for one in dana.responses + nobody.responses}
    assert codes == {200, 303, 401, 403, 404, 405, 421}
    for response in dana.responses + nobody.responses:
        assert {name: response.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_failure_carries_the_policy_too(
    app: Any, dana: Visitor, monkeypatch: pytest.MonkeyPatch, inbox: Inbox
):
    """And says nothing of what was going on."""

    def fail(_self: Inbox) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(Inbox, "open", fail)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            return await client.get("/", headers={"Cookie": f"{_cookie(dana)}"})

    response = anyio.run(ask)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


def _cookie(visitor: Visitor) -> str:
    return "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())


# -- pages ---------------------------------------------------------------------------------


def test_the_list_shows_what_waits(dana: Visitor, desk: Desk):
    """The oldest first, and what has lapsed not at all."""
    now = time.time()
    desk.put(question("late", asked=now - 50, expires=now - 1, tool="lapsed_tool"))
    desk.put(question("two", tool="second", asked=now - 10))
    desk.put(question("one", tool="first", asked=now - 20))
    text = dana.get("/").text
    assert text.index("first") < text.index("second")
    assert "lapsed_tool" not in text
    assert "2 questions" in text


def test_an_empty_list_says_so(dana: Visitor):
    assert "Nothing waits" in dana.get("/").text


def test_a_question_is_shown_whole_and_before_its_buttons(dana: Visitor, desk: Desk):
    one = question(
        arguments=(argument("to", "bo", untrusted=True, origin="mail:inbox", concern="odd"),),
        preview="would send\na mail",
        chain=("boss",),
        needed=2,
    )
    desk.put(one)
    html = dana.get("/question?id=q1").text
    page = Page(html)
    assert page.values == ['"bo"']
    for told in ("clerk", "send_email", "irreversible", "mail.send", "untrusted", "mail:inbox"):
        assert told in page.text
    for told in ("odd", "would send\na mail", "cannot be taken back", "boss", one.digest, "2 diff"):
        assert told in page.text
    assert html.index("would send") < html.index('value="deny"')
    assert html.index('value="deny"') < html.index('value="approve"')


def test_nothing_begins_with_a_yes(dana: Visitor, desk: Desk):
    """No focus, and the return key in the form of the yes presses a button that is off."""
    desk.put(question(care=Care(retype="to")))
    html = dana.get("/question?id=q1").text
    assert "autofocus" not in html
    yes = Page(html[html.index('class="yes"') :])
    buttons = [attributes for name, attributes in yes.tags if name == "button"]
    assert "disabled" in buttons[0]
    assert buttons[0].get("value") is None
    assert buttons[1]["value"] == "approve"


def test_no_page_has_script_or_style_of_its_own(dana: Visitor, desk: Desk):
    """The policy forbids it, so nothing may need it."""
    desk.put(question(care=Care(5.0, "to")))
    for path in ("/", "/question?id=q1", "/edit?id=q1"):
        for name, attributes in Page(dana.get(path).text).tags:
            assert not [one for one in attributes if one.startswith("on") or one == "style"]
            assert name != "style"
            assert name != "script" or attributes["src"] == "/static/inbox.js"


def test_hostile_words_stay_words(dana: Visitor, desk: Desk):
    """Markup, templates, quotes, terminals, directions, and letters that are none."""
    desk.put(hostile())
    desk.put(question())
    for path in ("/question", "/edit"):
        tame, evil = dana.open("q1", path), dana.open("evil", path)
        assert evil.names() - tame.names() <= {"b", "div"}
        assert "img" not in evil.names()
        assert visible(HOSTILE) in evil.text
        assert not set("\u202e\u202c\u200b\u2066\x1b\x00") & set(evil.text)
    listed = Page(dana.get("/").text)
    assert visible(HOSTILE) in listed.text
    assert "img" not in listed.names()
    assert dana.open("evil").values == [argument("x", HOSTILE).text]


def test_what_was_stored_unescaped_is_escaped(dana: Visitor, desk: Desk):
    """Who can write to the database can store a value that was never made visible."""
    raw = Shown("to", None, False, "o", "", '"a\u202eb\x1b"', '"x"')
    desk.put(question(arguments=(raw,), preview="a\u202eb\nc"))
    page = dana.open("q1")
    assert page.values == [r'"a\u202eb\x1b"']
    assert "a\\u202eb\nc" in page.text


def test_a_hundred_kilobytes_are_shown_whole(dana: Visitor, desk: Desk):
    value = "lorem ipsum " * 8_500
    desk.put(question(arguments=(argument("text", value),)))
    assert dana.open("q1").values == [f'"{value}"']
    assert dana.open("q1", "/edit").fields["argument-0"] == value


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, Visitor]]:
    """A desk and a visitor for many examples."""
    with SqliteStore.open(tmp_path_factory.mktemp("shared") / "questions.db") as store:
        desk, sessions = Desk(store), Sessions(time.time)
        app = inbox_app(Inbox(desk), sessions, [HERE])
        yield desk, Visitor(app).sign_in(sessions, "dana")


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(max_size=200),
        st.text(alphabet="<>&\"'{}%#\\`=/\r\n\t\u202e\u200b\x00\x1b scriptxu0", max_size=200),
        st.text(alphabet=st.characters(), max_size=50),
    )
)
def test_the_page_has_just_the_letters_that_were_shown(shared: tuple[Desk, Visitor], value: str):
    """Whatever a value is, its cell reads as the escaped text does, and every letter shows."""
    desk, visitor = shared
    id = f"q{next(IDS)}"
    made = argument("to", value, origin=value)
    desk.put(question(id, arguments=(made,), reasons=(value,)))
    page = visitor.open(id)
    assert page.values == [made.text]
    assert visible(value) in page.text
    offer = offer_of(made)
    assert offer is not None
    assert visitor.open(id, "/edit").fields["argument-0"] == offer.text


# -- answers -------------------------------------------------------------------------------


def test_a_yes_is_taken_once(dana: Visitor, lee: Visitor, desk: Desk):
    one = question()
    desk.put(one)
    fields = lee.open(one).fields
    assert dana.answer(one, "approve").headers["location"] == "/"
    assert "approved" in dana.get("/").text
    assert "approved" not in dana.get("/").text
    told = {"token": fields["token"], "digest": fields["digest"], "answer": "deny"}
    late = lee.post(f"/answer?id={one.id}", told)
    assert late.status_code == 409
    assert "not open any more" in late.text
    case = desk.take(one.id)
    assert case is not None
    assert (case.verdict.approved, case.verdict.by) == (True, "dana")


@pytest.mark.parametrize("suspicious", [False, True], ids=["deny", "suspicious"])
def test_a_no_is_taken_with_its_reason(dana: Visitor, desk: Desk, suspicious: bool):
    one = question()
    desk.put(one)
    answer = "suspicious" if suspicious else "deny"
    assert dana.answer(one, answer, reason=HOSTILE[:-1]).status_code == 303
    case = desk.find(one.id)
    assert case is not None
    assert case.verdict.approved is False
    assert case.verdict.suspicious is suspicious
    assert case.verdict.reason == HOSTILE[:-1]
    assert visible(HOSTILE[:-1]) in dana.open(one).text


@pytest.mark.parametrize("answer", ["", "yes", "true", "APPROVE", "approve "])
def test_anything_else_is_no_answer(dana: Visitor, desk: Desk, answer: str):
    one = question()
    desk.put(one)
    assert dana.answer(one, answer).status_code == 409
    assert state(desk, one) == "open"


def test_the_name_is_the_one_of_the_link(dana: Visitor, desk: Desk):
    """Whatever fields somebody adds to the form."""
    one = question()
    desk.put(one)
    dana.answer(one, "approve", by="lee", name="lee", session="lee")
    case = desk.find(one.id)
    assert case is not None
    assert case.verdict.by == "dana"


def test_a_field_that_comes_twice_is_refused(dana: Visitor, desk: Desk):
    """What a proxy has read and what counts here cannot differ."""
    one = question()
    desk.put(one)
    token = dana.open(one).fields["token"]
    fields = [("token", token), ("digest", one.digest), ("answer", "deny"), ("answer", "approve")]
    assert dana.post(f"/answer?id={one.id}", fields).status_code == 400
    assert state(desk, one) == "open"


def test_who_asks_cannot_approve(app: Any, sessions: Sessions, desk: Desk):
    one = question()
    desk.put(one)
    clerk = Visitor(app).sign_in(sessions, "Clerk")
    response = clerk.answer(one, "approve")
    assert response.status_code == 409
    assert "who asks cannot approve" in response.text


def test_two_people_say_yes_together(dana: Visitor, lee: Visitor, desk: Desk):
    """Each under their own name; one cannot do it twice."""
    one = question(needed=2)
    desk.put(one)
    assert dana.answer(one, "approve").headers["location"] == "/question?id=q1"
    page = dana.open(one)
    assert "needs 1 more" in page.text
    assert "dana: yes" in page.text
    assert not [given for _, given in page.tags if given.get("value") == "approve"]
    fields = {"token": page.fields["token"], "digest": one.digest, "answer": "approve"}
    assert dana.post("/answer?id=q1", fields).status_code == 409
    assert state(desk, one) == "open"
    assert lee.answer(one, "approve").headers["location"] == "/"
    case = desk.find(one.id)
    assert case is not None
    assert (case.state, case.verdict.by) == ("answered", "dana, lee")


def test_care_is_enforced_by_the_server(dana: Visitor, desk: Desk, clock: Clock):
    """Who presses the button before it is there is refused."""
    one = question(asked=clock.now, care=Care(5.0, "to"))
    desk.put(one)
    page = dana.open(one)
    (button,) = [given for _, given in page.tags if given.get("value") == "approve"]
    assert "disabled" in button
    early = dana.answer(one, "approve", typed="bo")
    assert early.status_code == 409
    assert "has to be read first" in early.text
    clock.now += 5
    (button,) = [given for _, given in dana.open(one).tags if given.get("value") == "approve"]
    assert "disabled" not in button
    assert dana.answer(one, "approve").status_code == 409
    assert dana.answer(one, "approve", typed="Bo").status_code == 409
    assert state(desk, one) == "open"
    assert dana.answer(one, "approve", typed="bo").status_code == 303


def test_what_has_several_lines_can_be_typed_in(dana: Visitor, desk: Desk):
    """Though browsers rewrite line breaks."""
    one = question(arguments=(argument("to", "a\nb"),), care=Care(retype="to"))
    desk.put(one)
    assert ("typed") in {
        given.get("name") for tag, given in dana.open(one).tags if tag == "textarea"
    }
    assert dana.answer(one, "approve", typed="a\r\nb").status_code == 303


def test_the_answer_is_for_what_was_shown(dana: Visitor, desk: Desk, place: Path):
    """Somebody exchanges the question, digest and all, while it is being read."""
    one = question()
    desk.put(one)
    fields = dana.open(one).fields
    other = question(arguments=(argument("to", "eve"),), asked=one.asked, expires=one.expires)
    _rewrite(place, one, other)
    told = {"token": fields["token"], "digest": fields["digest"], "answer": "approve"}
    response = dana.post("/answer?id=q1", told)
    assert response.status_code == 409
    assert "not the one that was shown" in response.text
    assert state(desk, other) == "open"
    for digest in ({}, {"digest": ""}):
        blind = {"token": fields["token"], "answer": "approve", **digest}
        assert dana.post("/answer?id=q1", blind).status_code == 409
    assert state(desk, other) == "open"


def _rewrite(place: Path, one: Confirmation, other: Confirmation) -> None:
    from checkrein.confirmations import to_text

    connection = sqlite3.connect(place)
    with connection:
        connection.execute(
            "UPDATE questions SET question = ? WHERE id = ?", (to_text(other), one.id)
        )
    connection.close()


def test_a_changed_question_is_a_warning(dana: Visitor, desk: Desk, place: Path):
    """On its page and on the list; it cannot be answered."""
    one = question()
    desk.put(one)
    fields = dana.open(one).fields
    connection = sqlite3.connect(place)
    with connection:
        connection.execute("UPDATE questions SET question = replace(question, 'clerk', 'boss')")
    connection.close()
    response = dana.get("/question?id=q1")
    assert response.status_code == 409
    assert "tampered" in response.text
    assert "boss" not in response.text
    listed = dana.get("/").text
    assert "tampered" in listed
    assert "q1" in listed
    told = {"token": fields["token"], "digest": one.digest, "answer": "approve"}
    assert dana.post("/answer?id=q1", told).status_code == 409


@pytest.mark.parametrize("id", ["", "no", "../x", "\x00", "%F0%9F"], ids=list("abcde"))
def test_an_unknown_question_is_not_found(dana: Visitor, id: str):
    assert dana.get("/question", params={"id": id}).status_code == 404
    assert dana.get("/edit", params={"id": id}).status_code == 404


def test_a_store_that_fails_says_so(dana: Visitor, desk: Desk):
    desk.store.close()
    response = dana.get("/")
    assert response.status_code == 503
    assert "store" in response.text


def test_answers_are_signed_where_there_is_a_key(
    place: Path, desk: Desk, clock: Clock, sessions: Sessions
):
    key = Principal.new()
    people = Approvers({"dana": key.id})
    with SqliteStore.open(place) as store:
        strict = Desk(store, approvers=people, clock=clock)
        inbox = Inbox(strict, sign=lambda one: signed(one, key), clock=clock)
        visitor = Visitor(inbox_app(inbox, sessions, [HERE])).sign_in(sessions, "dana")
        one = question()
        desk.put(one)
        assert visitor.answer(one, "approve").status_code == 303


# -- edits ---------------------------------------------------------------------------------


def edited(visitor: Visitor, one: Confirmation, **changes: str) -> httpx.Response:
    fields = visitor.open(one, "/edit").fields
    sent = {name: text.replace("\n", "\r\n") for name, text in fields.items()}
    return visitor.post(f"/edit?id={one.id}", {**sent, **changes})


def test_an_edit_is_what_changed(dana: Visitor, desk: Desk):
    """What a browser has only rewritten the line breaks of is as it was."""
    one = question(
        arguments=(argument("to", "a\n\nb"), argument("amount", 3), argument("odd", "\r"))
    )
    desk.put(one)
    assert edited(dana, one, **{"argument-1": "4"}).status_code == 303
    case = desk.find(one.id)
    assert case is not None
    assert dict(case.verdict.edits) == {"amount": 4}
    assert (case.verdict.approved, case.verdict.by) == (False, "dana")


def test_a_text_is_edited_as_it_is(dana: Visitor, desk: Desk):
    one = question(arguments=(argument("to", "\na"),))
    desk.put(one)
    assert edited(dana, one, **{"argument-0": '"x"\r\n{{7*7}}'}).status_code == 303
    case = desk.find(one.id)
    assert case is not None
    assert dict(case.verdict.edits) == {"to": '"x"\n{{7*7}}'}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("3", "nothing was changed"),
        (" 3\r\n", "nothing was changed"),
        ("three", "no JSON"),
        ("", "no JSON"),
        ("NaN", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("9" * 5_000, "no JSON"),
    ],
    ids=["same", "blank", "word", "empty", "nan", "deep", "long"],
)
def test_an_edit_that_is_none_is_refused_and_kept(dana: Visitor, desk: Desk, text: str, why: str):
    """The words that were typed in stay in their field."""
    one = question()
    desk.put(one)
    response = edited(dana, one, **{"argument-1": text})
    assert response.status_code == 409
    assert why in response.text
    assert Page(response.text).fields["argument-1"].strip() == text.strip()
    assert state(desk, one) == "open"


def test_true_is_not_one(dana: Visitor, desk: Desk):
    """Though Python says so."""
    one = question(arguments=(argument("all", 1),))
    desk.put(one)
    assert edited(dana, one, **{"argument-0": "true"}).status_code == 303
    case = desk.find(one.id)
    assert case is not None
    assert case.verdict.edits["all"] is True


def test_what_does_not_show_is_edited_as_json():
    """Letter by letter: what comes back is what was there."""
    assert offer_of(argument("to", "a\u202eb")) == Offer("to", "json", '"a\\u202eb"')
    assert offer_of(argument("to", "\U000e0041")) == Offer("to", "json", '"\\udb40\\udc41"')
    assert offer_of(argument("to", "a\\b")) == Offer("to", "text", "a\\b")
    assert offer_of(argument("to", "x", plain="")) is None


def test_what_several_people_allow_is_not_edited(dana: Visitor, desk: Desk):
    one = question(needed=2)
    desk.put(one)
    assert not [given for _, given in dana.open(one).tags if "/edit" in (given.get("href") or "")]
    assert edited(dana, one, **{"argument-1": "4"}).status_code == 409


# -- the server ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://x", "http://", "http://x/y", "http://a@b", "http://x:y", "http://[", "//x"],
)
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(ConfigurationError):
        origin_of(url)


def test_other_machines_need_an_address():
    """Plain HTTP is not offered to them by accident."""
    with pytest.raises(ConfigurationError, match="--url"):
        origins_of("0.0.0.0", 80, "")
    assert origins_of("0.0.0.0", 80, "https://inbox.example/") == ["https://inbox.example"]
    assert origins_of("127.0.0.1", 80, "") == ["http://127.0.0.1", "http://localhost"]
    assert origins_of("::1", 81, "") == ["http://[::1]:81", "http://localhost:81"]
    assert origins_of("localhost", 81, "") == ["http://localhost:81"]


def test_it_does_not_start_for_nobody_or_nowhere(inbox: Inbox):
    with pytest.raises(ConfigurationError, match="--by"):
        serve(inbox, [])
    with listening("127.0.0.1", 0) as taken, pytest.raises(ConfigurationError, match="--port"):
        listening("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("name", ["app", "pages", "protection", "serving", "session"])
def test_every_module_says_what_it_is_for_and_its_examples_run(name: str):
    module = importlib.import_module(f"checkrein.web.{name}")
    assert module.__doc__
    assert doctest.testmod(module).failed == 0


# -- colours -------------------------------------------------------------------------------

CSS = Path(importlib.import_module("checkrein.web").__file__ or "").parent / "static/inbox.css"
TEXTS_ON = [
    *((text, back) for text in ("ink", "soft", "link", "bad") for back in ("page", "sheet")),
    *((text, "bad-back") for text in ("ink", "soft", "bad")),
    ("warn", "warn-back"),
    ("fine", "fine-back"),
]
EDGES_ON = [(edge, back) for edge in ("edge", "bad", "focus") for back in ("page", "sheet")]


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart(scheme: int):
    """WCAG 2, level AA: 4.5 to 1 for texts, 3 to 1 for the edges of controls."""
    block = CSS.read_text(encoding="utf-8").split(":root {")[1 + scheme].partition("}")[0]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
    for text, back in TEXTS_ON:
        assert contrast(colours[text], colours[back]) >= 4.5, (text, back)
    for edge, back in EDGES_ON:
        assert contrast(colours[edge], colours[back]) >= 3.0, (edge, back)

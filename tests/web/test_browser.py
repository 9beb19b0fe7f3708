"""The web inbox in a real browser: clicks, keys, news, and hostile values that do nothing.

Pictures of its pages are kept in the directory that CHECKREIN_ARTEFACTS names.
"""

# ruff: noqa: E402 (skipped if it cannot run)

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from web.needed import chromium, needed

needed("starlette", "uvicorn", "jinja2", "playwright.sync_api")

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from checkrein import Grant, Run, allow, irreversible
from checkrein.confirmations import Care
from checkrein.gates import QueueGate
from checkrein.gates.desk import Desk
from checkrein.gates.inbox import Inbox
from checkrein.web.app import inbox_app
from checkrein.web.serving import listening, origins_of, server_of
from checkrein.web.session import Sessions
from web.questions import HOSTILE, argument, hostile, question

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Site(NamedTuple):
    """An inbox that is served."""

    url: str
    sessions: Sessions

    def sign_in(self, page: Page, name: str = "dana") -> Page:
        page.goto(f"{self.url}/enter/{self.sessions.invite(name)}")
        page.get_by_role("button", name=f"Sign in as {name}").click()
        page.wait_for_url(f"{self.url}/")
        return page


@pytest.fixture
def clock() -> Any:
    """The real time: a browser has its own."""
    return time.time


@pytest.fixture
def site(inbox: Inbox) -> Iterator[Site]:
    listener = listening("127.0.0.1", 0)
    port = listener.getsockname()[1]
    origins = origins_of("127.0.0.1", port, "")
    sessions = Sessions(time.time)
    server = server_of(inbox_app(inbox, sessions, origins, every=0.05))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield Site(origins[0], sessions)
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    made = browser.new_context()
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Page:
    """A page on which dana is signed in."""
    return site.sign_in(context.new_page())


@pytest.fixture
def artefacts(tmp_path: Path) -> Path:
    """Where pictures are kept."""
    place = Path(os.environ.get("CHECKREIN_ARTEFACTS") or tmp_path)
    place.mkdir(parents=True, exist_ok=True)
    return place


def state(desk: Desk, id: str = "q1") -> str:
    case = desk.find(id)
    assert case is not None
    return case.state


def test_a_person_approves_by_clicking(page: Page, place: Path):
    """From the agent's call to its effect: asked, shown without a reload, approved, run."""
    done: list[str] = []

    @irreversible("mail.send", external=True)
    def send_email(to: str) -> None:
        done.append(to)

    def agent() -> None:
        gate = QueueGate(str(place))
        with Run(agent="clerk", grant=Grant(allow("mail.send")), gate=gate) as run:
            run.instruct("Write to bo@acme.example")
            send_email("bo@acme.example")
        gate.close()

    thread = threading.Thread(target=agent)
    thread.start()
    page.get_by_role("link", name="wants to call").click()
    expect(page.locator("td.value")).to_have_text('"bo@acme.example"')
    assert done == []
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status")).to_contain_text("was approved")
    thread.join(timeout=30)
    assert done == ["bo@acme.example"]


def test_a_yes_takes_the_care_that_is_wanted(page: Page, desk: Desk, site: Site):
    """The button waits, the return key sends nothing, and what is typed has to be right."""
    desk.put(question(asked=time.time(), care=Care(1.5, "to")))
    sent: list[str] = []
    page.on("request", lambda one: sent.append(one.url) if one.method == "POST" else None)
    page.goto(f"{site.url}/question?id=q1")
    button = page.get_by_role("button", name="Approve")
    expect(button).to_be_disabled()
    expect(button).to_be_enabled()
    field = page.get_by_label("Type in the value of to")
    field.fill("Bo")
    field.press("Enter")
    button.click()
    expect(page.get_by_role("alert")).to_contain_text("type in the value")
    assert state(desk) == "open"
    page.get_by_label("Type in the value of to").fill("bo")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status")).to_contain_text("was approved")
    assert state(desk) == "answered"
    assert len(sent) == 2


def test_nothing_is_focused(page: Page, desk: Desk, site: Site):
    """A return key that comes too early does nothing."""
    desk.put(question())
    page.goto(f"{site.url}/question?id=q1")
    assert page.evaluate("document.activeElement.tagName") == "BODY"


def test_everything_works_without_javascript(browser: Browser, site: Site, desk: Desk):
    """Signing in, reading, denying, editing, approving, signing out."""
    for id_ in ("q1", "q2", "q3"):
        desk.put(question(id_))
    context = browser.new_context(java_script_enabled=False)
    page = site.sign_in(context.new_page())
    expect(page.locator(".row")).to_have_count(3)
    expect(page.locator("noscript meta[http-equiv=refresh]")).to_have_count(1)
    page.locator(".row a").first.click()
    page.get_by_label("Reason").fill("not today")
    page.get_by_role("button", name="Deny", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("was denied")
    page.locator(".row a").first.click()
    page.get_by_role("link", name="Edit").click()
    page.locator("textarea").first.fill("al\nand bo")
    page.get_by_role("button", name="make this call instead").click()
    expect(page.get_by_role("status")).to_contain_text("edited call")
    page.locator(".row a").first.click()
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing waits for an answer")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading")).to_have_text("Signed out")
    context.close()
    cases = [desk.find(id_) for id_ in ("q1", "q2", "q3")]
    verdicts = [case.verdict for case in cases if case is not None]
    assert [one.approved for one in verdicts] == [False, False, True]
    assert verdicts[0].reason == "not today"
    assert dict(verdicts[1].edits) == {"to": "al\nand bo"}


def test_news_arrive(page: Page, desk: Desk, site: Site):
    """A question appears where somebody looks, and goes where another has answered it."""
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing waits for an answer")
    one = question()
    desk.put(one)
    expect(page.locator(".row")).to_have_count(1)
    expect(page).to_have_title("(1) Inbox · Checkrein")
    desk.answer(one.deny(by="lee"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing waits for an answer")


def test_a_page_that_is_read_does_not_move(page: Page, desk: Desk, site: Site):
    """It says that it is old; its buttons stay where they were."""
    one = question()
    desk.put(one)
    page.goto(f"{site.url}/question?id=q1")
    expect(page.locator("#changed")).to_be_hidden()
    desk.answer(one.deny(by="lee"))
    expect(page.locator("#changed")).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    page.get_by_role("link", name="Load it again").click()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)


def test_keys_lead_to_questions_and_to_no(page: Page, desk: Desk, site: Site):
    """No key says yes."""
    desk.put(question("q1", asked=time.time() - 20))
    desk.put(question("q2", asked=time.time() - 10))
    expect(page.locator(".row")).to_have_count(2)
    rows = page.locator(".row a")
    page.keyboard.press("j")
    expect(rows.first).to_be_focused()
    page.keyboard.press("j")
    expect(rows.nth(1)).to_be_focused()
    page.keyboard.press("k")
    expect(rows.first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/question?id=q1")
    for key in ("y", "a", "Enter", "d"):
        page.keyboard.press(key)
    expect(page.get_by_role("button", name="Deny", exact=True)).to_be_focused()
    assert state(desk) == "open"
    page.keyboard.press("u")
    page.wait_for_url(f"{site.url}/")


def test_a_hostile_value_does_nothing(page: Page, desk: Desk, site: Site):
    """No dialog, no request to anywhere else, nothing that the policy had to stop."""
    desk.put(hostile())
    seen: list[str] = []
    page.on("dialog", lambda one: seen.append(f"dialog {one.message}"))
    page.on("console", lambda one: seen.append(f"console {one.text}"))
    page.on("pageerror", lambda one: seen.append(f"error {one}"))
    page.on("request", lambda one: None if one.url.startswith(site.url) else seen.append(one.url))
    page.reload(wait_until="load")
    expect(page.locator(".row")).to_have_count(1)
    for path in ("question", "edit"):
        page.goto(f"{site.url}/{path}?id=evil", wait_until="load")
        assert page.locator("main script, main img").count() == 0
    page.goto(f"{site.url}/question?id=evil")
    assert page.locator("td.value").text_content() == argument("x", HOSTILE).text
    page.get_by_role("button", name="Deny", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("was denied")
    assert seen == []


PLANT = """() => new Promise((done) => {
    const stopped = [];
    document.addEventListener("securitypolicyviolation", (event) => {
        stopped.push(event.effectiveDirective);
        if (stopped.length === 3) done(stopped.sort());
    });
    const script = document.createElement("script");
    script.textContent = "window.planted = true";
    const image = document.createElement("img");
    image.src = "http://evil.example/x.png";
    const form = document.createElement("form");
    form.action = "http://evil.example/";
    document.body.append(script, image, form);
    form.submit();
})"""


def test_the_policy_stops_what_would_get_in(page: Page, site: Site):
    """The check itself: a script, a picture and a form that were planted come to nothing."""
    assert page.evaluate(PLANT) == ["form-action", "img-src", "script-src-elem"]
    assert page.evaluate("window.planted") is None
    assert page.url == f"{site.url}/"


def test_no_other_page_can_frame_it(page: Page, context: BrowserContext, site: Site):
    """Nobody lays a button of theirs over one of ours."""
    other = context.new_page()
    other.set_content(f"<iframe src='{site.url}/'></iframe>", wait_until="load")
    (frame,) = other.main_frame.child_frames
    assert frame.url.startswith("chrome-error:")


SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_pages_fit_and_are_pictured(
    browser: Browser, site: Site, desk: Desk, artefacts: Path, size: str, scheme: Any
):
    """Nothing is wider than the screen, whatever the values are; what is pressed is large."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = site.sign_in(context.new_page())

    def picture(name: str, *, whole: bool = True) -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        path = artefacts / f"{name}-{size}-{scheme}.png"
        page.screenshot(path=path, full_page=whole)
        assert path.stat().st_size > 1000

    picture("empty")
    concern = {"origin": "stands in mail:inbox", "concern": "'to' has no trusted origin"}
    body = argument("body", "Dear Bo,\n\nhere is it.", untrusted=True, origin="mail:inbox")
    desk.put(
        question(
            "mail",
            arguments=(argument("to", "bo@acme.example", **concern), body),
            preview="would send one mail\nwith one attachment",
            chain=("planner",),
        )
    )
    desk.put(question("care", tool="transfer", needed=2, care=Care(500.0, "to")))
    desk.put(hostile())
    desk.put(question("large", arguments=(argument("text", "x" * 102_400, untrusted=True),)))
    expect(page.locator(".row")).to_have_count(4)
    picture("list")
    for name in ("mail", "care", "evil", "large"):
        page.goto(f"{site.url}/question?id={name}")
        picture(name, whole=name != "large")
    heights = page.locator("main button:visible, main a.button").evaluate_all(
        "every => every.map(one => one.getBoundingClientRect().height)"
    )
    assert min(heights) >= (48 if size == "phone" else 44)
    page.goto(f"{site.url}/edit?id=mail")
    picture("edit")
    context.close()

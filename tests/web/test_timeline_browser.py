"""The timeline's page in a real browser: filters, details, and hostile values that do nothing."""

# ruff: noqa: E402 (skipped if it cannot run)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from web.needed import chromium, needed

needed("typer", "playwright.sync_api")

from playwright.sync_api import Browser, Page, expect, sync_playwright

from checkrein.cli.timeline import page_of, read_moments
from checkrein.log import AuditLog

OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "\u202eevil\x1b[2J"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(OPTIONS))
        yield running
        running.close()


def entry(number: int, kind: str, run: str, **more: object) -> dict[str, Any]:
    return {"type": kind, "run": run, "time": 1_700_000_000_000_000_000 + number, **more}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The page of a log with two plain runs, a hostile one, and many entries."""
    with AuditLog.open(tmp_path / "audit", origin="example.com/tests") as log:
        log.append_many([
            entry(0, "run.opened", "a1", agent="bot", permissions=[]),
            entry(1, "call.allowed", "a1", call="c1", tool="pay", arguments={"n": 1}),
            entry(2, "run.opened", "b2", agent="helper", permissions=[]),
            entry(3, "call.denied", "b2", call="c2", tool="mail", arguments={}, findings=[]),
            entry(4, HOSTILE, HOSTILE, agent=HOSTILE, tool=HOSTILE, call="c3", text=HOSTILE),
        ])  # fmt: skip
        log.append_many([entry(5 + i, "reveal", "a1", n=i) for i in range(995)])
    path = tmp_path / "timeline.html"
    path.write_text(page_of(*read_moments(log.directory, "")), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Browser, place: Path) -> Iterator[Page]:
    """The page, opened from the disk; nothing else is loaded, and nothing is complained about."""
    context = browser.new_context()
    made = context.new_page()
    wrong: list[str] = []
    asked: list[str] = []
    made.on("console", lambda message: wrong.append(message.text))
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("request", lambda request: asked.append(request.url))
    made.goto(place.as_uri())
    yield made
    assert asked == [place.as_uri()]
    assert wrong == []
    context.close()


def rows(page: Page) -> Any:
    return page.locator("li:not(.day)")


def test_entries_are_filtered(page: Page):
    """By run, agent, tool, type and text, together; and all of them come back."""
    status = page.get_by_role("status")
    expect(status).to_have_text("1000 of 1000 entries")
    page.get_by_label("Run", exact=True).select_option(label="b2")
    expect(rows(page)).to_have_count(2)
    page.get_by_label("Tool", exact=True).select_option(label="mail")
    expect(rows(page)).to_have_count(1)
    expect(page.locator("li.denied .outcome")).to_contain_text("denied")
    page.get_by_label("Type", exact=True).select_option(label="run.opened")
    expect(status).to_have_text("0 of 1000 entries")
    page.get_by_role("button", name="Show all").click()
    expect(status).to_have_text("1000 of 1000 entries")
    page.get_by_label("Agent", exact=True).select_option(label="helper")
    expect(rows(page)).to_have_count(2)
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Text", exact=True).fill("PAY(N=1")
    expect(rows(page)).to_have_count(1)


def test_a_long_log_is_shown_in_parts(page: Page):
    """Five hundred at a time, so that a page of any size opens."""
    expect(rows(page)).to_have_count(500)
    page.get_by_role("button", name="Show more").click()
    expect(rows(page)).to_have_count(1000)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    expect(page.locator("li.day")).to_have_count(1)


def test_an_entry_opens(page: Page):
    """The whole entry is there, as JSON in which every letter shows."""
    page.locator("summary").nth(1).click()
    expect(page.locator("pre")).to_contain_text('"arguments"')
    page.locator("summary").nth(4).click()
    expect(page.locator("pre").nth(1)).to_contain_text("\\u202eevil")


def test_hostile_values_are_text(page: Page):
    """They are shown letter for letter; nothing runs, loads or turns around."""
    page.get_by_label("Text", exact=True).fill("owned")
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("<img src=x onerror=")
    expect(rows(page)).to_contain_text("\\u202eevil\\x1b[2J")
    page.locator("summary").click()
    page.get_by_label("Agent", exact=True).select_option(index=3)
    expect(rows(page)).to_have_count(1)
    assert page.title() == "Timeline of an audit log"
    assert page.locator("img, iframe, object, embed, link, base, [style], [onerror]").count() == 0
    assert page.locator("script").count() == 2


def test_the_policy_holds(page: Page, place: Path):
    """A script that somebody puts into the file does not run, even without a change to the rest."""
    text = place.read_text(encoding="utf-8")
    place.write_text(text.replace("</h1>", "</h1><script>document.title='owned'</script>"))
    other = page.context.new_page()
    other.goto(place.as_uri())
    expect(other.get_by_role("status")).to_have_text("1000 of 1000 entries")
    assert other.title() == "Timeline of an audit log"
    assert other.evaluate("document.scripts.length") == 3


def test_without_javascript_it_says_so(browser: Browser, place: Path):
    """Rather than showing an empty log."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(place.as_uri())
    expect(page.get_by_text("its own script shows them; it does not run here")).to_be_visible()
    context.close()


def test_a_log_that_could_not_be_read_to_its_end(browser: Browser, tmp_path: Path):
    """Is not taken for a whole one."""
    (tmp_path / "page.html").write_text(page_of([], "entry 4 is not an event"), encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    expect(page.get_by_role("alert")).to_have_text(
        "This is not all of the log: entry 4 is not an event"
    )
    context.close()

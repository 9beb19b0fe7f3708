"""``log timeline``: order and time at the terminal, and a page on which no entry can act."""

from __future__ import annotations

import base64
import json
import re
from hashlib import sha256
from html.parser import HTMLParser

import pytest

pytest.importorskip("typer")

from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from checkrein import AuditLog
from checkrein.cli.app import app
from checkrein.cli.timeline import Moment, page_of, read_moments

HOSTILE = (
    "</script><script>document.title='owned'</script><!--<img src=x onerror=alert(1)>"
    "\x1b[2J\x07\u202eevil\u2028\u200b\r\n\x7f\x9b31m {{policy}} {{entries}} &lt; \U000e0041 \\"
)
SECOND = 1_000_000_000
DEEP = "x"
for _ in range(200):
    DEEP = [DEEP]


def cli(*arguments: object):
    return CliRunner().invoke(app, ["log", *map(str, arguments)], catch_exceptions=False)


def entry(kind, run, at, **more):
    return {"type": kind, "run": run, "time": int((1_700_000_000 + at) * SECOND), **more}


@pytest.fixture
def audit(tmp_path):
    with AuditLog.open(tmp_path / "audit", origin="example.com/tests") as log:
        log.append_many([
            entry("run.opened", "aaaa1111-x", 0, agent="bot", permissions=[]),
            entry("call.allowed", "aaaa1111-x", 1.5, call="c1", tool="pay", arguments={"n": 1}),
            entry("run.opened", "bbbb2222-x", 2, agent="helper", parent="aaaa1111-x"),
            entry("confirmation.asked", "bbbb2222-x", 2.25, call="c2", tool="mail",
                  findings=[{"rule": "flow.origin"}]),
            entry("call.denied", "bbbb2222-x", 86_400 + 2, call="c2", tool="mail", findings=[]),
            entry("call.outcome", "aaaa1111-x", 86_400, call="c1", status="done"),
            entry("confirmation.answered", "aaaa1111-x", 86_400, call="c1", suspicious=True),
        ])  # fmt: skip
    return log.directory


def test_the_timeline_is_in_order_with_time_marks_and_runs(audit):
    """Days, milliseconds, seconds since the entry before, marks, and runs inside runs."""
    done = cli("timeline", audit)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.endswith(" UTC")] == ["2023-11-14 UTC", "2023-11-15 UTC"]
    assert re.search(r"^    0  22:13:20\.000 {14}aaaa1111  bot +the run begins", done.stdout, re.M)
    assert re.search(r"1  22:13:21\.500 +\+1\.500  aaaa1111  bot +\+ pay\(n=1\)", done.stdout)
    assert re.search(r"3  22:13:22\.250 +\+0\.250  bbbb2222  helper +\?   a person", done.stdout)
    assert "because of flow.origin" in done.stdout
    assert re.search(r" x   mail\(\.\.\.\)  ->  denied", done.stdout)
    assert re.search(r"-2\.000 .*= pay  ->  done", done.stdout)
    assert re.search(r"! answer about pay", done.stdout)
    assert lines[-1].startswith("7 entries, shown as it lies there, not verified")


def test_the_timeline_of_a_run(audit):
    """The first letters of its id will do; of no run, exit code 2."""
    done = cli("timeline", audit, "--run", "bbbb")
    assert done.exit_code == 0
    assert "3 entries" in done.stdout
    assert "aaaa1111" not in done.stdout
    assert cli("timeline", audit, "--run", "zzz").exit_code == 2
    assert cli("timeline", audit.parent / "nowhere").exit_code == 2


class Page(HTMLParser):
    """What a page consists of, and what would make it load or run something."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.links, self.handlers, self.policy = [], [], [], ""
        self.scripts, self.inside = [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "action", "srcset", "data", "style", "background"}:
                self.links.append((tag, name, value))
            if name.startswith("on"):
                self.handlers.append(name)
        given = dict(attrs)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        self.inside = [tag, given, ""] if tag in {"script", "style"} else None

    def handle_data(self, data):
        if self.inside:
            self.inside[2] += data

    def handle_endtag(self, tag):
        if self.inside and tag == self.inside[0]:
            self.scripts.append(tuple(self.inside))
            self.inside = None


def page_at(path):
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def entries_of(page):
    (block,) = (text for _, given, text in page.scripts if given.get("type") == "application/json")
    return json.loads(block)


def test_the_page_is_whole_and_needs_nothing_else(audit, tmp_path):
    """No resource, no handler, no inline style; its policy allows its own script and style."""
    out = tmp_path / "page.html"
    done = cli("timeline", audit, "--html", out)
    assert done.exit_code == 0
    text, page = page_at(out)
    assert page.links == page.handlers == []
    assert "{{" not in text
    assert not re.search(r"https?:|//[a-z]|url\(|@import|innerHTML|eval\(|document\.write", text)
    assert page.elements.count("script") == 2
    digests = {
        tag: "sha256-" + base64.b64encode(sha256(inside.encode()).digest()).decode()
        for tag, given, inside in page.scripts
        if not given
    }
    assert page.policy.split("; ") == [
        "default-src 'none'",
        f"script-src '{digests['script']}'",
        f"style-src '{digests['style']}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    found = entries_of(page)
    assert len(found["entries"]) == 7
    assert found["problem"] == ""
    assert "not verified" in found["note"]
    assert found["log"] == "example.com/tests"
    first = found["entries"][0]
    assert (first["run"], first["agent"], first["type"]) == ("aaaa1111-x", "bot", "run.opened")
    assert json.loads(first["entry"])["type"] == "run.opened"


def test_a_page_is_not_overwritten(audit, tmp_path):
    """It may be evidence."""
    (tmp_path / "page.html").write_text("mine")
    done = cli("timeline", audit, "--html", tmp_path / "page.html")
    assert done.exit_code == 2
    assert (tmp_path / "page.html").read_text() == "mine"


def hostile_events():
    fields = dict.fromkeys(
        (
            *("run", "agent", "tool", "call", "by", "reason", "answer", "rules", "permissions"),
            *("text", "sources", "status", "error", "calls", "time", "effect", "parent"),
        ),
        HOSTILE,
    )
    events = [
        {"type": kind, **fields, "arguments": {HOSTILE: HOSTILE}, "findings": [{"rule": HOSTILE}]}
        for kind in ("run.opened", "call.allowed", "call.denied", "confirmation.asked", HOSTILE)
    ]
    for strange in (None, 1, -(10**18), 10**18, -1.5, 1e300, True, [HOSTILE], {HOSTILE: 1}, DEEP):
        events.append({"type": "run.opened", **dict.fromkeys(fields, strange), "suspicious": 1})
    loop = [
        {"type": "run.opened", "run": one, "parent": other}
        for one, other in (("a", "b"), ("b", "a"), ("c", "c"))
    ]
    return [*events, *loop, {"type": ""}]


@pytest.fixture
def hostile(tmp_path):
    with AuditLog.open(tmp_path / "hostile", origin="example.com/tests") as log:
        for one in hostile_events():
            log.append(one)
    return log.directory


def test_no_entry_acts_on_the_terminal(hostile):
    """Every value is visible, on one line, whatever type it is of."""
    done = cli("timeline", hostile)
    assert done.exit_code == 0
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u202f\U000e0000-\U000e0fff]", done.stdout
    )
    days = sum(line.endswith((" UTC", "no day")) for line in done.stdout.splitlines())
    assert len(done.stdout.splitlines()) == len(hostile_events()) + days + 1


def test_no_entry_acts_on_the_page(hostile, tmp_path):
    """The page has the elements that it always has, and only ASCII in its block of entries."""
    cli("timeline", hostile, "--html", tmp_path / "page.html")
    text, page = page_at(tmp_path / "page.html")
    _, empty = text, Page(page_of([]))
    assert page.elements == empty.elements
    assert (page.links, page.handlers, page.policy) == ([], [], empty.policy)
    block = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert block
    assert not re.search(r"[<>&\x7f]|[^ -~]", block[1])
    found = entries_of(page)["entries"]
    assert len(found) == len(hostile_events())
    for one in found:
        for name in ("run", "agent", "tool", "type", "who", "what", "outcome", "time", "since"):
            assert not re.search("[\x00-\x1f\x7f-\x9f\u200b\u202e\u2028\U000e0041]", one[name]), one
    assert "{{policy}}" in found[0]["run"]
    assert "\\u202e" in found[0]["run"]


def test_an_entry_that_is_nested_as_deep_as_json_may_be(tmp_path, monkeypatch):
    """A forged log may hold what the library does not write; it is shown, and nothing breaks."""
    deep = "x"
    for _ in range(1000):
        deep = [deep]
    events = [(0, {"type": "run.opened", "run": deep, "parent": deep, "time": deep, "more": deep})]
    monkeypatch.setattr("checkrein.cli.timeline.read_entries", lambda directory: iter(events))
    monkeypatch.setattr("checkrein.cli.logs.read_entries", lambda directory: iter(events))
    for command in ("timeline", "show"):
        done = cli(command, tmp_path)
        assert done.exit_code == 0
        assert "1 entries" in done.stdout


TEXT = st.text(st.characters() | st.sampled_from("<>&/\"'\\{}!-\u202e\u2028\0")).map(
    lambda text: text.replace("a", "</script><!--")
)


@given(TEXT, TEXT)
def test_any_text_comes_back_from_the_block(text, other):
    """Whatever it holds: the block is JSON with that text, and the page is the same around it."""
    one = Moment(0, text, text, "", text, other, text, other, text, other, text, "x", 0, other)
    page = Page(page_of([one], other))
    assert entries_of(page)["entries"][0]["run"] == text
    assert entries_of(page)["problem"] == other
    assert page.elements.count("script") == 2


def test_a_log_that_cannot_be_read_to_its_end(audit, tmp_path):
    """Exit code 1; the page says in its own words that it is not all."""
    (bundle,) = (one for one in (audit / "tile" / "entries").rglob("*") if one.is_file())
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(b'{"type":"call.denied"', b'["type":"call.denied"', 1))
    done = cli("timeline", audit)
    assert done.exit_code == 1
    assert "entry 4 is not an event" in done.stderr
    assert "4 entries" in done.stdout
    done = cli("timeline", audit, "--html", tmp_path / "page.html")
    assert done.exit_code == 1
    assert entries_of(page_at(tmp_path / "page.html")[1])["problem"] == "entry 4 is not an event"
    found, problem = read_moments(audit, "")
    assert (len(found), problem) == (4, "entry 4 is not an event")

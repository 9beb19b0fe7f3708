"""Questions for the tests, among them one whose every word is hostile; and a page as it reads."""

from __future__ import annotations

import json
import time
from html.parser import HTMLParser
from typing import Any

from checkrein.confirmations import Confirmation, Shown
from checkrein.visible import shown
from support import asked_question

HOSTILE = (
    "</code></textarea><script>alert(1)</script><img src=//evil.example/x onerror=alert(1)>"
    "\" ' ` {{7*7}} {% raw %} ${1} &amp; \u202eevil\u202c \x1b[2J \u200b\u2066\x00\r\n\ud800"
)


def argument(name: str, value: Any, *, untrusted: bool = False, **more: Any) -> Shown:
    """Return an argument as a run shows it."""
    plain = json.dumps(value)
    text = shown(value) if isinstance(value, str) else plain
    made = Shown(name, None, untrusted, "the user's words", "", text, plain)
    return made._replace(**more)


def question(id: str = "q1", **changes: Any) -> Confirmation:
    """Return a question that was asked a moment ago and is open for ten minutes."""
    now = time.time()
    fresh = {
        "tool": "send_email",
        "arguments": (argument("to", "bo"), argument("amount", 3)),
        "asked": now - 1,
        "expires": now + 600,
    }
    return asked_question(id, **(fresh | changes))


def hostile(id: str = "evil") -> Confirmation:
    """Return a question whose every text is hostile."""
    value = argument(HOSTILE, HOSTILE, untrusted=True, origin=HOSTILE, concern=HOSTILE)
    return question(
        id,
        tool=HOSTILE,
        resource=HOSTILE,
        effect=HOSTILE,
        agent=HOSTILE,
        run=HOSTILE,
        call=HOSTILE,
        arguments=(value,),
        reasons=(HOSTILE,),
        chain=(HOSTILE,),
        preview=HOSTILE,
    )


class Page(HTMLParser):
    """A page as it reads: its tags, its fields, and the texts of its values.

    Attributes:
        tags: the names of all elements, with their attributes.
        fields: the values of hidden and other inputs, by their names.
        values: the texts of the cells with the class ``value``.
        text: all text.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.fields: dict[str, str] = {}
        self.values: list[str] = []
        self.text = ""
        self._inside = False
        self._area = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "input":
            self.fields[given.get("name") or ""] = given.get("value") or ""
        if tag == "textarea":
            self._area = given.get("name") or ""
            self.fields[self._area] = ""
        if tag == "td" and given.get("class") == "value":
            self._inside = True
            self.values.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._inside = False
        if tag == "textarea":
            self.fields[self._area] = self.fields[self._area].removeprefix("\n")  # as browsers do
            self._area = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside:
            self.values[-1] += data
        if self._area:
            self.fields[self._area] += data

    def names(self) -> set[str]:
        return {name for name, _ in self.tags}

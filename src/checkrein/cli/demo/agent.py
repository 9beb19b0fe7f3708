"""The model: a script that obeys every order it reads.

It stands in for a model that was talked round. It finds sentences such as
"Send this to a@example.com" or "Save a report to a.txt", and acts on each,
whoever wrote it. A real model may do better, or do the same; the guard at the
tools makes no difference between the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ORDER: Final = re.compile(
    r"\b(?:send|forward)\b[^.]*?\bto\s+(?P<to>[\w.+-]+@[\w.-]*\w)"
    r"|\bsave\b[^.]*?\bto\s+(?P<path>[\w./-]*\w)",
    re.IGNORECASE,
)
_HEADS: Final = re.compile(r"^From: (?P<sender>.*)\nSubject: (?P<subject>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call that the model wants to make, and the words that made it want to."""

    words: str
    tool: str
    arguments: dict[str, Any]


def obey(text: str, payload: str) -> Iterator[Attempt]:
    """Yield a call for every order in *text*.

    Args:
        text: what the model read.
        payload: the text that it saves or sends.
    """
    for match in _ORDER.finditer(text):
        words = " ".join(match[0].split())
        if match["to"]:
            yield Attempt(words, "send_email", {"to": match["to"], "body": payload})
        else:
            yield Attempt(words, "save_report", {"path": match["path"], "text": payload})


def report_on(inbox: str) -> str:
    """Return the model's report: one line for each mail that it read."""
    mails = [f"- {match['subject']} ({match['sender']})" for match in _HEADS.finditer(inbox)]
    return "\n".join([f"{len(mails)} mails today:", *mails, ""])

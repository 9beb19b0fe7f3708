"""One turn of a conversation that a framework saves, as a process: see ``frameworks.integration``.

``python -m frameworks.phases <framework> <directory>``. In the directory are ``order.json``,
what is to be done; ``framework/``, the framework's own state; ``talks/``, ours; ``log/``, the
signed log; ``sent.txt``, the effects; and then ``report.json``, what came of it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from checkrein import AuditLog, Grant, Untrusted, allow, irreversible, reads, writes
from checkrein.constraints import one_of
from checkrein.integrations.conversations import Conversations
from frameworks.contract import Wish

KEY = bytes(range(32))
SENT: list[Path] = []


def _done(to: str) -> None:
    with SENT[0].open("a", encoding="utf-8") as file:
        file.write(f"{to}\n")


def plain() -> list[Any]:
    """Return the tools, as plain functions."""

    @reads("phases.inbox", private=True)
    def inbox(folder: str = "INBOX") -> Untrusted[str]:
        """Read the newest letter."""
        return Untrusted(f"a letter in {folder}")

    @writes("phases.notes")
    def save(to: str) -> str:
        """Save a note."""
        _done(to)
        return "saved"

    @irreversible("phases.send", external=True)
    def send(to: str, body: Untrusted[str]) -> None:
        """Send a mail."""
        _done(to)

    return [inbox, save, send]


def awaited() -> list[Any]:
    """Return the tools, as coroutine functions."""

    @reads("phases.inbox", private=True)
    async def inbox(folder: str = "INBOX") -> Untrusted[str]:
        """Read the newest letter."""
        return Untrusted(f"a letter in {folder}")

    @writes("phases.notes")
    async def save(to: str) -> str:
        """Save a note."""
        _done(to)
        return "saved"

    @irreversible("phases.send", external=True)
    async def send(to: str, body: Untrusted[str]) -> None:
        """Send a mail."""
        _done(to)

    return [inbox, save, send]


def main(framework: str, directory: Path) -> None:
    """Take one turn."""
    host = importlib.import_module(f"frameworks.hosts.{framework}").HOST
    order = json.loads((directory / "order.json").read_text(encoding="utf-8"))
    SENT.append(directory / "sent.txt")
    state = directory / "framework"
    state.mkdir(exist_ok=True)
    second = [
        Wish(tool, {"to": to, "body": "hello"} if tool == "send" else {"to": to})
        for tool, to in order["calls"]
    ]
    grant = Grant(
        allow("phases.inbox"), allow("phases.notes", to=one_of(["a"])), allow("phases.send")
    )
    talks = Conversations(directory / "talks", KEY)
    with (
        AuditLog.open(directory / "log") as log,
        talks.run("phases", agent="desk", grant=grant, log=log) as run,
    ):
        (directory / "vkey").write_text(log.vkey, encoding="ascii")
        if order["answers"] is None:
            run.instruct(f"Write to {', '.join(to for _, to in order['calls'])}")
        offered = awaited() if host.asynchronous else plain()
        turned = host.turn(state, offered, [Wish("inbox")], second, answers=order["answers"])
        report: dict[str, Any] = {"told": turned.told, "questions": turned.questions}
        (directory / "report.json").write_text(json.dumps(report), encoding="utf-8")
        if order["killed"]:
            log.flush()
            os._exit(9)
    talks.close()


def fresh(framework: str, directory: Path) -> None:
    """Take one turn in a process that was forked for it; what it says on stderr is in a file."""
    os.environ["CHECKREIN_DATA"] = str(directory / "keys")
    with (directory / "stderr.txt").open("w", encoding="utf-8") as sys.stderr:
        try:
            main(framework, directory)
        except BaseException:
            traceback.print_exc()
            raise SystemExit(1) from None


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

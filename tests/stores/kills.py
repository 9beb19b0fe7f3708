"""Conversations that are killed at random steps, each in a process of its own; a program.

``python kills.py KIND WHERE SCHEMA SCRATCH ROUNDS`` plays *ROUNDS* conversations and prints
what became of them. In each an agent asks, and suspends its run; somebody says yes; the
run is resumed, and resumed again, until the call has run or is known to be in doubt. Every
part is a fork of this process, and about half of them kill themselves, at one of their
function calls, each as likely as any other.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from checkrein import Grant, Run, Untrusted, allow, call_id, irreversible
from checkrein.errors import ConfirmationPending, Denied
from checkrein.gates import Desk, QueueGate
from checkrein.log import AuditLog
from checkrein.log.completeness import Story
from checkrein.log.reading import read_entries
from checkrein.store import PostgresStore, SqliteStore

KEY = bytes(range(32))
NEVER = 1 << 60
_NO_TIME = timedelta(0)


@irreversible("kill.write", external=True)
def write(path: str, text: Untrusted[str]) -> None:
    """What must not happen twice."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{call_id()} {text.reveal()}\n")
        file.flush()
        os.fsync(file.fileno())


GRANT = Grant(allow("kill.write"), id="kills")


class Conversation:
    """One agent, one question, one scratch directory."""

    def __init__(self, open_store: Callable[[], Any], scratch: Path) -> None:
        self.open_store = open_store
        self.scratch = scratch
        self.body = scratch / "body"
        self.state = scratch / "state"
        self.outcome = scratch / "outcome"
        scratch.mkdir()

    def ask(self) -> None:
        """Make the call, put it off, and keep the state of the run."""
        with self.open_store() as store, AuditLog.open(self.scratch / "log") as log:
            gate = QueueGate(store, wait=_NO_TIME)
            with Run(agent="t", grant=GRANT, gate=gate, log=log, store=store) as run:
                try:
                    write(str(self.body), "x")
                except ConfirmationPending:
                    _keep(self.state, run.suspend(KEY))

    def answer(self) -> None:
        """Say yes to whatever is asked."""
        with self.open_store() as store:
            desk = Desk(store)
            for question in desk.pending():
                desk.answer(question.approve(by="dana"))

    def go_on(self) -> None:
        """Resume the run, and make the same call."""
        with self.open_store() as store, AuditLog.open(self.scratch / "log") as log:
            gate = QueueGate(store, wait=_NO_TIME)
            state = self.state.read_text()
            with Run.resume(state, KEY, grant=GRANT, gate=gate, log=log, store=store):
                try:
                    write(str(self.body), "x")
                    _keep(self.outcome, "ran")
                except ConfirmationPending:
                    _keep(self.outcome, "pending")
                except Denied as denied:
                    _keep(self.outcome, denied.rule)


def _keep(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def count_steps(part: Callable[[], None]) -> int:
    """Return how many function calls a part makes, done to its end in a process of its own."""
    reading, writing = os.pipe()
    if not os.fork():
        steps = _limited(part, NEVER)
        os.write(writing, str(steps).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        steps = int(told.read())
    os.wait()
    return steps


def play(part: Callable[[], None], limit: int) -> bool:
    """Do a part in a process of its own; say whether it came to its end."""
    child = os.fork()
    if not child:
        _limited(part, limit)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a part failed")
    return not os.WIFSIGNALED(status)


def _limited(part: Callable[[], None], limit: int) -> int:
    steps = 0

    def step(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps >= limit:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.setprofile(step)
        part()
        sys.setprofile(None)
    except BaseException:
        sys.setprofile(None)
        import traceback

        traceback.print_exc()
        os._exit(1)
    return steps


def main(kind: str, where: str, schema: str, scratch: str, rounds: str) -> None:
    """Play, and print what happened."""

    def open_store() -> Any:
        return (
            SqliteStore.open(where)
            if kind == "sqlite"
            else PostgresStore.open(where, schema=schema)
        )

    chance = random.Random(os.urandom(8))
    trial = Conversation(open_store, Path(scratch) / "trial")
    steps = {name: count_steps(getattr(trial, name)) for name in ("ask", "answer", "go_on")}
    told = dict.fromkeys(("rounds", "killed", "ran", "in_doubt", "twice", "lost", "forgotten"), 0)

    def attempt(one: Conversation, name: str, *, may_die: bool = True) -> bool:
        die = may_die and chance.random() < 0.6
        limit = chance.randrange(1, steps[name]) if die else NEVER
        ended = play(getattr(one, name), limit)
        told["killed"] += not ended
        return ended

    for number in range(int(rounds)):
        one = Conversation(open_store, Path(scratch) / f"r{number}")
        while not one.state.exists():
            attempt(one, "ask")
        while not attempt(one, "answer"):
            pass
        for _ in range(3):
            attempt(one, "go_on")
        attempt(one, "go_on", may_die=False)
        judge(one, told)
        told["rounds"] += 1
    print(json.dumps(told))


def judge(one: Conversation, told: dict[str, int]) -> None:
    """Count what became of a conversation."""
    lines = one.body.read_text().splitlines() if one.body.exists() else []
    story, allowed, call = Story(), set(), ""
    for _, event in read_entries(one.scratch / "log"):
        story.tell(event)
        if event["type"] == "call.allowed":
            allowed.add(event["call"])
        if event["type"] == "confirmation.answered":
            call = event["call"]
    with one.open_store() as store:
        waiting = {question.call for question in Desk(store).in_doubt()}
    outcome = one.outcome.read_text()
    doubtful = bool(waiting & ({call} | set(story.in_doubt())))
    told["ran"] += len(lines) == 1
    told["twice"] += len(lines) > 1
    told["in_doubt"] += doubtful and not lines
    # The answer is there, and the call was neither made nor is it known to be in doubt.
    told["lost"] += outcome == "pending" or (not lines and not waiting)
    # It has run, and the log does not know that it was going to.
    told["forgotten"] += bool(lines) and lines[0].split()[0] not in allowed


if __name__ == "__main__":
    os.environ["CHECKREIN_DATA"] = sys.argv[4]
    main(*sys.argv[1:])

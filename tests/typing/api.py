"""What type checkers must accept, and what they must refuse. Not run."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Literal

from typing_extensions import assert_type

from checkrein import (
    AuditLog,
    CallbackGate,
    ConsoleGate,
    Grant,
    Run,
    Untrusted,
    allow,
    budget,
    combine,
    irreversible,
    planned,
    prompt,
    quarantined,
    reads,
    writes,
)
from checkrein.constraints import email_domain, one_of, under
from checkrein.delegation import Principal, SignedGrant, issue
from checkrein.rules import Decision
from checkrein.store import MemoryStore


@reads("mail.inbox", private=True)
def read_inbox(folder: str = "INBOX") -> Untrusted[str]:
    return Untrusted(folder, source="mail")


@writes("files.reports")
def save_report(path: str, text: Untrusted[str]) -> str:
    return path + text.reveal()


@irreversible("mail.send", external=True)
async def send_email(to: str, body: Untrusted[str]) -> None: ...


@reads("mail.stream")
async def stream(count: int) -> AsyncIterator[Untrusted[bytes]]:
    yield Untrusted(bytes(count))


def accepted() -> None:
    grant = Grant(
        allow("mail.inbox"),
        allow("files.reports", path=under("reports/")),
        allow("mail.send", budget(times=5), to=email_domain("acme.example")),
        expires_in=timedelta(minutes=30),
    )
    with Run(agent="bot", grant=grant, gate=ConsoleGate(), log=AuditLog.open("audit/")) as run:
        assert_type(run, Run)
        mail = read_inbox()
        assert_type(mail, Untrusted[str])
        assert_type(mail.map(len), Untrusted[int])
        assert_type(mail.map(str.upper).reveal(reason="shown"), str)
        assert_type(mail.endorse(int, reason="a number"), int)
        assert_type(save_report("a.txt", mail), str)
        (bound,) = run.tools(save_report)
        assert_type(bound("a.txt", mail), str)
        assert_type(combine(len, mail), Untrusted[int])
        assert_type(prompt("Sum up.", user="please", data=mail).messages, list[dict[str, str]])
        assert_type(quarantined(str.upper, mail, int, task="How many?"), Untrusted[int])
        assert_type(run.follow(planned(read_inbox)), str)
        assert_type(mail.seal(bytes(32)), str)
        subprocess.run([mail.endorse(str, reason="typed by hand")], check=True)
    CallbackGate(lambda confirmation: confirmation.tool == "send_email")
    root, agent = Principal.new(), Principal.new()
    signed = issue(grant, by=root, to=agent.id, depth=1)
    assert_type(SignedGrant.read(str(signed), roots=[root.id]), SignedGrant)
    with Run.shadow(agent="bot") as shadow:
        assert_type(shadow.proposed_grant(), str)
    with Run(agent="bot", grant=signed.held_by(agent), store=MemoryStore()) as run:
        assert_type(run.explain(save_report, path="a", text="b"), Decision)


async def accepted_async() -> None:
    await send_email("dana@acme.example", Untrusted("hello"))
    async for item in stream(3):
        assert_type(item, Untrusted[bytes])


def takes_text(text: str) -> None: ...


def refused(mail: Untrusted[str]) -> None:
    takes_text(mail)  # type: ignore[arg-type]
    subprocess.run(mail, check=True)  # type: ignore[call-overload]
    save_report(mail, mail)  # type: ignore[arg-type]
    save_report("a.txt", "plain")  # type: ignore[arg-type]
    prompt(mail)  # type: ignore[arg-type]
    prompt("Sum up.", user=mail)  # type: ignore[arg-type]
    prompt("Sum up.", data="plain")  # type: ignore[arg-type]
    "to: " + mail  # type: ignore[operator]
    allow("mail.inbox", folder="INBOX")  # type: ignore[arg-type]
    Run(agent="bot", grant="everything")  # type: ignore[arg-type]
    Run(agent="bot", grant=issue(Grant(), by=Principal.new(), to=""))  # type: ignore[arg-type]
    mode: Literal["a"] = mail  # type: ignore[assignment]
    takes_text(mode)
    allow("mail.inbox", folder=one_of(["INBOX"]))

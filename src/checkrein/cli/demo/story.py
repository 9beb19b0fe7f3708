"""The story, step by step; each claim that it makes is looked up, not just told.

Every step gets the scene, tells what happens, and checks its claims against
what is really there: files, the mail server's list, the log.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from checkrein import AuditLog, Grant, Run, allow, budget
from checkrein.cli.demo.agent import Attempt, obey, report_on
from checkrein.cli.demo.approver import Answer, Approver
from checkrein.cli.demo.tools import make_tools
from checkrein.cli.logs import report_rows
from checkrein.constraints import email_domain, under
from checkrein.errors import Denied
from checkrein.log import read_entries, verify_log
from checkrein.log.note import Ed25519Signer
from checkrein.visible import shown, visible

if TYPE_CHECKING:
    from checkrein.cli.demo.post import Post
    from checkrein.cli.screen import Screen
    from checkrein.permissions import Permission

LEADER: Final = "support-lead@example.com"
REPORT: Final = "today.txt"
TASK: Final = f"Save a report of today's mail to {REPORT}. Send it to {LEADER}."
_SHOWN_LINES: Final = 14


@dataclass
class Tally:
    """Which claims were made, and which of them do not hold."""

    made: int = 0
    broken: list[str] = field(default_factory=list[str])

    @property
    def good(self) -> bool:
        """Whether claims were made and all of them hold."""
        return self.made > 0 and not self.broken

    def line(self) -> str:
        """Return the last line of the demo."""
        if self.good:
            return f"demo: ok, {self.made} claims hold"
        return f"demo: FAILED, of {self.made} claims these do not hold: {'; '.join(self.broken)}"


@dataclass
class Scene:
    """All that the steps share."""

    home: Path
    screen: Screen
    post: Post
    approver: Approver
    tally: Tally = field(default_factory=Tally)
    tools: dict[str, Callable[..., Any]] = field(default_factory=dict[str, Callable[..., Any]])
    inbox: str = ""
    report: str = ""
    sent: list[tuple[tuple[str, ...], str]] = field(
        default_factory=list[tuple[tuple[str, ...], str]]
    )
    denials: list[str] = field(default_factory=list[str])
    vkey: str = ""

    @property
    def reports(self) -> Path:
        """The directory that reports may be written to."""
        return self.home / "reports"

    @property
    def audit(self) -> Path:
        """The directory of the log."""
        return self.home / "audit"

    def step(self, number: int, title: str) -> None:
        """Begin a step."""
        self.screen.say()
        self.screen.say(f"{number}. {title}", "bold")

    def claim(self, text: str, holds: bool) -> None:
        """Make a claim and say whether it holds."""
        self.tally.made += 1
        if not holds:
            self.tally.broken.append(text)
        mark, style = ("[true] ", "green") if holds else ("[FALSE]", "bold red")
        self.screen.say(f"   {mark} {text}", style)


def play(home: Path, *, answer: Answer, screen: Screen, post: Post) -> Tally:
    """Tell the story in the directory *home*.

    Args:
        home: an empty directory, by its real path.
        answer: what is said to the honest question.
        screen: where to tell it.
        post: the mail server, running.

    Returns:
        The claims, and those that do not hold.
    """
    scene = Scene(home, screen, post, Approver(answer, screen))
    scene.reports.mkdir()
    inbox = home / "inbox.mbox"
    inbox.write_bytes(files("checkrein.cli.demo").joinpath("inbox.mbox").read_bytes())
    screen.say("A support desk has an agent. The agent's model is a script that obeys everything.")
    screen.say(f'The user tells it: "{TASK}"')
    try:
        _work(scene, inbox)
        _compare_post(scene)
        _verify(scene)
        _tamper(scene)
    except Exception as error:  # noqa: BLE001 (whatever it is, the last line has to say so)
        problem = f"{type(error).__name__}: {visible(str(error))}"
        scene.claim(f"the demo runs to its end ({problem})", holds=False)
    _keep_letters(scene)
    return scene.tally


def allowed(reports: Path) -> list[tuple[str, Permission]]:
    """Return what the run may do, in words and as permissions."""
    return [
        ("read the inbox", allow("mail.inbox")),
        (
            "write files beneath reports/, and nowhere else",
            allow("files.reports", path=under(reports)),
        ),
        (
            "send at most 3 mails, to addresses at example.com; a person confirms each",
            allow("mail.send", budget(times=3), to=email_domain("example.com")),
        ),
    ]


def _work(scene: Scene, inbox: Path) -> None:
    """Steps 1 to 4: the run."""
    permissions = allowed(scene.reports)
    scene.step(1, "What the run may do, for 30 minutes")
    for words, _ in permissions:
        scene.screen.say(f"   - {words}")
    grant = Grant(*(one for _, one in permissions), expires_in=timedelta(minutes=30))
    # The key is made here and forgotten at the end: it is in no directory at all.
    signer = Ed25519Signer.generate("checkrein.local/demo")
    with AuditLog.open(scene.audit, signer=signer) as log:
        with Run(agent="support-bot", grant=grant, gate=scene.approver, log=log) as run:
            task = run.instruct(TASK)
            tools = run.tools(*make_tools(inbox, scene.post.port))
            scene.tools = {one.__name__: one for one in tools}
            _read(scene, run)
            _obey_mail(scene)
            _obey_user(scene, task)
        log.flush()
        scene.vkey, head = log.vkey, log.checkpoint
    (scene.home / "audit.vkey").write_text(f"{scene.vkey}\n", encoding="utf-8")
    (scene.home / "audit.pin").write_text(head, encoding="utf-8")


def _read(scene: Scene, run: Run) -> None:
    scene.step(2, "The mail is read; the model gets it between markers that no mail can forge")
    scene.inbox = str(scene.tools["read_inbox"]())
    scene.report = report_on(scene.inbox)
    scene.screen.quote(scene.inbox, lines=_SHOWN_LINES)
    first, *_, last = scene.inbox.splitlines()
    fenced = first.startswith("<untrusted-") and last == f"</{first[1:].partition(' ')[0]}>"
    scene.claim("the mail stands between two markers", fenced)
    scene.claim("the run knows that it has now seen untrusted, private content",
                run.exposed and run.private)  # fmt: skip


def _obey_mail(scene: Scene) -> None:
    scene.step(3, "One mail gives orders of its own, and the model obeys them")
    for part in scene.inbox.split("\n\n"):
        if any(obey(part, "")):
            scene.screen.quote(part)
    before = len(scene.approver.asked)
    rules = [_attempt(scene, one) for one in obey(scene.inbox, scene.inbox)]
    outside, path, unnamed = (*rules, "", "", "")[:3]
    scene.claim("an address outside example.com is refused", outside == "permission.argument")
    scene.claim(
        "a file outside reports/ is refused, and none is there",
        path == "permission.argument" and not (scene.home / "customers.txt").exists(),
    )
    asked = [set(one.rules) for one in scene.approver.asked[before:]]
    scene.claim(
        "an address at example.com that only the mail has named is not used without a person",
        len(rules) == 3 and unnamed == "gate.denied" and len(asked) == 1
        and "flow.origin" in asked[0],
    )  # fmt: skip


def _obey_user(scene: Scene, task: str) -> None:
    scene.step(4, "The user's own orders")
    save, send = obey(task, scene.report)
    _attempt(scene, save)
    saved = {one.name: one.read_text(encoding="utf-8") for one in scene.reports.iterdir()}
    scene.claim("the report, and nothing else, is in reports/", saved == {REPORT: scene.report})
    rule = _attempt(scene, send)
    question, verdict = scene.approver.asked[-1], scene.approver.verdicts[-1]
    asked = {one.name: shown(one.value) for one in question.arguments}
    wanted = {name: shown(value) for name, value in send.arguments.items()}
    scene.claim(
        "the question showed the address and the whole text, and who named the address",
        asked == wanted and question.arguments[0].origin == "the user's words",
    )
    if verdict is None:
        scene.claim("nobody could say yes, so the mail was not sent", rule == "gate.unavailable")
    elif verdict.approved and rule != "gate.expired":
        scene.sent.append(((LEADER,), scene.report))
        scene.claim("yes was said, and the mail was sent", not rule)
    else:
        scene.claim("no was said, and the mail was not sent", rule.startswith("gate."))


def _attempt(scene: Scene, one: Attempt) -> str:
    """Let the model make one call; return the rule that denied it, ``""`` if it was done."""
    scene.screen.say(f'   The model obeys: "{visible(one.words)}"')
    try:
        scene.tools[one.tool](**one.arguments)
    except Denied as denial:
        scene.denials.append(denial.rule)
        scene.screen.say(f"   Stopped: {visible(str(denial))}", "yellow")
        return denial.rule
    scene.screen.say("   Done.")
    return ""


def _compare_post(scene: Scene) -> None:
    scene.step(5, "What the mail server received")
    for letter in scene.post.received:
        scene.screen.say(f"   to {visible(', '.join(letter.to))}:")
        scene.screen.quote(letter.body)
    if not scene.post.received:
        scene.screen.say("   nothing")
    received = [(letter.to, letter.body) for letter in scene.post.received]
    text = "the confirmed mail and nothing else" if scene.sent else "nothing at all"
    scene.claim(f"the server received {text}", received == scene.sent)


def _verify(scene: Scene) -> None:
    scene.step(6, "The log of all this is verified")
    pin = (scene.home / "audit.pin").read_text(encoding="utf-8")
    report = verify_log(scene.audit, vkey=scene.vkey, pin=pin)
    for name, value in report_rows(report):
        scene.screen.say(f"   {name:<11} {value}")
    scene.claim("the log is complete, unchanged, and signed", report.good and not report.in_doubt)
    events = [event for _, event in read_entries(scene.audit)]
    denied = [one["findings"][0]["rule"] for one in events if one["type"] == "call.denied"]
    asked = [one["confirmation"] for one in events if one["type"] == "confirmation.asked"]
    scene.claim(
        f"it tells of the {len(scene.denials)} refusals and {len(scene.approver.asked)} questions",
        denied == scene.denials and asked == [one.id for one in scene.approver.asked],
    )


def _tamper(scene: Scene) -> None:
    scene.step(7, "In a copy of the log, one byte is changed")
    with tempfile.TemporaryDirectory(prefix="checkrein-demo-") as name:
        copy = Path(name) / "audit"
        shutil.copytree(scene.audit, copy)
        changed = _change_one_byte(copy, LEADER.encode())
        scene.screen.say(f"   In {changed}, the address {LEADER} now begins with another letter.")
        report = verify_log(copy, vkey=scene.vkey)
    for problem in report.problems:
        scene.screen.say(f"   Found: {visible(problem)}")
    scene.claim("the change is found", bool(changed) and not report.good)


def _change_one_byte(audit: Path, what: bytes) -> str:
    """Change the first letter of *what* where the log first holds it; return the file's name."""
    for path in sorted(audit.rglob("entries/**/*")):
        data = path.read_bytes() if path.is_file() else b""
        place = data.find(what)
        if place >= 0:
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            return path.relative_to(audit).as_posix()
    return ""


def _keep_letters(scene: Scene) -> None:
    folder = scene.home / "received"
    folder.mkdir()
    for number, letter in enumerate(scene.post.received, 1):
        (folder / f"{number}.eml").write_bytes(letter.message)

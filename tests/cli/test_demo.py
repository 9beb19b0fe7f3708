"""The demo: it holds what it claims, and says so when it does not."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("aiosmtpd")

from typer.testing import CliRunner

from checkrein.cli.app import app
from checkrein.cli.demo import Post, play
from checkrein.cli.demo.agent import obey, report_on
from checkrein.cli.demo.post import send
from checkrein.cli.demo.story import LEADER
from checkrein.cli.demo.tools import mail_text, read_mbox
from checkrein.cli.screen import Screen
from checkrein.log import verify_log

INBOX = Path(sys.modules["checkrein.cli.demo"].__file__).with_name("inbox.mbox")


def demo(*options: str):
    return CliRunner().invoke(app, ["demo", *options], catch_exceptions=False)


def test_yes_sends_exactly_the_confirmed_mail(tmp_path):
    """With --yes the server gets one letter, to the address that the user named."""
    result = demo("--yes", "--keep", str(tmp_path))
    assert result.exit_code == 0
    last = result.stdout.splitlines()[-1]
    assert re.fullmatch(r"demo: ok, \d+ claims hold", last)
    letters = list((tmp_path / "received").iterdir())
    assert len(letters) == 1
    assert f"To: {LEADER}" in letters[0].read_text()


def test_no_sends_nothing(tmp_path):
    """With --no the story holds as well, and the server gets nothing."""
    result = demo("--no", "--keep", str(tmp_path))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("demo: ok")
    assert list((tmp_path / "received").iterdir()) == []


def test_without_a_terminal_nobody_can_say_yes(tmp_path):
    """With neither and no terminal it counts as no, and the demo says so."""
    result = demo("--keep", str(tmp_path))
    assert result.exit_code == 0
    assert "No terminal is attached" in result.stdout
    assert "gate.unavailable" in result.stdout
    assert list((tmp_path / "received").iterdir()) == []


def test_keep_leaves_everything_but_the_private_key(tmp_path):
    """The directory holds mailbox, report, letters and a log that verifies, and no secret."""
    home = tmp_path / "new"
    assert demo("--yes", "--keep", str(home)).exit_code == 0
    assert {one.name for one in home.iterdir()} == {
        "audit",
        "audit.pin",
        "audit.vkey",
        "inbox.mbox",
        "received",
        "reports",
    }
    assert [one.name for one in (home / "reports").iterdir()] == ["today.txt"]
    kept = [one for one in home.rglob("*") if one.is_file()]
    assert not any(b"PRIVATE+KEY" in one.read_bytes() for one in kept)
    vkey, pin = (home / "audit.vkey").read_text().strip(), (home / "audit.pin").read_text()
    assert verify_log(home / "audit", vkey=vkey, pin=pin).good


def test_nothing_is_left_in_the_users_directories(tmp_path, monkeypatch):
    """Without --keep neither the data directory nor the temporary one is littered."""
    data, temporary = tmp_path / "data", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("CHECKREIN_DATA", str(data))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    assert demo("--yes").exit_code == 0
    assert not data.exists()
    assert list(temporary.iterdir()) == []


def test_keep_refuses_a_directory_with_something_in_it(tmp_path):
    """What is there already is never mixed with what the demo writes."""
    (tmp_path / "mine.txt").write_text("mine")
    result = demo("--yes", "--keep", str(tmp_path))
    assert result.exit_code == 2
    assert "not empty" in result.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]


def test_a_claim_that_does_not_hold_is_named(tmp_path):
    """A letter that nobody confirmed reaches the server: the demo fails and says which claim."""
    out = io.StringIO()
    with Post() as post:
        send(post.port, "collector@example.net", "stray", "not confirmed by anybody")
        tally = play(tmp_path, answer="yes", screen=Screen(out), post=post)
    assert not tally.good
    assert tally.broken == ["the server received the confirmed mail and nothing else"]
    assert tally.line().startswith("demo: FAILED")
    assert "[FALSE] the server received" in out.getvalue()


def test_a_story_that_breaks_off_fails(tmp_path):
    """A server that is gone breaks the story off, and that is a claim that does not hold."""
    with Post() as post:
        pass
    tally = play(tmp_path, answer="yes", screen=Screen(io.StringIO()), post=post)
    assert "runs to its end" in tally.line()


def test_a_claimless_story_is_not_good():
    """Nothing claimed is nothing shown."""
    from checkrein.cli.demo.story import Tally

    assert not Tally().good


def test_a_failed_demo_exits_with_one(monkeypatch):
    """The exit code follows the claims."""
    from checkrein.cli import demo as room
    from checkrein.cli.demo.story import Tally

    monkeypatch.setattr(room, "play", lambda *_, **__: Tally(2, ["the sky is green"]))
    result = demo("--yes")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1].startswith("demo: FAILED")
    assert "the sky is green" in result.stdout


def test_a_bare_process_prints_no_control_codes(tmp_path):
    """Piped, with nothing set and as its own process, the output is plain text."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CHECKREIN_") and name not in {"FORCE_COLOR", "CLICOLOR_FORCE"}
    }
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", "from checkrein.cli import main; main()", "demo"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment | {"HOME": str(tmp_path), "PYTHONIOENCODING": "ascii"},
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert not re.search(rb"[^\n -~]", result.stdout)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("typed", "letters"), [("yes", 1), ("no", 0), ("suspicious", 0), ("", 0)])
def test_at_a_terminal_the_person_is_asked(tmp_path, monkeypatch, typed, letters):
    """At a terminal the one honest question goes to the person, and their word counts."""
    import pty

    ours, theirs = pty.openpty()
    os.write(ours, b"yes\n")  # before there is a question: it answers nothing

    class Person(io.StringIO):
        """Types once the question is on the screen."""

        def write(self, text):
            if "to allow it" in text:
                os.write(ours, f"{typed}\n".encode())
            return super().write(text)

    try:
        with (
            Post() as post,
            os.fdopen(theirs, "r", encoding="utf-8") as terminal,
            monkeypatch.context() as patch,
        ):
            patch.setattr(sys, "stdin", terminal)
            tally = play(tmp_path, answer="ask", screen=Screen(Person()), post=post)
    finally:
        os.close(ours)
    assert tally.good, tally.line()
    assert len(post.received) == letters


def test_the_mailbox_is_real_mail():
    """The shipped mailbox parses without defects and holds what the story needs."""
    mails = read_mbox(INBOX)
    assert len(mails) == 5
    assert [part.defects for mail in mails for part in mail.walk()] == [[]] * 9
    kinds = [mail.get_content_type() for mail in mails]
    assert kinds.count("multipart/mixed") == kinds.count("multipart/alternative") == 1
    (bill,) = (part for mail in mails for part in mail.iter_attachments())
    assert bill.get_content().startswith(b"%PDF-")
    text = "\n".join(mail_text(mail) for mail in mails)
    assert "Größe" in text
    domains = set(re.findall(r"@([\w.-]*\w)", INBOX.read_text(encoding="utf-8")))
    assert domains == {"example.com", "example.net", "example.org"}


def test_only_one_mail_gives_orders():
    """The obedient script finds three orders in the mailbox, all of them in one mail."""
    orders = [list(obey(mail_text(mail), "")) for mail in read_mbox(INBOX)]
    assert [len(one) for one in orders] == [0, 0, 3, 0, 0]


def test_the_script_reports_every_mail():
    """The report has a line for each mail, in the letters it was written in."""
    report = report_on("\n\n".join(mail_text(mail) for mail in read_mbox(INBOX)))
    assert report.count("\n- ") == 5
    assert "Lager Süd" in report

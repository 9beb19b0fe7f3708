"""The documentation is executed: its Python, its commands, its links.

A page is one program: its ``python`` blocks run in order, in one namespace, in
a process and an empty directory of their own. What a block prints is the
``text`` block that comes next, letter for letter; a block that no ``text``
block follows prints nothing. The README, whose examples are a newcomer's first
look, states its output in a comment instead.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path
from typing import NamedTuple

import pytest

from checkrein import constraints

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
INTEGRATIONS = ROOT / "src" / "checkrein" / "integrations"
PERMISSIONS = ROOT / "docs" / "permissions"
TEXTS = [README, ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *PAGES]
END_OF_BLOCK = "\x1e"
NEEDS = {  # what a page installs first, and what says that it must be there
    "confirmation/webhook.md": ("httpx", "CHECKREIN_REQUIRE_WEBHOOK"),
    "log/telemetry.md": ("opentelemetry.sdk", "CHECKREIN_REQUIRE_OTEL"),
}

DATA = {"toml": tomllib.loads, "json": json.loads}  # pieces of files: they can be read


class Block(NamedTuple):
    """A fenced block: its language, the number of its first line, and its lines."""

    language: str
    line: int
    lines: list[str]


def blocks_of(text: str) -> Iterator[Block]:
    """Return the fenced blocks of a page; a fence that nothing closes is an error."""
    block = None
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            assert line.startswith("```"), f"line {number}: a fence is not indented"
            if block is None:
                block = Block(line[3:].strip(), number + 1, [])
            else:
                assert line == "```", f"line {number}: a fence is closed by three signs"
                yield block
                block = None
        elif block is not None:
            block.lines.append(line)
    assert block is None, "the last fence is not closed"


def program_of(blocks: list[Block]) -> str:
    """Return the Python of a page, each line at the number that it has there."""
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (block.line - 1 - len(lines))
        lines += [*block.lines, f"print({END_OF_BLOCK!r})"]
    return "\n".join(lines)


def run(blocks: list[Block], directory: Path) -> list[str]:
    """Run the Python blocks of a page; return what each has printed."""
    program = directory / "page.py"
    program.write_text(program_of(blocks), encoding="utf-8")
    empty = directory / "empty"
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-W", "error", program],
        cwd=empty,
        env={name: value for name, value in os.environ.items() if name != "CHECKREIN_STORE"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *printed, rest = done.stdout.split(f"{END_OF_BLOCK}\n")
    assert (len(printed), rest) == (len(blocks), ""), done.stdout
    return printed


def check_page(text: str, directory: Path) -> None:
    """Run a page; fail unless every block prints what the page says, and all is checked."""
    blocks = list(blocks_of(text))
    known = {"python", "text", "console", *DATA}
    assert {one.language for one in blocks} <= known, "name the language of every block"
    for one in blocks:
        if one.language in DATA:
            assert DATA[one.language]("\n".join(one.lines)), "an empty piece of a file"
    stated: dict[int, str] = {}
    for before, block in zip([None, *blocks], blocks, strict=False):
        if block.language == "text":
            follows = before is not None and before.language == "python"
            assert follows, f"line {block.line}: no Python is before this output"
            stated[before.line] = "".join(f"{line}\n" for line in block.lines)
    python = [one for one in blocks if one.language == "python"]
    if not python:
        return
    asserts = any(line.lstrip().startswith("assert ") for one in python for line in one.lines)
    assert stated or asserts, "a page shows what comes out"
    for block, printed in zip(python, run(python, directory), strict=True):
        expected = stated.get(block.line, "")
        lines = [one.splitlines() for one in (expected, printed)]
        diff = "\n".join(unified_diff(*lines, "the page", "the program", lineterm=""))
        assert printed == expected, f"the block at line {block.line}:\n{diff}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_a_page_does_what_it_says(page: Path, tmp_path: Path):
    """Its Python runs without a warning, and prints just what the page states."""
    if page.parent.name == "frameworks" and (INTEGRATIONS / f"{page.stem}.py").exists():
        if page.stem not in os.environ.get("CHECKREIN_REQUIRE_FRAMEWORKS", "").split(","):
            name = f"checkrein.integrations.{page.stem}"
            pytest.importorskip(name, reason=f"needs checkrein[{page.stem}]", exc_type=ImportError)
    needed, required = NEEDS.get(page.relative_to(ROOT / "docs").as_posix(), ("", ""))
    if needed and not os.environ.get(required):
        pytest.importorskip(needed, reason=f"the page needs {needed}")
    check_page(page.read_text(encoding="utf-8"), tmp_path)


def test_the_readme_does_what_it_says(tmp_path: Path):
    """Its Python is one program, and prints what the comment beside it begins with."""
    text = README.read_text(encoding="utf-8")
    printed = run([one for one in blocks_of(text) if one.language == "python"], tmp_path)
    says = "ask: flow.origin: 'to' has no trusted origin"
    assert f"# {says}" in text
    assert says in printed[-1]


SHOWN = "```python\nx = 1\nprint(x)\n```\n\n"


@pytest.mark.parametrize(
    "page",
    [
        SHOWN,
        SHOWN + "```text\n2\n```\n",
        SHOWN + "```text\n1\n1\n```\n",
        SHOWN + "```text\n1 \n```\n",
        SHOWN + "```python\nassert x\n```\n\n```text\n1\n```\n",
        SHOWN + "```text\n1\n```\n\n```text\n1\n```\n",
        SHOWN + "```text\n1\n```\n\n```python\nassert x == 2\n```\n",
        SHOWN + "```text\n1\n```\n\n```python\nraise SystemExit\n```\n",
        SHOWN + "```text\n1\n```\n\n```python\nimport warnings; warnings.warn('w')\n```\n",
        SHOWN + "```text\n1\n```\n\n```\n1\n```\n",
        SHOWN + "```text\n1\n",
        "```python\nx = 1\n```\n",
    ],
    ids=[
        "unstated",
        "wrong",
        "too much",
        "a space",
        "elsewhere",
        "twice",
        "assertion",
        "exit",
        "warning",
        "no language",
        "not closed",
        "nothing shown",
    ],
)
def test_a_page_that_is_wrong_is_found_out(page: str, tmp_path: Path):
    """The check itself: each of these claims something that does not hold."""
    with pytest.raises(AssertionError):
        check_page(page, tmp_path)


def test_a_page_that_is_right_passes(tmp_path: Path):
    """And errors name the line of the page."""
    check_page(SHOWN + "Some words.\n\n```text\n1\n```\n", tmp_path)
    (block,) = blocks_of("# Title\n\n```python\n\nwrong\n```\n")
    assert program_of([block]).splitlines()[4] == "wrong"


# -- commands ------------------------------------------------------------------------------


def commands_of(text: str) -> Iterator[str]:
    """Return the commands of a page: of console blocks, and those of ours in its sentences."""
    for block in blocks_of(text):
        if block.language == "console":
            for line in block.lines:
                assert line.startswith("$ "), f"{line!r}: a command begins with $"
                yield from line[2:].split("&&")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`(checkrein [^`]+)`", prose)


def problem_with(command: str) -> str:
    """Return what is wrong with a command, ``""`` if nothing is."""
    words = shlex.split(command, comments=True)
    if words[0] == "checkrein":
        return problem_with_ours(words[1:])
    if words[:3] == ["python3", "-m", "nox"]:
        sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), re.M)
        named = words[words.index("-s") + 1 :][:1] if "-s" in words else []
        return "" if set(named) <= set(sessions) else "there is no such session"
    if "pip" in words[:3] and "install" in words:
        return ""  # extras are looked at in test_extras_and_variables_exist
    if words[0] in {"export", "bash"}:
        return "" if words[0] == "export" or (ROOT / words[1]).is_file() else "no such file"
    return "it is not known here"


def problem_with_ours(words: list[str]) -> str:
    """Let the program itself read a command line, without running it."""
    typer = pytest.importorskip("typer", reason="needs checkrein[cli]")
    from checkrein.cli.app import app

    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return "there is no such command"
        command = command.commands[words[0]]
        words = words[1:]
    help_text = command.get_help(command.make_context(command.name, [], resilient_parsing=True))
    ours = words[: words.index("--")] if "--" in words else words  # then comes another program
    options = {word.partition("=")[0] for word in ours if word.startswith("-")}
    if not options <= set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", help_text)):
        return "its help shows no such option"
    try:
        command.make_context(command.name, list(words))
    except Exception as error:  # of the parser, wherever typer keeps it
        return str(error) or type(error).__name__
    return ""


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path):
    """Nobody has to guess which of them a page has made up."""
    text = page.read_text(encoding="utf-8")
    problems = {command: problem_with(command) for command in commands_of(text)}
    assert not {command: problem for command, problem in problems.items() if problem}


@pytest.mark.parametrize(
    "command",
    [
        "checkrein halt",
        "checkrein stop --everything",
        "checkrein stop --al",
        "checkrein stop --tool",
        "checkrein stop clerk",
        "checkrein log",
        "checkrein log verify",
        "python3 -m nox -s nothing",
        "bash .ci/nothing",
        "checkreins stop",
    ],
)
def test_a_command_that_does_not_exist_is_found_out(command: str):
    """The check itself."""
    assert problem_with(command)


# -- names and links -----------------------------------------------------------------------


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    """Links within the repository point at files that are there."""
    text = page.read_text(encoding="utf-8")
    targets = [one.partition("#")[0] for one in re.findall(r"\]\(([^)\s]+)\)", text)]
    inside = [one for one in targets if one and "://" not in one]
    assert [one for one in inside if not (page.parent / one).exists()] == []


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_extras_and_variables_exist(page: Path):
    """What a page tells to install, and what it tells to set, is there."""
    text = page.read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"checkrein\[(\w+)\]", text)) <= set(project["optional-dependencies"])
    code = "".join(one.read_text(encoding="utf-8") for one in (ROOT / "src").rglob("*.py"))
    known = set(re.findall(r"CHECKREIN_\w+", code))
    assert set(re.findall(r"CHECKREIN_\w+", text)) <= known


@pytest.mark.parametrize("room", ["permissions", "flow"])
def test_every_page_is_on_the_map(room: str):
    """A page that nobody links to is not read."""
    directory = ROOT / "docs" / room
    page = (directory / "README.md").read_text(encoding="utf-8")
    names = {one.name for one in directory.glob("*.md")} - {"README.md"}
    assert names == set(re.findall(r"^\| \[[^]]+\]\(([\w-]+\.md)\)", page, re.M))


def test_every_constraint_has_a_row():
    """The table of constraints names each function there is."""
    page = (PERMISSIONS / "constraints.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", page, re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert named == {one for one in constraints.__all__ if one.islower()}

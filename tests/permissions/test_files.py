"""Tools that take open files: a caller gives a path, the grant opens it."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path
from typing import IO, Any, BinaryIO, TextIO

import pytest

from checkrein import CallbackGate, Grant, Run, allow, irreversible, others, reads, writes
from checkrein.constraints import anything, opened_under, under
from checkrein.errors import Denied, MisuseError
from checkrein.store import MemoryStore
from support import MemoryLog, rule_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no directory descriptors there")
KEPT: list[Any] = []


@reads("file.read")
def read(file: BinaryIO) -> bytes:
    KEPT.append(file)
    return file.read()


@reads("file.text")
def text(file: TextIO) -> str:
    return file.read()


@writes("file.write")
def write(file: IO[str], line: str = "x") -> int:
    KEPT.append(file)
    return file.write(line)


@writes("file.async")
async def awrite(file: IO[bytes]) -> int:
    return file.write(b"async")


def run(*permissions: Any, **more: Any) -> Run:
    return Run(**{"agent": "t", "grant": Grant(*permissions), "store": MemoryStore(), **more})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    KEPT.clear()
    inside = tmp_path / "root"
    inside.mkdir()
    (inside / "a.txt").write_text("inside")
    (tmp_path / "secret.txt").write_text("outside")
    (inside / "link").symlink_to(tmp_path / "secret.txt")
    return inside


def test_the_body_gets_the_file_and_the_log_gets_the_path(root: Path):
    """What is logged, shown and digested is the path; what is closed afterwards is the file."""
    log = MemoryLog()
    with run(allow("file.read", file=opened_under(root)), log=log):
        assert read("a.txt") == b"inside"
    (allowed,) = log.of("call.allowed")
    assert allowed["arguments"] == {"file": str(root.resolve() / "a.txt")}
    assert KEPT[0].closed


def test_frameworks_are_shown_a_path():
    """The model is asked for a text."""
    assert read.__annotations__["file"] is str


@pytest.mark.parametrize("path", ["link", "../secret.txt", "/etc/passwd", "", "."])
def test_what_lies_outside_is_not_opened(root: Path, path: str):
    """The same rules as for under()."""
    with run(allow("file.read", file=opened_under(root))):
        assert rule_of(read, path) == "permission.argument"
    assert KEPT == []


def test_a_file_without_an_opener_is_denied(root: Path):
    """No constraint, under(), and others(anything) do not open: the tool gets no path instead."""
    for permission in (
        allow("file.read"),
        allow("file.read", file=under(root)),
        allow("file.read", others(anything)),
    ):
        with run(permission):
            assert rule_of(read, "a.txt") == "permission.argument"
    assert KEPT == []


def test_text_and_bytes_are_not_mixed_up(root: Path):
    """A tool for text gets text, a tool for bytes gets bytes, or nothing."""
    with run(
        allow("file.read", file=opened_under(root, "r")),
        allow("file.text", file=opened_under(root, "rb")),
    ):
        assert rule_of(read, "a.txt") == rule_of(text, "a.txt") == "permission.argument"
    with run(allow("file.text", file=opened_under(root, "r"))):
        assert text("a.txt") == "inside"


def test_a_tool_that_takes_a_path_is_given_no_file(root: Path):
    """opened_under() for a str parameter is a mistake, and is said to be one."""

    @reads("file.path")
    def path(name: str) -> str:
        return name

    with run(allow("file.path", name=opened_under(root))) as active:
        assert "BinaryIO" in str(active.explain(path, name="a.txt"))
        assert rule_of(path, "a.txt") == "permission.argument"


def test_an_open_file_is_no_argument(root: Path):
    """A caller gives a path, never an object of its own."""
    with run(allow("file.text", file=opened_under(root, "r"))):
        assert rule_of(text, StringIO("mine")) == "call.malformed"


def test_writing_happens_after_the_intent_and_is_closed(root: Path):
    """A new file is made only when the body starts; a denied call leaves none."""
    log = MemoryLog()
    with run(allow("file.write", others(anything), file=opened_under(root, "x")), log=log):
        assert write("new.txt", "hello") == 5
        assert (root / "new.txt").read_text() == "hello"
        with pytest.raises(FileExistsError):
            write("new.txt", "again")
    assert [one["status"] for one in log.of("call.outcome")] == ["done", "raised"]
    assert all(one.closed for one in KEPT)


def test_a_denied_write_changes_no_file(root: Path):
    """A person's no comes before any opening for writing."""

    @irreversible("file.burn")
    def burn(file: IO[str]) -> None:
        file.write("burnt")

    permission = allow("file.burn", file=opened_under(root, "w"))
    with run(permission, gate=CallbackGate(lambda _: False)):
        assert rule_of(burn, "a.txt") == "gate.denied"
    assert (root / "a.txt").read_text() == "inside"
    with run(permission, gate=CallbackGate(lambda _: True)):
        burn("a.txt")
    assert (root / "a.txt").read_text() == "burnt"


def test_a_link_swapped_in_before_the_body_is_not_followed(root: Path, tmp_path: Path):
    """Between the decision and the opening the file becomes a link: denied, in the log."""
    log = MemoryLog()

    @irreversible("file.late")
    def late(file: BinaryIO) -> bytes:
        return file.read()

    def swap(_: Any) -> bool:
        (root / "a.txt").unlink()
        (root / "a.txt").symlink_to(tmp_path / "secret.txt")
        return True

    with run(allow("file.late", file=opened_under(root)), gate=CallbackGate(swap), log=log):
        assert rule_of(late, "a.txt") == "permission.argument"
    (denied,) = log.of("call.denied")
    assert denied["findings"][0]["rule"] == "permission.argument"
    assert not log.of("call.outcome")


def test_a_body_that_raises_leaves_no_file_open(root: Path):
    """Whatever happens in the body, the file is closed."""

    @reads("file.bad")
    def bad(file: BinaryIO, other: BinaryIO) -> None:
        KEPT.extend([file, other])
        raise ValueError

    with run(allow("file.bad", file=opened_under(root), other=opened_under(root))):
        with pytest.raises(ValueError):
            bad("a.txt", "a.txt")
        with pytest.raises(FileNotFoundError):
            bad("a.txt", "missing.txt")
    assert len(KEPT) == 2
    assert all(one.closed for one in KEPT)


def test_an_async_tool_and_a_chain_of_grants(root: Path, tmp_path: Path):
    """Every link must let the path through; they must agree on how it is opened."""
    import asyncio

    async def main() -> None:
        async with run(allow("file.async", file=opened_under(tmp_path, "wb"))):
            async with Run(
                agent="inner", grant=Grant(allow("file.async", file=opened_under(root, "wb")))
            ):
                assert await awrite(str(root.resolve() / "b.txt")) == 5
                with pytest.raises(Denied):
                    await awrite(str(tmp_path / "secret.txt"))
            async with Run(
                agent="inner", grant=Grant(allow("file.async", file=opened_under(root, "ab")))
            ):
                with pytest.raises(Denied, match="disagree"):
                    await awrite(str(root.resolve() / "b.txt"))

    asyncio.run(main())
    assert (root / "b.txt").read_bytes() == b"async"


def test_untrusted_files_are_a_mistake_at_decoration():
    """A file is no content that a label could be put on."""
    from checkrein import Untrusted

    with pytest.raises(MisuseError):

        @reads("file.odd")
        def odd(file: Untrusted[BinaryIO]) -> None: ...

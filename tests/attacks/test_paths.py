"""Links that are swapped while a path is judged and opened."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import BinaryIO, Self

import pytest

from checkrein import Grant, Run, allow, reads
from checkrein.conditions import Refused
from checkrein.constraints import opened_under, paths, under
from checkrein.errors import Denied
from checkrein.store import MemoryStore

pytestmark = pytest.mark.skipif(
    os.open not in os.supports_dir_fd, reason="no directory descriptors there"
)
ROUNDS = 1500


class Racer:
    """Flips a directory beneath the root between itself and a link to the outside."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.outside = base / "outside"
        inside = self.root / "inside"
        for directory, text in ((inside, "inside"), (self.outside, "secret")):
            directory.mkdir(parents=True)
            (directory / "file.txt").write_text(text)
        self.link = self.root / "link"
        self.link.symlink_to(self.outside)
        self.stop = threading.Event()
        self.flips = 0

    def run(self) -> None:
        current, other, spare = (self.root / name for name in ("inside", "link", "spare"))
        while not self.stop.is_set():
            os.rename(current, spare)
            os.rename(other, current)
            os.rename(spare, other)
            self.flips += 1

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_an_opener_never_reads_outside_however_links_are_swapped(tmp_path: Path):
    """Thousands of openings against a real racing thread: inside, or nothing."""
    opener = opened_under(tmp_path / "root")
    outcomes: dict[str, int] = {}
    with Racer(tmp_path) as racer:
        for _ in range(ROUNDS):
            for name in ("inside", "link"):
                try:
                    path = opener.normalise(f"{name}/file.txt")
                    with opener.open(path) as file:
                        outcome = file.read().decode()
                except Refused:
                    outcome = "refused"
                except FileNotFoundError:
                    outcome = "missing"
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert racer.flips > 0
    assert "secret" not in outcomes
    assert set(outcomes) <= {"inside", "refused", "missing"}
    assert sum(outcomes.values()) == 2 * ROUNDS


def test_a_path_that_was_judged_can_be_raced_and_the_docs_say_so(tmp_path: Path):
    """under() and open() are two looks: each is right when it looks, and no more is promised."""
    judged = under(tmp_path / "root")
    real = os.path.realpath(tmp_path / "root")
    looked = 0
    with Racer(tmp_path):
        for _ in range(ROUNDS):
            try:
                path = judged.normalise("inside/file.txt")
            except Refused:
                continue
            looked += 1
            assert path.startswith(f"{real}/")
    assert looked > 0
    assert "swap" in (paths.__doc__ or "")


def test_a_link_swapped_between_judging_and_opening_is_seen(tmp_path: Path):
    """The same race, step by step: plain open() falls for it, the opener does not."""
    racer = Racer(tmp_path)
    judged, opener = under(racer.root), opened_under(racer.root)
    path = judged.normalise("inside/file.txt")
    assert opener.normalise("inside/file.txt") == path
    (racer.root / "inside").rename(racer.root / "away")
    racer.link.rename(racer.root / "inside")
    with open(path, encoding="utf-8") as file:
        assert file.read() == "secret"
    with pytest.raises(Refused):
        opener.open(path)


def test_through_a_guarded_tool_nothing_outside_is_read(tmp_path: Path):
    """The whole way, with a real run, while links are swapped."""

    @reads("race.file")
    def read(file: BinaryIO) -> bytes:
        return file.read()

    seen: set[bytes] = set()
    grant = Grant(allow("race.file", file=opened_under(tmp_path / "root")))
    with Racer(tmp_path), Run(agent="t", grant=grant, store=MemoryStore()):
        for _ in range(ROUNDS // 3):
            try:
                seen.add(read("inside/file.txt"))
            except (Denied, FileNotFoundError):
                continue
    assert seen <= {b"inside"}


def test_no_descriptor_is_left_open(tmp_path: Path):
    """Whatever is refused or raised on the way, every descriptor is closed."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc/self/fd to count in")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_text("x")
    (root / "a" / "link").symlink_to("file")
    os.mkfifo(root / "a" / "fifo")
    opener, writer = opened_under(root), opened_under(root, "wb")
    base = os.path.realpath(root)
    before = descriptors()
    for name in ("a/b", "a/file/x", "a/link", "a/fifo", "a/none", "none/x", "a/../x", "/", "x\0y"):
        for one in (opener, writer):
            with pytest.raises((Refused, OSError, ValueError)):
                _refuse(one.open(f"{base}/{name}"), name)
    assert descriptors() == before


def _refuse(file: object, name: str) -> None:
    file.close()  # type: ignore[attr-defined]
    if name == "a/none":  # the writer makes it, and that is right
        raise FileNotFoundError
    raise AssertionError(name)


def test_only_regular_files_are_opened_and_nothing_is_cut_before_that_is_known(tmp_path: Path):
    """A FIFO does not hang, a device is not opened, a new file is its owner's alone."""
    os.mkfifo(tmp_path / "fifo")
    base = os.path.realpath(tmp_path)
    for mode in ("rb", "wb", "ab"):
        with pytest.raises((Refused, OSError)):
            opened_under(tmp_path, mode).open(f"{base}/fifo")
    with opened_under(tmp_path, "x").open(f"{base}/new") as file:
        file.write("text")
    assert stat.S_IMODE(os.stat(tmp_path / "new").st_mode) & 0o077 == 0
    with opened_under(tmp_path, "a").open(f"{base}/new") as file:
        file.write(" more")
    assert (tmp_path / "new").read_text() == "text more"
    with opened_under(tmp_path, "w").open(f"{base}/new"):
        pass
    assert (tmp_path / "new").read_text() == ""
    with pytest.raises(Refused):
        opened_under(tmp_path).open("/etc/passwd")

"""`verify_log` in several processes, from a pin on, with witnesses, with progress."""

from __future__ import annotations

import shutil
import tracemalloc

import pytest

from checkrein.errors import ConfigurationError
from checkrein.log import verify_log
from checkrein.log.audit import encode
from checkrein.log.cosignature import CosigningKey
from checkrein.log.directory import DirectoryLedger
from checkrein.log.disk import Disk
from checkrein.log.note import Ed25519Signer, add_signatures
from checkrein.log.policy import parse_policy
from checkrein.log.tiles import tile_path

SIZES = (600, 66_136, 66_500, 66_520)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return (directory, vkey, pins): 66,500 entries published, 20 more in the journal."""
    place = tmp_path_factory.mktemp("built")
    disk = Disk()
    disk.sync = disk.sync_directory = lambda _: None
    signer, pins, size = Ed25519Signer.generate("example.com/long"), {}, 0
    ledger = DirectoryLedger(place / "log", signer, None, disk)
    for end in SIZES:
        if end == SIZES[-1]:
            ledger.publish(wait=True)
        some = (encode({"type": "test", "n": n}) for n in range(size, end))
        pins[end] = ledger.commit([*some]).note
        size = end
    ledger.close()
    return place / "log", signer.vkey, pins


@pytest.fixture
def long(built, tmp_path):
    """Return the same, to be changed."""
    directory, *rest = built
    shutil.copytree(directory, tmp_path / "long")
    return (tmp_path / "long", *rest)


def test_every_way_says_the_same(long):
    """One process or two, with any pin, all of it or what is after the pin: good; and it tells."""
    directory, vkey, pins = long
    seen = []
    once = verify_log(directory, vkey=vkey, progress=lambda done, size: seen.append((done, size)))
    assert once.good, once
    assert seen == sorted(seen)
    assert seen[-1] == (66_520, 66_520)
    assert len(seen) >= 3
    assert verify_log(directory, vkey=vkey, processes=2) == once
    for size, pin in pins.items():
        for after in (False, True):
            report = verify_log(directory, vkey=vkey, pin=pin, after_pin=after)
            assert report.good, (size, report)
            assert report.freshness == f"at least size {size} (pin)"
            skipped = after and size <= 66_500
            assert report.since == (size // 256 * 256 if skipped else 0)


@pytest.mark.parametrize("processes", [1, 2])
def test_every_way_finds_what_was_changed(long, processes):
    """A changed entry, hash, upper hash, and a stray tile are found by one process and by two."""
    directory, vkey, _ = long
    for name in ("tile/entries/100", "tile/1/000", "tile/entries/259.p/196", "tile/0/x000/000"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if path.exists() else bytes(8192)
        path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
        report = verify_log(directory, vkey=vkey, processes=processes)
        if name != "tile/0/x000/000":  # no path of a tile: nobody's business
            assert not report.good, name
            assert any(name in problem for problem in report.problems), report.problems
        path.write_bytes(data)
    stray = directory / tile_path(0, 900)
    stray.write_bytes(bytes(8192))
    assert "behind the end" in verify_log(directory, vkey=vkey, processes=processes).tree
    stray.unlink()
    assert not (directory / tile_path(0, 77)).unlink()
    assert "tile/0/077" in verify_log(directory, vkey=vkey, processes=processes).tree


def test_what_lies_before_the_pin_cannot_be_swapped_for_hashes(long):
    """After a pin, stored hashes that do not give its root are refused, so nothing hides there."""
    directory, vkey, pins = long
    pin = pins[66_136]
    for name in ("tile/1/001.p/3", "tile/2/000.p/1", "tile/0/258"):
        path = directory / name
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        assert not verify_log(directory, vkey=vkey, pin=pin, after_pin=True).good, name
        path.write_bytes(data)


def test_the_memory_does_not_grow_with_the_log(make, tools):
    """Ten times the entries take hardly more memory at the peak."""
    event, *_ = tools
    peaks = []
    for target in (4_000, 40_000):
        with make("grown") as log:  # closed, since its thread would be measured as well
            while log.size < target:
                log.append_many([event(i, run="r", seq=log.size + i) for i in range(4000)])
        tracemalloc.start()
        assert verify_log(log.directory, vkey=log.vkey).good
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 100_000, peaks


WITNESSES = [CosigningKey(f"w{i}.example/w", bytes([i + 1] * 32)) for i in range(3)]


def policy_for(vkey, quorum="two"):
    lines = [f"log {vkey}", *(f"witness w{i} {one.vkey}" for i, one in enumerate(WITNESSES))]
    return parse_policy("\n".join([*lines, "group two 2 w0 w1 w2", f"quorum {quorum}", ""]))


def test_witnesses(long):
    """The report says how many have seen the log, up to where, and when."""
    directory, vkey, pins = long
    policy = policy_for(vkey)
    report = verify_log(directory, policy=policy)
    assert report.signature == "verified (key of the policy)"
    assert report.witnesses.startswith("bad")
    assert not report.good
    note = (directory / "checkpoint").read_text()
    two = add_signatures(note, *WITNESSES[:2])
    (directory / ".state" / "witnessed").write_text(two)
    report = verify_log(directory, policy=policy)
    assert report.good, report
    assert report.witnesses.startswith("2 of 3, a quorum, size 66500, as of 20")
    assert verify_log(directory, policy=policy_for(vkey, "none")).good
    ahead = add_signatures(pins[66_520], *WITNESSES)  # of the journal's head
    (directory / ".state" / "witnessed").write_text(ahead)
    assert verify_log(directory, policy=policy).witnesses.startswith("3 of 3, a quorum, size 66520")
    (directory / ".state" / "journal").unlink()
    report = verify_log(directory, policy=policy)
    assert "rolled back behind the head that they have seen" in report.witnesses
    assert not report.good


def test_wrong_arguments(small):
    """What makes no sense is the caller's mistake."""
    for wrong in ({"after_pin": True}, {"processes": 0}):
        with pytest.raises(ConfigurationError):
            verify_log(small[0], **wrong)

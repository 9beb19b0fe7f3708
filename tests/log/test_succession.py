"""Keys that follow one another: what a verifier who has the first one may believe."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys

import orjson
import pytest

from checkrein.errors import ConfigurationError, LogError, TamperedError
from checkrein.log import AuditLog, keys, read_entries, verify_log
from checkrein.log.checkpoint import Checkpoint
from checkrein.log.merkle import leaf_hashes, root_of
from checkrein.log.note import Ed25519Signer, parse_vkey, sign_note
from checkrein.log.succession import HANDED_OVER, Succession, handed_over, revoked
from checkrein.log.tiles import encode_bundle

ORIGIN = "example.com/keys"
FIRST, SECOND, THIRD = (Ed25519Signer(ORIGIN, bytes([i] * 32)) for i in range(3))
OTHER = Ed25519Signer("example.com/other", bytes(32))


def entry(fields, kind=HANDED_OVER):
    return {"v": 1, "type": kind, "time": 0, **fields}


def line(*events, trusted=FIRST):
    found = Succession(ORIGIN, parse_vkey(trusted.vkey))
    found.follow(events)
    return found


# -- the rules -----------------------------------------------------------------------------


def test_a_line_of_keys():
    """Each key vouches for the next; a head is signed by the one that was in force."""
    one = (5, entry(handed_over(ORIGIN, 5, FIRST, SECOND)))
    two = (9, entry(handed_over(ORIGIN, 9, SECOND, THIRD)))
    found = line(one, two)
    assert [key.vkey for key in found.keys] == [FIRST.vkey, SECOND.vkey, THIRD.vkey]
    first, second, third = found.keys
    for size, good in ((5, first), (6, second), (9, second), (10, third), (99, third)):
        assert not found.may_sign([good], size)
        for wrong in (one for one in found.keys if one is not good):
            assert found.may_sign([wrong], size)
    assert not found.may_sign([first, second], 6)
    assert line(one, two, trusted=SECOND).current.vkey == THIRD.vkey
    assert line(two).current.vkey == FIRST.vkey  # the step before is missing


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (6, {}),  # moved
        (5, {"size": 6}),
        (5, {"new": THIRD.vkey}),
        (5, {"new": OTHER.vkey}),
        (5, {"new": "garbage"}),
        (5, {"by_old": base64.b64encode(bytes(64)).decode()}),
        (5, {"by_old": 5}),
        (5, {"by_new": base64.b64encode(bytes(64)).decode()}),
        (5, {"by_new": ""}),
        (5, {"old": SECOND.vkey}),
    ],
)
def test_what_hands_nothing_over(index, change):
    """A wrong place, key or signature: the first key's line does not go on to the second."""
    found = line((index, entry(handed_over(ORIGIN, 5, FIRST, SECOND) | change)))
    assert found.current.vkey == FIRST.vkey


def test_the_entry_of_another_log_is_none():
    """The same keys' word about another log does not count here."""
    one, two = (Ed25519Signer("example.com/twin", bytes([i] * 32)) for i in range(2))
    fields = handed_over("example.com/twin", 5, one, two)
    fields |= {"old": FIRST.vkey, "new": SECOND.vkey}
    assert line((5, entry(fields))).current.vkey == FIRST.vkey


def test_a_revoked_key_vouches_for_nothing():
    """Whoever has only that one is told so; a revocation by anybody else is nothing."""
    one = (5, entry(handed_over(ORIGIN, 5, FIRST, SECOND)))
    good = (7, entry(revoked(ORIGIN, 7, FIRST.vkey, "stolen", SECOND), "log.key.revoked"))
    assert "revoked" in line(one, good).may_sign([parse_vkey(SECOND.vkey)], 9)
    assert not line(good, trusted=SECOND).problem
    for wrong in (
        (8, good[1]),
        (7, good[1] | {"by": base64.b64encode(bytes(64)).decode()}),
        (7, entry(revoked(ORIGIN, 7, FIRST.vkey, "", THIRD), "log.key.revoked")),
    ):
        assert not line(one, wrong).problem
    for bad in (SECOND.vkey, OTHER.vkey, "garbage"):
        with pytest.raises(ConfigurationError):
            revoked(ORIGIN, 7, bad, "", SECOND)
    with pytest.raises(ConfigurationError):
        handed_over(ORIGIN, 5, FIRST, FIRST)
    with pytest.raises(ConfigurationError):
        handed_over(ORIGIN, 5, FIRST, OTHER)


# -- a log ---------------------------------------------------------------------------------


def test_a_log_changes_its_key(make, tools):
    """With the first key or the last one it verifies; the old key writes no more."""
    event, *_ = tools
    log = make(origin=ORIGIN)
    old = log.vkey
    pin = log.append_many([event(i) for i in range(300)])[-1].checkpoint
    new = log.rotate()
    log.append(event(300))
    log.close()
    assert keys.known_verifier(ORIGIN) == new != old
    for vkey in (old, new):
        report = verify_log(log.directory, vkey=vkey, pin=pin if vkey == old else None)
        assert report.good, report
    assert verify_log(log.directory, vkey=old).signature == "verified (given key, 1 change of keys)"
    assert verify_log(log.directory).signature == "verified (known key)"
    log = make(origin=ORIGIN)
    third = log.rotate()
    log.append(event(0))
    assert verify_log(log.directory, vkey=old).signature.endswith("2 changes of keys)")
    log.revoke(old, "stolen")
    log.close()
    assert "revoked" in verify_log(log.directory, vkey=old).signature
    assert verify_log(log.directory, vkey=third).good
    former = keys.key_path(ORIGIN).with_suffix(f".{parse_vkey(old).key_id.hex()}.skey")
    signer = keys.load_signer(former)
    with pytest.raises((TamperedError, ConfigurationError)):
        make(signer=signer)


def test_other_processes_notice(make, tools):
    """Who had the log open before its key changed writes no more with the old one."""
    event, *_ = tools
    one, two = make(origin=ORIGIN), make(origin=ORIGIN)
    two.append(event(0))
    one.rotate()
    with pytest.raises(LogError, match="another key"):
        two.append(event(1))
    two.disown()
    one.append(event(2))
    one.close()
    assert verify_log(one.directory).good


def test_a_head_by_the_old_key_alone_is_refused(make, tools):
    """Whoever stole the old key cannot go on from after the change."""
    event, *_ = tools
    log = make(origin=ORIGIN)
    log.append(event(0))
    path = keys.key_path(ORIGIN)
    thief = Ed25519Signer.from_text(path.read_text().strip())
    log.rotate()
    log.close()
    entries = [orjson.dumps(one) for _, one in read_entries(log.directory)] + [b'{"type":"x"}']
    directory = log.directory
    leaves = leaf_hashes(entries)
    shutil.rmtree(directory / "tile")
    for name, data in (("0", b"".join(leaves)), ("entries", encode_bundle(entries))):
        place = directory / "tile" / name / "000.p" / str(len(entries))
        place.parent.mkdir(parents=True)
        place.write_bytes(data)
    head = Checkpoint(ORIGIN, len(entries), root_of(leaves))
    (directory / "checkpoint").write_text(sign_note(head.text(), thief))
    report = verify_log(directory, vkey=thief.vkey)
    assert "in force" in report.signature
    assert not report.good


CHANGE = """
import os, sys
from checkrein.log import AuditLog
from checkrein.log import audit, pins
from checkrein.log.directory import DirectoryLedger
step, place = sys.argv[1:]
def die(*_, **__):
    os._exit(9)
log = AuditLog.open(place)
if step == "before":
    DirectoryLedger._change_key = die
elif step == "before the pin":
    pins.OwnPin.keep = die
elif step == "after the entry":
    real = DirectoryLedger._change_key
    DirectoryLedger._change_key = lambda *a: (real(*a), die())
elif step == "after publication":
    audit.finish_change = die
log.rotate()
"""


@pytest.mark.parametrize(
    "step", ["before", "before the pin", "after the entry", "after publication"]
)
def test_a_change_that_is_cut_short(tmp_path, step):
    """Wherever the process dies, the log opens with the key that is in force, and goes on."""
    place = tmp_path / "log"
    with AuditLog.open(place, origin=ORIGIN) as log:
        log.append({"type": "t"})
        old = log.vkey
    done = subprocess.run([sys.executable, "-c", CHANGE, step, str(place)], timeout=60, check=False)
    assert done.returncode == 9
    with AuditLog.open(place) as log:
        log.append({"type": "t"})
        assert (log.vkey == old) == (step == "before")
        changed = log.rotate()
        log.append({"type": "t"})
    assert verify_log(place, vkey=old).good
    assert verify_log(place, vkey=changed).good


def test_two_changes_at_once(make, tools):
    """Of two processes that change the key, one does; the other is told to open the log anew."""
    event, *_ = tools
    one, two = make(origin=ORIGIN), make(origin=ORIGIN)
    one.rotate()
    with pytest.raises(LogError):
        two.rotate()
    two.disown()
    one.append(event(0))
    one.close()
    assert verify_log(one.directory).good

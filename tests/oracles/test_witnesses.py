"""Witnesses of others cosign our logs, logs of others are cosigned by ours, and Go judges both."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import contextmanager
from hashlib import sha256
from urllib.request import urlopen

import pytest

from checkrein.errors import LogError, TamperedError
from checkrein.log import verify_log
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.cosignature import ED25519, ML_DSA_44, CosigningKey, parse_cosigner
from checkrein.log.note import Signature, add_signatures, parse_vkey, signature_line, split_note
from checkrein.log.policy import parse_policy
from checkrein.log.witness import cosign
from checkrein.log.witnessing import CosigningWitness, WitnessServer
from oracles.logs import ORIGIN, SIZES, event, grow, open_log
from oracles.witness import Witness

NAME = "witness.example/ours"
SEED = bytes(range(32))
TIME = 1_750_000_000
KINDS = pytest.mark.parametrize("kind", [ED25519, ML_DSA_44], ids=["ed25519", "ml-dsa-44"])


def head(grown, size):
    return (grown.published[size] / "checkpoint").read_text()


# -- Go, on cosignatures -------------------------------------------------------------------


@pytest.mark.service("go 1.27")
@KINDS
@pytest.mark.parametrize("size", SIZES)
def test_go_believes_our_cosignatures(cosigner, grown, kind, size):
    """A head of any size, cosigned here, is cosigned for Go, at the time that we say."""
    key = CosigningKey.generate(NAME, kind)
    note = add_signatures(head(grown, size), key)
    said = cosigner.accepts("verify", key.vkey, text=note)
    text, lines = split_note(note)
    assert int(said) == key.cosigner.time_of(text.encode(), lines[-1].signature)


@pytest.mark.service("go 1.27")
@KINDS
def test_we_believe_gos_cosignatures(cosigner, grown, kind):
    """Go makes the same public key of a seed, and a line that holds here; Ed25519's is the same."""
    text = split_note(head(grown, 257))[0]
    said = cosigner.accepts("sign", str(kind), NAME, SEED.hex(), str(TIME), text=text)
    vkey, line = said.splitlines(keepends=True)
    key = CosigningKey(NAME, SEED, kind)
    assert vkey == key.vkey + "\n"
    (signature,) = split_note(f"{text}\n{line}")[1]
    assert parse_cosigner(key.vkey).time_of(text.encode(), signature.signature) == TIME
    if kind == ED25519:
        mine = Signature(NAME, key.cosigner.key_id, key.sign_at(text.encode(), TIME))
        assert signature_line(mine) == line


@pytest.mark.service("go 1.27")
@KINDS
def test_both_refuse_what_was_changed(cosigner, grown, kind):
    """Another head, time, name, key, or a bit of the signature is refused by both alike."""
    key = CosigningKey(NAME, SEED, kind)
    text = split_note(head(grown, 257))[0]
    good = key.sign_at(text.encode(), TIME)
    other = CosigningKey.generate(NAME, kind)
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    later = (TIME + 1).to_bytes(8, "big") + good[8:]
    longer = split_note(head(grown, 600))[0]
    for body, signature, by in [
        (text, flipped, key),
        (text, later, key),
        (text, good[:-1], key),
        (longer, good, key),
        (text.replace(ORIGIN, "example.com/another"), good, key),
        (text, other.sign_at(text.encode(), TIME), key),
    ]:
        line = signature_line(Signature(by.name, by.cosigner.key_id, signature))
        assert not by.cosigner.verifies(body.encode(), signature)
        cosigner.refuses("verify", by.vkey, text=f"{body}\n{line}")
    cosigner.accepts(
        "verify",
        key.vkey,
        text=f"{text}\n{signature_line(Signature(NAME, key.cosigner.key_id, good))}",
    )


@pytest.mark.service("go 1.27")
def test_go_believes_a_logs_second_signature(cosigner, go, grown, tmp_path):
    """A head that the log has signed with ML-DSA-44, too: Go finds either signature good."""
    second = CosigningKey.generate(ORIGIN, ML_DSA_44)
    place = tmp_path / "log"
    shutil.copytree(grown.published[257], place)
    both = add_signatures(head(grown, 257), second)
    (place / "checkpoint").write_text(both)
    assert go.accepts("log", grown.vkey, place) == "257 records, 0 older heads\n"
    cosigner.accepts("verify", second.vkey, text=both)
    policy = parse_policy(f"log {grown.vkey}\nlog {second.vkey}\nquorum none\n")
    assert policy.check(both).checkpoint.size == 257


@pytest.mark.service("go")
def test_go_finds_our_cosignature_in_a_note(go, grown, tmp_path):
    """The older Go, whose notes know nothing of cosignatures but their form, reads it, too."""
    key = CosigningKey.generate(NAME)
    place = tmp_path / "log"
    shutil.copytree(grown.published[2], place)
    (place / "checkpoint").write_text(add_signatures(head(grown, 2), key))
    assert go.accepts("cosigned", grown.vkey, key.vkey, place) == "cosigned\n"


# -- our client, their server --------------------------------------------------------------


def policy_for(log, *witnesses):
    """Return a policy that wants all of these (key, URL)."""
    lines = [f"log {log}\n", *(f"witness w{i} {k} {u}\n" for i, (k, u) in enumerate(witnesses))]
    names = " ".join(f"w{i}" for i in range(len(witnesses)))
    return parse_policy("".join([*lines, f"group all all {names}\nquorum all\n"]))


QUICK = {"pause": 0.0, "timeout": 30.0}


@pytest.mark.service("aics")
def test_their_witness_cosigns_our_log(aics, tmp_path):
    """It follows a log as it grows, over its own restart, and after we forgot where it was."""
    import aics_tlog

    from checkrein.log.note import Ed25519Signer

    signer = Ed25519Signer.generate(ORIGIN)
    theirs = Witness(tmp_path / "witness", signer.vkey)
    try:
        with open_log(tmp_path / "log", signer) as log:
            for size in (1, 2, 255, 256, 257, 600):
                log.append_many([event(i) for i in range(log.size, size)])
                log.publish()
                policy = policy_for(signer.vkey, (theirs.vkey, theirs.url))
                found = cosign(log.directory, policy, **QUICK)
                assert policy.check(found, now=int(time.time())).checkpoint.size == size
                checked = aics_tlog.verify_checkpoint(
                    aics_tlog.parse_note(found),
                    aics_tlog.parse_vkey(signer.vkey),
                    [aics_tlog.parse_vkey(theirs.vkey)],
                    1,
                    expected_origin=ORIGIN,
                    max_age_seconds=3600,
                )
                assert (checked.ok, checked.size) == (True, size)
                if size == 255:
                    theirs.restart()
                if size == 256:
                    (log.directory / ".state" / "witnessed").unlink()
            assert verify_log(log.directory, vkey=signer.vkey, pin=found).good
    finally:
        theirs.stop()


@pytest.mark.service("aics")
def test_their_witness_tells_of_forks_and_rollbacks(witness, grown, tmp_path):
    """A shorter copy, and another past under the real key, are TamperedErrors."""
    policy = policy_for(grown.vkey, (witness.vkey, witness.url))
    copy = tmp_path / "copy"
    shutil.copytree(grown.published[600], copy)
    assert policy.check(cosign(copy, policy, **QUICK)).holds
    short = tmp_path / "short"
    shutil.copytree(grown.published[257], short)
    with pytest.raises(TamperedError, match="rolled back"):
        cosign(short, policy, **QUICK)
    with open_log(tmp_path / "fork", grown.signer) as fork:
        fork.append_many([event(number + 1) for number in range(700)])
        fork.publish()
        with pytest.raises(TamperedError, match="a fork"):
            cosign(fork.directory, policy, **QUICK)
    assert grown.signer.name in witness.evidence()


@pytest.mark.service("aics")
def test_their_witness_does_not_know_us(witness, grown, tmp_path):
    """A log that it does not know is refused there, and that is no quorum here."""
    stranger = grow(tmp_path, (2,))
    other = stranger.published[2]
    text = f"log {stranger.vkey}\nwitness w {witness.vkey} {witness.url}\nquorum w\n"
    with pytest.raises(LogError, match="answered 403"):
        cosign(other, parse_policy(text), **QUICK)


# -- their client, our server --------------------------------------------------------------


@contextmanager
def served(state, vkey, *keys):
    """Serve a witness of ours for the log with this key."""
    logs = parse_policy(f"log {vkey}\nquorum none\n")
    server = WitnessServer(CosigningWitness(keys, logs, state), port=0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.service("aics")
def test_their_client_is_served(aics, grown, tmp_path):
    """It submits every head, over our restarts, from nothing and from what it remembers."""
    import aics_tlog
    from aics_witness import feeder

    key = CosigningKey.generate(NAME)
    for size in SIZES:
        note, reader = head(grown, size), aics_tlog.FileSystemTileReader(grown.published[size])

        def proof(old, new, reader=reader):
            return aics_tlog.consistency_proof_from_tiles(reader, old, new)

        with served(tmp_path / "state", grown.vkey, key) as url:
            with feeder.WitnessClient(url, key.vkey) as client:
                line = client.submit(note, proof)
                whole = feeder.merge_cosignatures(note, line)
            place = f"{url}/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint"
            with urlopen(place) as answer:
                assert answer.read() == whole
        text = f"log {grown.vkey}\nwitness w {key.vkey}\nquorum w\n"
        assert parse_policy(text).check(whole).checkpoint.size == size
        assert open_checkpoint(whole, parse_vkey(grown.vkey)).size == size


@pytest.mark.service("aics")
def test_their_client_is_refused(aics, grown, tmp_path):
    """Forks and rollbacks are told so that it knows them as such."""
    import aics_tlog
    from aics_witness import feeder

    key = CosigningKey.generate(NAME)
    with open_log(tmp_path / "fork", grown.signer) as log:
        log.append_many([event(number + 1) for number in range(600)])
        log.publish()
    fork = (tmp_path / "fork" / "checkpoint").read_text()

    def proofs(directory):
        reader = aics_tlog.FileSystemTileReader(directory)
        return lambda old, new: aics_tlog.consistency_proof_from_tiles(reader, old, new)

    with served(tmp_path / "state", grown.vkey, key) as url:
        with feeder.WitnessClient(url, key.vkey) as client:
            client.submit(head(grown, 257), proofs(grown.published[257]))
            with pytest.raises(feeder.WitnessRejected) as caught:
                client.submit(fork, proofs(tmp_path / "fork"))
            assert caught.value.status == 422
            client.submit(head(grown, 600), proofs(grown.published[600]))
        with feeder.WitnessClient(url, key.vkey) as client:
            with pytest.raises(feeder.WitnessAhead) as caught:
                client.submit(head(grown, 257), proofs(grown.published[257]))
            assert caught.value.known_size == 600


@pytest.mark.service("go 1.27")
def test_our_server_with_both_keys(cosigner, grown, tmp_path):
    """What our server says with a key of either type holds for Go, on one and the same note."""
    keys = [CosigningKey.generate(NAME), CosigningKey.generate(NAME, ML_DSA_44)]
    copy = tmp_path / "copy"
    shutil.copytree(grown.published[257], copy)
    with served(tmp_path / "state", grown.vkey, *keys) as url:
        text = f"log {grown.vkey}\nwitness w {keys[1].vkey} {url}\nquorum w\n"
        found = cosign(copy, parse_policy(text), **QUICK)
        cosigner.accepts("verify", keys[1].vkey, text=found)
        with urlopen(f"{url}/{sha256(ORIGIN.encode()).hexdigest()}/checkpoint") as answer:
            whole = answer.read().decode()
    for key in keys:
        cosigner.accepts("verify", key.vkey, text=whole)

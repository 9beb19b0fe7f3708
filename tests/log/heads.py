"""Heads of logs that there are not, for witnesses: signed, with proofs, of two pasts."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from hashlib import sha256

from checkrein.log import merkle, note
from checkrein.log.checkpoint import Checkpoint
from checkrein.log.cosignature import CosigningKey
from checkrein.log.policy import parse_policy
from checkrein.log.witness import request_of
from checkrein.log.witnessing import CosigningWitness, WitnessServer

ORIGIN = "example.com/log"
NOW = 1_700_000_000
LOG = note.Ed25519Signer(ORIGIN, bytes(32))
KEY = CosigningKey("witness.example/one", bytes([1] * 32))
LEAVES = [merkle.leaf_hash(b"%d" % i) for i in range(600)]
LOGS = parse_policy(f"log {LOG.vkey}\nquorum none\n")


def reader(leaves):
    return lambda height, index: merkle.root_of(leaves[index << height : (index + 1) << height])


def head(size, leaves=LEAVES, signer=LOG, origin=ORIGIN):
    text = Checkpoint(origin, size, merkle.root_of(leaves[:size])).text()
    return note.sign_note(text, signer)


def proof(old, new, leaves=LEAVES):
    return merkle.prove_consistency(old, new, reader(leaves))


def ask(old, new, leaves=LEAVES):
    return request_of(old, proof(old, new, leaves), head(new, leaves))


FORK = [*LEAVES[:2], merkle.leaf_hash(b"fork"), *LEAVES[3:]]


def witness_at(state, *, keys=(KEY,), logs=LOGS, clock=lambda: NOW, disk=None):
    return CosigningWitness(keys, logs, state, clock=clock, disk=disk)


def place_of(state, origin=ORIGIN):
    return state / sha256(origin.encode()).hexdigest()


@contextmanager
def served(witness, **settings_):
    """Serve a witness on a free port of the loopback interface."""
    server = WitnessServer(witness, port=0, **settings_)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

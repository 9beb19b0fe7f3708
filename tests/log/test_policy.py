"""Trust policies: what they count, and everything that would make them count wrongly."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from checkrein.errors import ConfigurationError, TamperedError
from checkrein.log import note
from checkrein.log.checkpoint import Checkpoint
from checkrein.log.cosignature import ML_DSA_44, CosigningKey
from checkrein.log.policy import AHEAD, Policy, Seen, parse_policy

ORIGIN = "example.com/log"
TIME = 1_800_000_000
LOG = note.Ed25519Signer(ORIGIN, bytes(32))
KEYS = [CosigningKey(f"witness.example/{i}", bytes([i + 1] * 32)) for i in range(6)]
TEXT = Checkpoint(ORIGIN, 3, bytes(32)).text()
HEAD = note.sign_note(TEXT, LOG)


def text_of(*lines, keys=KEYS):
    """Return a policy that knows the log and the witnesses w0 to w5."""
    known = [f"witness w{i} {key.vkey}" for i, key in enumerate(keys)]
    return "\n".join([f"log {LOG.vkey}", *known, *lines]) + "\n"


def policy_of(*lines, keys=KEYS):
    return parse_policy(text_of(*lines, keys=keys))


def line_of(key, stamp=TIME, text=TEXT):
    signature = key.sign_at(text.encode(), stamp)
    return note.signature_line(note.Signature(key.name, key.cosigner.key_id, signature))


def cosigned(*who, stamp=TIME):
    return HEAD + "".join(line_of(KEYS[i], stamp) for i in who)


def test_the_example_of_the_specification():
    """Two of three X and any of three Y."""
    policy = policy_of(
        "group X-witnesses 2 w0 w1 w2",
        "group Y-witnesses any w3 w4 w5",
        "group X-and-Y all X-witnesses Y-witnesses",
        "quorum X-and-Y",
    )
    for who in ([0, 1, 3], [0, 2, 5], [0, 1, 2, 3, 4, 5], [5, 2, 1]):
        assert policy.check(cosigned(*who)).holds
    for who in ([], [0, 1], [0, 3, 4, 5], [3], [0, 1, 2]):
        found = policy.check(cosigned(*who))
        assert not found.holds
        assert found.as_of is None
        assert f"{len(who)} of 6 witnesses" in found.shortfall


def test_what_a_check_tells():
    """Who cosigned, when, and from when on it was a quorum."""
    policy = policy_of("group g 2 w0 w1 w2", "quorum g")
    lines = [line_of(KEYS[0], TIME + 5), line_of(KEYS[2], TIME), line_of(KEYS[1], TIME + 9)]
    found = policy.check(HEAD + "".join(lines))
    assert found.checkpoint == Checkpoint(ORIGIN, 3, bytes(32))
    assert found.seen == (Seen("w0", TIME + 5), Seen("w1", TIME + 9), Seen("w2", TIME))
    assert (found.holds, found.as_of, found.shortfall) == (True, TIME + 5, "")
    assert policy.check((HEAD + "".join(lines)).encode()) == found


def test_it_is_frozen():
    """A policy and what it says are values."""
    policy = policy_of("quorum w0")
    for value, name in [(policy, "quorum"), (policy.check(HEAD), "holds")]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, True)
    assert policy == policy_of("quorum w0")


def test_no_quorum_asked_for():
    """With ``quorum none`` the log's signature is enough, and still needed."""
    policy = parse_policy(f"log {LOG.vkey}\nquorum none\n")
    assert policy.check(HEAD).holds
    assert policy.check(HEAD).as_of is None
    with pytest.raises(TamperedError):
        policy.check(note.sign_note(TEXT, note.Ed25519Signer.generate(ORIGIN)))


def test_one_witness_is_one_however_often_it_signs():
    """Lines by one key count once, with the newest time."""
    policy = policy_of("group g 2 w0 w1 w2", "quorum g")
    twice = HEAD + line_of(KEYS[0], TIME) + line_of(KEYS[0], TIME + 7) + line_of(KEYS[0], TIME + 3)
    found = policy.check(twice)
    assert (found.seen, found.holds) == ((Seen("w0", TIME + 7),), False)


def test_one_key_under_two_names_is_no_quorum():
    """The attack: one operator stands in the policy twice, with one key under other names."""
    again = CosigningKey("another.example/name", bytes([1] * 32))
    with pytest.raises(ConfigurationError, match="line 3: its public key is the one of line 2"):
        policy_of("group g all w0 w1", "quorum g", keys=[KEYS[0], again])


def test_a_log_is_not_its_own_witness():
    """The attack: the log's key cosigns, too, and is counted as a witness."""
    own = CosigningKey("witness.example/own", bytes(32))
    with pytest.raises(ConfigurationError, match="the one of line 1"):
        policy_of("quorum w0", keys=[own])
    with pytest.raises(ConfigurationError, match="the one of line 1"):
        parse_policy(f"witness w {own.vkey}\nlog {LOG.vkey}\nquorum w\n")


def test_two_keys_of_one_witness_count_once():
    """A witness may have a key of each type, as any of both; not as two of a quorum."""
    pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    second = CosigningKey(KEYS[0].name, bytes([9] * 32), ML_DSA_44)
    keys = [KEYS[0], second, KEYS[1]]
    policy = policy_of("group one any w0 w1", "group g all one w2", "quorum g", keys=keys)
    for mine in ([KEYS[0]], [second], [KEYS[0], second]):
        lines = "".join(line_of(key) for key in mine)
        assert not policy.check(HEAD + lines).holds
        assert policy.check(HEAD + lines + line_of(KEYS[1])).holds
    for wrong in (["group g 2 w0 w1 w2"], ["group a any w0 w2", "group b any w1"]):
        with pytest.raises(ConfigurationError, match="one witness, which would count twice"):
            policy_of(*wrong, "quorum w2", keys=keys)


def test_a_wrong_cosignature_refuses_the_note():
    """A known witness's line that does not verify is not passed over; a stranger's is."""
    policy = policy_of("quorum w0")
    good = cosigned(0)
    for wrong in (
        HEAD + line_of(KEYS[1], text=TEXT.replace("\n3\n", "\n4\n")),
        HEAD + line_of(KEYS[1], text=TEXT.replace(ORIGIN, "example.com/other")),
        HEAD + line_of(KEYS[1])[:-6] + "AAA==\n",
    ):
        with pytest.raises(TamperedError):
            policy.check(good + wrong.split("\n\n")[1].split("\n")[1] + "\n")
    stranger = CosigningKey.generate("stranger.example")
    assert policy.check(good + line_of(stranger, text=TEXT.replace("\n3\n", "\n4\n"))).holds


def test_a_replayed_cosignature():
    """A cosignature of an older head says nothing of the next one: the note is refused."""
    policy = policy_of("quorum w0")
    newer = note.sign_note(TEXT.replace("\n3\n", "\n5\n"), LOG)
    with pytest.raises(TamperedError, match="cosignature by witness"):
        policy.check(newer + line_of(KEYS[0]))


def test_another_origin():
    """A head of another log, by the same key or with the same witnesses, is refused."""
    policy = policy_of("quorum w0")
    other = TEXT.replace(ORIGIN, "example.com/other")
    for signer in (LOG, note.Ed25519Signer("example.com/other", bytes(32))):
        with pytest.raises(TamperedError, match="not in the policy"):
            policy.check(note.sign_note(other, signer) + line_of(KEYS[0], text=other))


def test_a_key_of_another_known_log():
    """Of two known logs, neither can sign for the other."""
    second = note.Ed25519Signer.generate("example.com/second")
    policy = parse_policy(f"log {LOG.vkey}\nlog {second.vkey}\nquorum none\n")
    assert policy.check(note.sign_note(TEXT.replace(ORIGIN, second.name), second)).holds
    with pytest.raises(TamperedError):
        policy.check(note.sign_note(TEXT, second))


def test_keys_of_a_log_that_rotates():
    """A log with two keys is believed with either, and with ML-DSA-44 alone."""
    pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    new = CosigningKey.generate(ORIGIN, ML_DSA_44)
    policy = parse_policy(f"log {LOG.vkey}\nlog {new.vkey}\nquorum none\n")
    assert len(policy.keys_of(ORIGIN)) == 2
    for signers in ([LOG], [new], [LOG, new]):
        assert policy.check(note.sign_note(TEXT, *signers)).holds


def test_times_that_count():
    """No time is no witness, and neither is one that is too far in the future, if that is asked."""
    policy = policy_of("quorum w0")
    assert not policy.check(cosigned(0, stamp=0)).holds
    future = cosigned(0, stamp=TIME + AHEAD + 1)
    assert policy.check(future).holds
    assert not policy.check(future, now=TIME).holds
    assert policy.check(future, now=TIME + 1).holds
    assert policy.check(cosigned(0, stamp=1), now=TIME).holds


def test_every_changed_byte_of_a_witnessed_note():
    """No byte of a note with a quorum can be changed or cut and leave a quorum."""
    policy = policy_of("group g all w0 w1", "quorum g")
    whole = cosigned(0, 1).encode()
    changed = [whole[:i] + bytes([b ^ 1]) + whole[i + 1 :] for i, b in enumerate(whole)]
    for wrong in [*changed, *(whole[:i] for i in range(len(whole))), b"", b"\xff"]:
        try:
            assert not policy.check(wrong).holds
        except TamperedError:
            pass


def test_what_is_allowed_between():
    """Comments, empty lines, tabs and spaces; URLs; opaque bytes in names."""
    keys = [key.vkey for key in KEYS]
    found = parse_policy(
        f"# a comment\n\n \t # another\n\tlog  {LOG.vkey}\thttps://log.example/\n"
        f"witness K {keys[0]} https://w.example/\nwitness \u212a {keys[1]}\n"
        "group  all  all  K \u212a \nquorum all\n"
    )
    assert found.logs[0].url == "https://log.example/"
    assert [one.url for one in found.witnesses] == ["https://w.example/", ""]
    assert found.check(cosigned(0, 1)).holds
    assert not found.check(cosigned(0)).holds
    opaque = b"witness \xff\xfe " + keys[0].encode() + b"\n# \x80\nquorum \xff\xfe\n"
    assert parse_policy(opaque).holds({parse_policy(opaque).witnesses[0].name})


def test_thirty_two_of_each():
    """The size that C2SP asks for, and groups in groups many levels deep."""
    keys = [CosigningKey(f"w{i}", bytes([i + 1] * 32)) for i in range(32)]
    logs = [note.Ed25519Signer(f"log{i}", bytes([i + 101] * 32)) for i in range(32)]
    lines = [f"log {log.vkey}" for log in logs]
    lines += [f"witness w{i} {key.vkey}" for i, key in enumerate(keys)]
    lines += ["group g0 any w0", *(f"group g{i} all g{i - 1} w{i}" for i in range(1, 32))]
    policy = parse_policy("\n".join([*lines, "quorum g31"]) + "\n")
    names = {f"w{i}" for i in range(32)}
    assert policy.holds(names)
    assert not any(policy.holds(names - {one}) for one in names)


W0, W1 = f"witness w0 {KEYS[0].vkey}\n", f"witness w1 {KEYS[1].vkey}\n"
WRONG = {
    "empty": ("", "no quorum line"),
    "no-quorum": (W0, "no quorum line"),
    "two-quorums": ("quorum none\nquorum none\n", "line 2: there is a quorum line already"),
    "cut": (W0 + "quorum w0", "line 2: it does not end with a newline"),
    "crlf": ("quorum none\r\n", "line 1: it has control characters"),
    "null": ("# \0\nquorum none\n", "line 1: it has control characters"),
    "del": ("# \x7f\nquorum none\n", "line 1: it has control characters"),
    "feed": ("# a\fb\nquorum none\n", "line 1: it has control characters"),
    "word": ("logs x\nquorum none\n", "line 1: it begins with none of"),
    "case": ("Quorum none\n", "line 1: it begins with none of"),
    "late": ("quorum w0\n" + W0, "line 1: a name in it is not defined above"),
    "undefined": (W0 + "quorum w1\n", "line 2: a name in it is not defined"),
    "form-log": ("log\nquorum none\n", "line 1: it has not the form: log <vkey>"),
    "form-log-4": (f"log {LOG.vkey} a b\n", "line 1: it has not the form: log <vkey>"),
    "form-witness": ("witness w0\n", "line 1: it has not the form: witness"),
    "form-group": (W0 + "group g all\n", "line 2: it has not the form: group"),
    "form-quorum": ("quorum\n", "line 1: it has not the form: quorum"),
    "form-quorum-2": (W0 + W1 + "quorum w0 w1\n", "line 3: it has not the form: quorum"),
    "log-key": ("log nonsense\n", "line 1: this is not a verifier key"),
    "log-type": (f"log {KEYS[0].vkey}\n", "line 1: the key of a log is of type 0x01"),
    "witness-type": (f"witness w {LOG.vkey}\n", "line 1: the key of a cosigner is of type 0x04"),
    "twice-log": (f"log {LOG.vkey}\nlog {LOG.vkey}\n", "line 2: its public key is the one of line"),
    "twice-name": (W0 + W1.replace("w1", "w0", 1), "line 2: its name is taken"),
    "name-none": (f"witness none {KEYS[0].vkey}\n", "line 1: its name is taken"),
    "group-none": (W0 + "group none any w0\n", "line 2: its name is taken"),
    "group-name": (W0 + "group w0 any w0\n", "line 2: its name is taken"),
    "member-none": (W0 + "group g any none\n", "line 2: a name in it is not defined"),
    "member-self": (W0 + "group g any g\n", "line 2: a name in it is not defined"),
    "member-twice": (W0 + "group g 2 w0 w0\n", "line 2: a name in it is a member of a group"),
    "member-of-two": (W0 + "group g any w0\ngroup h any w0\n", "line 3: a name in it is a member"),
    "zero": (W0 + "group g 0 w0\n", "line 2: a group needs all, any, or a number from 1 to 1"),
    "more": (W0 + W1 + "group g 3 w0 w1\n", "line 3: a group needs all, any, or a number"),
    "minus": (W0 + "group g -1 w0\n", "line 2: a group needs"),
    "leading": (W0 + "group g 01 w0\n", "line 2: a group needs"),
    "digits": (W0 + "group g \u0661 w0\n", "line 2: a group needs"),
    "huge": (W0 + f"group g {'9' * 5000} w0\n", "line 2: a group needs"),
    "space": ("quorum\u00a0none\n", "line 1: it begins with none of"),
    "long": ("#" * (1 << 20) + "\n", "at most"),
}


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG)
def test_errors_name_line_and_rule(text, says):
    """Whatever breaks a rule is refused, in text or bytes, with the line and the rule."""
    for given_ in (text, text.encode()):
        with pytest.raises(ConfigurationError) as caught:
            parse_policy(given_)
        assert says in str(caught.value)


def test_colliding_ids(monkeypatch):
    """Two keys of one name and id, which takes work to make, cannot stand for each other."""
    real = note.parse_vkey(LOG.vkey)
    other = note.parse_vkey(note.Ed25519Signer.generate(real.name).vkey)
    forged = dataclasses.replace(other, key_id=real.key_id)
    read = iter([real, forged])
    monkeypatch.setattr("checkrein.log.policy.parse_log_key", lambda text: next(read))
    with pytest.raises(ConfigurationError, match="line 2: its key has the name and the id"):
        parse_policy("log a\nlog b\nquorum none\n")


WORDS = st.sampled_from(
    ["log", "witness", "group", "quorum", "none", "any", "all", "1", "2", "w0", "w1", "g", "h", "#"]
    + [LOG.vkey, KEYS[0].vkey, KEYS[1].vkey, "\t", "\u2028", "\x85", "\0"]
)
LINES = st.lists(st.one_of(WORDS, st.text(max_size=4)), max_size=6).map(" ".join)


@given(st.lists(LINES, max_size=8).map("\n".join), st.booleans())
@example("witness w \ud800+00000000+BA==", True)
def test_no_foreign_exception_from_policies(text, ended):
    """Whatever is given as a policy is read, or refused by this library's own error."""
    try:
        policy = parse_policy(text + "\n" * ended)
    except ConfigurationError:
        return
    assert isinstance(policy, Policy)
    assert policy.quorum == "none" or not policy.holds(())


@given(st.binary(max_size=300))
def test_no_foreign_exception_from_bytes(data):
    """So are bytes, whatever they are."""
    with pytest.raises(ConfigurationError):
        parse_policy(data)


POLICY = policy_of("group g 2 w0 w1 w2", "quorum g")


@given(st.one_of(st.text(), st.binary(), st.text().map(lambda end: cosigned(0, 1) + end)))
def test_no_foreign_exception_from_notes(data):
    """Whatever is given as a head is judged, or refused by this library's own error."""
    try:
        assert POLICY.check(data).holds
    except TamperedError:
        pass


@given(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_more_witnesses_never_break_a_quorum(some, more):
    """A quorum stays one when others cosign, too; times only move forward."""
    few, many = POLICY.check(cosigned(*some)), POLICY.check(cosigned(*(some | more)))
    assert many.holds >= few.holds
    assert few.holds == (len(some & {0, 1, 2}) >= 2)

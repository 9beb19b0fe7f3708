"""Evidence bundles: what they show with one file and a key, and to whom they do not."""

from __future__ import annotations

import ast
import base64
import json
import os
import random
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import checkrein
from checkrein.errors import CheckreinError, ConfigurationError, LogError, TamperedError
from checkrein.forgetting import Erasable
from checkrein.log import merkle, standalone
from checkrein.log.answers import Answers
from checkrein.log.bundle import Choice, export_bundle, verify_bundle
from checkrein.log.checkpoint import Checkpoint, open_checkpoint
from checkrein.log.note import Ed25519Signer, sign_note
from checkrein.log.receipt import Receipt, prove, read_receipt, verify_receipt

ORIGIN = "example.com/evidence"


def story(run, number, call, **more):
    """Return the entries of a run that makes one call."""
    return [
        {"type": "run.opened", "run": run, "seq": 0, "agent": "bot", **more},
        {"type": "call.allowed", "run": run, "seq": 1, "call": call, "tool": "pay", "n": number},
        {"type": "call.outcome", "run": run, "seq": 2, "call": call, "status": "done"},
        {"type": "run.closed", "run": run, "seq": 3},
    ]


@pytest.fixture
def log(make):
    """A closed log of three runs, the third inside the first; and its key."""
    signer = Ed25519Signer.generate(ORIGIN)
    with make("log", signer=signer) as log:
        log.append_many(story("a1", 1, "c1"))
        log.append_many(story("b2", 2, "c2"))
        log.append_many(story("c3", 3, "c3", parent="a1"))
    return log.directory, signer


@pytest.fixture
def bundle(log, tmp_path):
    """(directory, key) of a bundle of two entries."""
    directory, signer = log
    export_bundle(directory, tmp_path / "bundle", vkey=signer.vkey, choice=Choice(first=5, last=6))
    return tmp_path / "bundle", signer.vkey


def alone(*arguments, program=standalone.__file__):
    """Run the stand-alone verifier where checkrein cannot be imported; return code and output."""
    blocked = "import sys; sys.modules['checkrein'] = None; import runpy;"
    code = f"{blocked} sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code, program, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env={"PATH": os.environ.get("PATH", "")},
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def refused(files, vkey):
    """Say whether both verifiers refuse these files."""
    try:
        standalone.check_bundle(dict(files), vkey)
    except (standalone.Bad, standalone.CannotTell):
        return True
    return False


def sealed(files, **changes):
    """Return a bundle whose manifest was made anew by somebody who changed what is in it."""
    files = {name: data for name, data in files.items() if not name.startswith("manifest.")}
    manifest = changes.pop("manifest")
    manifest = {
        **manifest,
        **changes,
        "files": {name: sha256(data).hexdigest() for name, data in files.items()},
    }
    data = json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"
    digest = f"{sha256(data).hexdigest()}  manifest.json\n".encode()
    return {**files, "manifest.json": data, "manifest.sha256": digest}


# -- what a bundle is ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_bundle_is_verified_with_one_file_and_a_key(log, tmp_path, name):
    """Where the library is not, with the release's file and with the copy that comes along."""
    directory, signer = log
    out = tmp_path / name
    done = export_bundle(directory, out, vkey=signer.vkey)
    shutil.copy(standalone.__file__, tmp_path / "elsewhere.py")
    code, said = alone(out, "--key", signer.vkey, program=tmp_path / "elsewhere.py")
    assert code == 0, said
    assert f"good: 12 of the first 12 entries of '{ORIGIN}'" in said
    assert done.manifest in said
    shown = verify_bundle(out, vkey=signer.vkey)
    assert (shown.origin, shown.size, list(shown.entries)) == (ORIGIN, 12, list(range(12)))
    assert shown.freshness == "unknown"
    shutil.rmtree(directory)
    assert alone(out, "--key", signer.vkey)[0] == 0


def test_the_copy_that_comes_along_is_the_verifier(bundle):
    """It runs, and the manifest says not to trust it."""
    place, vkey = bundle
    assert (place / "verify.py").read_bytes() == Path(standalone.__file__).read_bytes()
    assert alone(place, "--key", vkey, program=place / "verify.py")[0] == 0
    assert "Do not trust a verifier that comes with the evidence" in read_manifest(place)["note"]


def read_manifest(place):
    return json.loads((place / "manifest.json").read_bytes())


def test_what_is_in_a_bundle(log, bundle):
    """The files that the format has, exact entries, receipts by one head, digests, the report."""
    directory, _ = log
    place, vkey = bundle
    names = {p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()}
    receipts = {"receipts/5.tlog-proof", "receipts/6.tlog-proof"}
    assert names == standalone.FILES | receipts
    manifest = read_manifest(place)
    assert {name: manifest[name] for name in ("format", "origin", "size", "entries", "chosen")} == {
        "format": "checkrein-evidence/v1",
        "origin": ORIGIN,
        "size": 12,
        "entries": [5, 6],
        "chosen": {"by": "range", "from": 5, "to": 6},
    }
    assert "exported" not in manifest
    for name, digest in manifest["files"].items():
        assert sha256((place / name).read_bytes()).hexdigest() == digest
    assert set(manifest["files"]) == names - standalone.MANIFEST
    shown = verify_bundle(place, vkey=vkey)
    for index, entry in shown.entries.items():
        text = (place / f"receipts/{index}.tlog-proof").read_text()
        assert text == prove(directory, index).to_text()
        assert verify_receipt(entry, text, vkey=vkey).index == index
        assert json.loads(entry)["run"] == "b2"
    report = json.loads((place / "report.json").read_bytes())
    assert report["good"] is True
    assert report["size"] == 12
    assert (place / "checkpoint").read_bytes() == (directory / "checkpoint").read_bytes()


def test_sha256sum_agrees(bundle):
    """The digest of the manifest can be checked with a tool that every system has."""
    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("sha256sum is not installed")
    done = subprocess.run([program, "-c", "manifest.sha256"], cwd=bundle[0], capture_output=True)
    assert done.returncode == 0


@pytest.mark.parametrize("name", ["x", "x.zip"])
def test_the_same_choice_gives_the_same_bytes(log, tmp_path, name):
    """Wherever and whenever it is exported; only who and when, if given, make a difference."""
    directory, signer = log
    (tmp_path / "other").mkdir()
    one, two = tmp_path / name, tmp_path / "other" / name
    digests = {
        export_bundle(directory, out, vkey=signer.vkey, choice=Choice(run="a")).manifest
        for out in (one, two)
    }
    assert len(digests) == 1
    named = tmp_path / f"named{one.suffix}"
    done = export_bundle(
        directory, named, vkey=signer.vkey, choice=Choice(run="a"), by="dana", at="2026-11-24"
    )
    assert done.manifest not in digests
    assert standalone.read_bundle(one) == standalone.read_bundle(two)
    if one.is_file():
        assert one.read_bytes() == two.read_bytes()
    manifest = json.loads(standalone.read_bundle(named)["manifest.json"])
    assert manifest["exported"] == {"by": "dana", "at": "2026-11-24"}


def test_others_unpack_the_zip(log, tmp_path):
    """It is a zip like any other; what is unpacked is a bundle."""
    directory, signer = log
    export_bundle(directory, tmp_path / "b.zip", vkey=signer.vkey)
    with zipfile.ZipFile(tmp_path / "b.zip") as packed:
        assert packed.testzip() is None
        assert {one.date_time for one in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {one.compress_type for one in packed.infolist()} == {zipfile.ZIP_STORED}
        packed.extractall(tmp_path / "unpacked")
    assert verify_bundle(tmp_path / "unpacked", vkey=signer.vkey).size == 12


def test_the_bytes_of_a_zip_are_fixed():
    """No version of Python, no machine and no clock changes them."""
    made = standalone.zip_of({"b": b"two", "a/1": b"one"})
    assert sha256(made).hexdigest() == (
        "38469df47bc1f220e735212d35703afb3144133e9c3acbc79e363b5f1bc83f97"
    )


def test_only_the_owner_reads_a_bundle(log, tmp_path):
    """Entries may be private."""
    directory, signer = log
    for name in ("b", "b.zip"):
        export_bundle(directory, tmp_path / name, vkey=signer.vkey)
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


# -- the choice ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "indexes", "chosen"),
    [
        (Choice(), range(12), {"by": "all"}),
        (Choice(first=10), range(10, 12), {"by": "range", "from": 10, "to": 11}),
        (Choice(last=0), range(1), {"by": "range", "from": 0, "to": 0}),
        (Choice(run="b"), range(4, 8), {"by": "run", "id": "b", "runs": ["b2"]}),
        (Choice(call="c2"), range(4, 8), {"by": "call", "id": "c2", "runs": ["b2"]}),
        (
            Choice(call="c3"),
            [*range(4), *range(8, 12)],
            {"by": "call", "id": "c3", "runs": ["a1", "c3"]},
        ),
    ],
    ids=["all", "from", "to", "run", "call", "call inside a run"],
)
def test_the_choice(log, tmp_path, choice, indexes, chosen):
    """By numbers, by run, and by call with all runs that its answers are drawn from."""
    directory, signer = log
    out = tmp_path / "out"
    done = export_bundle(directory, out, vkey=signer.vkey, choice=choice)
    assert list(done.entries) == list(indexes)
    assert read_manifest(out)["chosen"] == chosen
    shown = verify_bundle(out, vkey=signer.vkey)
    assert list(shown.entries) == list(indexes)
    if choice.call:
        answers = Answers.about(choice.call, lambda: map(json.loads, shown.entries.values()))
        assert answers.outcome()["status"] == "done"
        assert answers.complete()["gaps"] == ()


@pytest.mark.parametrize(
    "choice",
    [{"run": "zzz"}, {"call": "zzz"}, {"first": 12}, {"first": 3, "last": 2}, {"last": 12},
     {"first": -1}],
    ids=["run", "call", "behind the end", "backwards", "too many", "negative"],
)  # fmt: skip
def test_what_is_not_there_cannot_be_chosen(log, tmp_path, choice):
    """Nothing is written, and the error says what to do."""
    directory, signer = log
    with pytest.raises(LogError, match="publish the log first"):
        export_bundle(directory, tmp_path / "out", vkey=signer.vkey, choice=Choice(**choice))
    assert not (tmp_path / "out").exists()


def test_a_choice_is_one(log):
    """Two ways at once would leave open what was meant."""
    for wrong in ({"run": "a", "call": "b"}, {"run": "a", "first": 0}, {"call": "a", "last": 3}):
        with pytest.raises(ConfigurationError, match="choose entries by"):
            Choice(**wrong)


def test_entries_of_any_bytes_and_runs_of_any_type(make, tmp_path, tools):
    """A log in which runs are no text, and which has entries that are no events, is exported."""
    event, *_ = tools
    signer = Ed25519Signer.generate(ORIGIN)
    with make("odd", signer=signer) as log:
        log.append_many(
            [{**event(0), "run": 5}, {**event(1), "run": None}, {**event(2), "run": "r"}]
        )
    done = export_bundle(log.directory, tmp_path / "r", vkey=signer.vkey, choice=Choice(run="r"))
    assert done.entries == (2,)
    assert export_bundle(log.directory, tmp_path / "all", vkey=signer.vkey).entries == (0, 1, 2)


# -- exporting what is not as it should be -----------------------------------------------------


def test_nothing_is_overwritten(log, tmp_path):
    """Neither a file, nor a directory, nor what a link leads to, even one that leads nowhere."""
    directory, signer = log
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(ConfigurationError, match="is there already"):
            export_bundle(directory, tmp_path / name, vkey=signer.vkey)
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(LogError, match="writing the bundle"):
        export_bundle(directory, tmp_path / "no" / "such" / "place", vkey=signer.vkey)


def test_a_failed_export_leaves_nothing(log, tmp_path, monkeypatch):
    """A bundle is there whole or not at all."""
    directory, signer = log

    def fail(files):
        raise OSError(28, "No space left on device")

    before = set(tmp_path.iterdir())
    monkeypatch.setattr(standalone, "zip_of", fail)
    with pytest.raises(LogError, match="No space left"):
        export_bundle(directory, tmp_path / "b.zip", vkey=signer.vkey)
    assert set(tmp_path.iterdir()) == before


def test_no_bundle_is_larger_than_can_be_verified(log, tmp_path, monkeypatch):
    """Whoever exports too much is told to make several bundles."""
    directory, signer = log
    monkeypatch.setattr(standalone, "LARGEST", 20_000)
    with pytest.raises(ConfigurationError, match="make several bundles"):
        export_bundle(directory, tmp_path / "b", vkey=signer.vkey)
    few = Choice(last=1)
    export_bundle(directory, tmp_path / "b.zip", vkey=signer.vkey, choice=few)
    assert len(verify_bundle(tmp_path / "b.zip", vkey=signer.vkey).entries) == 2


def test_the_key_has_to_be_the_logs(log, tmp_path):
    """Nobody gets a bundle for a key that did not sign the head."""
    directory, _ = log
    with pytest.raises(TamperedError, match="not signed by a known key"):
        export_bundle(directory, tmp_path / "b", vkey=Ed25519Signer.generate(ORIGIN).vkey)
    with pytest.raises(ConfigurationError):
        export_bundle(directory, tmp_path / "b", vkey="nonsense")


def test_a_changed_entry_is_not_exported_and_the_others_are(log, tmp_path):
    """The report says what is wrong with the log; the entries that have receipts are evidence."""
    directory, signer = log
    (bundle,) = (one for one in (directory / "tile" / "entries").rglob("*") if one.is_file())
    bundle.write_bytes(bundle.read_bytes().replace(b'"n":2', b'"n":9'))
    with pytest.raises(TamperedError, match="entry 5"):
        export_bundle(directory, tmp_path / "all", vkey=signer.vkey)
    done = export_bundle(directory, tmp_path / "some", vkey=signer.vkey, choice=Choice(first=6))
    assert not done.report.good
    assert verify_bundle(tmp_path / "some", vkey=signer.vkey).size == 12
    report = json.loads((tmp_path / "some" / "report.json").read_bytes())
    assert report["good"] is False
    assert any("entry 5" in one for one in report["problems"])


# -- attacks ---------------------------------------------------------------------------------


def test_every_changed_byte_is_refused(bundle):
    """Of any file; and each byte of the zip that they make."""
    place, vkey = bundle
    files = standalone.read_bundle(str(place))
    assert not refused(files, vkey)
    for name, data in files.items():
        for at in range(len(data)):
            wrong = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
            assert refused({**files, name: wrong}, vkey), (name, at)
        for wrong in (b"", data[:-1], data[1:], data + b"\n", data * 2):
            assert refused({**files, name: wrong}, vkey), name
        assert refused({other: files[other] for other in files if other != name}, vkey)


def test_every_changed_byte_of_a_zip_is_refused(log, tmp_path):
    """Also in what no program looks at: dates, modes, lengths that are written twice."""
    directory, signer = log
    export_bundle(directory, tmp_path / "b.zip", vkey=signer.vkey, choice=Choice(last=0))
    data = (tmp_path / "b.zip").read_bytes()

    def refuses(wrong):
        try:
            standalone.check_bundle(standalone.unzip(wrong), signer.vkey)
        except (standalone.Bad, standalone.CannotTell):
            return True
        return False

    assert not refuses(data)
    for at in range(len(data)):
        assert refuses(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]), at
    for wrong in (b"", data[:-1], data[1:], data + b"\0", b"\0" + data, data * 2):
        assert refuses(wrong)


CHANGES = {
    "swapped receipts": lambda f: {
        "receipts/5.tlog-proof": f["receipts/6.tlog-proof"],
        "receipts/6.tlog-proof": f["receipts/5.tlog-proof"],
    },
    "swapped entries": lambda f: {
        "entries.jsonl": lines(f, lambda a, b: [a.replace(b"5", b"6", 1), b])
    },
    "entries in another order": lambda f: {"entries.jsonl": lines(f, lambda a, b: [b, a])},
    "an entry twice": lambda f: {"entries.jsonl": lines(f, lambda a, b: [a, a, b])},
    "an entry changed": lambda f: {"entries.jsonl": changed_entry(f)},
    "an entry less": lambda f: {"entries.jsonl": lines(f, lambda a, b: [a])},
    "no entries": lambda f: {"entries.jsonl": b""},
    "no last line end": lambda f: {"entries.jsonl": f["entries.jsonl"][:-1]},
    "more behind the last line": lambda f: {"entries.jsonl": f["entries.jsonl"] + b"x"},
    "an empty line": lambda f: {"entries.jsonl": f["entries.jsonl"] + b"\n"},
    "another spelling": lambda f: {
        "entries.jsonl": f["entries.jsonl"].replace(b'"index":5', b'"index": 5')
    },
    "a receipt too many": lambda f: {"receipts/7.tlog-proof": f["receipts/6.tlog-proof"]},
    "extra data": lambda f: {
        "receipts/5.tlog-proof": f["receipts/5.tlog-proof"].replace(b"v1\n", b"v1\nextra YQ==\n")
    },
    "another key": lambda f: {
        "key.vkey": Ed25519Signer.generate(ORIGIN).vkey.encode() + b"\n"
    },
}  # fmt: skip


def lines(files, change):
    one, two = files["entries.jsonl"].splitlines(keepends=True)
    return b"".join(change(one, two))


def changed_entry(files):
    first, second = files["entries.jsonl"].splitlines()
    entry = base64.b64decode(json.loads(first)["entry"]).replace(b'"n":2', b'"n":9')
    return b'{"index":5,"entry":"%b"}\n%b\n' % (base64.b64encode(entry), second)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_bundle_that_was_made_anew(bundle, change):
    """Whoever rewrites manifest and digests as well, and knows the format, gets nowhere."""
    place, vkey = bundle
    files = standalone.read_bundle(str(place))
    manifest = json.loads(files["manifest.json"])
    assert not refused(sealed(files, manifest=manifest), vkey)
    changed = {**files, **change(files)}
    for entries in ([5, 6], [6, 5], [5, 5, 6], [5], [], [6], [5, 6, 7]):
        assert refused(sealed(changed, manifest=manifest, entries=entries), vkey)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "checkrein-evidence/v2"}, {"origin": "example.com/x"}, {"size": 13},
        {"entries": [5]}, {"entries": [5, 6, 7]}, {"entries": None}, {"format": None},
    ],
    ids=["format", "origin", "size", "fewer", "more", "none", "no format"],
)  # fmt: skip
def test_a_manifest_that_says_something_else(bundle, change):
    """What the manifest says of log and entries is what the receipts show."""
    place, vkey = bundle
    files = standalone.read_bundle(str(place))
    assert refused(sealed(files, manifest=json.loads(files["manifest.json"]), **change), vkey)


def test_a_bundle_of_nothing(bundle):
    """Without entries there is nothing that could hold."""
    place, vkey = bundle
    files = standalone.read_bundle(str(place))
    manifest = json.loads(files["manifest.json"])
    empty = {name: data for name, data in files.items() if not name.startswith("receipts/")}
    assert refused(sealed({**empty, "entries.jsonl": b""}, manifest=manifest, entries=[]), vkey)


def test_base64_has_one_spelling():
    """Otherwise two bundles of other bytes would hold for the same entry."""
    assert standalone._decode("YQ==") == b"a"
    for wrong in ("YR==", "YQ=", "YQ", "YQ==\n", " YQ==", "Y-_=", "é", "="):
        with pytest.raises(standalone.Bad):
            standalone._decode(wrong)


def test_a_manifest_in_another_form(bundle):
    """JSON has many spellings, and names may come twice; a manifest has one form."""
    place, vkey = bundle
    files = standalone.read_bundle(str(place))
    data = files["manifest.json"]
    deep = b"[" * 100_000 + b"]" * 100_000
    twice = data.replace(b'{\n "checkrein"', b'{\n "origin": "x",\n "checkrein"', 1)
    for wrong in (data + b" ", data.replace(b"\n", b"\r\n"), twice, deep, b"[]\n", b"1" * 9999,
                  data.decode().encode("utf-16"), b"\xff", b"null\n", b"{}\n"):  # fmt: skip
        digest = f"{sha256(wrong).hexdigest()}  manifest.json\n".encode()
        changed = {**files, "manifest.json": wrong, "manifest.sha256": digest}
        assert wrong != data
        assert refused(changed, vkey)


def forged_head(files, text, *signers):
    """Return the bundle with another head, in all its receipts as well."""
    old, new = files["checkpoint"].decode(), sign_note(text, *signers)
    receipts = {
        name: data.decode().replace(old, new).encode()
        for name, data in files.items()
        if name.startswith("receipts/")
    }
    return {**files, **receipts, "checkpoint": new.encode()}


def test_heads_of_others(log, bundle):
    """By another key of that name, of another log by the same key, of a fork, unsigned."""
    _, signer = log
    place, vkey = bundle
    files = standalone.read_bundle(str(place))
    manifest = json.loads(files["manifest.json"])
    head = open_checkpoint(files["checkpoint"], None)
    again = forged_head(files, head.text(), signer)
    assert not refused(sealed(again, manifest=manifest), vkey)
    stranger = Ed25519Signer.generate(ORIGIN)
    other = Checkpoint("example.com/other", head.size, head.root).text()
    fork = Checkpoint(ORIGIN, head.size, bytes(32)).text()
    more = head.text() + "extension\n"
    for wrong in (
        forged_head(files, head.text(), stranger),
        {**forged_head(files, head.text(), stranger), "key.vkey": f"{stranger.vkey}\n".encode()},
        forged_head(files, other, signer),
        forged_head(files, fork, signer),
        forged_head(files, more, signer),
        {**files, "checkpoint": head.text().encode()},
        {**files, "checkpoint": head.text().encode() + b"\n"},
    ):
        assert refused(sealed(wrong, manifest=manifest), vkey)
        assert refused(sealed(wrong, manifest=manifest, origin="example.com/other"), vkey)
    assert refused(files, stranger.vkey)


def test_a_cosigned_head_is_taken(log, bundle):
    """Signatures of witnesses that this verifier does not know do not get in the way."""
    _, signer = log
    place, vkey = bundle
    files = standalone.read_bundle(str(place))
    manifest = json.loads(files["manifest.json"])
    witness = Ed25519Signer.generate("witness.example/ü")
    text = open_checkpoint(files["checkpoint"], None).text()
    for signers in ((signer, witness), (witness, signer)):
        assert not refused(sealed(forged_head(files, text, *signers), manifest=manifest), vkey)
    assert refused(sealed(forged_head(files, text, witness), manifest=manifest), vkey)


def test_a_receipt_of_another_log_in_the_bundle(bundle, make, tools):
    """Its head is not the bundle's; with its hashes under our head it does not hold."""
    event, *_ = tools
    place, vkey = bundle
    files = standalone.read_bundle(str(place))
    with make("foreign") as foreign:
        foreign.append_many([event(i) for i in range(12)])
    one = prove(foreign.directory, 5)
    manifest = json.loads(files["manifest.json"])
    for receipt in (one, Receipt(5, one.proof, files["checkpoint"].decode())):
        wrong = {**files, "receipts/5.tlog-proof": receipt.to_text().encode()}
        assert refused(sealed(wrong, manifest=manifest), vkey)


@pytest.mark.parametrize("index", [0, 7, 12, 10**17, 10**18])
def test_an_index_out_of_range_in_the_bundle(bundle, index):
    """An entry under another number, within the log or behind its end, has no receipt."""
    place, vkey = bundle
    files = standalone.read_bundle(str(place))
    one = read_receipt(files["receipts/5.tlog-proof"])
    moved = Receipt(index, one.proof, one.note).to_text().encode()
    line = files["entries.jsonl"].splitlines()[0].replace(b'"index":5', b'"index":%d' % index)
    wrong = {
        **{name: data for name, data in files.items() if not name.startswith("receipts/")},
        f"receipts/{index}.tlog-proof": moved,
        "entries.jsonl": line + b"\n",
    }
    manifest = json.loads(files["manifest.json"])
    assert refused(sealed(wrong, manifest=manifest, entries=[index]), vkey)


def plant(place, name, data=b"extra"):
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(data)


def link_instead(path):
    """Put a link to the very same thing in its place."""
    path.rename(path.parent.parent / "moved")
    path.symlink_to(path.parent.parent / "moved")


@pytest.mark.parametrize(
    "do",
    [
        lambda p: plant(p, "extra"),
        lambda p: plant(p, ".hidden"),
        lambda p: plant(p, "receipts/extra"),
        lambda p: plant(p, "receipts/05.tlog-proof"),
        lambda p: plant(p, "receipts/٥.tlog-proof"),
        lambda p: plant(p, "receipts/7.tlog-proof"),
        lambda p: plant(p, "json.py", b"raise SystemExit(0)"),
        lambda p: (p / "empty").mkdir(),
        lambda p: (p / "receipts/receipts").mkdir(),
        lambda p: link_instead(p / "key.vkey"),
        lambda p: link_instead(p / "receipts"),
        lambda p: ((p / "verify.py").unlink(), (p / "verify.py").mkdir()),
        lambda p: ((p / "verify.py").unlink(), os.mkfifo(p / "verify.py")),
    ],
    ids=["extra file", "hidden file", "among receipts", "second spelling", "other digits",
         "receipt too many", "shadowed module", "empty directory", "nested", "link to a file",
         "link to a directory", "directory for a file", "pipe for a file"],
)  # fmt: skip
def test_what_does_not_belong_in_a_bundle(bundle, do):
    """Extra files, links, directories and pipes are refused, and not followed."""
    place, vkey = bundle
    do(place)
    code, said = alone(place, "--key", vkey)
    assert code == 1, said
    assert said.startswith("BAD: ")
    with pytest.raises(TamperedError):
        verify_bundle(place, vkey=vkey)


def zip_with(files, tmp_path, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(tmp_path / "wrong.zip", "w", compression) as packed:
        for name, data in files:
            packed.writestr(name, data)
    return tmp_path / "wrong.zip"


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_zips_of_another_form(bundle, tmp_path):
    """Paths that lead out, names twice, bombs, links, comments: a bundle has one form."""
    place, vkey = bundle
    files = sorted(standalone.read_bundle(str(place)).items())
    link = zipfile.ZipInfo("key.vkey")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    bomb = ("report.json", bytes(50 << 20))
    for some, compression in (
        ([*files, ("../escape", b"x")], zipfile.ZIP_STORED),
        ([*files, ("/tmp/escape", b"x")], zipfile.ZIP_STORED),
        ([*files, ("receipts/../../escape", b"x")], zipfile.ZIP_STORED),
        ([*files, ("receipts\\..\\escape", b"x")], zipfile.ZIP_STORED),
        ([*files, ("key.vkey\0", b"x")], zipfile.ZIP_STORED),
        ([*files, files[0]], zipfile.ZIP_STORED),
        ([*files, ("receipts/", b"")], zipfile.ZIP_STORED),
        ([(link, b"/etc/passwd") if name == "key.vkey" else (name, data) for name, data in files],
         zipfile.ZIP_STORED),
        (files, zipfile.ZIP_DEFLATED),
        ([bomb if name == "report.json" else (name, data) for name, data in files],
         zipfile.ZIP_DEFLATED),
        (files[::-1], zipfile.ZIP_STORED),
        (files, zipfile.ZIP_STORED),  # with dates
    ):  # fmt: skip
        with pytest.raises(TamperedError):
            verify_bundle(zip_with(some, tmp_path, compression), vkey=vkey)
    assert not (tmp_path / "escape").exists()
    assert alone(tmp_path / "wrong.zip", "--key", vkey)[0] == 1


def test_a_bomb_is_refused_for_its_size(bundle, tmp_path, monkeypatch):
    """More than the largest size is not read, be it one file or many."""
    place, vkey = bundle
    monkeypatch.setattr(standalone, "LARGEST", 6000)
    with pytest.raises(ConfigurationError, match="more than 6000 bytes"):
        verify_bundle(place, vkey=vkey)
    (tmp_path / "b.zip").write_bytes(b"PK\3\4" + bytes(6000))
    with pytest.raises(ConfigurationError, match="more than 6000 bytes"):
        verify_bundle(tmp_path / "b.zip", vkey=vkey)


# -- the verifier itself ---------------------------------------------------------------------


def test_it_cannot_tell(bundle, tmp_path):
    """No bundle, no key, an unreadable key, a later format: exit code 2, and no verdict."""
    place, vkey = bundle
    assert alone(place)[0] == 2
    assert alone(tmp_path / "nowhere", "--key", vkey)[0] == 2
    for key in ("", "nonsense", vkey[:-1], vkey.replace("+", "-"), f"x{vkey}", "\udcff+0+0"):
        code, said = alone(place, "--key", key)
        assert (code, said[:11]) == (2, "cannot tell"), said
    shutil.rmtree(place / "receipts")
    assert alone(place, "--key", vkey)[0] == 2
    with pytest.raises(LogError, match="reading the bundle"):
        verify_bundle(tmp_path / "nowhere", vkey=vkey)
    with pytest.raises(ConfigurationError):
        verify_bundle(place, vkey="nonsense")


def test_without_cryptography_it_cannot_tell(bundle):
    """A missing library is no verdict about the evidence."""
    place, vkey = bundle
    code = (
        "import sys, runpy; sys.modules['cryptography'] = None; sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-I", "-c", code, standalone.__file__, str(place), "--key", vkey]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout[:11]) == (2, "cannot tell")


def test_another_key_is_bad(bundle):
    """The right name and another key: the evidence is not of that log."""
    place, _ = bundle
    assert alone(place, "--key", Ed25519Signer.generate(ORIGIN).vkey)[0] == 1


def test_nothing_hostile_is_printed(make, tmp_path):
    """Names in bundles cannot act on the terminal of whoever looks at them."""
    signer = Ed25519Signer.generate("example.com/\x9b31m\u202e\ufeff")
    with make("log", signer=signer) as log:
        log.append({"type": "test"})
    out = tmp_path / "b"
    export_bundle(log.directory, out, vkey=signer.vkey)
    plain = verify_bundle(out, vkey=signer.vkey)
    assert plain.origin == signer.name
    code, said = alone(out, "--key", signer.vkey)
    assert code == 0
    assert said.isascii()
    (out / "\x1b[2J\u202e").write_text("x")
    code, said = alone(out, "--key", signer.vkey)
    assert code == 1
    assert said.isascii()
    assert "\x1b" not in said


def test_it_imports_nothing_of_ours():
    """One short file, the standard library, cryptography, and nothing else."""
    tree = ast.parse(Path(standalone.__file__).read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add((node.module or "").partition(".")[0])
    assert names - sys.stdlib_module_names == {"cryptography"}
    assert checkrein.__name__ not in names
    calls = {node.func.id for node in ast.walk(tree)
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    assert not calls & {"eval", "exec", "__import__"}


def test_it_runs_as_a_program(bundle, tmp_path):
    """As the documentation says, from another place, and it leaves nothing behind."""
    place, vkey = bundle
    before = sorted(place.rglob("*"))
    shutil.copy(standalone.__file__, tmp_path / "elsewhere.py")
    for program in (tmp_path / "elsewhere.py", place / "verify.py"):
        command = [sys.executable, "-I", str(program), str(place), "--key", vkey]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=tmp_path)
        assert (done.returncode, done.stdout[:5], done.stderr) == (0, "good:", "")
    assert sorted(place.rglob("*")) == before


def test_its_proofs_are_those_of_the_tree():
    """Every leaf of every small tree has the root that the library gives, and no other leaf has."""
    leaves = merkle.leaf_hashes(b"%d" % i for i in range(33))
    for size in range(1, 34):
        root = merkle.root_of(leaves[:size])

        def read(height, index):
            return merkle.root_of(leaves[index << height : (index + 1) << height])

        for index in range(size):
            proof = merkle.prove_inclusion(index, size, read)
            assert standalone.root_from(leaves[index], index, size, proof) == root
            for wrong in {index - 1, index + 1, size} & set(range(size + 1)):
                assert standalone.root_from(leaves[index], wrong, size, proof) != root
            for other in (proof[:-1], [*proof, root], [*proof, b""]):
                if other != proof:
                    assert standalone.root_from(leaves[index], index, size, other) != root


# -- parsers ---------------------------------------------------------------------------------

SIGNER = Ed25519Signer(ORIGIN, bytes(32))


@given(st.binary(max_size=300), st.integers(0, 2**32))
def test_no_foreign_exception_escapes_a_zip(data, seed):
    """Whatever the bytes are, also those of a bundle that was cut, doubled or shuffled."""
    chance = random.Random(seed)
    good = standalone.zip_of({"manifest.json": data, "receipts/3.tlog-proof": b"PK\3\4" * 9})
    at = chance.randrange(len(good))
    for some in (data, b"PK\3\4" + data, good[:at] + data + good[at:], good[at:], good[:at]):
        try:
            assert standalone.zip_of(standalone.unzip(some)) == some
        except (standalone.Bad, standalone.CannotTell):
            continue
    assert standalone.unzip(good)["manifest.json"] == data


TEXTS = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([
        b"", b"\n", b"{}", b"[]", b'{"index":0,"entry":""}\n', b'{"index":0,"entry":"YQ=="}\n',
        b"c2sp.org/tlog-proof@v1\nindex 0\n\n", ORIGIN.encode() + b"\n1\nAAAA\n\n", b"\xff",
    ]),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(sorted(standalone.FILES)), TEXTS), st.data())
def test_no_foreign_exception_escapes_a_bundle(some, data):
    """Any files, with a manifest that fits them and says anything."""
    files = {**dict.fromkeys(standalone.FILES, b""), **some, "receipts/0.tlog-proof": b""}
    files["key.vkey"] = f"{SIGNER.vkey}\n".encode()
    words = st.sampled_from([0, 1, "x", ORIGIN, [], [0], {}, None, True, 1.5])
    names = st.sets(st.sampled_from(["origin", "size", "entries", "chosen"]))
    manifest = {name: data.draw(words) for name in data.draw(names)}
    for one in (files, sealed(files, manifest=manifest, format=standalone.FORMAT)):
        with pytest.raises((standalone.Bad, standalone.CannotTell)):
            standalone.check_bundle(one, SIGNER.vkey)


@given(st.text(), TEXTS)
def test_no_foreign_exception_escapes_a_key_or_a_head(vkey, note):
    """Nor the readers of both."""
    with pytest.raises(standalone.CannotTell):
        standalone.open_key(vkey)
    with pytest.raises(standalone.Bad):
        standalone.open_head(note, *standalone.open_key(SIGNER.vkey))
    for some in (note, b"c2sp.org/tlog-proof@v1\nindex 0\n" + note + b"\n\nhead"):
        with suppress(standalone.Bad):
            standalone.open_receipt(some, 0, b"head")


def test_errors_of_the_library_are_its_own(bundle, tmp_path):
    """verify_bundle raises errors of this library and no others."""
    place, vkey = bundle
    for name in ("manifest.json", "entries.jsonl", "checkpoint"):
        data = (place / name).read_bytes()
        for wrong in (b"", b"\xff" * 10, data[:50], data + data):
            (place / name).write_bytes(wrong)
            with pytest.raises(CheckreinError):
                verify_bundle(place, vkey=vkey)
        (place / name).write_bytes(data)


def test_every_changed_byte_of_what_is_disclosed_is_refused(make, tmp_path):
    """Values that entries commit to are shown only as they were, by both verifiers."""
    log = make()
    log.append({"type": "t", "a": Erasable("yes"), "b": Erasable({"deep": ["\u2028", 2]})})
    log.append({"type": "t", "a": Erasable("yes")})
    log.close()
    export_bundle(log.directory, tmp_path / "out", vkey=log.vkey, disclose=["*"])
    files = standalone.read_bundle(str(tmp_path / "out"))
    shown = verify_bundle(tmp_path / "out", vkey=log.vkey)
    assert shown.disclosed == {0: {"a": "yes", "b": {"deep": ["\u2028", 2]}}, 1: {"a": "yes"}}
    data = files[standalone.OPENINGS]
    entries = shown.entries
    standalone.check_openings(data, entries)
    lines = data.splitlines(keepends=True)
    swapped = [lines[0].replace(b'"index":0', b'"index":1'), lines[2].replace(b":1,", b":0,")]
    harmless = {b" ", b"\n"}
    for wrong in swapped:
        with pytest.raises(standalone.Bad):
            standalone.check_openings(wrong, entries)
    for offset, byte in enumerate(data):
        wrong = data[:offset] + bytes([byte ^ 1]) + data[offset + 1 :]
        if bytes([byte ^ 1]) in harmless:
            continue
        with pytest.raises(standalone.Bad):
            standalone.check_openings(wrong, entries)
    for wrong in (b"{}\n", b"[]\n", b"\xff", b'{"index":0}\n', b"5\n", data[:-3]):
        with pytest.raises(standalone.Bad):
            standalone.check_openings(wrong, entries)

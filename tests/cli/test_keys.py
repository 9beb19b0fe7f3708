"""``keys new``: makes a pair once, shows the public half, and overwrites nothing."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

pytest.importorskip("typer")

from typer.testing import CliRunner

from checkrein.cli.app import app
from checkrein.errors import ConfigurationError
from checkrein.log import AuditLog, verify_log
from checkrein.log.keys import decrypted, encrypted, key_path, load_signer
from checkrein.log.note import Ed25519Signer
from checkrein.log.signing import SocketSigner

NAME = "example.com/log"


def new(*arguments: object):
    return CliRunner().invoke(app, ["keys", "new", *map(str, arguments)], catch_exceptions=False)


def test_new_prints_the_public_half_only(tmp_path):
    """The public key and both places are printed, the private key is not."""
    out = tmp_path / "keys" / "log.skey"
    result = new(NAME, "--out", out)
    assert result.exit_code == 0
    assert load_signer(out).vkey in result.stdout
    assert str(out) in result.stdout
    private = out.read_text().strip()
    assert private.startswith("PRIVATE+KEY+")
    assert private not in result.output
    assert private.split("+", 4)[4] not in result.output


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_the_private_key_is_for_its_owner_only(tmp_path):
    """The file of the private key has mode 0600."""
    out = tmp_path / "log.skey"
    assert new(NAME, "--out", out).exit_code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_new_uses_the_data_directory_by_default():
    """Without --out the key lies where a log of that name looks for it."""
    assert new(NAME).exit_code == 0
    assert load_signer(key_path(NAME)).name == NAME


@pytest.mark.parametrize("where", ["given", "default"])
def test_new_never_overwrites(tmp_path, where):
    """A second key of the same name or place is refused, and the first stays as it was."""
    options = ("--out", tmp_path / "log.skey") if where == "given" else ()
    path = tmp_path / "log.skey" if options else key_path(NAME)
    assert new(NAME, *options).exit_code == 0
    before = path.read_bytes(), path.with_suffix(".vkey").read_bytes()
    result = new(NAME, *options)
    assert result.exit_code == 2
    assert "never overwritten" in result.stderr
    assert (path.read_bytes(), path.with_suffix(".vkey").read_bytes()) == before


def test_new_never_overwrites_a_public_key(tmp_path):
    """A public key that lies where ours would go stays, and no private key is made."""
    (tmp_path / "log.vkey").write_text("somebody's")
    result = new(NAME, "--out", tmp_path / "log.skey")
    assert result.exit_code == 2
    assert [one.name for one in tmp_path.iterdir()] == ["log.vkey"]
    assert (tmp_path / "log.vkey").read_text() == "somebody's"


def test_the_private_key_cannot_take_the_public_place(tmp_path):
    """--out may not end in .vkey, where the public half would replace the private one."""
    assert new(NAME, "--out", tmp_path / "log.vkey").exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "two words", "a+b", "a\nb"])
def test_new_refuses_what_is_no_name(tmp_path, name):
    """A name with spaces or plus signs is refused before anything is written."""
    result = new(name, "--out", tmp_path / "log.skey")
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


# -- passphrases ---------------------------------------------------------------------------


def keys(*arguments: object):
    return CliRunner().invoke(app, ["keys", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """Put a passphrase where the environment says."""
    path = tmp_path / "passphrase"
    path.write_text("correct horse\n")
    path.chmod(0o600)
    monkeypatch.setenv("CHECKREIN_PASSPHRASE_FILE", str(path))
    return path


def test_an_encrypted_key_signs_with_its_passphrase_only(tmp_path, secret, monkeypatch):
    """Made encrypted, or encrypted later: the file alone is no key, and the error says so."""
    made, later = tmp_path / "made.skey", tmp_path / "later.skey"
    assert new(NAME, "--out", made, "--encrypt").exit_code == 0
    assert new("example.com/other", "--out", later).exit_code == 0
    before = load_signer(later).vkey
    assert keys("encrypt", later).exit_code == 0
    assert keys("encrypt", later).exit_code == 2
    for path in (made, later):
        text = path.read_text()
        assert text.startswith("ENCRYPTED+KEY+example.com/")
        assert "PRIVATE" not in text
        assert load_signer(path).vkey == keys("show", path).stdout.strip()
    assert load_signer(later, passphrase="correct horse").vkey == before
    for wrong in ("", "incorrect horse"):
        with pytest.raises(ConfigurationError, match="wrong"):
            load_signer(made, passphrase=wrong)
    monkeypatch.delenv("CHECKREIN_PASSPHRASE_FILE")
    with pytest.raises(ConfigurationError, match="CHECKREIN_PASSPHRASE_FILE"):
        load_signer(made)
    assert keys("show", made).exit_code == 2
    third = tmp_path / "third.skey"
    assert new("example.com/third", "--out", third, "--encrypt").exit_code == 2
    assert not third.exists()


def test_every_changed_letter_of_an_encrypted_key_is_refused(tmp_path, monkeypatch):
    """Name, salt, nonce and key are bound together."""
    monkeypatch.setattr("checkrein.log.keys._passphrase_cipher", quick)
    signer = Ed25519Signer.generate(NAME)
    text = encrypted(signer.private_text(), "p")
    assert decrypted(text, "p") == signer.private_text()
    for offset in range(len("ENCRYPTED+KEY+"), len(text)):
        letter = "A" if text[offset] != "A" else "B"
        with pytest.raises(ConfigurationError):
            decrypted(text[:offset] + letter + text[offset + 1 :], "p")
    for wrong in ("", "ENCRYPTED+KEY+", "ENCRYPTED+KEY+a+", "ENCRYPTED+KEY+a+AAAA", text[:-4]):
        with pytest.raises(ConfigurationError):
            decrypted(wrong, "p")


def quick(passphrase, salt):
    """Derive a key without the work that keeps guessing slow."""
    return AESGCM(sha256(passphrase.encode() + salt).digest())


def test_a_passphrase_file_that_others_read_is_refused(secret, tmp_path):
    """Nor an empty one."""
    secret.chmod(0o644)
    assert new(NAME, "--out", tmp_path / "a.skey", "--encrypt").exit_code == 2
    secret.chmod(0o600)
    secret.write_text("")
    assert new(NAME, "--out", tmp_path / "a.skey", "--encrypt").exit_code == 2


def test_the_signer_command(tmp_path_factory, secret):
    """A log is written with a key that another process holds, encrypted, until Ctrl-C."""
    place = tmp_path_factory.mktemp("s")
    assert new(NAME, "--out", place / "log.skey", "--encrypt").exit_code == 0
    process = subprocess.Popen(
        [sys.executable, "-c", "from checkrein.cli import main; main()", "log", "signer",
         "--key", place / "log.skey", "--socket", place / "run" / "s", "--state", place / "state"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert b"signing for example.com/log" in process.stdout.readline()
        signer = SocketSigner(place / "run" / "s")
        with AuditLog.open(place / "log", signer=signer, pin=place / "pin") as log:
            log.append({"type": "t"})
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
    assert verify_log(place / "log", vkey=signer.vkey).good
    assert not (place / "run" / "s").exists()


def test_rotate_and_revoke(tmp_path):
    """A log gets a new key, and a former one is revoked, from the command line."""
    with AuditLog.open(tmp_path / "log", origin=NAME) as log:
        log.append({"type": "t"})
    old = log.vkey
    result = keys("rotate", tmp_path / "log")
    assert result.exit_code == 0, result.output
    new_one = load_signer(key_path(NAME)).vkey
    assert new_one in result.stdout
    assert new_one != old
    assert verify_log(tmp_path / "log", vkey=old).good
    assert keys("revoke", tmp_path / "log", "--key", old, "--reason", "stolen").exit_code == 0
    assert not verify_log(tmp_path / "log", vkey=old).good
    for wrong in (["rotate", tmp_path / "no"], ["revoke", tmp_path / "log"],
                  ["revoke", tmp_path / "log", "--key", new_one, "--reason", "x"]):  # fmt: skip
        assert keys(*wrong).exit_code == 2
    assert not (tmp_path / "no").exists()

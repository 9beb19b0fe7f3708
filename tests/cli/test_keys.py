"""``keys new``: makes a pair once, shows the public half, and overwrites nothing."""

from __future__ import annotations

import stat
import sys

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from checkrein.cli.app import app
from checkrein.log.keys import key_path, load_signer

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

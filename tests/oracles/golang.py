"""Go's own notes and trees (`golang.org/x/mod/sumdb`), from Debian's packages, as a program."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("verifier.go")
LIBRARIES = Path("/usr/share/gocode")
PACKAGES = "golang-go and golang-golang-x-mod-dev"


class Missing(Exception):
    """What a test needs is not on this machine."""


class GoVerifier:
    """The built program; see the top of its source for what it does.

    Args:
        place: an empty directory for the program and the compiler's cache.
    """

    def __init__(self, place: Path) -> None:
        self._program = place / "verifier"
        go = shutil.which("go")
        if go is None or not (LIBRARIES / "src/golang.org/x/mod/sumdb/tlog").is_dir():
            raise Missing(f"Go and its x/mod are not installed (Debian: {PACKAGES})")
        # What Debian installed, and nothing else: no modules, no other toolchain, no network.
        settings = {
            "GO111MODULE": "off",
            "GOPATH": str(LIBRARIES),
            "GOFLAGS": "",
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
            "GOCACHE": str(place / "cache"),
            "CGO_ENABLED": "0",
        }
        subprocess.run(
            [go, "build", "-o", str(self._program), str(SOURCE)],
            env=os.environ | settings,
            check=True,
        )

    def run(self, *args: str | Path, text: str = "") -> tuple[bool, str]:
        """Return whether the program accepts, and what it says."""
        done = subprocess.run(
            [self._program, *args], input=text, capture_output=True, encoding="utf-8"
        )
        # A crash of the program, or a wrong call, is no verdict.
        assert done.returncode in {0, 1}, done.stderr
        assert "usage" not in done.stdout
        return done.returncode == 0, done.stdout

    def accepts(self, *args: str | Path, text: str = "") -> str:
        """Return what the program says, which must be that all is well."""
        good, said = self.run(*args, text=text)
        assert good, said
        return said

    def refuses(self, *args: str | Path, text: str = "") -> str:
        """Return why the program refuses, which it must."""
        good, said = self.run(*args, text=text)
        assert not good, said
        return said

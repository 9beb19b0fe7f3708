"""A witness that others wrote (`aics-witness`), in a process of its own, and how to ask it."""

from __future__ import annotations

import base64
import http.client
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

NAME = "witness.example/one"


class Answer(NamedTuple):
    """What the witness says to a checkpoint."""

    status: int
    kind: str
    text: str


class Witness:
    """A running witness on the loopback interface; `vkey` is its key.

    Args:
        place: an empty directory for its key and its memory.
        log_vkey: the key of the one log that it knows.
    """

    def __init__(self, place: Path, log_vkey: str) -> None:
        self._config = place / "witness.json"
        place.mkdir()
        self.vkey = self._call("init", "--name", NAME).strip()
        self._call("add-log", "--origin", log_vkey.split("+", maxsplit=1)[0], "--vkey", log_vkey)
        self._start()

    def _command(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "aics_witness", args[0], "-c", str(self._config), *args[1:]]

    def _call(self, *args: str) -> str:
        command = self._command(*args)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command("serve", "--listen", "127.0.0.1:0"), stderr=subprocess.PIPE, text=True
        )
        said = []
        for line in self._process.stderr:
            said.append(line)
            found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", line)
            if found:
                self._port = int(found[1])
                return
        self._process.communicate()
        raise RuntimeError(f"the witness did not start: {said}")

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self._port}"

    def add(self, old: int, proof: Sequence[bytes], note: str) -> Answer:
        """Send a checkpoint (C2SP tlog-witness, ``add-checkpoint``)."""
        lines = [f"old {old}\n", *(base64.b64encode(h).decode() + "\n" for h in proof), "\n", note]
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("POST", "/add-checkpoint", "".join(lines).encode())
            answer = connection.getresponse()
            kind = answer.getheader("Content-Type", "")
            return Answer(answer.status, kind, answer.read().decode())
        finally:
            connection.close()

    def evidence(self) -> str:
        """Return the requests that it kept because they failed a check of consistency, as JSON."""
        return self._call("evidence")

    def restart(self) -> None:
        """End the process and start another one with the same memory."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.communicate()

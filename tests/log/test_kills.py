"""Several processes write one log, and are killed at random moments, again and again."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys

import pytest

from checkrein.log import AuditLog, read_entries, verify_log

ROUNDS = 50
PROCESSES = 3

WRITER = """
import sys
from checkrein.log import AuditLog
name, origin = sys.argv[2:]
log = AuditLog.open(sys.argv[1], origin=origin)
number = 0
while True:
    number += 1
    text = f"{name}-{number}"
    if number % 3 == 0:
        log.enqueue({"type": "test", "text": "not waited for", "pad": "x" * 700})
    position = log.append({"type": "test", "text": text, "pad": "x" * (number % 50 * 40)})
    sys.stdout.write(f"{position.index} {text}\\n")
    sys.stdout.flush()
    if number % 17 == 0:
        log.publish()
"""


class Writer:
    """A process that writes until it is killed, and tells what was acknowledged."""

    def __init__(self, place, origin, name):
        arguments = [sys.executable, "-c", WRITER, str(place), name, origin]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        self.told = b""

    def wait_for(self, lines):
        """Return when it has told of so many entries in all."""
        while self.told.count(b"\n") < lines:
            assert select.select([self.process.stdout], [], [], 60)[0], "nothing is written"
            part = os.read(self.process.stdout.fileno(), 65_536)
            assert part, "it ended by itself"
            self.told += part

    def kill(self):
        """Kill it; return (index, text) of each entry that it told of."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.told += self.process.communicate()[0]
        whole = self.told[: self.told.rfind(b"\n") + 1].decode().splitlines()
        return [(int(index), text) for index, text in (line.split() for line in whole)]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL, and one writer")
def test_killed_writers_lose_nothing_acknowledged(tmp_path):
    """After fifty kills every acknowledged entry is where it was said, and all verifies."""
    place, origin, chance = tmp_path / "log", "example.com/kills", random.Random(6)
    AuditLog.open(place, origin=origin).close()
    names = iter(range(10_000))
    writers = [Writer(place, origin, f"w{next(names)}") for _ in range(PROCESSES)]
    acknowledged = []
    for round_ in range(ROUNDS):
        victim = chance.randrange(PROCESSES)
        writers[victim].wait_for(chance.randint(1, 25))
        acknowledged += writers[victim].kill()
        if round_ % 10 == 9:
            report = verify_log(place)
            assert (report.content, report.tree) == ("ok", "ok"), report
        writers[victim] = Writer(place, origin, f"w{next(names)}")
    for writer in writers:
        writer.wait_for(1)
        acknowledged += writer.kill()
    with AuditLog.open(place) as log:
        log.append({"type": "test", "text": "the last"})
    report = verify_log(place)
    assert report.good, report
    assert report.signature == "verified (known key)"
    texts = [entry["text"] for _, entry in read_entries(place)]
    assert len(acknowledged) > ROUNDS
    assert [(i, text) for i, text in acknowledged if texts[i] != text] == []
    told = [text for text in texts if text.startswith("w")]
    assert len(told) == len(set(told))

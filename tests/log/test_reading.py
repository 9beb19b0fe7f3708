"""Following a log while others write it."""

from __future__ import annotations

import pytest

from checkrein.errors import LogError, TamperedError
from checkrein.log.reading import entry_count, follow_entries


class Over(Exception):
    """The test has seen enough."""


@pytest.mark.parametrize("start", [0, 2, 5, 300])
def test_every_entry_comes_once_and_in_order(make, tools, start):
    """Whatever is appended and published between two looks, each entry is given once."""
    event, *_ = tools
    log = make()
    log.append_many([event(i) for i in range(3)])
    steps = iter([1, 0, 4, "publish", 300, "publish", "publish", 2, 0])

    def pause():
        step = next(steps, None)
        if step is None:
            raise Over
        if step == "publish":
            log.publish()
        elif step:
            log.append_many([event(log.size + i) for i in range(step)])

    seen = []
    with pytest.raises(Over):
        for index, entry in follow_entries(log.directory, start=start, pause=pause):
            seen.append((index, entry["n"]))
    assert seen == [(i, i) for i in range(start, 310)]
    assert entry_count(log.directory) == 310
    log.close()
    assert entry_count(log.directory) == 310


def test_what_cannot_be_followed(make, tools, tmp_path):
    """No log, and a head that is none, are errors of the library."""
    event, *_ = tools
    with pytest.raises(LogError, match="no log"):
        next(follow_entries(tmp_path / "missing"))
    with pytest.raises(LogError, match="no log"):
        entry_count(tmp_path / "missing")
    log = make()
    log.append(event(0))
    log.close()
    following = follow_entries(log.directory)
    assert next(following)[0] == 0
    (log.directory / "checkpoint").write_text("garbage")
    with pytest.raises(TamperedError):
        entry_count(log.directory)

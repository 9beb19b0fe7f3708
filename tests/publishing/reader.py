"""A reader who has nothing but a way to fetch files: the head first, then what it vouches for."""

from __future__ import annotations

import tempfile
from pathlib import Path

from checkrein.log import verify_log
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.note import parse_vkey
from checkrein.log.tiles import ENTRIES, WIDTH, decode_bundle, encode_bundle, tile_path


def needed(size):
    """Yield (level, number, width) of all that a reader of the head over *size* entries needs."""
    for level in (ENTRIES, *range(-(-size.bit_length() // 8))):
        items = size >> 8 * max(level, 0)
        for number in range(-(-items // WIDTH)):
            yield level, number, min(WIDTH, items - number * WIDTH)


def mirror(fetch, place, vkey):
    """Fetch a log into the directory *place*; return its size. *fetch* gives bytes or None."""
    note = fetch("checkpoint")
    assert note is not None
    size = open_checkpoint(note, parse_vkey(vkey)).size
    files = {"checkpoint": note}
    for level, number, width in needed(size):
        path = tile_path(level, number, width)
        data = fetch(path)
        if data is None and width < WIDTH:
            data = fetch(tile_path(level, number))
            assert data is not None, path
            cut = encode_bundle(decode_bundle(data)[:width]) if level == ENTRIES else None
            data = data[: 32 * width] if cut is None else cut
        assert data is not None, path
        files[path] = data
    for path, data in files.items():
        target = Path(place) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return size


def read(fetch, vkey):
    """Fetch a whole log and verify it; return how many entries it has."""
    with tempfile.TemporaryDirectory() as place:
        size = mirror(fetch, place, vkey)
        report = verify_log(place, vkey=vkey)
        assert report.good, report
        assert report.size == size
        return size

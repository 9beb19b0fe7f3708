"""The screen: words of others act on nothing, and nothing is taken for markup."""

from __future__ import annotations

import io
import json

import pytest

pytest.importorskip("rich")

from checkrein.cli.screen import Screen, safe_json


def printed(tell) -> str:
    out = io.StringIO()
    tell(Screen(out))
    return out.getvalue()


def test_quoted_words_are_made_visible():
    """Escapes, bells and bidi controls in a quotation are spelled out, line by line."""
    text = printed(lambda screen: screen.quote("a\x1b[2Jb\x07\n[bold]c[/bold] :bomb: \u202ed"))
    assert text == "   | a\\x1b[2Jb\\x07\n   | [bold]c[/bold] :bomb: \\u202ed\n"


def test_what_is_left_out_is_counted():
    """A quotation that is cut says how much is missing."""
    assert printed(lambda screen: screen.quote("1\n2\n3", lines=1)).endswith("and 2 lines more\n")


def test_long_lines_are_neither_cut_nor_wrapped():
    """A line is printed whole, however narrow the screen is thought to be."""
    assert printed(lambda screen: screen.say("x y " * 200)) == "x y " * 200 + "\n"


def test_json_is_printable_ascii():
    """JSON for the terminal holds no control character, not even DEL, and reads back the same."""
    value = {"a": "\x1b\x7f\u202eü\n"}
    text = safe_json(value)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == value


def test_json_too_deep_is_said():
    """A value nested too deeply is named as such instead of breaking the command."""
    deep: object = "x"
    for _ in range(100_000):
        deep = [deep]
    assert "nested too deeply" in safe_json(deep)

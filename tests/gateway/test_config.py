"""``gateway.toml``: what it says is what holds, and what it cannot say is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from checkrein.conditions import Refused
from checkrein.errors import ConfigurationError
from checkrein.facts import Effect
from checkrein.freezing import freeze
from checkrein.gateway.config import constraint_of, read

PIN = "0" * 64
GOOD = f"""
agent = "desktop"
[log]
directory = "audit"
[tools.write_file]
effect = "writes"
resource = "files.write"
pinned = "{PIN}"
untrusted = ["content"]
arguments = {{ path = {{ under = "/srv/notes" }} }}
budget = {{ times = 5, per = 3600 }}
"""


def config_of(directory: Path, text: str) -> Any:
    """Return the configuration that a file of this text states."""
    file = directory / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    return read(file)


def test_what_the_file_says_is_what_holds(tmp_path: Path) -> None:
    """Guard, grant and places are those of the file."""
    config = config_of(tmp_path, GOOD)
    tool = config.tools["write_file"]

    @tool.guard
    def write_file(path: str) -> None: ...

    (claim,) = write_file.__checkrein__.facts.claims
    assert (claim.effect, claim.resource) == (Effect.WRITES, "files.write")
    assert not claim.external
    (permission,) = config.grant("").permissions
    assert str(permission) == (
        "allow('files.write', budget(times=5, per=timedelta(seconds=3600)), "
        "path=under('/srv/notes'))"
    )
    assert config.log.directory == tmp_path / "audit"
    assert config.confirm.store == str(tmp_path / "checkrein.db")
    assert config.exposed
    assert config.confirm.by == "inbox"


def test_a_database_is_no_path(tmp_path: Path) -> None:
    """A URL stays as it is."""
    config = config_of(tmp_path, GOOD + '[confirm]\nstore = "postgresql:///questions"\n')
    assert config.confirm.store == "postgresql:///questions"


def test_budgets_outlive_the_process_and_not_a_change_of_what_is_allowed(tmp_path: Path) -> None:
    """The grant has the same id as long as it says the same; clients have one each."""
    first, again = config_of(tmp_path, GOOD), config_of(tmp_path, GOOD)
    assert first.grant("a").id == again.grant("a").id
    assert first.grant("a").id != first.grant("b").id
    assert first.grant("a").id != config_of(tmp_path, GOOD.replace("5", "6")).grant("a").id


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('agent = "desktop"', "", "agent"),
        ('agent = "desktop"', 'agent = ""', "agent"),
        ('agent = "desktop"', 'agent = "a"\nexpose = false', "expose"),
        ('effect = "writes"', 'effect = "write"', "tools.write_file.effect"),
        ("pinned", "pin", "tools.write_file.pinned"),
        (PIN, "abc", "tools.write_file.pinned"),
        ("untrusted", "untrused", "untrused"),
        ("under =", "undr =", "'undr' is no constraint"),
        ("/srv/notes", "notes", "absolute path"),
        ("{ under = ", "{ opened_under = ", "no open file"),
        ('{ under = "/srv/notes" }', '"any"', "anything"),
        ('{ under = "/srv/notes" }', "7", "a constraint is"),
        ('{ under = "/srv/notes" }', "{ between = [1] }", "between takes"),
        ('{ under = "/srv/notes" }', '{ matches = "(" }', "pattern"),
        ('{ under = "/srv/notes" }', '{ under = "/a", length = 3 }', "a constraint is"),
        ("times = 5", "times = -5", "budget"),
        ("times = 5", "times = 0.5", "budget"),
        ("files.write", "files write", "tools.write_file"),
        ("[log]", "[logs]", "log"),
        ("=", "", "gateway.toml"),
    ],
)
def test_what_cannot_be_is_refused(old: str, new: str, told: str, tmp_path: Path) -> None:
    """A misspelt word never lifts a limit, and the message says where it stands."""
    assert old in GOOD
    with pytest.raises(ConfigurationError) as caught:
        config_of(tmp_path, GOOD.replace(old, new, 1))
    assert told in str(caught.value)


def test_two_tools_of_one_resource_are_refused(tmp_path: Path) -> None:
    """A permission names a resource: what limits one tool would limit both, or neither."""
    second = GOOD[GOOD.index("[tools") :].replace("write_file", "delete")
    with pytest.raises(ConfigurationError, match=r"files\.write"):
        config_of(tmp_path, GOOD + second)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The error is ours, and says which file."""
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("tree", "good", "bad"),
    [
        ("anything", "x", None),
        ({"exactly": [1, 2]}, [1, 2], [1]),
        ({"one_of": ["a", "b"]}, "a", "c"),
        ({"between": [1, 5]}, 3, 6),
        ({"between": {"low": 1, "high": 5}}, 5, 0),
        ({"at_most": 3}, 3, 4),
        ({"at_least": 3}, 3, 2),
        ({"length": 3}, "abc", "abcd"),
        ({"length": {"at_most": 3, "at_least": 2}}, "ab", "a"),
        ({"matches": "[a-z]+"}, "abc", "ABC"),
        ({"email": "a@b.example"}, "a@b.example", "c@b.example"),
        ({"email_domain": ["b.example", "c.example"]}, "a@c.example", "a@d.example"),
        ({"host": "api.example.com"}, "https://api.example.com/x", "https://example.com/"),
        (
            {"host": {"hosts": ["api.example.com"], "schemes": ["http"], "ports": [81]}},
            "http://api.example.com:81/",
            "https://api.example.com/",
        ),
        ({"each": {"one_of": ["a"]}}, ["a", "a"], ["a", "b"]),
        ({"both": [{"length": 3}, {"matches": "a*"}]}, "aa", "aaaa"),
        ({"either": [{"exactly": "x"}, {"exactly": 1}]}, 1, 2),
        ({"keys": {"a": {"length": 3}}}, {"a": "x"}, {"a": "x", "b": 1}),
        ({"under": {"root": "/srv/notes", "itself": True}}, "/srv/notes", "/srv"),
    ],
)
def test_every_constraint_has_a_spelling(tree: Any, good: Any, bad: Any) -> None:
    """It takes what it should, and refuses what it should."""
    made = constraint_of(tree)
    made.normalise(freeze(good))
    if bad is not None:
        with pytest.raises(Refused):
            made.normalise(freeze(bad))


def test_the_file_in_the_documentation_is_one(tmp_path: Path) -> None:
    """What a reader copies is accepted as it stands."""
    page = Path(__file__).parents[2] / "docs" / "frameworks" / "gateway.md"
    first, clients = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    config = config_of(tmp_path, first + clients)
    assert set(config.tools) == {"read_text_file", "write_file"}
    assert set(config.clients) == {"ann"}

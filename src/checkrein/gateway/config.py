"""``gateway.toml``: who calls, what may be called, who confirms, and where it is written down.

::

    agent = "desktop"

    [log]
    directory = "audit"

    [confirm]
    store = "questions.db"

    [tools.write_file]
    effect = "writes"
    resource = "files.write"
    pinned = "9b74c98..."
    untrusted = ["content"]
    arguments = { path = { under = "/srv/notes" } }

A constraint is an object of one member: the name of a constraint of :mod:`checkrein.constraints`
and what it takes, alone, as an array, or as an object of names; ``{ host = { hosts =
["api.acme.example"], ports = [443] } }``. The text ``"anything"`` is ``anything``.

A relative path is relative to the file. A name that is not known here is refused: a word
that is misspelt must not lift what it was meant to limit.
"""

from __future__ import annotations

import hashlib
import inspect
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from checkrein import constraints
from checkrein.conditions import Constraint, anything
from checkrein.errors import ConfigurationError
from checkrein.grants import Grant
from checkrein.guards import irreversible, reads, writes
from checkrein.integrations.adoption import spelt
from checkrein.permissions import Permission, allow, budget, others, preapproved
from checkrein.visible import visible

_NO_TEXT: Final = {"opened_under": "a remote tool takes no open file", "where": "it takes code"}
_EFFECTS: Final = {"reads": reads, "writes": writes, "irreversible": irreversible}
_SHA256: Final = r"^[0-9a-f]{64}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Server(_Strict):
    """The server behind the gateway, where it is not a command on the command line.

    Attributes:
        url: of its streamable HTTP endpoint.
        bearer_env: the environment variable that holds the token for it.
        env: variables for the command, beside the few that every program gets.
        pass_env: variables that it inherits.
        timeout: how many seconds an answer may take.
    """

    url: str = ""
    bearer_env: str = ""
    env: dict[str, str] = {}
    pass_env: list[str] = []
    timeout: float = Field(default=60.0, gt=0)


class Log(_Strict):
    """The audit log.

    Attributes:
        directory: where it is.
        key: the file of its private key; by default one in the user's data directory.
    """

    directory: Path
    key: Path | None = None


class Confirm(_Strict):
    """Who confirms.

    Attributes:
        by: ``"inbox"``: people at ``checkrein inbox <store>``; ``"client"``: the client's user,
            by elicitation, and the client's word for it.
        store: holds questions, budgets and stops: a file, or a ``postgresql://`` URL.
        wait: for how many seconds a call waits in place for the inbox; then the client is
            told to make it again later.
    """

    by: Literal["inbox", "client"] = "inbox"
    store: str = "checkrein.db"
    wait: float = Field(default=45.0, ge=0, le=3600)


class Budgeted(_Strict):
    """How much use there is; see ``checkrein.budget``. ``per`` is in seconds."""

    times: Annotated[int, Field(ge=0)] | float
    per: float | None = Field(default=None, gt=0)
    cost: str = ""


class Tool(_Strict):
    """What a tool is, and what it may be used for.

    Attributes:
        effect: what it does; a tool that destroys is ``"irreversible"``, whatever it says.
        resource: the dotted name in permissions and in the log.
        pinned: the fingerprint of its definition; ``checkrein gateway --propose`` prints it.
        external: it reaches somebody outside.
        private: what it returns is for some people only.
        untrusted: arguments that take content.
        arguments: constraints, by argument.
        others: a constraint for the arguments that have none; ``"anything"`` opts out.
        budget: how often it may be used.
        preapproved: when nobody is asked about an irreversible call.
    """

    effect: Literal["reads", "writes", "irreversible"]
    resource: str
    pinned: Annotated[str, Field(pattern=_SHA256)]
    external: bool = False
    private: bool = False
    untrusted: list[str] = []
    arguments: dict[str, Any] = {}
    others: Any = None
    budget: Budgeted | None = None
    preapproved: Literal["", "unexposed", "always"] = ""

    @property
    def guard(self) -> Any:
        """The decorator that guards it."""
        return _EFFECTS[self.effect](self.resource, external=self.external, private=self.private)

    @property
    def permission(self) -> Permission:
        """What the grant says about it."""
        options: list[Any] = []
        if self.budget is not None:
            per = None if self.budget.per is None else timedelta(seconds=self.budget.per)
            options.append(budget(times=self.budget.times, per=per, cost=self.budget.cost))
        if self.preapproved:
            options.append(preapproved(self.preapproved))
        if self.others is not None:
            options.append(others(constraint_of(self.others)))
        asked = {spelt(name): constraint_of(one) for name, one in self.arguments.items()}
        return allow(self.resource, *options, **asked)


class HttpClient(_Strict):
    """A client that comes over HTTP.

    Attributes:
        token_sha256: the SHA-256, in hexadecimal, of the bearer token that it shows.
    """

    token_sha256: Annotated[str, Field(pattern=_SHA256)]


class Config(_Strict):
    """The whole file.

    Attributes:
        agent: who calls, for approvers and in the log; over HTTP the client's name is added.
        exposed: whether the client reads what the gateway cannot see, web pages or other
            servers. Only where this gateway is all that it reads is ``false`` true.
        server, log, confirm: see there.
        tools: by the server's name for them.
        clients: by name; those that may come over HTTP.
        allowed_hosts: the names under which the gateway is reached over HTTP, with ports; those
            of the loopback interface if left out.
    """

    agent: Annotated[str, Field(min_length=1)]
    exposed: bool = True
    server: Server = Server()
    log: Log
    confirm: Confirm = Confirm()
    tools: dict[str, Tool]
    clients: dict[str, HttpClient] = {}
    allowed_hosts: list[str] = []

    @field_validator("tools")
    @classmethod
    def _one_meaning_for_a_resource(cls, tools: dict[str, Tool]) -> dict[str, Tool]:
        claimed: set[str] = set()
        for one in tools.values():
            if one.resource in claimed:
                raise ValueError(
                    f"two tools have the resource {one.resource!r}: a permission for one would "
                    "be a permission for the other"
                )
            claimed.add(one.resource)
        return tools

    @model_validator(mode="after")
    def _permissions_can_be_made(self) -> Config:
        for name, one in self.tools.items():
            try:
                _ = one.guard, one.permission
            except ConfigurationError as error:
                raise ValueError(f"tools.{name}: {error}") from None
        return self

    def grant(self, client: str) -> Grant:
        """Return the grant of a client. Its budgets last as long as what it allows."""
        permissions = [one.permission for one in self.tools.values()]
        text = "\n".join(sorted(map(str, permissions)))
        name = hashlib.sha256(f"{client}\n{text}".encode()).hexdigest()[:16]
        return Grant(*permissions, id=f"gateway-{name}")


def constraint_of(tree: Any) -> Constraint:
    """Return the constraint that a piece of the configuration states.

    Raises:
        ConfigurationError: it states none.
    """
    if tree == "anything":
        return anything
    if not isinstance(tree, Mapping) or len(tree) != 1:
        raise ConfigurationError('a constraint is { name = what it takes }, or "anything"')
    ((name, given),) = tree.items()
    if name in _NO_TEXT:
        raise ConfigurationError(f"{name} cannot be used here: {_NO_TEXT[name]}")
    known = sorted({"exactly", "at_least", "at_most", *constraints.KINDS} - {*_NO_TEXT})
    if name not in known:
        raise ConfigurationError(f"{name!r} is no constraint; there are {', '.join(known)}")
    make = getattr(constraints, name)
    try:
        made: Constraint = _made(name, make, given)
    except TypeError:
        raise ConfigurationError(f"{name} takes {inspect.signature(make)}") from None
    return made


def _made(name: str, make: Any, given: Any) -> Any:
    if name in {"both", "either"}:
        return make(*map(constraint_of, given if isinstance(given, list) else [given]))
    if name == "each":
        return make(constraint_of(given))
    if name == "keys":
        if not isinstance(given, Mapping):
            raise ConfigurationError("keys takes an object of constraints by key")
        return make({key: constraint_of(one) for key, one in given.items()})
    if name == "under":
        root = given.get("root", "") if isinstance(given, Mapping) else given
        if not Path(str(root)).is_absolute():
            raise ConfigurationError("under takes an absolute path")
    if name in {"exactly", "one_of"}:
        return make(given)
    if isinstance(given, Mapping):
        named = dict(given)
        hosts = named.pop("hosts", []) if name == "host" else []
        return make(*hosts, **named)
    return make(*given) if isinstance(given, list) else make(given)


def read(path: Path) -> Config:
    """Return the configuration in a file.

    Raises:
        ConfigurationError: it cannot be read, or says what cannot be; the message says where.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {visible(str(error))}") from None
    try:
        found = Config.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}"
            for one in error.errors(include_url=False)
        ]
        raise ConfigurationError(f"{path}: " + visible("; ".join(lines))) from None
    return _at(path.parent, found)


def _at(place: Path, config: Config) -> Config:
    """Return *config* with its paths relative to *place*."""
    log = config.log.model_copy(
        update={
            "directory": place / config.log.directory,
            "key": None if config.log.key is None else place / config.log.key,
        }
    )
    store = config.confirm.store
    where = store if "://" in store else str(place / store)
    confirm = config.confirm.model_copy(update={"store": where})
    return config.model_copy(update={"log": log, "confirm": confirm})

"""The entries of the log as pydantic models: a stable schema, for programs that read them.

`parse_entry` turns the JSON of an entry into its model; `json_schema` gives all of them as one
JSON Schema, which is kept in ``docs/log/events.schema.json``. What a field means is in
:mod:`checkrein.events`.

The rules of change: ``v`` is 1. A later version of this library may add fields and types
under the same number, so a reader ignores what it does not know; ``parse_entry`` does so
with ``strict=False``. What is there is never renamed, nor given another meaning, under the
same number.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaValue

from checkrein.errors import TamperedError

VERSION: Final = 1
Texts = list[str]
Value = Any
"""A logged value: JSON, or one of the descriptions in :mod:`checkrein.events`."""


class Entry(BaseModel):
    """What every entry has."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    v: Literal[1]
    type: Any
    time: int = Field(description="nanoseconds since the epoch, by the writer's clock")


class OfRun(Entry):
    """What every entry of a run has."""

    run: str
    seq: int = Field(ge=0, description="from 0, without gaps, per run")


class Finding(BaseModel):
    """A rule that spoke, and about which argument."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    rule: str
    argument: str


class RunOpened(OfRun):
    """A run begins."""

    type: Literal["run.opened"]
    agent: str
    grants: Texts
    holders: Texts
    permissions: Texts
    policy: str
    version: str
    parent: str
    call: str
    exposed: bool
    resumes: str = ""


class RunSuspended(OfRun):
    """A run ends here, to be resumed."""

    type: Literal["run.suspended"]
    calls: int
    confirmations: Texts


class RunClosed(OfRun):
    """A run ends."""

    type: Literal["run.closed"]
    calls: int
    exposed: bool
    private: bool
    invisible: int


class RunExposed(OfRun):
    """Untrusted content was seen."""

    type: Literal["run.exposed"]
    sources: Texts


class RunStopped(OfRun):
    """A run was stopped, or locked after suspicion."""

    type: Literal["run.stopped", "run.locked"]
    reason: str


class RunPlan(OfRun):
    """A run follows a plan."""

    type: Literal["run.plan"]
    steps: Texts
    plan: str


class Instruction(OfRun):
    """The user's own words."""

    type: Literal["instruction"]
    text: Value


class Prompt(OfRun):
    """A prompt that was made of trusted and untrusted parts."""

    type: Literal["prompt"]
    system: Value
    digest: str
    sources: Texts


class Host(OfRun):
    """The framework that the run is in, and what it calls the conversation."""

    type: Literal["host"]
    framework: str
    version: str
    ids: list[Texts]


class Unknown(OfRun):
    """A model asked for a tool that it is not offered."""

    type: Literal["tool.unknown"]
    tool: str


class Model(OfRun):
    """What a model was given, or said."""

    type: Literal["model.prompt", "model.output"]
    digest: str
    letters: int
    text: Value = None


class Quarantine(OfRun):
    """A model without tools was asked about content."""

    type: Literal["quarantine"]
    sources: Texts
    schema_: str = Field(alias="schema")


class Trusted(OfRun):
    """Configuration was declared trusted."""

    type: Literal["trusted"]
    values: int


class OfCall(OfRun):
    """What is written down about a call before it runs, or does not."""

    call: str
    agent: str
    tool: str
    effect: str
    resource: str
    arguments: dict[str, Value]
    digest: str
    definition: str
    grants: Texts
    parent: str
    findings: list[Finding]
    exposed: bool
    shadow: bool = False
    standing: str = ""


class CallDecided(OfCall):
    """A call was allowed or denied. ``call.allowed`` is the intent."""

    type: Literal["call.allowed", "call.denied"]


class ConfirmationAsked(OfCall):
    """A person is asked about a call."""

    type: Literal["confirmation.asked"]
    confirmation: str
    bound_to: str
    letters: int


class ConfirmationAnswered(OfRun):
    """What became of a question."""

    type: Literal["confirmation.answered"]
    call: str
    confirmation: str
    answer: str
    by: str
    reason: str
    suspicious: bool
    standing: Value = None


class CallOutcome(OfRun):
    """What became of a call."""

    type: Literal["call.outcome"]
    call: str
    status: Literal["done", "raised", "closed", "suspended", "cancelled", "in doubt"]
    error: str
    result: str
    ms: float
    sources: Texts = []
    digest: str = ""


class CallEdited(OfRun):
    """A person wants a call made with other arguments."""

    type: Literal["call.edited"]
    call: str
    became: str
    arguments: Texts


class Endorsement(OfRun):
    """A value was checked, and is trusted from here on."""

    type: Literal["endorsement"]
    sources: Texts
    reason: str
    tool: str
    parameter: str


class Reveal(OfRun):
    """Content left its wrapper outside of a guarded body."""

    type: Literal["reveal"]
    sources: Texts
    reason: str
    call: str


class CanaryAnswered(Entry):
    """A question that nobody meant, and how it was answered."""

    type: Literal["canary.answered"]
    confirmation: str
    by: str
    caught: bool
    asked: Value
    letters: int


class AnswerRefused(Entry):
    """Somebody answered who may not."""

    type: Literal["answer.refused"]
    confirmation: str
    by: str
    reason: str


class Erasure(Entry):
    """Values that entries commit to were erased."""

    type: Literal["erasure"]
    by: str
    reason: str
    index: int = -1
    field: str = ""
    commitments: Texts = []
    key: str = ""


class Export(Entry):
    """Entries were exported as evidence."""

    type: Literal["export"]
    by: str
    entries: int
    chosen: dict[str, Value]
    disclosed: Texts
    manifest: str


class Incident(Entry):
    """Somebody calls something an incident."""

    type: Literal["incident"]
    about: str
    by: str
    reason: str


class KeyChanged(Entry):
    """The log is handed over to another key."""

    type: Literal["log.key"]
    old: str
    new: str
    size: int
    by_old: str
    by_new: str


class KeyRevoked(Entry):
    """A former key vouches for nothing any more."""

    type: Literal["log.key.revoked"]
    key: str
    size: int
    reason: str
    by: str


AnyEntry = Annotated[
    Union[  # noqa: UP007 (pydantic reads a tuple of many members best)
        RunOpened, RunSuspended, RunClosed, RunExposed, RunStopped, RunPlan, Instruction, Prompt,
        Host, Unknown, Model, Quarantine, Trusted, CallDecided, ConfirmationAsked,
        ConfirmationAnswered, CallOutcome, CallEdited, Endorsement, Reveal, CanaryAnswered,
        AnswerRefused, Erasure, Export, Incident, KeyChanged, KeyRevoked,
    ],
    Field(discriminator="type"),
]  # fmt: skip
_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyEntry)


def parse_entry(event: dict[str, Any], *, strict: bool = True) -> Entry | None:
    """Return the model of an entry.

    Args:
        event: its JSON, as `read_entries` gives it.
        strict: refuse what this version does not know, too. Otherwise fields that it does not
            know are left out, and a type that it does not know gives None.

    Raises:
        TamperedError: the entry is not as its type and version say.

    Example:
        >>> event = {"v": 1, "type": "trusted", "time": 0, "run": "r", "seq": 0, "values": 2}
        >>> parse_entry(event).values
        2
    """
    try:
        found: Entry = _ADAPTER.validate_python(event)
    except ValidationError as error:
        kinds = {one["type"] for one in error.errors()}
        if not strict and kinds == {"union_tag_invalid"} and type(event["type"]) is str:
            return None
        if not strict and kinds == {"extra_forbidden"}:
            unknown = {one["loc"][-1] for one in error.errors()}
            known = {name: value for name, value in event.items() if name not in unknown}
            return parse_entry(known)
        places = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors() if one["loc"]}))
        raise TamperedError(
            f"the entry is not one of this schema: {places}", where="entry"
        ) from None
    return found


def json_schema() -> JsonSchemaValue:
    """Return the JSON Schema of all entries."""
    return _ADAPTER.json_schema() | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Entries of a checkrein log, version {VERSION}",
    }

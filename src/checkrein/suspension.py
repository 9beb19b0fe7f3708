"""A run that waits without a process: its state as one sealed text.

``run.suspend(key)`` ends the run here; ``Run.resume(text, key, ...)`` goes on with it in
another process, days later if need be. The text holds what the run has become and must
not be forgotten: what it has seen and holds, its evidence, the markers that it has
issued, what a person has refused, the definitions of the tools it knows, its plan, and
the questions that are open. It does not hold what is the host's to keep: the messages,
the tools, the gate, the log, the store.

::

    cr1.<base64url of  nonce[12]  AES-256-GCM(state)>

The key of the cipher is HKDF-SHA256 (RFC 5869) of the given key, with ``info``
``checkrein/run/v1``; the additional data are ``checkrein/run/v1``, LF, and the context. So
nobody without the key can read the state, change it, or pass off one conversation's for
another's where the application gives each a context of its own.

A state may be resumed more than once: a process that dies after resuming must not lose
the conversation. What must not happen twice is kept from it elsewhere: a confirmed call
by the gate, which hands out an answer once, a budget by the store.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from checkrein.confirmations import read_question, to_text
from checkrein.encodings import from_text
from checkrein.encodings import to_text as as_text
from checkrein.errors import ConfigurationError, GrantError, MisuseError, TamperedError
from checkrein.freezing import Unfreezable, freeze, thaw
from checkrein.grants import Grant, note_expired, policy_of, was_seen_expired
from checkrein.isolation import PROCESS_MARKS, Isolation, RunMarks
from checkrein.rules import RunState
from checkrein.sealing import check_key, label_of, sources_tree
from checkrein.setups import both_pins
from checkrein.standing import Leave
from checkrein.untrusted import Untrusted, content
from checkrein.wire import permission_of, permission_tree, value_of, value_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from checkrein.labels import Label
    from checkrein.runs import Run

_VERSION: Final = "cr1"
_PREFIX: Final = b"checkrein/run/v1\n"
_NONCE: Final = 12
_MOST_CONTENT: Final = 1 << 18  # bytes of content that is kept to tell people what stands where


# -- sealing -------------------------------------------------------------------------------


def sealed(state: dict[str, Any], key: bytes, context: str) -> str:
    """Return *state* as one sealed text."""
    nonce = os.urandom(_NONCE)
    body = json.dumps(state, separators=(",", ":"), allow_nan=False).encode()
    return f"{_VERSION}.{as_text(nonce + _cipher(key).encrypt(nonce, body, _place(context)))}"


def unsealed(text: str, key: bytes, context: str) -> dict[str, Any]:
    """Return the state that was sealed.

    Raises:
        TamperedError: the text was not sealed under this key for this context.
        ConfigurationError: the key has fewer than 32 bytes.
    """
    cipher = _cipher(key)
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 (the cipher has loaded it)

    version, _, rest = text.partition(".") if isinstance(text, str) else ("", "", "")
    try:
        data = from_text(rest if version == _VERSION else "")
        body = cipher.decrypt(data[:_NONCE], data[_NONCE:], _place(context))
    except (ValueError, InvalidTag):
        raise TamperedError(
            "this is no state of a run, or was changed, or is sealed with another key or context"
        ) from None
    state: dict[str, Any] = json.loads(body)
    return state


def _cipher(key: bytes) -> Any:
    check_key(key)
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 (heavy)
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    return AESGCM(HKDF(SHA256(), 32, salt=None, info=_PREFIX).derive(key))


def _place(context: str) -> bytes:
    if not isinstance(context, str):
        raise ConfigurationError("context= takes a text: the id of the conversation, for example")
    return _PREFIX + context.encode("utf-8", "surrogatepass")


# -- what is kept --------------------------------------------------------------------------


def state_of(run: Run) -> dict[str, Any]:
    """Return what a run has become, as JSON data.

    Raises:
        MisuseError: something in it has no text.
    """
    try:
        return _state_of(run)
    except (GrantError, Unfreezable) as problem:
        raise MisuseError(f"the run cannot be suspended: {problem}") from None


def _state_of(run: Run) -> dict[str, Any]:
    labels, held = run.marks.kept()
    isolation, state = run.marks.isolation, run.state
    return {
        "v": 1,
        "agent": run.agent,
        "runs": list(run.terms.runs),
        "grants": [_grant_state(one) for one in run.links],
        "plan": _plan_state(run),
        "taken": _taken(run, run.terms.chain),
        "logged": run.log is not None,
        "subject": run.subject,
        "needed": getattr(run.approvers, "needed", 1) if run.approvers is not None else 0,
        "pins": {name: pin.hex() for name, pin in run.known_definitions().items()},
        "salt": run._salt.hex(),
        "nonce": run.marks.nonce,
        "letter": run.marks.letter,
        "isolation": [isolation.mode, sorted(isolation.keep), isolation.ingest],
        "labels": [_label_tree(one) for one in labels],
        "held": [[value_tree(freeze(value)), _label_tree(label)] for value, label in held],
        "contents": _contents(run),
        "evidence": run.flow.evidence.kept(),
        "flags": {
            name: getattr(state, name)
            for name in ("exposed", "private", "unasked", "locked", "stopped")
        },
        "refused": sorted(one.hex() for one in state.refused),
        "denials": run._denials,
        "latest": run.now(),
        "questions": [to_text(one) for one in run.questions.parked],
        "standing": [one.kept() for one in run.questions.leaves],
    }


def _grant_state(grant: Grant) -> dict[str, Any]:
    return {
        "id": grant.id,
        "signed": grant.signed,
        "digest": policy_of([grant]),
        "expires": grant.expires,
        "not_before": grant.not_before,
    }


def _taken(run: Run, chain: Iterable[Grant]) -> dict[str, int]:
    """Return how much of each budget was taken for good."""
    now = run.now()
    uses = (use for grant in chain for use in grant.budgets() if not use.window)
    return {use.key: taken for use in uses if (taken := run.store.taken(use, now))}


def _plan_state(run: Run) -> dict[str, Any] | None:
    if run.terms.planned is None:
        return None
    plan = run.terms.chain[-1]
    return {
        "id": plan.id,
        "permissions": [permission_tree(one) for one in plan.permissions],
        "definitions": sorted(one.hex() for one in run.terms.planned),
    }


def _contents(run: Run) -> list[Any]:
    """Return the newest pieces of content: people are told in which of them a value stands."""
    kept: list[Any] = []
    room = _MOST_CONTENT
    for box in reversed(run.flow.contents):
        try:
            tree = [value_tree(freeze(content(box))), _label_tree(box.label)]
        except (GrantError, Unfreezable):
            continue
        room -= len(json.dumps(tree))
        if room < 0:
            break
        kept.insert(0, tree)
    return kept


def _label_tree(label: Label) -> list[Any]:
    return [sources_tree(label), label.private]


def _label_of(tree: list[Any]) -> Label:
    return label_of(tree[0], private=tree[1])


# -- going on ------------------------------------------------------------------------------


def _links_for(state: dict[str, Any], links: Sequence[Grant]) -> tuple[Grant, ...]:
    """Return the grants of a resumed run: those that are given, under the ids that they had.

    A grant that nobody has signed is made anew by the program in each process. It is the
    same if it allows the same; it expires when the first one would have.

    Raises:
        ConfigurationError: they do not allow what those of the suspended run allowed.
    """
    before = state["grants"]
    same = len(before) == len(links) and all(
        old["digest"] == policy_of([one])
        and old["signed"] == one.signed
        and old["not_before"] == one.not_before
        and (old["id"] == one.id or not one.signed)
        for old, one in zip(before, links, strict=True)
    )
    if not same:
        raise ConfigurationError(
            "the grant is not the one that the run was suspended with: resume it with the same, "
            "or open a new run"
        )
    return tuple(_again(old, one) for old, one in zip(before, links, strict=True))


def _again(old: dict[str, Any], grant: Grant) -> Grant:
    if grant.signed:
        return grant
    ends = [one for one in (old["expires"], grant.expires) if one is not None]
    made = Grant(*grant.permissions, id=old["id"])
    object.__setattr__(made, "expires", min(ends, default=None))
    object.__setattr__(made, "not_before", grant.not_before)
    if was_seen_expired(grant):
        note_expired(made)
    return made


def isolation_of(state: dict[str, Any]) -> Isolation:
    """Return how the suspended run has shown content."""
    mode, keep, ingest = state["isolation"]
    return Isolation(mode, frozenset(keep), ingest)


def _plan_of(state: dict[str, Any]) -> tuple[Grant, frozenset[bytes]] | None:
    """Return the plan that the suspended run followed, and the definitions of its tools."""
    plan = state["plan"]
    if plan is None:
        return None
    grant = Grant(*map(permission_of, plan["permissions"]), id=plan["id"])
    return grant, frozenset(map(bytes.fromhex, plan["definitions"]))


def restore(run: Run, state: dict[str, Any]) -> None:
    """Give a new run what the suspended one had seen and issued.

    Raises:
        ConfigurationError: its grant is another one.
    """
    _take_terms(run, state)
    _check_company(run, state)
    run._salt = bytes.fromhex(state["salt"])  # a call refused there is known as refused here
    run._resumes = state["runs"][0]
    run._denials = state["denials"]
    run.subject = run.subject or state["subject"]
    run._latest = max(run._latest, state["latest"])
    run._ahead = run._latest - time.monotonic()
    refused = frozenset(map(bytes.fromhex, state["refused"]))
    run._state = RunState(refused=refused, **state["flags"])
    run.marks = RunMarks(state["nonce"], run.marks.isolation)
    run.readable = (run.marks, PROCESS_MARKS)
    run.marks.keep(
        map(_label_of, state["labels"]),
        ((thaw(value_of(value)), _label_of(label)) for value, label in state["held"]),
        state["letter"],
    )
    run.flow.evidence.keep(state["evidence"])
    for value, label in state["contents"]:
        run.flow.contents.append(Untrusted(thaw(value_of(value)), label=_label_of(label)))
    run.questions.keep(read_question(one) for one in state["questions"])
    run.questions.grant(map(Leave, state["standing"]))


def _check_company(run: Run, state: dict[str, Any]) -> None:
    """Refuse to go on with less than the first run had: nobody should gain by suspending it."""
    if state["logged"] and run.log is None:
        raise ConfigurationError("the run was logged: resume it with log=")
    if state["needed"] and getattr(run.approvers, "needed", 0) < state["needed"]:
        raise ConfigurationError(
            "the run had approvers, whose signatures count: resume it with as many, approvers="
        )
    taken = _taken(run, run._chain)
    if any(taken.get(key, 0) < amount for key, amount in state["taken"].items()):
        raise ConfigurationError(
            "the store does not know what was used of the budgets: resume the run with its own"
        )


def _take_terms(run: Run, state: dict[str, Any]) -> None:
    links, plan = _links_for(state, run.links), _plan_of(state)
    run.grant, run.links = links[-1], links
    run._chain = links if plan is None else (*links, plan[0])
    run.grant_ids = [one.id for one in run._chain]
    known = {name: bytes.fromhex(pin) for name, pin in state["pins"].items()}
    run._terms = replace(
        run._terms,
        chain=run._chain,
        pins=both_pins(run._terms.pins, known),
        vouching=frozenset({links[0].id} if plan is None else {links[0].id, plan[0].id}),
        planned=None if plan is None else plan[1],
        runs=(run.id, *state["runs"]),
    )
    run._plans = {}

"""What can go wrong, as one tree.

::

    CheckreinError
    ├── Denied                          policy said no
    ├── Suspended                       a person has yet to answer; call again later
    │   └── ConfirmationPending         the question lies in a queue
    ├── MisuseError (TypeError)         the caller misused this library
    ├── ConfigurationError (ValueError) a grant, a gate or a log was set up wrongly
    ├── GrantError                      a signed grant is not what it should be
    ├── TamperedError                   data was changed by somebody
    │   └── RollbackError               a log has less than a head that it signed before
    ├── InDoubt                         nobody knows whether the action has happened
    ├── StoreError                      the store cannot be read or written (checkrein.store)
    └── LogError                        the audit log cannot take or give an entry
        └── Unrecorded                  the action happened, its record did not

"Denied" is not "broken": a retry loop may catch what is broken, and must not
turn a denial into an attempt with other words. For the same reason ``Denied``
is no ``OSError`` (file code swallows those) and never a ``BaseException``
(some agent frameworks lose or hang on those).

Each error has one string argument that is safe to show to a model: it holds
no argument value. What a program needs is in typed attributes.
"""

from __future__ import annotations


class CheckreinError(Exception):
    """The root: ``except CheckreinError`` catches all that this library raises."""


class Denied(CheckreinError):
    """Policy said no. The tool's body did not run.

    Attributes:
        rule: the stable id of the rule that decided, ``permission.missing`` for example.
        tool: the name of the tool.
        call: the id of the call in the audit log, ``""`` where no run was active.
        arguments: the names of the arguments that the findings are about.
    """

    def __init__(
        self,
        message: str,
        *,
        rule: str = "",
        tool: str = "",
        call: str = "",
        arguments: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.rule = rule
        self.tool = tool
        self.call = call
        self.arguments = arguments


class Suspended(CheckreinError):
    """A person has yet to answer; nothing ran, and no budget was used.

    Attributes:
        tool: the name of the tool.
        call: the id of the call.
        confirmation: the id of the open confirmation.
    """

    def __init__(
        self, message: str, *, tool: str = "", call: str = "", confirmation: str = ""
    ) -> None:
        super().__init__(message)
        self.tool = tool
        self.call = call
        self.confirmation = confirmation


class ConfirmationPending(Suspended):
    """The question lies in a queue, and nobody has answered it yet. The process may end.

    The same call, made again in the run or in the one that resumes it, gets the answer.
    """


class MisuseError(CheckreinError, TypeError):
    """The caller misused this library; the message says how to do it right."""


class ConfigurationError(CheckreinError, ValueError):
    """A grant, a constraint, a gate or a log was set up wrongly."""


class GrantError(CheckreinError):
    """A signed grant cannot be read, is not signed as it should be, or widens what it narrows."""


class TamperedError(CheckreinError):
    """Data that must not change was changed.

    Attributes:
        where: the file, entry or field that does not agree with the rest.
    """

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(message)
        self.where = where


class RollbackError(TamperedError):
    """A log ends before a head that it has signed: it was cut back, or an old copy was put there.

    It takes no more entries, since it would tell a second story under the same name.
    """


class LogError(CheckreinError):
    """The audit log cannot take or give an entry."""


class InDoubt(CheckreinError):
    """Nobody knows whether the action has happened: the connection broke after it was asked for.

    For the bodies of tools to raise. The log has the call as ``in doubt``, and a desk keeps the
    answer that let it run (``desk.in_doubt()``), instead of taking it for done or undone.
    """


class Unrecorded(LogError):
    """The action happened, its outcome could not be recorded. Do not retry.

    Attributes:
        result: what the tool returned.
        tool: the name of the tool.
        call: the id of the call, whose intent is in the log.
    """

    def __init__(
        self, message: str, *, result: object = None, tool: str = "", call: str = ""
    ) -> None:
        super().__init__(message)
        self.result = result
        self.tool = tool
        self.call = call

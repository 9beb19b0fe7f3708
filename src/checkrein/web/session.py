"""Who is signed in: links that are good once, and sessions that end.

Secrets are looked up by their SHA-256, so how long a look-up takes says nothing of them,
and what is kept here signs nobody in.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Final, NamedTuple, final

from checkrein.errors import ConfigurationError
from checkrein.ports import Clock
from checkrein.visible import visible

LINK_LASTS: Final = 600.0
"""For how many seconds a link is good."""
SESSION_LASTS: Final = 8 * 3600.0
"""For how many seconds somebody stays signed in."""


@dataclass(slots=True)
class Session:
    """Somebody who is signed in.

    Attributes:
        name: who; it stands in their verdicts.
        ends: when it ends, in seconds since the epoch.
        token: what forms carry, to be told from those of other sites.
        notice: what the next page says once.
    """

    name: str
    ends: float
    token: str = field(default_factory=secrets.token_urlsafe, repr=False)
    notice: str = ""

    def owns(self, token: str) -> bool:
        """Say whether a form is of this session."""
        return secrets.compare_digest(self.token.encode(), token.encode("utf-8", "replace"))


class _Link(NamedTuple):
    name: str
    ends: float


@final
class Sessions:
    """The links that were given out, and who is signed in.

    Args:
        clock: tells the time.

    Example:
        >>> sessions = Sessions(lambda: 0.0)
        >>> token = sessions.invite("dana")
        >>> key = sessions.enter(token)
        >>> sessions.find(key).name, sessions.enter(token)
        ('dana', None)
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._links: dict[bytes, _Link] = {}
        self._sessions: dict[bytes, Session] = {}

    def invite(self, name: str) -> str:
        """Return the secret of a link that signs *name* in, once.

        Raises:
            ConfigurationError: it is no name, or one that looks like several.
        """
        if not name.strip() or "," in name or visible(name) != name:
            raise ConfigurationError("a name is visible letters without a comma: --by dana")
        secret = secrets.token_urlsafe()
        with self._lock:
            self._forget()
            self._links[_hashed(secret)] = _Link(name, self._clock() + LINK_LASTS)
        return secret

    def invited(self, secret: str) -> str | None:
        """Return whom a link would sign in, ``None`` if it is not good (any more)."""
        with self._lock:
            self._forget()
            link = self._links.get(_hashed(secret))
        return None if link is None else link.name

    def enter(self, secret: str) -> str | None:
        """Use a link up; return the secret of a new session, ``None`` if it is not good."""
        key = secrets.token_urlsafe()
        with self._lock:
            self._forget()
            link = self._links.pop(_hashed(secret), None)
            if link is None:
                return None
            self._sessions[_hashed(key)] = Session(link.name, self._clock() + SESSION_LASTS)
        return key

    def find(self, secret: str | None) -> Session | None:
        """Return the session of a cookie, ``None`` if there is none (any more)."""
        with self._lock:
            self._forget()
            return None if secret is None else self._sessions.get(_hashed(secret))

    def leave(self, secret: str | None) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_hashed(secret or ""), None)

    def _forget(self) -> None:
        now = self._clock()
        self._links = {key: one for key, one in self._links.items() if now < one.ends}
        self._sessions = {key: one for key, one in self._sessions.items() if now < one.ends}


def _hashed(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "replace")).digest()

r"""Asking witnesses to cosign a log (C2SP tlog-witness): the client.

::

    POST <url>/add-checkpoint

    "old " size "\n"                 of the tree that the witness has seen last
    base64(hash[32]) "\n" ...        the proof that the head extends that tree, 63 lines at most
    "\n"
    the head, a signed note

    200  signature lines             cosignatures of the head
    409  size "\n"                   the witness has seen a tree of another size last
    422                              the head does not extend the tree that it has seen
    others                           it will not: 403 bad signature, 404 unknown log

`cosign` asks every witness of a policy that has a URL, at the same time:

1. The published head must be signed by a log of the policy, and extend the head that was
   witnessed last, which lies in ``.state/witnessed``.
2. Each witness gets the proof from the size at which it cosigned that last head, or from 0.
   Every proof leads to the head's root before it is sent, so that a broken tile here is
   not taken for a fork.
3. On a 409, the size told is used, once. A size that this log does not have yet, and any
   422, mean that the witness has seen another past than the one that lies here: that is a
   `TamperedError`, whatever the other witnesses say. It is raised last, so that a witness
   that lies raises an alarm, and does not keep the others' word from being kept.
4. A cosignature is believed when it verifies, by the witness's own key, for this head, and
   is dated, not more than `AHEAD` seconds into the future. Other lines are ignored.
5. If what was gathered, with what the head and the last note for it had before, is a
   quorum, it is written to ``.state/witnessed``: whole or not at all, and never a smaller
   head than before. Else nothing is written, and the error says which witness failed how.

URLs are ``https``, or ``http`` for this machine's own loopback interface. No redirect is
followed and no proxy is used. An answer is read up to 64 KiB and within the timeout,
connections that fail are tried again.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Timer
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from tenacity import (
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from checkrein.errors import ConfigurationError, LogError, TamperedError
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.disk import Disk, as_log_error, read_file
from checkrein.log.locking import locked
from checkrein.log.note import MAX_NOTE, Signature, signature_line, split_lines, split_note
from checkrein.log.policy import AHEAD
from checkrein.log.stored import consistency_to

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from checkrein.log.policy import Policy, Witness, Witnessed

MAX_PROOF: Final = 63
SIZE_TYPE: Final = "text/x.tlog.size"
_AT_ONCE: Final = 16
_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


class Answer(NamedTuple):
    """What a witness says: the status, the media type and the body."""

    status: int
    kind: str
    body: bytes


def cosign(
    directory: str | os.PathLike[str],
    policy: Policy,
    *,
    timeout: float = 10.0,
    attempts: int = 3,
    pause: float = 0.2,
    tls: ssl.SSLContext | None = None,
    clock: Callable[[], float] = time.time,
) -> str:
    """Have the published head of a log cosigned by the witnesses of a policy.

    Args:
        directory: the log's directory. The log may be open meanwhile.
        policy: the log's key, its witnesses with their URLs, and what is a quorum.
        timeout: for how many seconds to connect, and to wait for the whole answer.
        attempts: how often a connection is tried.
        pause: the seconds before the second attempt; they grow, at random, to 5 at most.
        tls: which certificates are good; the system's if left out.
        clock: gives POSIX seconds.

    Returns:
        The head with its cosignatures, a signed note; also in ``.state/witnessed``. It may
        replace ``checkpoint`` on the server that publishes the log.

    Raises:
        ConfigurationError: the policy does not name the log, or a URL is not what it should be.
        TamperedError: the head is not signed by the log, or does not extend what was witnessed:
            the log was rolled back or forked.
        LogError: no quorum, no published head, or files cannot be read or written.

    Example:
        >>> cosign("audit/", parse_policy(Path("policy").read_text()))  # doctest: +SKIP
    """
    asking = [_Asking(one, timeout, attempts, pause, tls) for one in policy.witnesses if one.url]
    if not asking:
        raise ConfigurationError("no witness in the policy has a URL: witness <name> <vkey> <url>")
    path = Path(directory)
    _published(path, policy)
    with as_log_error(f"creating {path / '.state'}"):
        Disk().make_directory(path / ".state")
    with locked(path / ".state" / "witnessed.lock"):
        # Read under the lock: no other process has a larger head witnessed meanwhile.
        return _Round(path, policy, _published(path, policy), clock).gather(asking)


def await_quorum(
    directory: str | os.PathLike[str], policy: Policy, index: int, within: float
) -> str:
    """Return a head that covers entry *index* and that a quorum has cosigned; ask until then.

    Args:
        directory: the log's directory, in which that entry is published.
        policy: as for `cosign`.
        index: the number of the entry.
        within: for how many seconds to ask again.

    Raises:
        LogError: there was no quorum in time.
        TamperedError: as from `cosign`.
    """
    kept = read_file(Path(directory) / ".state" / "witnessed")
    with suppress(TamperedError):
        if kept is not None and _covers(kept, index, policy):
            return kept.decode()
    again = Retrying(
        retry=retry_if_exception_type(LogError),
        stop=stop_after_delay(within),
        wait=wait_random_exponential(0.2, max=10),
        reraise=True,
    )
    return again(cosign, directory, policy, timeout=min(10.0, within))


def _covers(note: bytes, index: int, policy: Policy) -> bool:
    found = policy.check(note)
    return found.holds and found.checkpoint.size > index


def request_of(old: int, proof: Sequence[bytes], note: str) -> bytes:
    """Return the body of an ``add-checkpoint`` request."""
    lines = "".join(base64.b64encode(one).decode("ascii") + "\n" for one in proof)
    return f"old {old}\n{lines}\n{note}".encode()


class _Round:
    """One head, and what the witnesses say to it."""

    def __init__(
        self, directory: Path, policy: Policy, note: str, clock: Callable[[], float]
    ) -> None:
        self._directory, self._policy, self._note, self._clock = directory, policy, note, clock
        self._place = directory / ".state" / "witnessed"
        self._head = policy.check(note).checkpoint
        self._last = self._read_last()

    def gather(self, asking: Sequence[_Asking]) -> str:
        """Ask, merge, and keep what is a quorum."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            waiting = [(one, pool.submit(self._ask, one)) for one in asking]
        found: list[Signature] = []
        failed: list[str] = []
        alarms: list[TamperedError] = []
        for one, future in waiting:
            try:
                found.append(future.result())
            except LogError as error:
                failed.append(f"{one.witness.name}: {error}")
            except TamperedError as error:
                alarms.append(error)
        merged = self._merge(found)
        witnessed = self._policy.check(merged, now=int(self._clock()))
        if witnessed.holds:
            with as_log_error(f"writing {self._place}"):
                Disk().write_files({self._place: merged.encode()})
        for alarm in alarms:
            raise alarm
        if not witnessed.holds:
            raise LogError("; ".join([witnessed.shortfall, *failed]))
        return merged

    def _read_last(self) -> Witnessed | None:
        """Return what was witnessed last, which the head must extend."""
        data = read_file(self._place)
        if data is None:
            return None
        try:
            last = self._policy.check(data)
        except TamperedError as error:
            raise TamperedError(
                f"{self._place} does not hold what this policy believes: {error}; if the policy "
                "was changed, move that file away",
                where=".state/witnessed",
            ) from None
        old = last.checkpoint
        if (
            old.origin != self._head.origin
            or old.size > self._head.size
            or consistency_to(self._directory, old.size, self._head)[0] != old.root
        ):
            raise TamperedError(
                f"the published head does not extend the one of {old.size} entries that was "
                "witnessed last: the log was rolled back or forked",
                where="checkpoint",
            )
        return last

    def _ask(self, one: _Asking) -> Signature:
        last = self._last
        names = () if last is None else [seen.witness for seen in last.seen]
        old = last.checkpoint.size if last is not None and one.witness.name in names else 0
        answer = self._send(one, old)
        if answer.status == 409:
            told = _SIZE.fullmatch(answer.body)
            if told is None:
                raise LogError("it answered 409 without a size")
            if int(told[1]) > self._head.size:
                raise TamperedError(
                    f"the witness {one.witness.name} has cosigned a larger head of this log than "
                    f"the one of {self._head.size} entries that is published here: the log was "
                    "rolled back, or this is an old copy",
                    where="checkpoint",
                )
            answer = self._send(one, int(told[1]))
        if answer.status == 422:
            raise TamperedError(
                f"the witness {one.witness.name} has seen a head of this log that the one "
                "published here does not extend: a fork",
                where="checkpoint",
            )
        if answer.status != 200:
            raise LogError(f"it answered {answer.status}")
        return self._believe(one.witness, answer.body)

    def _send(self, one: _Asking, old: int) -> Answer:
        _, proof = consistency_to(self._directory, old, self._head)
        return one.post(request_of(old, proof, self._note))

    def _believe(self, witness: Witness, body: bytes) -> Signature:
        """Return the cosignature by *witness* in its answer, once it is verified."""
        text, _ = split_note(self._note)
        latest, found = self._clock() + AHEAD, list[tuple[int, Signature]]()
        try:
            lines = split_lines(body.decode())
        except (UnicodeError, TamperedError):
            raise LogError("its answer cannot be read") from None
        for line in lines:
            if (line.name, line.key_id) == (witness.key.name, witness.key.key_id):
                stamp = witness.key.time_of(text.encode(), line.signature)
                if not stamp or stamp > latest:
                    raise LogError("its cosignature is not one of this head, dated by now")
                found.append((stamp, line))
        if not found:
            raise LogError("its answer holds no cosignature by its key")
        return max(found)[1]

    def _merge(self, found: Iterable[Signature]) -> str:
        """Return the note with the newest cosignature of each witness; all were verified."""
        text, lines = split_note(self._note)
        last = read_file(self._place) if self._last is not None else None
        if last is not None and split_note(last)[0] == text:
            lines += split_note(last)[1]
        witnesses = {(one.key.name, one.key.key_id) for one in self._policy.witnesses}
        newest: dict[tuple[str, bytes], Signature] = {}
        for line in [*lines, *found]:
            who = line.name, line.key_id
            # The first eight bytes of a cosignature are its time.
            if who not in newest or (who in witnesses and line.signature > newest[who].signature):
                newest[who] = line
        return f"{text}\n{''.join(map(signature_line, newest.values()))}"


class _Asking:
    """How one witness is asked."""

    def __init__(
        self,
        witness: Witness,
        timeout: float,
        attempts: int,
        pause: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.witness, self._timeout, self._tls = witness, timeout, tls
        self._secure, self._host, self._port, self._path = _address(witness)
        self._retrying = Retrying(
            stop=stop_after_attempt(attempts),
            wait=wait_random_exponential(multiplier=pause, max=5),
            retry=retry_if_exception_type((OSError, http.client.HTTPException)),
            reraise=True,
        )

    def post(self, body: bytes) -> Answer:
        """Send an ``add-checkpoint`` request; sent twice it does no harm.

        Raises:
            LogError: no answer.
        """
        try:
            return self._retrying.copy()(self._post, body)
        except (OSError, http.client.HTTPException) as error:
            raise LogError(f"it cannot be asked ({type(error).__name__})") from error

    def _post(self, body: bytes) -> Answer:
        connection = self._connection()
        try:
            connection.connect()
            # The socket's own timeout is one for each packet: drops would hold us up for ever.
            late = Event()
            watch = Timer(self._timeout, _cut, [connection.sock, late])
            watch.daemon = True
            watch.start()
            try:
                connection.request("POST", self._path, body, {"User-Agent": "checkrein"})
                with connection.getresponse() as response:
                    data = response.read(MAX_NOTE + 1)
            finally:
                watch.cancel()
        finally:
            connection.close()
        if late.is_set():  # what was read then only looks like a whole answer
            raise TimeoutError("the answer took too long")
        if len(data) > MAX_NOTE:
            raise LogError(f"its answer is longer than {MAX_NOTE} bytes")
        return Answer(response.status, response.getheader("Content-Type", ""), data)

    def _connection(self) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        tls = self._tls or ssl.create_default_context()
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout, context=tls
        )


def _cut(connected: socket.socket, late: Event) -> None:
    late.set()
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _address(witness: Witness) -> tuple[bool, str, int | None, str]:
    """Return whether by TLS, host, port and path of a witness."""
    try:
        parts = urlsplit(witness.url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    plain = parts.scheme == "http" and is_loopback(host)
    extra = parts.query or parts.fragment or parts.username or parts.password
    if not host or extra or not witness.url.isascii() or not (parts.scheme == "https" or plain):
        raise ConfigurationError(
            f"the URL of the witness {witness.name} is not https://host[:port][/path]; http is for "
            "this machine's loopback interface only"
        )
    return parts.scheme == "https", host, port, f"{parts.path.rstrip('/')}/add-checkpoint"


def is_loopback(host: str) -> bool:
    """Tell whether *host* is this machine's own loopback interface."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _published(directory: Path, policy: Policy) -> str:
    """Return the published head, if the policy knows its log."""
    data = read_file(directory / "checkpoint")
    if data is None:
        raise LogError(f"there is no published log in {directory}")
    if not policy.keys_of(open_checkpoint(data, None).origin):
        raise ConfigurationError(f"the policy does not name the log in {directory}")
    return data.decode()

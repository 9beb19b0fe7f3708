r"""Being a witness (C2SP tlog-witness): the server.

::

    POST /add-checkpoint                 see `checkrein.log.witness`; the answer, in this order:
      400  cannot be read: a request line, a proof of over 63 lines, the note, its checkpoint
      404  the origin is not one of the logs
      403  no signature by a key of that log, or a wrong one
      400  the old size is larger than the head's
      409  the old size is not that of the head cosigned last; "<that>\n", text/x.tlog.size
      422  an empty tree with another root; a proof from size 0; a proof that does not hold;
           the same size with another root
      200  a cosignature line for each key
    GET /<SHA-256(origin), hex>/checkpoint
      200  the head cosigned last, with the log's signatures and ours;  404  there is none

    <state>/<SHA-256(origin), hex>         that head, as GET gives it
    <state>/<SHA-256(origin), hex>.lock    held from reading that file until it is replaced
    <state>/<SHA-256(origin), hex>.fork    two heads of one size that the log has signed

The one promise: no head is cosigned that does not extend every head of its log that was
cosigned before, by any thread or process that uses this directory. The new head is on the
disk before its cosignature leaves the process; what a crash in between loses is an answer,
and the log asks again. The file is trusted for what this witness's own key has signed in
it; another, or a changed one, stops the witness for that log (500).

So a witness is as good as the memory of its directory: restored from an older backup, or
emptied, it would cosign a fork. A witness that has lost it takes a new name and key.

Times do not run backwards: a cosignature is dated now, or like the one before if the clock
was set back by no more than `AHEAD` seconds; by more, it is refused (500).

Extension lines in checkpoints are not read (400). The server speaks plain HTTP: what it
says is signed. A request has 20 seconds, from the answer to the one before; its body has at
most `MAX_REQUEST` bytes, and its length is given (411, 413). There are 64 connections at
most; the one more is closed.
"""

from __future__ import annotations

import io
import re
import socket
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from checkrein.errors import CheckreinError, ConfigurationError, LogError, TamperedError
from checkrein.lazy import logger
from checkrein.log.checkpoint import parse_checkpoint
from checkrein.log.cosignature import public_bytes
from checkrein.log.disk import Disk, as_log_error, read_file
from checkrein.log.locks import locked
from checkrein.log.merkle import EMPTY_ROOT, HASH_SIZE, check_consistency
from checkrein.log.note import (
    MAX_NOTE,
    Signature,
    decode_base64,
    open_note,
    signature_line,
    split_note,
)
from checkrein.log.policy import AHEAD
from checkrein.log.witness import MAX_PROOF, SIZE_TYPE, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from checkrein.log.checkpoint import Checkpoint
    from checkrein.log.cosignature import CosigningKey
    from checkrein.log.policy import Policy

MAX_REQUEST: Final = MAX_NOTE + 8192
_SECONDS: Final = 20.0
_CONNECTIONS: Final = 64
_TEXT: Final = "text/plain; charset=utf-8"
_OLD: Final = re.compile(r"old (0|[1-9][0-9]{0,18})")
_LENGTH: Final = re.compile(r"[0-9]{1,9}")
_MONITORED: Final = re.compile(r"/([0-9a-f]{64})/checkpoint")


class _Request(NamedTuple):
    """An ``add-checkpoint`` request; nothing in it is verified."""

    old: int
    proof: list[bytes]
    note: str
    head: Checkpoint


class _Last(NamedTuple):
    """The head of a log that was cosigned last, and the time of that."""

    size: int
    root: bytes
    time: int
    note: str


class _Refused(Exception):
    """An answer that is not a cosignature."""

    def __init__(self, status: int, why: str, kind: str = _TEXT) -> None:
        super().__init__(why)
        self.answer = Answer(status, kind, f"{why}\n".encode())


class CosigningWitness:
    """A witness: its keys, the logs that it knows, and its memory.

    Args:
        keys: each cosigns every head. They are nobody else's, and no log's.
        logs: a policy; its ``log`` lines say which logs there are, under which keys.
        state: the directory of what was cosigned; created if it is missing.
        clock: gives POSIX seconds.
        disk: the operating system.

    Raises:
        ConfigurationError: no key, no log, or a key that is a log's as well.
        LogError: *state* cannot be used, or was signed by another witness.
    """

    def __init__(
        self,
        keys: Sequence[CosigningKey],
        logs: Policy,
        state: Path,
        *,
        clock: Callable[[], float] = time.time,
        disk: Disk | None = None,
    ) -> None:
        _refuse_keys(keys, logs)
        self._keys, self._logs, self._state = keys, logs, state
        self._clock, self._disk = clock, disk or Disk()
        self._origins = {_place(log.key.name): log.key.name for log in logs.logs}
        with as_log_error(f"creating {state}"):
            self._disk.make_directory(state)
        for origin in self._origins.values():
            self._last(origin)

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The verifier key texts of this witness."""
        return tuple(key.vkey for key in self._keys)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer an ``add-checkpoint`` request.

        Raises:
            LogError: the memory cannot be read or written; nothing was cosigned.
        """
        try:
            request = _parse(body)
            kept = self._verified(request)
            # The old size, the proof and the new state are one step for everybody.
            with locked(self._state / f"{_place(request.head.origin)}.lock"):
                return self._cosign(request, kept)
        except _Refused as refused:
            return refused.answer

    def checkpoint(self, origin_hash: str) -> Answer:
        """Answer a monitor: the head cosigned last of the log with that hash of its origin.

        Raises:
            LogError: the memory cannot be read.
        """
        data = read_file(self._state / origin_hash) if origin_hash in self._origins else None
        if data is None:
            return Answer(404, _TEXT, b"no head of such a log was cosigned\n")
        return Answer(200, _TEXT, data)

    def _verified(self, request: _Request) -> list[Signature]:
        """Return the log's own signatures, verified."""
        keys = self._logs.keys_of(request.head.origin)
        if not keys:
            raise _Refused(404, "the origin is not one that this witness knows")
        try:
            open_note(request.note, keys)
        except TamperedError as error:
            raise _Refused(403, str(error)) from None
        if request.old > request.head.size:
            raise _Refused(400, "the old size is larger than that of the checkpoint")
        known = {(key.name, key.key_id) for key in keys}
        return [one for one in split_note(request.note)[1] if one[:2] in known]

    def _cosign(self, request: _Request, kept: list[Signature]) -> Answer:
        head, last = request.head, self._last(request.head.origin)
        if request.old != last.size:
            raise _Refused(409, str(last.size), SIZE_TYPE)
        if head.size == 0 and head.root != EMPTY_ROOT:
            raise _Refused(422, "an empty tree has another root")
        try:
            check_consistency(last.size, head.size, last.root, head.root, request.proof)
        except TamperedError as error:
            self._report(request, last)
            raise _Refused(422, str(error)) from None
        message, stamp = head.text().encode(), self._time(last.time)
        lines = [
            signature_line(Signature(key.name, key.cosigner.key_id, key.sign_at(message, stamp)))
            for key in self._keys
        ]
        # One line for each key: what a log signs a hundred times is not kept a hundred times.
        log_lines = {one[:2]: signature_line(one) for one in kept}.values()
        place = self._state / _place(head.origin)
        note = "".join([head.text(), "\n", *log_lines, *lines])
        if len(note.encode()) > MAX_NOTE:
            raise _Refused(400, "the checkpoint is too long to be cosigned")
        with as_log_error(f"writing {place}"):
            self._disk.write_files({place: note.encode()})
        return Answer(200, _TEXT, "".join(lines).encode())

    def _last(self, origin: str) -> _Last:
        """Return what was cosigned last for *origin*; size 0 if nothing was.

        Raises:
            LogError: the file was not signed by this witness.
        """
        place = self._state / _place(origin)
        data = read_file(place)
        if data is None:
            return _Last(0, EMPTY_ROOT, 0, "")
        try:
            text = open_note(data, [key.cosigner for key in self._keys])
            head = parse_checkpoint(text)
        except TamperedError as error:
            raise LogError(
                f"{place} is not what this witness has signed ({error}): it does not know any "
                "more what it has cosigned; give it a new name, key and state directory"
            ) from None
        if head.origin != origin:
            raise LogError(f"{place} is of another log")
        known = {(key.name, key.cosigner.key_id) for key in self._keys}
        stamps = [one.signature[:8] for one in split_note(data)[1] if one[:2] in known]
        return _Last(head.size, head.root, int.from_bytes(max(stamps), "big"), data.decode())

    def _time(self, last: int) -> int:
        now = int(self._clock())
        if last - now > AHEAD:
            raise LogError("the clock is behind what this witness has signed; set it right")
        return max(now, last, 1)

    def _report(self, request: _Request, last: _Last) -> None:
        """Tell the operator of a head that does not extend the last one; keep a proven fork."""
        place = self._state / f"{_place(request.head.origin)}.fork"
        proven = request.head.size == last.size and request.head.root != last.root
        logger().warning(
            "a head of %r does not extend the one of %d entries cosigned last%s",
            request.head.origin,
            last.size,
            f": a fork, see {place}" if proven else ", or its proof is wrong",
        )
        if proven and not place.exists():
            with as_log_error(f"writing {place}"):
                self._disk.write_files({place: f"{last.note}\n{request.note}".encode()})


def _parse(body: bytes) -> _Request:
    try:
        lines, gap, note = body.decode().partition("\n\n")
        head = parse_checkpoint(split_note(note)[0])
    except (UnicodeError, TamperedError):
        raise _Refused(400, "the checkpoint cannot be read") from None
    first, *rest = lines.split("\n")
    old, proof = _OLD.fullmatch(first), [decode_base64(line) for line in rest]
    hashes = [one for one in proof if one is not None and len(one) == HASH_SIZE]
    if not gap or old is None or len(hashes) != len(proof) or len(proof) > MAX_PROOF:
        raise _Refused(400, "the old size or the consistency proof cannot be read")
    return _Request(int(old[1]), hashes, note, head)


def _refuse_keys(keys: Sequence[CosigningKey], logs: Policy) -> None:
    if not keys or not logs.logs:
        raise ConfigurationError("a witness needs a key of its own, and a log to watch")
    public = {key.cosigner.public for key in keys}
    if len(public) < len(keys):
        raise ConfigurationError("a witness does not sign twice with one key")
    if any(public_bytes(log.key) in public for log in logs.logs):
        raise ConfigurationError(
            "the witness's key is the key of a log, whose heads it would vouch for itself; "
            "make another one: checkrein keys witness NAME"
        )


def _place(origin: str) -> str:
    return sha256(origin.encode()).hexdigest()


# -- HTTP ----------------------------------------------------------------------------------


class WitnessServer(ThreadingHTTPServer):
    """Serves a witness; ``serve_forever()`` does, and ``shutdown()`` ends it.

    Args:
        witness: who answers.
        host: the address to listen on.
        port: the port; 0 for a free one, which is then `server_port`.
        seconds: how long a request may take.
        connections: how many there may be at once.

    Raises:
        ConfigurationError: it cannot listen there.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        witness: CosigningWitness,
        host: str = "127.0.0.1",
        port: int = 8474,
        *,
        seconds: float = _SECONDS,
        connections: int = _CONNECTIONS,
    ) -> None:
        self.witness, self.seconds = witness, seconds
        self._slots = BoundedSemaphore(connections)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(f"cannot listen on {host}, port {port}") from error

    def server_bind(self) -> None:
        """Bind, without asking the name service who we are."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, if there is room for one."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a connection; it is closed without an answer."""
        logger().info("a connection to the witness failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "checkrein"
    sys_version = ""
    error_message_format = "%(message)s\n"
    error_content_type = _TEXT

    @property
    def _serving(self) -> WitnessServer:
        return cast("WitnessServer", self.server)

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._input = _Hurried(self.connection, self._serving.seconds)
        self.rfile = io.BufferedReader(self._input)

    def handle_one_request(self) -> None:
        self._input.restart()
        super().handle_one_request()

    def do_POST(self) -> None:
        if self.path != "/add-checkpoint":
            self._refuse(404, "there is only /add-checkpoint here")
            return
        body = self._body()
        if body is not None:
            self._answer(lambda: self._serving.witness.add_checkpoint(body))

    def do_GET(self) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body is not the next request
        asked = _MONITORED.fullmatch(self.path)
        self._answer(lambda: self._serving.witness.checkpoint(asked[1] if asked else ""))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (as it is called there)
        """Say nothing: a stranger's words do not go to the terminal."""

    def _body(self) -> bytes | None:
        """Return the body of the request, or None once it was refused."""
        lengths = self.headers.get_all("Content-Length") or []
        body = None
        if "Transfer-Encoding" in self.headers or len(lengths) != 1:
            self._refuse(411, "give the length of the body once, as Content-Length")
        elif not _LENGTH.fullmatch(lengths[0]) or int(lengths[0]) > MAX_REQUEST:
            self._refuse(413, f"a request has at most {MAX_REQUEST} bytes")
        else:
            body = self.rfile.read(int(lengths[0]))
        return body

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True  # what was not read is not the next request
        self._send(Answer(status, _TEXT, f"{why}\n".encode()))

    def _answer(self, ask: Callable[[], Answer]) -> None:
        try:
            answer = ask()
        except CheckreinError:
            logger().exception("the witness cannot answer")
            answer = Answer(500, _TEXT, b"the witness cannot answer; its operator can see why\n")
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.connection.settimeout(self._serving.seconds)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)


class _Hurried(io.RawIOBase):
    """A connection that is read until a deadline, however small the drops are."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._seconds = connection, seconds
        self._until = 0.0

    def restart(self) -> None:
        """Begin to wait for a request."""
        self._until = time.monotonic() + self._seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)

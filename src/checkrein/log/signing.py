r"""A process that holds the log's key, so that the program that writes the log does not.

::

    connection   a Unix socket; any number of requests, each answered before the next
    request      u32be length | "key\n"
                 u32be length | "old " size "\n" base64(hash) "\n" ... "\n" checkpoint
    answer       u32be length | "key " vkey "\n"
                             | "ok\n" signature[64]
                             | "at " size "\n"        the head signed last has that size
                             | "no " reason "\n"

``checkpoint`` is the text to sign, the lines before it prove that it extends the tree of *old*
entries (RFC 9162 2.1.4; at most 63). The signer has one promise: it signs no head that does not
extend every head that it has signed before. The head is in its state, on the disk, before
the signature leaves the process; the same head is signed again whenever that is asked for.

So whoever takes over the writer can append what they like, and cannot take anything back: for
that they would have to get at the signer's key or its state, which belong to another user.
On Linux the signer asks the system who connects, and answers only the users it was told of.

A head may be signed and then lost, when the writer dies before it has kept it. The signer would
refuse any other one from there. So a ledger with such a signer keeps the entries on the disk
before it asks (``.state/pending``, a frame without a head), and whoever opens the log next
asks again for the same head.

A signer whose state was lost, or put back from an older copy, signs a fork once. It trusts the
first head that it is asked for.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import socketserver
import struct
import sys
import threading
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from checkrein.errors import CheckreinError, ConfigurationError, LogError, TamperedError
from checkrein.lazy import logger
from checkrein.log.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from checkrein.log.disk import Disk, as_log_error, read_file
from checkrein.log.locks import locked
from checkrein.log.merkle import EMPTY_ROOT, check_consistency
from checkrein.log.note import Ed25519Signer, decode_base64, parse_vkey, sign_note, split_note

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

MAX_MESSAGE: Final = 1 << 14
MAX_PROOF: Final = 63
_LENGTH: Final = struct.Struct(">I")
_OLD: Final = re.compile(rb"old (0|[1-9][0-9]{0,18})")
_AT: Final = re.compile(rb"at (0|[1-9][0-9]{0,18})\n")
_UCRED: Final = struct.Struct("3i")

Prove: TypeAlias = "Callable[[int], list[bytes]]"
"""A size to the proof that the head to be signed extends the tree of that size."""


class Memory:
    """What a signer remembers, and its promise.

    Args:
        signer: the key.
        state: the directory in which the last head is kept.
        disk: the operating system.

    Raises:
        ConfigurationError: what is there was not signed with this key.
        LogError: it cannot be read or created.
    """

    def __init__(self, signer: Ed25519Signer, state: Path, disk: Disk | None = None) -> None:
        self._signer, self._disk = signer, disk or Disk()
        self._path = state / sha256(signer.name.encode()).hexdigest()
        self._lock = state / f"{self._path.name}.lock"
        with as_log_error(f"creating {state}"):
            self._disk.make_directory(state)
        self._last()

    @property
    def vkey(self) -> str:
        """The public key."""
        return self._signer.vkey

    def sign(self, old: int, proof: list[bytes], text: str) -> bytes:
        """Return the answer to a request: what it says, and the signature if it is a yes.

        Raises:
            TamperedError: the head is another log's, or does not extend the one before.
            LogError: the state cannot be read or written.
        """
        head = parse_checkpoint(text)
        if head.origin != self._signer.name:
            raise TamperedError("the head is of another log", where="head")
        with locked(self._lock):
            last = self._last()
            if old != last.size:
                return b"at %d\n" % last.size
            check_consistency(last.size, head.size, last.root, head.root, proof)
            note = sign_note(text, self._signer)
            with as_log_error("remembering the head"):
                self._disk.write_files({self._path: note.encode()})
            return b"ok\n" + split_note(note)[1][0].signature

    def _last(self) -> Checkpoint:
        note = read_file(self._path)
        if note is None:
            return Checkpoint(self._signer.name, 0, EMPTY_ROOT)
        try:
            return open_checkpoint(note, parse_vkey(self._signer.vkey))
        except TamperedError as error:
            raise ConfigurationError(
                f"{self._path} is no head that this key has signed; a signer that lost its memory "
                "needs a new key"
            ) from error


# -- the server ----------------------------------------------------------------------------


class _Handler(socketserver.BaseRequestHandler):
    """One connection."""

    server: SignerServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def handle(self) -> None:
        self.request.settimeout(self.server.patience)
        self.server.connections.add(self.request)
        with suppress(OSError):
            if not self._is_allowed():
                _send(self.request, b"no this user may not ask\n")
                return
            while (message := _receive(self.request)) is not None:
                _send(self.request, self._answer(message))

    def finish(self) -> None:
        self.server.connections.discard(self.request)

    def _is_allowed(self) -> bool:
        allowed = self.server.allowed
        if not hasattr(socket, "SO_PEERCRED"):
            return True  # the socket's mode says who may connect
        raw = self.request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return _UCRED.unpack(raw)[1] in allowed

    def _answer(self, message: bytes) -> bytes:
        if message == b"key\n":
            return f"key {self.server.memory.vkey}\n".encode()
        try:
            return self.server.memory.sign(*read_request(message))
        except TamperedError as error:
            return f"no {error}\n".encode()
        except CheckreinError as error:
            logger().error("the signer: %s", error)
            return b"no the signer cannot use its state\n"


class SignerServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves a `Memory` on a Unix socket.

    Args:
        memory: what signs.
        path: the socket; its directory is made for its owner only, and so is the socket.
        allowed: the numbers of the users who may ask; its own if left out.
        patience: for how many seconds a connection may be silent.

    Raises:
        ConfigurationError: something is at *path* that is no socket, or a server is there.
        LogError: it cannot be created.
    """

    address_family = getattr(socket, "AF_UNIX", socket.AF_INET)
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        memory: Memory,
        path: Path,
        *,
        allowed: Collection[int] | None = None,
        patience: float = 300.0,
    ) -> None:
        if sys.platform == "win32":
            raise ConfigurationError("Windows has no Unix sockets here; sign in the process")
        self.memory, self.patience = memory, patience
        self.connections: set[socket.socket] = set()
        self.allowed = frozenset(allowed if allowed is not None else {os.getuid()})
        self._path = path
        _make_room(path)
        mask = os.umask(0o177)
        try:
            with as_log_error(f"listening on {path}"):
                super().__init__(str(path), _Handler)  # type: ignore[arg-type]
        finally:
            os.umask(mask)
        if allowed is not None:  # others must be able to connect; who they are is asked
            path.chmod(0o666)
            path.parent.chmod(0o711)

    def server_close(self) -> None:
        """Stop listening, hang up, and remove the socket."""
        super().server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._path.unlink()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say that a connection failed; the others go on."""
        logger().error("the signer: a connection failed (%s)", type(sys.exception()).__name__)


def _make_room(path: Path) -> None:
    """Remove the socket of a server that is gone, and nothing else."""
    with as_log_error(f"creating {path.parent}"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise ConfigurationError(f"{path} is there, and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise LogError(f"{path} cannot be used: {error.strerror}") from error
    raise ConfigurationError(f"a signer listens on {path} already")


def read_request(message: bytes) -> tuple[int, list[bytes], str]:
    """Return old size, proof and text of a request to sign.

    Raises:
        TamperedError: it is none.
    """
    before, gap, text = message.partition(b"\n\n")
    first, *lines = before.split(b"\n")
    match = _OLD.fullmatch(first)
    if match is None or not gap or len(lines) > MAX_PROOF:
        raise TamperedError("this is no request", where="request")
    try:
        proof = [decode_base64(line.decode("ascii")) for line in lines]
        told = text.decode()
    except UnicodeError:
        raise TamperedError("this is no request", where="request") from None
    hashes = [one for one in proof if one is not None]
    if len(hashes) < len(proof):
        raise TamperedError("a hash of the proof cannot be read", where="request")
    return int(match[1]), hashes, told


def _send(connection: socket.socket, message: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(message)) + message)


def _receive(connection: socket.socket) -> bytes | None:
    """Return one message, None if there is none or it is too long."""
    head = _read(connection, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    return _read(connection, length) if length <= MAX_MESSAGE else None


def _read(connection: socket.socket, count: int) -> bytes | None:
    parts: list[bytes] = []
    while count:
        part = connection.recv(count)
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


# -- the client ----------------------------------------------------------------------------


class SocketSigner:
    """A signer whose key is in another process; pass it to ``AuditLog.open(signer=...)``.

    Args:
        path: the signer's socket.
        timeout: for how many seconds to wait for it.

    Raises:
        LogError: nobody answers there.

    Example:
        >>> signer = SocketSigner("/run/audit/signer")  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str], *, timeout: float = 10.0) -> None:
        self._connection: socket.socket | None = None
        self._path, self._timeout = Path(path), timeout
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._size = 0
        answer = self._ask(b"key\n")
        if not answer.startswith(b"key ") or not answer.endswith(b"\n"):
            raise LogError(f"what listens on {self._path} is no signer, or does not let us ask")
        self.vkey = parse_vkey(answer[4:-1].decode(errors="replace")).vkey
        self.name = parse_vkey(self.vkey).name

    def sign(self, message: bytes) -> bytes:
        """Return the signature over the head of an empty log, or the one it signed last.

        Raises:
            LogError: the signer does not sign that without a proof, or cannot be reached.
        """
        return self.sign_extending(message, lambda _: [])

    def sign_extending(self, message: bytes, prove: Prove) -> bytes:
        """Return the signature over a head.

        Args:
            message: the text of the head.
            prove: gives the proof that it extends the tree of a size.

        Raises:
            LogError: the signer refuses it, or cannot be reached.
        """
        new, answer = parse_checkpoint(message.decode()).size, b""
        for _ in range(2):
            lines = [base64.b64encode(one) for one in prove(self._size)]
            request = b"\n".join([b"old %d" % self._size, *lines, b"", message])
            answer = self._ask(request)
            if answer.startswith(b"ok\n"):
                self._size = new
                return answer[3:]
            at = _AT.fullmatch(answer)
            if at is None:
                break
            self._size = int(at[1])
            if self._size > new:
                raise LogError(
                    f"the signer has signed a head over {self._size} entries, and the log has "
                    f"{new}: it was cut back, or another log is written with this key"
                )
        told = answer.removeprefix(b"no ").decode(errors="replace").strip()
        raise LogError(f"the signer does not sign this head: {told}")

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, request: bytes) -> bytes:
        reason = ""
        with self._lock:
            for attempt in range(2):  # a signer that was started anew is asked again
                try:
                    _send(self._connected(), request)
                    answer = _receive(self._connected())
                    if answer is not None:
                        return answer
                    reason = "it hung up"
                except OSError as error:
                    reason = error.strerror or str(error)
                self.close()
                if attempt:
                    break
        raise LogError(f"the signer at {self._path} cannot be reached: {reason}")

    def _connected(self) -> socket.socket:
        if self._connection is None or self._process != os.getpid():
            self._process = os.getpid()
            self._connection = socket.socket(socket.AF_UNIX)
            self._connection.settimeout(self._timeout)
            self._connection.connect(str(self._path))
        return self._connection

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SocketSigner({self.vkey!r})"

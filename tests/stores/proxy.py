"""What lies between a client and the server, and cuts the connection where a test wants it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable


class Proxy:
    """Listens on a Unix socket in *room* and passes everything on to the server's in *behind*.

    When the client sends *cut*, the connection ends: with *deliver* after the server has got
    it, otherwise before. `meanwhile` is called in between. That happens *times* times.
    """

    def __init__(self, room: str, behind: str, *, cut: bytes, deliver: bool, times: int = 1):
        self.behind = f"{behind}/.s.PGSQL.5432"
        self.cut, self.deliver, self.times = cut, deliver, times
        self.meanwhile: Callable[[], object] = lambda: None
        self.armed = False
        self.url = f"postgresql://postgres@/postgres?host={room}"
        self._deaf: set[socket.socket] = set()  # clients that get no answer any more
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = self._socket()
        self._listener.bind(os.path.join(room, ".s.PGSQL.5432"))
        self._listener.listen()
        self._start(self._accept)

    def _socket(self) -> socket.socket:
        self._sockets.append(socket.socket(socket.AF_UNIX))
        return self._sockets[-1]

    def _start(self, work: Callable[..., object], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            server = self._socket()
            try:
                server.connect(self.behind)
            except OSError:
                self._end(client)
                continue
            self._start(self._ask, client, server)
            self._start(self._answer, client, server)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65_536):
                if self.armed and self.times and self.cut in data:
                    self.times -= 1
                    self._deaf.add(client)
                    if self.deliver:
                        server.sendall(data)
                    self.meanwhile()
                    break
                server.sendall(data)
        except OSError:
            pass
        finally:
            self._end(client, server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while (data := server.recv(65_536)) and client not in self._deaf:
                client.sendall(data)
        except OSError:
            pass
        finally:
            if client not in self._deaf:
                self._end(client, server)

    def _end(self, *ends: socket.socket) -> None:
        for one in ends:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self) -> None:
        """Take no more connections."""
        self._end(self._listener)

    def close(self) -> None:
        """End all, and let go of everything."""
        self._end(*self._sockets)
        for thread in self._threads:
            thread.join()
        for one in self._sockets:
            one.close()

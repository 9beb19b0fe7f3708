"""A proxy before an HTTP server that fails as it is told, and a store that ignores conditions."""

from __future__ import annotations

import http.client
import threading
from contextlib import contextmanager
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, status, headers, data):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))


class Faults(_Handler):
    """Forwards each request, unless ``server.fault(method, path)`` says what goes wrong.

    ``500`` and ``gone`` fail before the request is forwarded; ``late``, ``cut`` and ``half``
    after it was carried out: with another answer, none, or the first half of it.
    ``server.carried_out`` is set after a ``cut``, whose client may be gone by then.
    """

    def do_GET(self):
        body = self._body()
        fault = self.server.fault(self.command, self.path)
        if fault == "gone":
            self.close_connection = True
            return
        if fault == "500":
            self._answer(500, [], b"<html>oops</html>")
            return
        status, headers, data = self._forward(body)
        if fault == "cut":
            self.server.carried_out.set()
            self.close_connection = True
        elif fault == "late":
            self._answer(503, [], b"")
        elif fault == "half":
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(data) + 1))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        else:
            self._answer(status, headers, data)

    do_PUT = do_HEAD = do_DELETE = do_GET

    def _forward(self, body):
        target = urlsplit(self.server.target)
        connection = http.client.HTTPConnection(target.hostname, target.port, timeout=60)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in {"expect", "connection"}:
                    connection.putheader(name, value)
            connection.endheaders(body)
            with connection.getresponse() as answer:
                data = answer.read()
                dropped = {"transfer-encoding", "connection"}
                if self.command != "HEAD":
                    dropped.add("content-length")
                headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in dropped]
                return answer.status, headers, data
        finally:
            connection.close()


class Careless(_Handler):
    """Takes whatever is put there, as if there were no conditions; ``server.honours`` some."""

    def do_GET(self):
        data = self.server.objects.get(self.path)
        if data is None:
            self._answer(404, [], b"")
        else:
            self._answer(200, [("ETag", self._tag(data))], data)

    def do_PUT(self):
        data, path, asked = self._body(), self.path, self.headers
        there = self.server.objects.get(path)
        if "none" in self.server.honours and asked["If-None-Match"] and there is not None:
            self._answer(412, [], b"")
        elif "match" in self.server.honours and asked["If-Match"] not in {None, self._tag(there)}:
            self._answer(412, [], b"")
        elif "501" in self.server.honours:
            self._answer(501, [], b"")
        else:
            self.server.objects[path] = data
            self._answer(200, [("ETag", self._tag(data))], b"")

    @staticmethod
    def _tag(data):
        return f'"{md5(data or b"").hexdigest()}"'


@contextmanager
def served(handler, **settings):
    """Serve on a free port of the loopback interface; the settings become the server's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    vars(server).update(settings)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

"""A server that plays a model for the Claude Agent SDK's CLI: one tool call, then "Done."."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@contextmanager
def serving(tool: str, arguments: dict[str, Any]) -> Generator[str]:
    """Serve a model that calls *tool*, and is done when it has; give the address."""
    call = {"type": "tool_use", "id": "1", "name": tool, "input": {}}
    calls = call, {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
    says = {"type": "text", "text": ""}, {"type": "text_delta", "text": "Done."}

    class Model(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name there)
            """Keep quiet."""

        def do_POST(self) -> None:
            """Answer, as a stream of events."""
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
            block, delta = says if "tool_use" in str(asked) else calls
            message = {"id": str(len(asked)), "model": "-", "role": "assistant", "content": []}
            self.wfile.write(b"HTTP/1.0 200 OK\n\n")
            for kind, more in [
                ("message_start", {"message": {**message, "usage": {}}}),
                ("content_block_start", {"content_block": block}),
                ("content_block_delta", {"delta": delta}),
                ("content_block_stop", {}),
                ("message_stop", {}),
            ]:
                event = json.dumps({"type": kind, "index": 0, **more})
                self.wfile.write(f"event: {kind}\ndata: {event}\n\n".encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()

"""A Messages API on the loopback, with a script in place of a model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from frameworks.contract import Told, Turn, wishes_of


class Script:
    """What the model does, and what it was asked.

    Attributes:
        requests: the conversations that were sent, the oldest first.
    """

    def __init__(self, turns: Sequence[Turn], wire: Callable[[str], str]) -> None:
        self._turns, self._wire = turns, wire
        self.requests: list[dict[str, Any]] = []

    @property
    def told(self) -> list[Told]:
        """The tool results of the newest conversation."""
        return told_in(self.requests[-1]["messages"]) if self.requests else []

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools that the model was offered."""
        return self.requests[-1]["tools"] if self.requests else []

    def reply(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the content blocks of the model's next turn."""
        self.requests.append(request)
        messages = request["messages"]
        number = sum(one["role"] == "assistant" for one in messages)
        wishes = wishes_of(self._turns, number, told_in(messages))
        calls = [
            {
                "type": "tool_use",
                "id": f"toolu_{number}_{place}",
                "name": self._wire(wish.tool),
                "input": wish.arguments,
            }
            for place, wish in enumerate(wishes)
        ]
        return calls or [{"type": "text", "text": "done"}]


def told_in(messages: Sequence[Mapping[str, Any]]) -> list[Told]:
    """Return the tool results in *messages*, as the model reads them."""
    blocks = [one for message in messages for one in _blocks(message["content"])]
    names = {one["id"]: one["name"] for one in blocks if one["type"] == "tool_use"}
    return [
        Told(names[one["tool_use_id"]].rpartition("__")[2], _text(one.get("content", "")))
        for one in blocks
        if one["type"] == "tool_result"
    ]


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(content: Any) -> str:
    return "".join(one["text"] for one in _blocks(content))


@contextmanager
def serving(script: Script) -> Generator[str]:
    """Serve *script*; give the address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

        def do_HEAD(self) -> None:
            """Say that somebody is here."""
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            """Answer, as a stream if that was asked for."""
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.path.startswith("/v1/messages?") and self.path != "/v1/messages":
                self.send_error(404)
                return
            blocks = script.reply(request)
            if request.get("stream"):
                kind, body = "text/event-stream", _events(blocks)
            else:
                kind, body = "application/json", json.dumps(_message(blocks))
            raw = body.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _message(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    calls = any(one["type"] == "tool_use" for one in blocks)
    return {
        "id": f"msg_{uuid4().hex}",  # the CLI merges messages of one id
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": blocks,
        "stop_reason": "tool_use" if calls else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def _events(blocks: list[dict[str, Any]]) -> str:
    message = _message(blocks)
    start = message | {"content": [], "stop_reason": None}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            empty = {"type": "text", "text": ""}
            delta = {"type": "text_delta", "text": block["text"]}
        else:
            empty = block | {"input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        events += [
            {"type": "content_block_start", "index": index, "content_block": empty},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events += [
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)

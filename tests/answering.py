"""A small real server on loopback for tests that need one that behaves; `faulty.py` is the one that does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Replies(BaseHTTPRequestHandler):
    """Takes and gives JSON; `do_POST` is the test's."""

    def asked(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def reply(self, value: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def say(self, text: str, body: dict[str, Any], **more: Any) -> None:
        """A chat completion."""
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        head = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        self.reply({**head, "choices": [choice], **more})

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[Replies], kind: type[ThreadingHTTPServer] = ThreadingHTTPServer) -> Iterator[Any]:
    """The server while it runs; its address stands in `url`."""
    server: Any = kind(("127.0.0.1", 0), handler)
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()

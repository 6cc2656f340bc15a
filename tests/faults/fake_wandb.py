"""As much of a wandb server as a run needs, on loopback, which can be told to misbehave."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeWandb:
    """Context with the server running.

    Attributes:
        bodies: what was sent to it.
        files: names of the files that arrived.
        mode: ``ok``, ``refuse`` (401: the key is not known), ``fail`` (500) or ``hang`` (no answer at all).
    """

    def __init__(self, mode: str = "ok") -> None:
        self.mode = mode
        self.bodies: list[str] = []
        self.files: list[str] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._up = False

    @property
    def url(self) -> str:
        """What ``WANDB_BASE_URL`` must be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeWandb:
        self._thread.start()
        self._up = True
        return self

    def go_away(self) -> None:
        """Close the port: from now on nobody is there."""
        if self._up:
            self._up = False
            self.mode = "gone"
            self.released.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def __exit__(self, *error: object) -> None:
        self.go_away()

    def posts(self, operation: str) -> list[dict[str, Any]]:
        """The variables of every GraphQL call of that name."""
        contents = [json.loads(body) for body in self.bodies if body.startswith("{")]
        return [content["variables"] for content in contents if content.get("operationName") == operation]

    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics that arrived."""
        return [json.loads(line) for line in self._lines_of("wandb-history.jsonl")]

    def console(self) -> str:
        """What the Logs tab shows."""
        return "\n".join(self._lines_of("output.log"))

    def _lines_of(self, file: str) -> list[str]:
        contents = [json.loads(body) for body in self.bodies if body.startswith("{")]
        files = [content["files"] for content in contents if "files" in content]
        return [line for part in files for line in part.get(file, {"content": []})["content"]]


def _answer(operation: str, variables: dict[str, Any], url: str) -> dict[str, Any]:
    if operation == "UpsertBucket":
        project = {"id": "1", "name": variables["project"], "entity": {"id": "1", "name": "somebody"}}
        bucket = {"id": "1", "name": variables["name"], "displayName": variables["name"], "project": project}
        return {"upsertBucket": {"bucket": bucket | {"historyLineCount": 0}, "inserted": True}}
    if operation == "CreateRunFiles":
        files = [{"name": name, "uploadUrl": f"{url}/upload/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
    if operation == "CreateArtifact":  # as if a server had it already; a table is also a file of the run
        sequence = {"id": "1", "latestArtifact": {"id": "1", "versionIndex": 0}}
        return {"createArtifact": {"artifact": {"id": "1", "state": "COMMITTED", "artifactSequence": sequence}}}
    if operation == "Viewer":
        return {"viewer": {"id": "1", "entity": "somebody", "username": "somebody", "flags": "{}"}}
    return {}


def _handler(fake: FakeWandb) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode(errors="replace")
            fake.bodies.append(body)
            if fake.mode == "hang":
                fake.released.wait()
            if fake.mode == "gone":
                self.close_connection = True
                return
            content = json.loads(body) if body.startswith("{") else {}
            data = _answer(content.get("operationName") or "", content.get("variables") or {}, fake.url)
            self._reply({"ok": 200, "refuse": 401, "fail": 500}[fake.mode], {"data": data})

        def _reply(self, status: int, value: object) -> None:
            out = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        do_GET = do_POST

        def do_PUT(self) -> None:
            if self.path.startswith("/upload/"):
                fake.files.append(self.path.removeprefix("/upload/"))
            self.do_POST()

    return Handler

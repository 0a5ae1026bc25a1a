"""Tricky texts through npm's eventsource-parser and through a real Chromium EventSource."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sse_broker import format_event
from tests.live.conftest import need
from tests.live.servers import until

pytestmark = pytest.mark.live

PIECES = [
    "\n",
    "\r",
    "\r\n",
    "\u2028",
    "\u2029",
    "\x85",
    "\x0b",
    "\x0c",
    "\x1c",
    "\0",
    "\ufeff",
    " ",
]
TEXTS = [
    *("", " ", "  leading", "trailing ", "\ufeff", "data: x", "id: 7", ": c", "ü🎈"),
    *(f"a{piece}b" for piece in PIECES),
    *(piece for piece in PIECES),
    *(f"{piece}{piece}x" for piece in PIECES),
    "x" * 70_000,
]
FRAMES = b"".join(format_event("t", text, id=str(n)) for n, text in enumerate(TEXTS))
RECEIVED = [re.sub(r"\r\n|\r", "\n", text) for text in TEXTS]

SCRIPT = """
import { readFileSync } from 'node:fs';
import { createParser } from 'eventsource-parser';
const bytes = Buffer.from(readFileSync(0, 'utf8'), 'base64');
const found = [];
const parser = createParser({ onEvent: (event) => found.push([event.id, event.event, event.data]) });
const decoder = new TextDecoder();
for (let at = 0; at < bytes.length; at += 7) {
  parser.feed(decoder.decode(bytes.subarray(at, at + 7), { stream: true }));
}
console.log(JSON.stringify(found));
"""
PAGE = """<!doctype html><script>
const found = [], stream = new EventSource('/stream');
stream.addEventListener('t', (event) => found.push([event.lastEventId, event.type, event.data]));
stream.addEventListener('end', () => {
  stream.close();
  fetch('/found', { method: 'POST', body: JSON.stringify(found) });
});
</script>"""
EXPECTED = [[str(n), "t", text] for n, text in enumerate(RECEIVED)]


def test_eventsource_parser_reads_it_back(tmp_path: Path) -> None:
    npm, node = need("npm", "npm"), need("node", "nodejs")
    install = [npm, "install", "--no-audit", "--no-fund", "--silent", "eventsource-parser@3"]
    (tmp_path / "package.json").write_text("{}")
    got = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    if got.returncode and not os.environ.get("CI"):
        pytest.skip("npm could not install eventsource-parser")
    assert got.returncode == 0, got.stderr
    script = tmp_path / "read.mjs"
    script.write_text(SCRIPT)

    output = subprocess.run(
        [node, script], input=base64.b64encode(FRAMES), capture_output=True, check=True, timeout=30
    ).stdout

    assert json.loads(output) == EXPECTED


class Handler(BaseHTTPRequestHandler):
    found: list[list[str]] | None = None

    def do_GET(self) -> None:
        stream = self.path == "/stream"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if stream else "text/html")
        self.end_headers()
        self.wfile.write(FRAMES + format_event("end", "x") if stream else PAGE.encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).found = json.loads(body)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def test_chromium_reads_it_back(browser) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            browser.get(f"http://127.0.0.1:{server.server_port}/")
            until(lambda: Handler.found, 10)
        finally:
            server.shutdown()
            thread.join()

    assert Handler.found == EXPECTED

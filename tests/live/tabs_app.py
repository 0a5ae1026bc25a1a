"""Pages that connect, for tests with many tabs; the rest is the test app."""

from __future__ import annotations

import threading
import time
from typing import Any

from flask import Flask, render_template_string

from tests.live import app as test_app

PAGE = """<!doctype html><title>tab</title>
<script src="/sse/client.js"></script>
<script>
const query = new URLSearchParams(location.search);
Object.assign(window, { got: [], states: [], resets: [] });
window.stream = SSEBroker.connect(`/sse/stream?user_id=${query.get("user_id")}`, {
  topics: query.getAll("topic"),
  ...(query.get("share") ? { share: query.get("share") !== "false" } : {}),
  onState: (state, detail) => states.push([state, detail.reason]),
  onReset: (data) => resets.push(data.reason),
});
stream.on("n", (event) => got.push(event.data));
</script>"""

FRAMES = """<!doctype html><title>frames</title><script>
for (let n = 0; n < 50; n++) {
  setTimeout(() => {
    document.body.append(Object.assign(document.createElement("iframe"), { src: "/rendered" }));
  }, n * 60);
}
</script><body></body>"""
RENDERED = """<!doctype html><title>rendered</title>{{ sse_script(last_event_id=moment) }}
<script>
window.all = {{ rows | tojson }};
window.rendered = all.length;
window.stream = SSEBroker.connect("/sse/stream?user_id=1", { topics: ["rows"], lastEventId: "{{ moment }}", onReset: () => all.push("reset") });
stream.on("n", (event) => all.push(event.data));
</script>"""
ROWS = 1000


def create_app() -> Flask:
    app = test_app.create_app()
    sse = app.extensions["sse"]
    rows: list[int] = []
    lock = threading.Lock()  # what a transaction is to a database

    def fill() -> None:
        for n in range(ROWS):
            with lock:
                rows.append(n)
                sse.send_to_topic("rows", "n", n)
            time.sleep(0.003)

    @app.get("/frames")
    def frames() -> Any:
        threading.Thread(target=fill, daemon=True).start()
        return FRAMES

    @app.get("/rendered")
    def rendered() -> Any:
        with lock:
            moment, known = sse.last_event_id(), list(rows)
        return render_template_string(RENDERED, moment=moment, rows=known)

    @app.get("/tab")
    def tab() -> Any:
        return PAGE

    return app

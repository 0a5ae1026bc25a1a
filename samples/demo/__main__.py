"""``python -m samples.demo``: say what to open, then become gunicorn."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys

from samples.demo.app import USERS

PORT = int(os.environ.get("PORT", "8000"))
THREADS = "64"  # each open stream holds one

GREETING = """
  sse_broker demo

  Open      http://localhost:{port}
  Or watch  curl -N 'http://localhost:{port}/sse/stream?user_id={user}'
  and send  curl -X POST http://localhost:{port}/api/test/send \\
              -H 'Content-Type: application/json' \\
              -d '{{"user_id": "{user}", "event": "notification", "data": {{"title": "Hello"}}}}'

  Ctrl-C ends it.  Start it again while the page is open, and look.
"""


def main() -> None:
    """Check, greet, start."""
    if importlib.util.find_spec("gunicorn") is None:
        sys.exit("The demo needs gunicorn: pip install 'sse-broker[gunicorn]'")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            sys.exit(f"Port {PORT} is taken.  Choose another: PORT=8001 make run")
    print(GREETING.format(port=PORT, user=USERS[0]["id"]), flush=True)
    command = [sys.executable, "-m", "gunicorn", "--workers", "1", "--worker-class", "gthread"]
    command += ["--threads", THREADS, "--bind", f"127.0.0.1:{PORT}", "--graceful-timeout", "2"]
    command += ["--log-level", "warning", "samples.demo.app:create_app()"]
    from gunicorn.config import KNOWN_SETTINGS

    if any(setting.name == "control_socket_disable" for setting in KNOWN_SETTINGS):
        command.insert(-1, "--no-control-socket")  # several demos of one user would share it
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()

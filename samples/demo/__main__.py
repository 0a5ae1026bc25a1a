"""``python -m samples.demo``: say what to open, then run gunicorn and watch it."""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from samples.demo.app import MESSAGES, USERS
from sse_broker import Broker

AWAY = 5.0  # seconds without a server
WORKERS, THREADS = "2", "8"  # threads are for ordinary requests; streams need none

GREETING = """
  sse_broker demo

  Open      http://localhost:{port}
  Or watch  curl -N 'http://localhost:{port}/sse/stream?user_id={user}'
  and send  curl -X POST http://localhost:{port}/api/test/send \\
              -d '{{"user_id": "{user}", "event": "notification", "data": {{"title": "Hello"}}}}'

  Two workers share {log}, so it does not matter which one an event comes from.
  From another terminal, with no server in between:

      .venv/bin/sse_broker --log {log} publish --broadcast --event announcement \
          '{{"message": "Hello from a terminal"}}'

  Ctrl-C ends it.  Start it again while the page is open, and look.
"""


def free_port() -> int:
    """Return the port to listen on, or end with a sentence that says why not."""
    wanted = os.environ.get("PORT", "8000")
    if not (wanted.isdecimal() and 0 < int(wanted) < 65536):
        sys.exit(f"PORT must be a number from 1 to 65535, not {wanted!r}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gunicorn does
        try:
            probe.bind(("127.0.0.1", int(wanted)))
        except OSError as error:
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error})"
            sys.exit(f"Port {wanted} {why}.  Choose another: PORT=8001 make run")
    return int(wanted)


def main() -> None:
    """Check, greet, start."""
    if importlib.util.find_spec("gunicorn") is None:
        sys.exit("The demo needs gunicorn: pip install 'sse-broker[gunicorn]'")
    port = free_port()
    folder = Path(os.environ.get("DEMO_DATA", ".demo"))
    folder.mkdir(parents=True, exist_ok=True)
    log = os.environ.setdefault("SSE_LOG_URL", f"sqlite:///{folder}/log.db")
    os.environ.setdefault("SSE_HISTORY_SIZE", "1000")
    print(GREETING.format(port=port, user=USERS[0]["id"], log=log), flush=True)
    command = [sys.executable, "-m", "gunicorn", "--workers", WORKERS, "--worker-class"]
    command += ["sse_broker.gunicorn.StreamWorker"]
    command += ["--threads", THREADS, "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "2"]
    command += ["--log-level", "warning", "samples.demo.app:create_app()"]
    from gunicorn.config import KNOWN_SETTINGS

    if any(setting.name == "control_socket_disable" for setting in KNOWN_SETTINGS):
        command.insert(-1, "--no-control-socket")  # several demos of one user would share it
    watch(command, log)


def watch(command: list[str], log: str) -> None:
    """Run the server; on SIGUSR1 stop it for some seconds, and send meanwhile without it."""
    wanted = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: wanted.set())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.environ["DEMO_WATCHER"] = str(os.getpid())
    server = subprocess.Popen(command)
    try:
        while True:
            if not wanted.wait(0.2):
                if server.poll() is not None:
                    sys.exit(server.returncode)
                continue
            wanted.clear()
            server.terminate()
            server.wait()
            with Broker(log=log) as broker:
                for number in range(1, MESSAGES + 1):
                    time.sleep(AWAY / (MESSAGES + 1))
                    note = {"title": f"Message {number}, sent while the server was away"}
                    for user in USERS[:2]:
                        broker.send_to_user(user["id"], "notification", note)
            time.sleep(AWAY / (MESSAGES + 1))
            server = subprocess.Popen(command)
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()

"""A real redis-server on a free port, as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.live.servers import free_port, until


class RedisServer:
    """Started with a folder of its own; may be killed, paused and started again."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self.port = free_port()
        while "--cluster-enabled" in options and self.port > 55_000:  # its bus is 10,000 higher
            self.port = free_port()
        self.folder = folder
        self._command = [
            *(program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)),
            *("--save", "", "--daemonize", "no", "--logfile", str(folder / "redis.log")),
            *options,
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> RedisServer:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(self._command, start_new_session=True)
        until(self._answers)
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it has ended; see {self.folder}/redis.log"
        return self.command("PING").startswith(b"+PONG")

    def command(self, *words: str) -> bytes:
        """Return what the server says to an inline command; empty if it says nothing."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as sock:
                sock.sendall(" ".join(words).encode() + b"\r\n")
                return sock.recv(65_536)
        except OSError:
            return b""

    def kill(self, signum: int = signal.SIGKILL) -> None:
        if self.process is not None:
            os.kill(self.process.pid, signum)
            self.process.wait(10)
            self.process = None

    def pause(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None:
            self.go_on()
        self.kill()

"""The load client (``c/load.c``) as an object."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from benchmarks.build import BUILD

SOURCES = 9  # addresses: each has about 28,000 ports

STALL = 10  # seconds without news after which what is not there counts as missing


def get(path: str, headers: str = "") -> str:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"


def post(path: str, body: str = "", headers: str = "") -> str:
    """Return a request whose body has the placeholders of ``c/load.c``."""
    filled = body.replace("@STAMP@", "0" * 14).replace("@CLIENT@", "0" * 12)
    length = len(filled.replace("@NUMBER@", "0" * 10))
    lines = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
    return f"{lines}{headers}\r\n{body}"


class Load:
    """One process of the load client, on the last core."""

    def __init__(self, port: int, pinned: bool = True, stall: float = STALL) -> None:
        core = max(os.sched_getaffinity(0)) if pinned else -1
        command = [str(BUILD / "load"), str(port), str(SOURCES), str(core), str(stall)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def say(self, command: str, *words: object) -> None:
        """Begin a command; :meth:`answer` waits for its end."""
        line = " ".join([command, *map(str, words)])
        assert self._process.stdin is not None
        self._process.stdin.write(line.replace("\r", "\\r").replace("\n", "\\n") + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the load client ended")
        return json.loads(line)

    def do(self, command: str, *words: object) -> dict[str, Any]:
        self.say(command, *words)
        return self.answer()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

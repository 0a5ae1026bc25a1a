"""A server as processes of its own: started, asked, weighed, stopped by its process id."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
USER = "7b2c1c1e-4a3e-4a55-9d7e-0d6a2f2f1c11"
STAMP = re.compile(rb"data: t=(\d+\.\d+) ")
SPARE = 64  # threads beside the streams: naive ones notice only by writing that a client left
PAGE = os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server and its children, in a process group of their own.

    *beside* are processes that do part of its work (Redis): their CPU time counts as its own.
    They and *folder* go with it.
    """

    def __init__(
        self,
        command: list[str],
        port: int,
        *,
        probe: str = "/ping",
        folder: Path | None = None,
        beside: tuple[subprocess.Popen[bytes], ...] = (),
        **env: str,
    ) -> None:
        self.port, self.beside, self._folder = port, beside, folder
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **env}, start_new_session=True
        )
        self._wait(probe)

    def _wait(self, path: str) -> None:
        for _ in range(400):
            if self.process.poll() is not None:
                break
            try:
                self.ask("GET", path)
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.stop()
        raise SystemExit(f"the server did not start: {' '.join(self.process.args)}")

    def ask(self, method: str, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path)
        body = connection.getresponse().read()
        connection.close()
        return body

    def post(self, path: str) -> Any:
        return json.loads(self.ask("POST", path))

    def pids(self) -> list[int]:
        return [pid for one in (self.process, *self.beside) for pid in _family(one.pid)]

    def cpu(self) -> float:
        """Return the CPU seconds of all its processes so far, to the nanosecond.

        By each process's own clock (clock_getcpuclockid(3)), which has threads that ended too.
        """
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self.pids())

    def resident(self) -> int:
        """Return the bytes of memory that are resident, over all its processes."""
        pages = (Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in self.pids())
        return PAGE * sum(map(int, pages))

    def threads(self) -> int:
        """Return how many threads its processes have."""
        return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in self.pids())

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for other in self.beside:
            other.terminate()
            other.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def kernel_memory() -> int:
    """Return the bytes that the kernel holds for objects, thread stacks and page tables."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    return 1024 * sum(sizes[name] for name in ("Slab", "KernelStack", "PageTables"))


def socket_memory(port: int) -> int:
    """Return the bytes in the buffers of a server's sockets, as ss has them."""
    command = ["ss", "-tmnH", "state", "established", f"sport = :{port}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    fields = re.findall(r"skmem:\(r(\d+),rb\d+,t(\d+),tb\d+,f(\d+),w(\d+),o(\d+)", said)
    return sum(int(size) for sizes in fields for size in sizes)


GUNICORN_HOSTS = {
    "handoff": ["-k", "sse_broker.gunicorn.StreamWorker", "--threads", "4"],
    "gevent": ["-k", "gevent"],
}


def gunicorn(
    app: str,
    host: str,
    clients: int,
    workers: int = 1,
    python: str = sys.executable,
    connections: int = 19_000,
    **options: Any,
) -> Server:
    """Start one gunicorn with an application of :mod:`benchmarks.servers`."""
    port = free_port()
    worker = GUNICORN_HOSTS.get(host) or ["-k", "gthread", "--threads", str(clients + SPARE)]
    command = [python, "-m", "gunicorn", *worker, "--workers", str(workers)]
    command += ["--worker-connections", str(connections), "--backlog", "4096", "--keep-alive", "75"]
    command += ["--graceful-timeout", "1", "--no-control-socket", "--log-level", "error"]
    command += ["-b", f"127.0.0.1:{port}", f"benchmarks.servers:{app}()"]
    return Server(command, port, **options)

"""Deliveries per server CPU-second, and latency: ours against the naive generator.

Everything is measured in one run, ours and the peer by turns, and the median of
the rounds is shown.  CPU time is that of the server's processes, from /proc.
Every delivery is counted; one that is missing fails the run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import http.client
import json
import os
import platform
import re
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
USER = "7b2c1c1e-4a3e-4a55-9d7e-0d6a2f2f1c11"
STAMP = re.compile(rb"data: t=(\d+\.\d+) ")
TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """One gunicorn with one worker."""

    def __init__(self, app: str, host: str, clients: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        threads = ["--threads", str(clients + 16)] if host == "gthread" else []
        command = [sys.executable, "-m", "gunicorn", "-k", host, *threads, "--backlog", "4096"]
        command += ["--worker-connections", "20000", "--graceful-timeout", "1"]
        command += ["--no-control-socket", "--log-level", "error", "-b", f"127.0.0.1:{self.port}"]
        command += [f"benchmarks.servers:{app}()"]
        self.process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        self._wait()

    def _wait(self) -> None:
        for _ in range(400):
            try:
                self.post("/ping", "GET")
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise SystemExit("the server did not start")

    def post(self, path: str, method: str = "POST") -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path)
        connection.getresponse().read()
        connection.close()

    def cpu(self) -> float:
        """Return the CPU seconds of all its processes so far."""
        total = 0
        for pid in self._pids(self.process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def _pids(self, pid: int) -> list[int]:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(one for child in children for one in self._pids(int(child)))]

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Load:
    """Open streams, and how many deliveries they have got."""

    def __init__(self, server: Server, count: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.rest: dict[Any, bytes] = {}
        self.socks = []
        query = f"user_id={USER}&topics=bench"
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", server.port))
            sock.sendall(f"GET /sse/stream?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            self.socks.append(sock)
        for sock in self.socks:
            head = b""
            while b"\n\n" not in head.partition(b"\r\n\r\n")[2]:
                head += sock.recv(65_536)
            sock.setblocking(False)
            self.rest[sock] = b""
            self.selector.register(sock, selectors.EVENT_READ)

    def receive(self, deliveries: int, timeout: float = 120) -> list[float]:
        """Read until so many deliveries came; return their latencies in seconds."""
        latencies: list[float] = []
        end = time.monotonic() + timeout
        while len(latencies) < deliveries:
            ready = self.selector.select(5)
            now = time.monotonic()
            if now > end:
                raise SystemExit(f"{deliveries - len(latencies)} deliveries are missing")
            for key, _ in ready:
                sock: Any = key.fileobj
                data = self.rest[sock] + sock.recv(1_048_576)
                cut = data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
                self.rest[sock] = data[cut:]
                latencies += [now - float(sent) for sent in STAMP.findall(data[:cut])]
        return latencies

    def close(self) -> None:
        for sock in self.socks:
            sock.close()
        self.selector.close()


def measure(
    app: str, host: str, clients: int, ones: int, burst: int
) -> dict[str, dict[str, float]]:
    """Return the figures of one server in one round."""
    server = Server(app, host, clients)
    load = Load(server, clients)
    found = {}
    try:
        server.post("/send?n=1")
        load.receive(clients)
        for name, rounds, each in (("one at a time", ones, 1), ("burst", 3, burst)):
            before, latencies = server.cpu(), []
            for _ in range(rounds):
                server.post(f"/send?n={each}")
                latencies += load.receive(clients * each)
            spent = max(server.cpu() - before, 1 / TICK)
            latencies.sort()
            found[name] = {
                "per_cpu_second": len(latencies) / spent,
                "p50_ms": 1000 * latencies[len(latencies) // 2],
                "p99_ms": 1000 * latencies[len(latencies) * 99 // 100],
            }
    finally:
        load.close()
        server.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--hosts", nargs="+", default=["gthread", "gevent"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=40, help="one at a time, per round")
    parser.add_argument("--burst", type=int, default=100, help="messages in a burst; 3 per round")
    options = parser.parse_args()

    rows: list[dict[str, Any]] = []
    for host in options.hosts:
        for clients in options.clients:
            rounds: dict[str, list[Any]] = {"ours": [], "naive": []}
            for _ in range(options.rounds):
                for app, results in rounds.items():
                    results.append(measure(app, host, clients, options.messages, options.burst))
            for case in ("one at a time", "burst"):
                row: dict[str, Any] = {"host": host, "clients": clients, "case": case}
                for app, results in rounds.items():
                    for figure in ("per_cpu_second", "p50_ms", "p99_ms"):
                        row[f"{app}_{figure}"] = statistics.median(r[case][figure] for r in results)
                row["ratio"] = row["ours_per_cpu_second"] / row["naive_per_cpu_second"]
                rows.append(row)
                print(line(row), file=sys.stderr, flush=True)
    report(rows, options)


def line(row: dict[str, Any]) -> str:
    return (
        f"| {row['host']} | {row['clients']:,} | {row['case']}"
        f" | {row['ours_per_cpu_second']:,.0f} | {row['naive_per_cpu_second']:,.0f}"
        f" | {row['ratio']:.2f}"
        f" | {row['ours_p50_ms']:.1f} / {row['ours_p99_ms']:.1f}"
        f" | {row['naive_p50_ms']:.1f} / {row['naive_p99_ms']:.1f} |"
    )


def report(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    facts = {
        "date": dt.date.today().isoformat(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "options": vars(options),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.json").write_text(json.dumps({**facts, "rows": rows}, indent=2))
    print(f"{facts['date']}, Python {facts['python']}, {facts['cores']} cores\n")
    print("| host | clients | messages | ours | naive | ratio | ours p50 / p99 ms | naive |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(line(row) for row in rows))


if __name__ == "__main__":
    main()

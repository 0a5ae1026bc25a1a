"""The logs: latency from one process to a socket of another, publishes per second, reconnects.

``python -m benchmarks.logs``.  Everything is measured in one run, by turns, and
medians of the rounds are shown.  Peers: flask-sse (Redis pub/sub), and the limit:
bare XADD and XREAD, in two processes for the latency and in turn for the rate.
"""

from __future__ import annotations

import argparse
import datetime as dt
import multiprocessing
import os
import platform
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.process import STAMP, USER, gunicorn
from sse_broker import Broker, BrokerConfig, Identity
from tests.live.redis_server import RedisServer

PAD = "x" * 80
EVERY = 0.004  # seconds between messages when latency is measured
CASES = {
    "memory": "memory://, within one process",
    "sqlite": "sqlite://, synchronous=normal",
    "full": "sqlite://, synchronous=full",
    "redis": "redis://",
    "flask-sse": "flask-sse 1.0 (Redis pub/sub)",
    "bare": "bare loop of XADD and XREAD",
}


def text() -> str:
    return f"t={time.monotonic():.6f} {PAD}"


def sender(case: str, url: str) -> Callable[[str], Any]:
    """Return what sends one message, from a process that serves nothing."""
    if case == "bare":
        import redis

        client = redis.Redis.from_url(url)
        return lambda data: client.xadd("bare", {"data": data}, maxlen=10_000, approximate=True)
    if case == "flask-sse":
        from flask import Flask
        from flask_sse import sse

        app = Flask("publisher")
        app.config["REDIS_URL"] = url
        app.app_context().push()
        return lambda data: sse.publish(data, type="message")
    broker = Broker(log=url)
    return lambda data: broker.send_to_topic("bench", "message", data)


def bare_loop(url: str) -> Callable[[str], Any]:
    """Return what adds one message and reads it: the least that a log in Redis costs."""
    import redis

    client = redis.Redis.from_url(url)
    stream = f"bare{os.getpid()}"
    last: Any = "0-0"

    def send(data: str) -> None:
        nonlocal last
        client.xadd(stream, {"data": data}, maxlen=10_000, approximate=True)
        last = client.xread({stream: last}, count=256)[0][1][-1][0]

    return send


def send_spaced(case: str, url: str, count: int) -> None:
    send, pause = sender(case, url), threading.Event()
    for _ in range(count + 20):
        send(text())
        pause.wait(EVERY)


def send_all(case: str, url: str, count: int, gate: Any, answer: Any) -> None:
    send = bare_loop(url) if case == "bare" else sender(case, url)
    send(text())
    gate.wait()
    started, cpu = time.monotonic(), time.process_time()
    for _ in range(count):
        send(text())
    answer.put((started, time.monotonic(), time.process_time() - cpu))


def latencies(case: str, url: str, count: int) -> list[float]:
    """Return seconds from a send in one process to the bytes in this one, by a server's socket."""
    if case == "bare":
        return bare_latencies(url, count)
    os.environ["BENCH_LOG"] = url
    server = gunicorn({"flask-sse": "flask_sse_app"}.get(case, "over_a_log"), "gthread", 8)
    try:
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        path = "/sse/stream" + ("" if case == "flask-sse" else f"?user_id={USER}&topics=bench")
        sock.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        threading.Event().wait(0.5)  # flask-sse says nothing when it has subscribed
        if case == "memory":
            publisher: Any = threading.Thread(target=server.post, args=(f"/spaced?n={count + 20}",))
        else:
            publisher = multiprocessing.Process(target=send_spaced, args=(case, url, count))
        publisher.start()
        found = received(sock, count)
        publisher.join()
        return found
    finally:
        sock.close()
        server.stop()


def received(sock: socket.socket, count: int) -> list[float]:
    found: list[float] = []
    rest = b""
    while len(found) < count + 20:
        piece = sock.recv(65_536)
        now = time.monotonic()
        if not piece:
            raise SystemExit("the stream ended")
        rest += piece
        cut = rest.rfind(b"\n\n") + 2 if b"\n\n" in rest else 0
        stamps = STAMP.findall(rest[:cut].replace(b"data:t=", b"data: t="))
        found += [now - float(sent) for sent in stamps]
        rest = rest[cut:]
    return found[20:]


def bare_latencies(url: str, count: int) -> list[float]:
    import redis

    client = redis.Redis.from_url(url, socket_timeout=10)
    client.delete("bare")
    publisher = multiprocessing.Process(target=send_spaced, args=("bare", url, count))
    publisher.start()
    found: list[float] = []
    last: Any = "0-0"
    while len(found) < count + 20:
        for _, rows in client.xread({"bare": last}, count=256, block=2000):
            now = time.monotonic()
            found += [now - float(fields[b"data"].split()[0][2:]) for _, fields in rows]
            last = rows[-1][0]
    publisher.join()
    return found[20:]


def rate(case: str, url: str, processes: int, count: int) -> tuple[float, float]:
    """Return messages per second, and CPU microseconds of the publishers for each."""
    gate, answer = multiprocessing.Barrier(processes), multiprocessing.Queue()
    each = count // processes
    running = [
        multiprocessing.Process(target=send_all, args=(case, url, each, gate, answer))
        for _ in range(processes)
    ]
    for one in running:
        one.start()
    found = [answer.get() for _ in running]
    for one in running:
        one.join()
    wall = max(end for _, end, _ in found) - min(start for start, _, _ in found)
    return processes * each / wall, 1e6 * sum(cpu for *_, cpu in found) / (processes * each)


def reconnect(url: str, length: int, times: int) -> float:
    """Return CPU microseconds of a reconnect 10 messages before the end of a history."""
    config = BrokerConfig(history_size=length + 1000, history_bytes=0, client_buffer_size=64)
    broker = Broker(config, log=url)
    broker.start()
    ids = [broker.send_to_topic("bench", "message", PAD) for _ in range(length)]
    identity = Identity(1)
    broker.streams.here().reaper.stop()
    spent = []
    for _ in range(times):
        before = time.thread_time()
        reader = broker.streams.open(identity, ["bench"], ids[-11])
        while reader.cursor < broker.log.tail():
            reader.next(0)
        spent.append(time.thread_time() - before)
        broker.unregister(reader.client)
    broker.stop(0)
    broker.log.close()
    return 1e6 * statistics.median(spent)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.logs", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=300, help="for latency, per round")
    parser.add_argument("--publishes", type=int, default=4_000, help="for the rate, per round")
    parser.add_argument("--history", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = shutil.which("redis-server")
        server = RedisServer(program, Path(folder).resolve() / "redis").start() if program else None
        if server is None:
            print("redis-server is missing: apt-get install redis-server", file=sys.stderr)
            options.cases = [c for c in options.cases if c in ("memory", "sqlite", "full")]
        try:
            run(options, Path(folder).resolve(), server)
        finally:
            if server is not None:
                server.stop()


def run(options: argparse.Namespace, folder: Path, server: RedisServer | None) -> None:
    urls = {
        "memory": "memory://",
        "sqlite": f"sqlite:///{folder}/normal.db",
        "full": f"sqlite:///{folder}/full.db?synchronous=full",
        **dict.fromkeys(("redis", "flask-sse", "bare"), server.url if server else ""),
    }
    found: dict[str, dict[str, list[float]]] = {case: {} for case in options.cases}
    for _ in range(options.rounds):
        for case in options.cases:
            row = found[case]
            seconds = sorted(latencies(case, urls[case], options.messages))
            row.setdefault("p50", []).append(1000 * seconds[len(seconds) // 2])
            row.setdefault("p99", []).append(1000 * seconds[len(seconds) * 99 // 100])
            for processes in (1,) if case == "memory" else (1, 4):
                each, cpu = rate(case, urls[case], processes, options.publishes)
                row.setdefault(f"rate{processes}", []).append(each)
                row.setdefault(f"cpu{processes}", []).append(cpu)
            print(case, row, file=sys.stderr, flush=True)
    report(options, found)
    print(f"\n| log | reconnect near the end of 100 messages | of {options.history:,} |")
    print("| --- | --- | --- |")
    for case in ("memory", "sqlite", "redis"):
        if case in options.cases:
            costs = [history_cost(case, urls[case], n, folder) for n in (100, options.history)]
            print(f"| {case} | {costs[0]:,.0f} µs | {costs[1]:,.0f} µs |", flush=True)


def history_cost(case: str, url: str, length: int, folder: Path) -> float:
    if case == "sqlite":
        url = f"sqlite:///{folder}/history{length}.db"
    if case == "redis":
        url = f"{url}?prefix=history{length}"
    return reconnect(url, length, 200)


def report(options: argparse.Namespace, found: dict[str, dict[str, list[float]]]) -> None:
    python, cores = platform.python_version(), os.cpu_count()
    print(f"{dt.date.today().isoformat()}, Python {python}, {cores} cores\n")
    print("| log | p50 / p99 ms | publishes/s, 1 process | 4 processes | CPU µs a publish |")
    print("| --- | --- | --- | --- | --- |")
    for case in options.cases:
        row = {name: statistics.median(values) for name, values in found[case].items()}
        four = f"{row['rate4']:,.0f}" if "rate4" in row else "-"
        print(
            f"| {CASES[case]} | {row['p50']:.2f} / {row['p99']:.2f} | {row['rate1']:,.0f}"
            f" | {four} | {row['cpu1']:.0f} |"
        )


if __name__ == "__main__":
    main()

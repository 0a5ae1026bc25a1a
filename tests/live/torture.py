"""The fault run: nothing that was acknowledged is missing, doubled or out of order.

``python -m tests.live.torture --log sqlite --seconds 60``

Real processes: gunicorn with several workers, publishers outside of them, and
clients that come and go with their Last-Event-ID.  Meanwhile workers and
publishers are killed with SIGKILL; Redis is killed, stopped and paused; the
folder of the SQLite file runs full and is freed.  At the end each client's
sequence is compared with what was acknowledged to the publishers.  The first
violation ends the run with exit status 1.

``--break`` runs the server with a mistake made on purpose; the run must fail then.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sse_broker.core.ports import PositionLost
from sse_broker.errors import LogUnavailable
from sse_broker.logs import open_log
from sse_broker.wire.parse import Parser
from tests.live.redis_server import RedisServer
from tests.live.servers import ROOT, USER, Server, free_port, gunicorn

TOPIC = "torture"
WORKERS = {
    "gthread": "gthread",
    "gevent": "gevent",
    "handoff": "sse_broker.gunicorn.StreamWorker",
}
PUBLISHER = "tests.live.torture_publisher"
TMPFS = 24 * 1024 * 1024  # bytes of the folder that runs full


class Violation(Exception):
    """The promise is broken."""


class Ruler:
    """Opens the seals of wire ids with the keys of the log that is tortured."""

    def __init__(self, url: str) -> None:
        self._log = open_log(url)
        self._known: dict[str, tuple[str, int]] = {}

    def place(self, wire_id: str) -> tuple[str, int]:
        """Return epoch and number of a wire id; wait for a log that is away."""
        found = self._known.get(wire_id)
        end = time.monotonic() + 30
        while found is None:
            epochs = self._log._here().epochs  # type: ignore[attr-defined]
            try:
                found = wire_id.partition("-")[0], epochs.parse(wire_id)
            except (PositionLost, IndexError) as err:
                if time.monotonic() > end:
                    raise Violation(f"{wire_id} is no id of this log") from err
                with contextlib.suppress(LogUnavailable):
                    self._log.tail()  # the epoch may be a new one
        self._known[wire_id] = found
        return found


_rulers: list[Ruler] = []  # of the runs of this process; the last one is the present one's


def measure_with(url: str) -> None:
    """Read wire ids with the keys of this log from now on."""
    _rulers.append(Ruler(url))


def place(wire_id: str) -> tuple[str, int]:
    """Return epoch and number of a wire id."""
    return _rulers[-1].place(wire_id)


@dataclass
class Span:
    """What one client got without a reset: everything after *start*, up to *end*."""

    start: tuple[str, int]
    got: dict[int, str] = field(default_factory=dict)  # number: message
    end: tuple[str, int] = ("", 0)

    def take(self, wire_id: str, data: str, who: str) -> None:
        epoch, number = place(wire_id)
        if epoch != self.start[0]:
            raise Violation(f"{who} got epoch {epoch} after {self.start[0]} without a reset")
        if number <= self.end[1]:
            raise Violation(f"{who} got {wire_id} ({data}) after {self.end}: out of order or twice")
        self.end = (epoch, number)
        self.got[number] = data


class Client:
    """One tab: reads, leaves, comes back with its last id."""

    def __init__(self, number: int, port: int) -> None:
        self.name = f"client {number}"
        self.port = port
        self.last_id = ""
        self.spans: list[Span] = []
        self.sock: socket.socket | None = None
        self.next_try = 0.0
        self.connects = self.resets = 0
        self.seen: set[str] = set()
        self.welcomed = False

    def connect(self) -> None:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.connect_ex(("127.0.0.1", self.port))
        self.parser, self.head, self.sent = Parser(), b"", False
        self.welcomed = False

    def send(self) -> None:
        assert self.sock is not None
        last = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        self.sock.send(
            f"GET /sse/stream?user_id={USER}&topics={TOPIC} HTTP/1.0\r\nHost: localhost\r\n"
            f"Accept: text/event-stream\r\n{last}\r\n".encode()
        )
        self.sent = True

    def read(self) -> bool:
        """Take what has arrived; say whether the connection lives."""
        assert self.sock is not None
        try:
            piece = self.sock.recv(262_144)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not piece:
            return False
        if self.head is not None:
            self.head += piece
            head, found, rest = self.head.partition(b"\r\n\r\n")
            if not found:
                return True
            if b" 200 " not in head.partition(b"\r\n")[0]:
                return False
            self.head, piece = None, rest  # type: ignore[assignment]
        for event in self.parser.feed(piece):
            self.take(event)
        return True

    def take(self, event: Any) -> None:
        name, wire_id = event.event, event.id
        if name == "reset":
            self.resets += 1
            self.spans.append(Span(place(wire_id), end=place(wire_id)))
            self.last_id = wire_id
        elif name == "welcome":
            self.connects += 1
            self.welcomed = True
            if not self.spans:
                self.spans.append(Span(place(wire_id), end=place(wire_id)))
            resumed = json.loads(event.data)["resumed"]
            if self.last_id and not resumed and self.last_id != wire_id:
                raise Violation(f"{self.name} was neither resumed nor reset")
            self.last_id = wire_id
        elif name == "message":
            span = self.spans[-1]
            span.take(wire_id, event.data, self.name)
            if event.data in self.seen:
                raise Violation(f"{self.name} got {event.data} twice")
            self.seen.add(event.data)
            self.last_id = wire_id
        elif wire_id:
            self.last_id = wire_id

    def leave(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class Crowd:
    """All clients, driven by one selector."""

    def __init__(self, port: int, count: int, dice: random.Random) -> None:
        self.port, self.dice = port, dice
        self.selector = selectors.DefaultSelector()
        self.clients = [Client(n, port) for n in range(count)]
        self.gone: list[Client] = []
        self.restless = True
        self.next_drop = self.next_leave = 0.0

    def step(self) -> None:
        now = time.monotonic()
        for client in self.clients:
            if client.sock is None and now >= client.next_try:
                client.connect()
                self.selector.register(client.sock, selectors.EVENT_WRITE, client)  # type: ignore[arg-type]
        for key, mask in self.selector.select(0.01):
            self._serve(key.data, mask)
        if self.restless:
            if now >= self.next_drop:
                self.next_drop = now + self.dice.uniform(0, 0.05)
                self._drop(self.dice.choice(self.clients), self.dice.uniform(0, 1.5))
            if now >= self.next_leave:  # one leaves for good, another comes
                self.next_leave = now + self.dice.uniform(0, 1)
                index = self.dice.randrange(len(self.clients))
                old = self.clients[index]
                self._drop(old, 0)
                self.gone.append(old)
                self.clients[index] = Client(len(self.clients) + len(self.gone), self.port)

    def wait_until_all_are_welcomed(self) -> None:
        """Have who came just now begin its first stream: what was sent before that is not for it.

        :raises Violation: one is not let in for a minute.
        """
        end = time.monotonic() + 60
        while any(not client.spans for client in self.clients):
            if time.monotonic() > end:
                raise Violation("a client that came is not let in")
            self.step()

    def _serve(self, client: Client, mask: int) -> None:
        if mask & selectors.EVENT_WRITE and not client.sent:
            try:
                client.send()
            except OSError:
                self._drop(client, self.dice.uniform(0.05, 0.5))
                return
            self.selector.modify(client.sock, selectors.EVENT_READ, client)  # type: ignore[arg-type]
        elif not client.read():
            self._drop(client, self.dice.uniform(0.05, 0.5))

    def _drop(self, client: Client, pause: float) -> None:
        if client.sock is not None:
            self.selector.unregister(client.sock)
            client.leave()
        client.next_try = time.monotonic() + pause


class Publishers:
    """Processes that publish and write down what happened to each message."""

    def __init__(self, url: str, folder: Path, count: int, rate: float) -> None:
        self.url, self.folder, self.rate = url, folder, rate
        self.count = 0
        self.running: list[subprocess.Popen[bytes]] = []
        for _ in range(count):
            self.start()

    def start(self) -> None:
        self.count += 1
        command = [sys.executable, "-m", PUBLISHER, self.url, f"p{self.count}"]
        command += [str(self.folder / f"p{self.count}.txt"), str(self.rate), TOPIC]
        self.running.append(subprocess.Popen(command, cwd=ROOT))

    def kill(self, dice: random.Random) -> None:
        process = self.running.pop(dice.randrange(len(self.running)))
        process.kill()
        process.wait()
        self.start()

    def stop(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(20)

    def outcomes(self) -> dict[str, tuple[str, str]]:
        """Return message: (what, id), what being try, ack, no or unknown."""
        found: dict[str, tuple[str, str]] = {}
        for path in sorted(self.folder.glob("p*.txt")):
            for line in path.read_text().split("\n")[:-1]:
                what, message, wire_id = line.split(" ")
                found[message] = (what, wire_id)
        return found


def check(crowd: Crowd, outcomes: dict[str, tuple[str, str]], last: str) -> collections.Counter:
    """Compare what clients got with what was acknowledged.

    :raises Violation: something acknowledged is missing, or something refused arrived.
    """
    acked = {
        place(wire_id): message for message, (what, wire_id) in outcomes.items() if what == "ack"
    }
    refused = {message for message, (what, _) in outcomes.items() if what == "no"}
    counts: collections.Counter = collections.Counter(acknowledged=len(acked), refused=len(refused))
    for client in (*crowd.clients, *crowd.gone):
        counts["connects"] += client.connects
        counts["resets"] += client.resets
        for span in client.spans:
            counts["received"] += len(span.got)
            _check_span(client, span, acked, refused)
    for client in crowd.clients:
        if last not in client.seen:
            raise Violation(f"{client.name} never got the last message; it has {client.last_id}")
    return counts


def _check_span(client: Client, span: Span, acked: dict, refused: set[str]) -> None:
    epoch, start = span.start
    for (of, number), message in acked.items():
        if of == epoch and start < number <= span.end[1] and span.got.get(number) != message:
            raise Violation(
                f"{client.name} lacks {message} ({of}-{number}), acknowledged; it has"
                f" {len(span.got)} messages from {span.start} to {span.end}"
            )
    for message in span.got.values():
        if message in refused:
            raise Violation(f"{client.name} got {message}, which was refused for certain")


class Faults:
    """What is done to the processes, and how often it was."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.done: collections.Counter = collections.Counter()
        self.ways: list[tuple[str, Any]] = []
        self.later: list[tuple[float, Any]] = []
        self.next = 0.0

    def step(self) -> None:
        now = time.monotonic()
        for when, act in list(self.later):
            if now >= when:
                self.later.remove((when, act))
                act()
        if now >= self.next and not self.later:
            self.next = now + self.dice.uniform(0.5, 2.5)
            name, act = self.dice.choice(self.ways)
            end = act()
            self.done[name] += 1
            if end is not None:
                self.later.append((now + self.dice.uniform(0.3, 2.0), end))

    def end(self) -> None:
        for _, act in self.later:
            act()
        self.later.clear()


def worker_pids(server: Server) -> list[int]:
    assert server.process is not None
    pid = server.process.pid
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextlib.contextmanager
def sqlite_log(folder: Path, faults: Faults) -> Iterator[str]:
    """A file in a folder that runs full, where a file system may be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS}", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    filler = disk / "filler"

    def fill() -> Any:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 65_536)
        return lambda: filler.unlink(missing_ok=True)

    if mounted:
        faults.ways.append(("disk full", fill))
    else:
        print("no disk runs full: mounting a tmpfs is not allowed here")
    try:
        yield f"sqlite:///{disk}/log.db"
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=False)


@contextlib.contextmanager
def redis_log(folder: Path, faults: Faults) -> Iterator[str]:
    """A server that survives being killed: what it answered is in its append-only file."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is missing: apt-get install redis-server")
    options = ("--appendonly", "yes", "--appendfsync", "everysec")
    server = RedisServer(program, folder / "redis", *options).start()

    def restart() -> None:
        server.kill()
        server.start()

    def stop() -> Any:
        server.kill()
        return server.start

    def pause() -> Any:
        server.pause()
        return server.go_on

    faults.ways += [("redis restarted", restart), ("redis stopped", stop), ("redis paused", pause)]
    try:
        yield f"{server.url}?timeout=0.5"
    finally:
        server.stop()


LOGS = {"sqlite": sqlite_log, "redis": redis_log}


def run(args: argparse.Namespace, folder: Path) -> collections.Counter:
    dice = random.Random(args.seed)
    faults = Faults(dice)
    with LOGS[args.log](folder, faults) as url:
        measure_with(url)
        port = free_port()
        options = ["-k", WORKERS[args.worker], "--workers", str(args.workers), "--threads", "256"]
        server = Server(
            gunicorn(port, *options, app="tests.live.torture_app:create_app()"),
            port,
            SSE_LOG_URL=url,
            SSE_HISTORY_SIZE="20000",
            SSE_MAX_STREAM_AGE="20",
            TORTURE_BREAK=args.broken,
        ).start()
        publishers = Publishers(url, folder, args.publishers, args.rate)

        def kill_worker() -> None:
            with contextlib.suppress(IndexError, ProcessLookupError):
                os.kill(dice.choice(worker_pids(server)), signal.SIGKILL)

        faults.ways += [("worker killed", kill_worker)] * 2
        faults.ways.append(("publisher killed", lambda: publishers.kill(dice)))
        crowd = Crowd(port, args.clients, dice)
        try:
            end = time.monotonic() + args.seconds
            while time.monotonic() < end:
                crowd.step()
                faults.step()
            faults.end()
            publishers.stop()
            crowd.restless = False
            crowd.wait_until_all_are_welcomed()
            last = _say_last(url)
            end = time.monotonic() + 60
            while any(last not in c.seen for c in crowd.clients) and time.monotonic() < end:
                crowd.step()
            counts = check(crowd, publishers.outcomes(), last)
        finally:
            for process in publishers.running:
                process.kill()
                process.wait()
            server.stop(signal.SIGKILL)
    counts.update(faults.done)
    return counts


def _say_last(url: str) -> str:
    from sse_broker import Broker, LogUnavailable

    broker = Broker(log=url)
    end = time.monotonic() + 30
    while True:
        try:
            broker.send_to_topic(TOPIC, "message", "last:0", id="")
            return "last:0"
        except LogUnavailable:
            if time.monotonic() > end:
                raise


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--log", choices=LOGS, default="sqlite")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--worker", choices=WORKERS, default="gthread")
    parser.add_argument("--publishers", type=int, default=3)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rate", type=float, default=15, help="messages per second and publisher")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--break", dest="broken", default="", help="make a mistake on purpose")
    args = parser.parse_args(words)
    print(f"torture: {args.log}, {args.seconds:g} s, seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            counts = run(args, Path(folder))
        except Violation as err:
            print(f"VIOLATION: {err}", flush=True)
            return 1
    for name, count in counts.items():
        print(f"{count:>9,}  {name}")
    print("nothing acknowledged is missing, nothing came twice or out of order")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One server, its streams and the cases, in one round."""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.load import Load, get
from benchmarks.process import Server, kernel_memory, socket_memory
from benchmarks.subjects import Subject, Trigger

WINDOW = 256  # connections that are being opened at once
WARM = 20  # streams that come and go before anything is weighed
ONES = 300  # messages one at a time, at most
ONES_SECONDS = 1.5
BURSTS = [
    (100, 5, 100),
    (1_000, 2, 100),
    (10_000, 2, 20),
]  # up to N: how many, of how many messages
BURN_SECONDS = 0.5  # by itself, before and after
UNSAID = 3  # seconds to subscribe, for a server that says nothing before its first message
BURSTS_SECONDS = 3  # after which no other burst begins
USERS = 1_000
TO_USERS = 2_000  # messages to single users
MISSED = 10  # messages that a reconnect storm has missed
BESIDE = "other:*"  # a pattern that matches nothing that is sent
SUMS = {"deliveries", "expected", "seconds", "cpu", "failed", "lost", "count"}
SUMS |= {"backwards", "odd", "reordered"}

Figures = dict[str, Any]


class Session:
    """Runs the cases of one subject against one fresh server."""

    def __init__(self, subject: Subject, clients: int, cases: frozenset[str]) -> None:
        self.subject, self.clients, self.cases = subject, clients, cases & subject.cases
        self.server: Server = subject.start(clients)
        self.load = Load(self.server.port)

    def run(self) -> dict[str, Figures]:
        """Return the figures by case."""
        try:
            return self._run()
        finally:
            self.load.end()
            self.server.stop()

    def _run(self) -> dict[str, Figures]:
        self.load.say("stream", self.subject.stream())
        self.load.say("ping", get(self.subject.ping))
        found = {"connect": self._connect()}
        self._warm_up()
        self._asking = self._cost_of_asking()
        cases: dict[str, Callable[[], Figures]] = {
            "one": self._one,
            "ping": lambda: self._one(ping=1),
            "burst": self._burst,
            "burst_http": self._burst_http,
            "beside_pattern": self._beside_pattern,
            "burn": lambda: self._beside_burner(self._one),
            "burn_burst": lambda: self._beside_burner(self._burst),
            "storm": self._storm,
            "users": self._users,
            "by_pattern": self._by_pattern,
        }
        for name, case in cases.items():
            if name in self.cases:
                found[name] = case()
        return {name: figures for name, figures in found.items() if name in self.cases}

    def _measured(self, act: Callable[[], Figures]) -> Figures:
        before = self.server.cpu()
        figures = act()
        figures["cpu"] = self.server.cpu() - before
        return figures

    def _open(self, clients: int, each: int = 0) -> Figures:
        return self.load.do("open", clients, WINDOW, int(self.subject.head), each)

    def _open_all(self) -> Figures:
        figures = self._open(self.clients)
        if not self.subject.head:  # nothing says when it has subscribed
            time.sleep(UNSAID)
            figures["opening"] = 0.0
        return figures

    def _send(self, trigger: Trigger, each: int) -> Figures:
        """Have a trigger's messages sent; *each* deliveries come of each of its requests."""
        self.load.say("request", trigger.text)
        return self.load.do("burst", trigger.count, each, trigger.connections)

    def _connect(self) -> Figures:
        self._open(WARM)
        self.load.do("close")
        time.sleep(0.3)
        kernel, resident = kernel_memory(), self.server.resident()
        figures = self._measured(self._open_all)
        if figures["failed"] or figures["streams"] < self.clients:
            raise SystemExit(f"{self.subject.name}: {self.clients} streams, but {figures}")
        time.sleep(0.3)
        figures["user_bytes"] = (self.server.resident() - resident) / self.clients
        figures["kernel_bytes"] = (kernel_memory() - kernel) / self.clients
        figures["socket_bytes"] = socket_memory(self.server.port) / self.clients
        figures["threads"] = self.server.threads()
        return figures

    def _warm_up(self) -> None:
        """Send until a message reaches every stream; some servers do not say when they have it."""
        for _ in range(5):
            trigger = self.subject.trigger(1, 0)
            if self._send(trigger, self.clients)["deliveries"] >= self.clients:
                self.load.do("watch", 0.2)
                return
        raise SystemExit(f"{self.subject.name}: no message reaches all {self.clients} streams")

    def _cost_of_asking(self) -> float:
        """Return the CPU seconds of a request that sends nothing, where code in the server sends.

        That request is the benchmark's, not the server's, and has a column of its own.
        """
        if not self.subject.in_process:
            return 0.0
        self.load.say("request", self.subject.trigger(0, 0).text)
        return self._measured(lambda: self.load.do("burst", 200, 0, 1))["cpu"] / 200

    def _one(self, ping: int = 0) -> Figures:
        self.load.say("request", self.subject.trigger(1, 0).text)
        ones = ("ones", ONES, ONES_SECONDS, self.clients, ping)
        figures = self._measured(lambda: self.load.do(*ones))
        figures["asking_cpu"] = self._asking * figures["messages"]
        return figures

    def _burst(self) -> Figures:
        return self._bursts(lambda count: self.subject.trigger(count, 0))

    def _burst_http(self) -> Figures:
        return self._bursts(self.subject.http or (lambda count: self.subject.trigger(count, 0)))

    def _beside_pattern(self) -> Figures:
        """One more stream, of the same tenant, whose pattern matches nothing that is sent."""
        path = self.subject.path.replace("topics=bench", f"topics={BESIDE}")
        with socket.create_connection(("127.0.0.1", self.server.port)) as one:
            request = self.subject.stream(path.replace("@CLIENT@", "9" * 12))
            one.sendall(request.replace("@RESUME@", "").encode())
            if not any(b"event: welcome" in part for part in iter(lambda: one.recv(65_536), b"")):
                raise SystemExit(f"{self.subject.name}: the stream with a pattern was refused")
            return self._burst()

    def _by_pattern(self) -> Figures:
        """The same streams, each of which asks for the topic by a pattern."""
        path = self.subject.path.replace("topics=bench", "topics=*")
        self.load.do("close")
        self.load.say("stream", self.subject.stream(path))
        self._open_all()
        return self._burst()

    def _bursts(self, by: Callable[[int], Trigger]) -> Figures:
        times, messages = next((one[1:] for one in BURSTS if self.clients <= one[0]), (1, 10))
        trigger = by(messages)
        each = messages * self.clients // trigger.count
        rounds: list[Figures] = []
        while len(rounds) < times and sum(one["seconds"] for one in rounds) < BURSTS_SECONDS:
            rounds.append(self._measured(lambda: self._send(trigger, each)))
        return joined(rounds) | {"messages": messages}

    def _beside_burner(self, act: Callable[[], Figures]) -> Figures:
        before = self._burner_alone()
        self.server.post("/burn?on=1")
        figures = act()
        beside = self.server.post("/burn?on=0")["loops_per_second"]
        alone = (before + self._burner_alone()) / 2
        return figures | {"burner_keeps": beside / alone}

    def _burner_alone(self) -> float:
        self.server.post("/burn?on=1")
        time.sleep(BURN_SECONDS)
        return self.server.post("/burn?on=0")["loops_per_second"]

    def _users(self) -> Figures:
        if self.subject.user_path:
            self.load.do("close")
            self.load.say("stream", self.subject.stream(self.subject.user_path))
            self._open_all()
        users = min(USERS, self.clients)
        trigger = self.subject.trigger(TO_USERS, users)
        each = TO_USERS // trigger.count
        return self._measured(lambda: self._send(trigger, each)) | {"messages": TO_USERS}

    def _storm(self) -> Figures:
        """All streams end at once, miss some messages, and come back with their last ids."""
        self.load.do("close")
        self._send(self.subject.trigger(MISSED, 0), 0)
        figures = self._measured(lambda: self._open(self.clients, MISSED))
        return figures | {"messages": MISSED}


def joined(rounds: list[Figures]) -> Figures:
    """Return the sums of counts and times, and the medians of percentiles."""
    first = rounds[0]
    found: Figures = {}
    for name, value in first.items():
        if isinstance(value, dict):
            found[name] = joined([one[name] for one in rounds if name in one])
        elif name in SUMS:
            found[name] = sum(one[name] for one in rounds)
        else:
            found[name] = statistics.median(one[name] for one in rounds)
    return found

"""Shows that so many streams can be held, and that one message reaches them all.

``python -m benchmarks.hold`` holds 18,000 in one process; ``--clients 40000 --workers 3``
in three, over a SQLite log.  Streams come from several addresses, because one has about
28,000 ports, and from several processes, because one has so many descriptors.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from benchmarks.build import c_programs
from benchmarks.load import Load
from benchmarks.process import Server, gunicorn, kernel_memory
from benchmarks.subjects import SUBJECTS

WINDOW = 256
SPARE = 200  # descriptors that a process has for other things


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hold", description=__doc__)
    parser.add_argument("--clients", type=int, default=18_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--host", choices=["handoff", "gevent"], default="handoff")
    options = parser.parse_args()
    c_programs()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE
    if options.clients > most * options.workers:
        parser.error(f"--clients: at most {most:,} per worker go here (ulimit -n)")
    room = -(-most * 10 // 9)  # a worker leaves a tenth of its connections to other requests
    with tempfile.TemporaryDirectory(prefix="bench-hold-") as folder:
        log = f"sqlite:///{Path(folder) / 'log.db'}" if options.workers > 1 else "memory://"
        server = gunicorn(
            "over_a_log", options.host, 0, options.workers, connections=room, BENCH_LOG=log
        )
        try:
            hold(server, options.clients, most)
        finally:
            server.stop()


def hold(server: Server, clients: int, most: int) -> None:
    """Open the streams, send, count, and say what they weigh."""
    loads = [Load(server.port, pinned=False) for _ in range(-(-clients // most))]
    shares = [
        clients // len(loads) + (number < clients % len(loads)) for number in range(len(loads))
    ]
    resident, kernel, cpu = server.resident(), kernel_memory(), server.cpu()
    started = time.monotonic()
    for load, share in zip(loads, shares, strict=True):
        load.say("stream", SUBJECTS["handoff"].stream())
        opened = load.do("open", share, WINDOW, 1, 0)
        if opened["streams"] != share:
            raise SystemExit(f"{share:,} streams were asked for, but {opened}")
    seconds = time.monotonic() - started
    print(f"{clients:,} streams are open after {seconds:.1f} s", flush=True)
    print(f"by process: {', '.join(f'{count:,}' for count in descriptors(server))} descriptors")
    print(f"CPU: {1e6 * (server.cpu() - cpu) / clients:,.0f} µs each to open")
    print(f"user memory: {(server.resident() - resident) / clients / 1024:.1f} kB each")
    print(f"kernel memory, both ends: {(kernel_memory() - kernel) / clients / 1024:.1f} kB each")
    for number in (1, 2, 3):
        send(server, loads, shares, number)
    for load in loads:
        load.end()


def send(server: Server, loads: list[Load], shares: list[int], number: int) -> None:
    """Send one message and count it at every stream, one load client after the other."""
    cpu = server.cpu()
    took = server.post("/send?n=1")["took"]
    for load, share in zip(loads, shares, strict=True):
        got = load.do("expect", share)
        if got["deliveries"] != share or got["least"] != 1 or got["lost"]:
            raise SystemExit(f"message {number} should have come once to {share:,}, but {got}")
    spent = 1e6 * (server.cpu() - cpu) / sum(shares)
    print(
        f"message {number} came once to each of {sum(shares):,}; send returned in"
        f" {1000 * took:.2f} ms; {spent:.2f} CPU µs a delivery",
        flush=True,
    )


def descriptors(server: Server) -> list[int]:
    """Return how many descriptors each process has, but gunicorn's own parent."""
    return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in server.pids()[1:]]


if __name__ == "__main__":
    main()

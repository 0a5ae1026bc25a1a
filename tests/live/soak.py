"""The soak: clients come and go, messages flow, workers restart; the end equals the start.

``python -m tests.live.soak --seconds 3600 --picture soak.svg``

Resident memory, threads, descriptors and frames that wait are read once a second
and drawn.  In the first half the workers are restarted; in the second half they
live on, so that what leaks would be seen: when everybody has left, a worker holds
what it held when everybody had left half a run ago.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path

from tests.live import torture
from tests.live.servers import Server, free_port, gunicorn, until

RESTARTS = 4


@dataclass
class Sample:
    """All workers together at one moment."""

    seconds: float
    clients: int
    memory: float  # MiB
    threads: int
    descriptors: int
    waiting: int  # frames in clients' queues, of the worker that answered


def sample(server: Server, began: float) -> Sample:
    pids = torture.worker_pids(server)
    memory, threads, descriptors = 0.0, 0, 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            descriptors += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:  # it ended meanwhile
            continue
        facts = dict(line.split(":", 1) for line in status.split("\n") if ":" in line)
        if "VmRSS" not in facts:  # it ends just now
            continue
        memory += int(facts["VmRSS"].split()[0]) / 1024
        threads += int(facts["Threads"])
    try:
        numbers = server.json("/numbers")
    except (OSError, AssertionError):  # a worker on its way out
        numbers = {"clients": 0, "waiting": 0}
    now = time.monotonic() - began
    return Sample(now, numbers["clients"], memory, threads, descriptors, numbers["waiting"])


def run(worker: str, seconds: float, clients: int, folder: Path) -> tuple[list[Sample], list[str]]:
    """Return what was sampled, and what at the end is not as it was."""
    url, port = f"sqlite:///{folder}/log.db", free_port()
    pool = 4 if worker == "handoff" else clients + 16
    kind = ["-k", torture.WORKERS[worker], "--workers", "1", "--threads", str(pool)]
    command = gunicorn(port, *kind, "--worker-connections", "5000")
    env = {"SSE_LOG_URL": url, "SSE_RECONNECT_WINDOW": "1", "SSE_MAX_STREAM_AGE": "20"}
    server = Server(command, port, **env).start()
    torture.measure_with(url)
    publishers = torture.Publishers(url, folder, 2, 15)
    soak = Soak(server, clients)
    try:
        for _ in range(RESTARTS):
            soak.busy(seconds / 2 / RESTARTS)
            server.process.send_signal(signal.SIGHUP)
        soak.busy(max(2.0, seconds / 20))
        before = soak.quiet()
        soak.busy(seconds / 2)
        after = soak.quiet()
        publishers.stop()
    finally:
        for process in publishers.running:
            process.kill()
            process.wait()
        server.stop(signal.SIGKILL)
    before.threads = max(before.threads, pool + 8 if worker == "gthread" else 0)  # it grows to that
    return soak.samples, differences(before, after)


class Soak:
    """Drives the crowd and samples once a second."""

    def __init__(self, server: Server, clients: int) -> None:
        self.server, self.clients = server, clients
        self.samples: list[Sample] = []
        self.began = time.monotonic()
        self.dice = random.Random(7)

    def busy(self, seconds: float) -> None:
        crowd = torture.Crowd(self.server.port, self.clients, self.dice)
        end, due = time.monotonic() + seconds, 0.0
        while time.monotonic() < end:
            crowd.step()
            if time.monotonic() >= due:
                due = time.monotonic() + 1
                self.samples.append(sample(self.server, self.began))
        for client in crowd.clients:
            client.leave()
        crowd.selector.close()

    def quiet(self) -> Sample:
        """Return a sample once everybody has left and the server has settled."""
        until(lambda: self.server.json("/numbers")["clients"] == 0, 20, 0.2)
        until(lambda: len(torture.worker_pids(self.server)) == 1, 20, 0.2)
        time.sleep(3)
        self.samples.append(sample(self.server, self.began))
        return self.samples[-1]


def differences(before: Sample, after: Sample) -> list[str]:
    """Return what has grown, in words."""
    found = []
    for name, slack in (("clients", 0), ("threads", 2), ("descriptors", 4), ("waiting", 0)):
        if getattr(after, name) > getattr(before, name) + slack:
            found.append(f"{name}: {getattr(before, name)} became {getattr(after, name)}")
    if after.memory > 1.15 * before.memory + 6:
        found.append(f"memory: {before.memory:.1f} MiB became {after.memory:.1f}")
    return found


def picture(samples: list[Sample]) -> str:
    """Return the samples as an SVG, one strip each."""
    names = [field.name for field in fields(Sample)][1:]
    strips = [strip(name, samples, 40 + 130 * n) for n, name in enumerate(names)]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="900" height="690" font-family="sans-serif"'
        ' font-size="13"><rect width="100%" height="100%" fill="white"/>'
        + "".join(strips)
        + "</svg>"
    )


def strip(name: str, samples: list[Sample], top: int) -> str:
    values = [float(getattr(one, name)) for one in samples]
    most, last = max([*values, 1.0]), max(samples[-1].seconds, 1.0)
    points = " ".join(
        f"{70 + 800 * one.seconds / last:.1f},{top + 90 - 90 * value / most:.1f}"
        for one, value in zip(samples, values, strict=True)
    )
    return (
        f'<text x="70" y="{top - 8}">{name}</text><text x="10" y="{top + 10}">{most:,.0f}</text>'
        f'<text x="10" y="{top + 90}">0</text>'
        f'<path d="M70 {top + 90}H870" stroke="#ccc"/>'
        f'<polyline points="{points}" fill="none" stroke="#2563eb" stroke-width="1.5"/>'
    )


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--worker", choices=torture.WORKERS, default="handoff")
    parser.add_argument("--clients", type=int, default=150)
    parser.add_argument("--picture", type=Path, default=Path("soak.svg"))
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        samples, found = run(args.worker, args.seconds, args.clients, Path(folder))
    args.picture.write_text(picture(samples))
    most = max(samples, key=lambda one: one.memory)
    print(f"{args.worker}: {len(samples)} samples, at most {most.memory:.0f} MiB; {args.picture}")
    print("\n".join(found) or f"the end equals the start: {samples[-1]}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

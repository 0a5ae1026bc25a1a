"""From figures of rounds to medians and Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Figures = dict[str, Any]


def median(rounds: list[Figures]) -> Figures:
    """Return the median of each figure; a figure that some rounds lack is of the others."""
    names = dict.fromkeys(name for one in rounds for name in one)
    found: Figures = {}
    for name in names:
        values = [one[name] for one in rounds if name in one]
        found[name] = median(values) if isinstance(values[0], dict) else statistics.median(values)
    return found


def derived(figures: Figures) -> Figures:
    """Return a round's figures with what follows from them."""
    cpu = max(figures["cpu"], 1e-9)
    more: Figures = {"missing": figures["expected"] - figures["deliveries"]}
    if figures["deliveries"]:
        more["per_cpu_second"] = figures["deliveries"] / cpu
        more["us_per_delivery"] = 1e6 * cpu / figures["deliveries"]
        more["per_second"] = figures["deliveries"] / figures["seconds"]
    if figures["opening"]:
        more["connects_per_second"] = figures["streams"] / figures["opening"]
    more["cpu_us_per_stream"] = 1e6 * cpu / max(figures["streams"], 1)
    return figures | more


@dataclass(frozen=True)
class Row:
    """One server in one case at one number of clients: its rounds and their median."""

    host: str
    clients: int
    case: str
    rounds: list[Figures]

    @property
    def figures(self) -> Figures:
        return median(self.rounds)

    def as_json(self) -> Figures:
        identity = {"host": self.host, "clients": self.clients, "case": self.case}
        return {**identity, "median": self.figures, "rounds": self.rounds}


def rows_of(found: dict[tuple[str, int, str], list[Figures]]) -> list[Row]:
    return [Row(*key, [derived(one) for one in rounds]) for key, rounds in found.items()]


def count(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def times(figures: Figures | None, *names: str) -> str:
    """Return percentiles in milliseconds, to three digits or so."""
    if not figures:
        return "-"
    return " / ".join(f"{figures[f'{name}_ms']:.3g}" for name in names)


def kilobytes(value: float) -> str:
    return f"{value / 1024:.1f}"


Column = tuple[str, Callable[[Figures], str]]
BESIDE: list[Column] = [
    ("deliveries per second", lambda f: count(f.get("per_second"))),
    ("latency p50 / p99 ms", lambda f: times(f.get("latency"), "p50", "p99")),
    ("the other thread keeps", lambda f: f"{100 * f['burner_keeps']:.0f} %"),
]
BURST: list[Column] = [
    ("messages", lambda f: count(f["messages"])),
    ("deliveries per CPU-second", lambda f: count(f.get("per_cpu_second"))),
    ("per second", lambda f: count(f.get("per_second"))),
    ("latency p50 / p99 ms", lambda f: times(f.get("latency"), "p50", "p99")),
]
TABLES: dict[str, tuple[str, list[Column]]] = {
    "one": (
        "One message at a time to all",
        [
            ("deliveries per CPU-second", lambda f: count(f.get("per_cpu_second"))),
            ("CPU µs a delivery", lambda f: count(f.get("us_per_delivery"), 2)),
            ("of it µs for asking", lambda f: _asking(f)),
            ("latency p50 / p99 ms", lambda f: times(f.get("latency"), "p50", "p99")),
            ("send returns in p50 / p99 / max ms", lambda f: _took(f)),
        ],
    ),
    "ping": (
        "Ordinary requests while one message after the other goes to all",
        [("request p50 / p99 / max ms", lambda f: times(f.get("ping"), "p50", "p99", "max"))],
    ),
    "burst": ("Bursts to all, from code in the server", BURST),
    "burst_http": ("Bursts to all, published over HTTP", BURST),
    "beside_pattern": (
        "Bursts to all, beside one stream whose pattern matches nothing that is sent",
        BURST,
    ),
    "by_pattern": ("Bursts to all, who subscribe by a pattern", BURST),
    "users": (
        "Messages to single users",
        [
            ("deliveries per CPU-second", lambda f: count(f.get("per_cpu_second"))),
            ("µs a send", lambda f: _send_time(f)),
            ("latency p50 / p99 ms", lambda f: times(f.get("latency"), "p50", "p99")),
        ],
    ),
    "burn": ("One at a time beside a thread that burns CPU", BESIDE),
    "burn_burst": ("Bursts beside a thread that burns CPU", BESIDE),
    "connect": (
        "Connecting, and idle memory",
        [
            ("connects per second", lambda f: count(f.get("connects_per_second"))),
            ("CPU µs each", lambda f: count(f["cpu_us_per_stream"])),
            ("user kB each", lambda f: kilobytes(f["user_bytes"])),
            ("kernel kB each, both ends", lambda f: kilobytes(f["kernel_bytes"])),
            ("socket buffers, bytes each", lambda f: count(f["socket_bytes"])),
            ("threads", lambda f: count(f["threads"])),
        ],
    ),
    "storm": (
        "All reconnect at once and get what they missed",
        [
            ("messages missed by each", lambda f: count(f["messages"])),
            ("seconds until all have it", lambda f: f"{f['seconds']:.2f}"),
            ("reconnects per second", lambda f: count(f["streams"] / f["seconds"])),
            ("CPU µs each", lambda f: count(f["cpu_us_per_stream"])),
        ],
    ),
}


def _asking(figures: Figures) -> str:
    """Return what of a delivery's cost is the request that asked for the message."""
    if not figures["deliveries"]:
        return "-"
    return count(1e6 * figures.get("asking_cpu", 0.0) / figures["deliveries"], 2)


def _took(figures: Figures) -> str:
    return times(figures.get("took"), "p50", "p99", "max")


def _send_time(figures: Figures) -> str:
    if "took" not in figures:
        return "-"
    return f"{1e3 * figures['took']['p50_ms'] / figures['messages']:.1f}"


def table(head: list[str], lines: Iterable[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def markdown(rows: list[Row]) -> str:
    """Return the tables of all cases, the growth, and what was lost."""
    parts = []
    for case, (title, columns) in TABLES.items():
        mine = [row for row in rows if row.case == case]
        if mine:
            head = ["server", "clients", *(name for name, _ in columns)]
            lines = (_line(row, columns) for row in sorted(mine, key=lambda row: row.clients))
            parts.append(f"### {title}\n\n{table(head, lines)}")
    return "\n".join([*parts, *growth(rows), *losses(rows), *doubts(rows)])


def _line(row: Row, columns: list[Column]) -> list[str]:
    figures = row.figures
    return [row.host, count(row.clients), *(show(figures) for _, show in columns)]


def growth(rows: list[Row]) -> list[str]:
    """Return how the cost of a delivery grows from 1,000 clients to 10,000."""
    cost = {
        (row.host, row.clients): row.figures["us_per_delivery"]
        for row in rows
        if row.case == "one" and "us_per_delivery" in row.figures
    }
    hosts = [host for host, clients in cost if clients == 10_000 and (host, 1_000) in cost]
    if not hosts:
        return []
    lines = []
    for host in hosts:
        few, many = cost[host, 1_000], cost[host, 10_000]
        lines.append([host, f"{few:.2f}", f"{many:.2f}", f"{many / few:.2f}"])
    head = ["server", "CPU µs a delivery at 1,000", "at 10,000", "ratio"]
    return [f"### Growth\n\n{table(head, lines)}"]


def losses(rows: list[Row]) -> list[str]:
    """Return a line for each row in which streams did not get each message once, in one order."""
    said = []
    for row in rows:
        wrong = next((text for one in row.rounds if (text := trouble(row.case, one))), "")
        if wrong:
            said.append(f"{row.host}, {row.clients:,} clients, {row.case}: {wrong}.\n")
    return said


def trouble(case: str, figures: Figures) -> str:
    """Say what was wrong with what the streams got; empty if each got all, once and in order.

    Messages are told apart by their numbers.
    """
    missing = figures["expected"] - figures["deliveries"]
    if missing:
        return f"{missing:,} of {figures['expected']:,} deliveries are missing"
    if case == "connect":
        return ""
    if case == "users":
        return "" if figures["whole"] else "not each message came once"
    if figures["odd"]:
        return f"{figures['odd']:,} streams did not get each message once"
    return f"{figures['reordered']:,} streams had another order" if figures["reordered"] else ""


def doubts(rows: list[Row]) -> list[str]:
    """Return a line where the load client was the bottleneck."""
    late = [
        f"{row.host} at {row.clients:,}"
        for row in rows
        if row.case in ("one", "burst") and row.figures["busy"] > 0.97
    ]
    if not late:
        return []
    hosts = ", ".join(dict.fromkeys(late))
    return [f"The load client had hardly a pause, so latencies are partly its own: {hosts}.\n"]

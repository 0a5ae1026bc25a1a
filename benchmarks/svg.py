"""A plot without a library: bars of deliveries per CPU-second, on a logarithmic scale."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from benchmarks.report import Row

WIDTH, LEFT, RIGHT, BAR, GAP = 760, 210, 90, 15, 26
TITLES = {"one": "One message at a time", "burst": "Bursts"}
COLORS = {True: "#2f6fb5", False: "#a9b4c0"}
OURS = ("handoff", "gthread", "gevent")


def chart(rows: list[Row]) -> str:
    """Return an SVG with one group of bars per case and number of clients."""
    groups: dict[tuple[str, int], list[tuple[str, float]]] = {}
    for row in rows:
        value = row.figures.get("per_cpu_second")
        if row.case in TITLES and value:
            groups.setdefault((row.case, row.clients), []).append((row.host, value))
    values = [value for bars in groups.values() for _, value in bars] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    drawn, top = [], 44.0
    for (case, clients), bars in sorted(groups.items(), key=lambda one: (one[0][1], one[0][0])):
        drawn.append(_text(8, top, f"{TITLES[case]}, {clients:,} clients", "bold"))
        for host, value in sorted(bars, key=lambda bar: -bar[1]):
            top += BAR + 3
            share = (math.log10(value) - low) / max(high - low, 1)
            drawn.append(_bar(top, host, value, share))
        top += GAP
    head = _text(
        8, 20, "Deliveries per CPU-second of the server (logarithmic; ours in blue)", "bold"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:.0f}"'
        f' font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%"'
        f' fill="#fff"/>\n{head}{"".join(drawn)}</svg>\n'
    )


def _bar(top: float, host: str, value: float, share: float) -> str:
    length = max((WIDTH - LEFT - RIGHT) * share, 1)
    return (
        f'<text x="{LEFT - 8}" y="{top}" text-anchor="end">{escape(host)}</text>\n'
        f'<rect x="{LEFT}" y="{top - BAR + 3}" width="{length:.1f}" height="{BAR}"'
        f' fill="{COLORS[host in OURS]}"/>\n' + _text(LEFT + length + 5, top, f"{value:,.0f}")
    )


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" font-weight="{weight}">{escape(text)}</text>\n'

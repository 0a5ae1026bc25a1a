"""Runs the cases by turns, round after round, and reports.

A round of one N measures every server once, each fresh, before the next round
begins: what the machine does meanwhile meets them all.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.build import c_programs
from benchmarks.report import Row, markdown, rows_of, trouble
from benchmarks.session import Figures, Session
from benchmarks.subjects import CASES, SUBJECTS, Subject
from benchmarks.svg import chart

RESULTS = Path(__file__).parent / "results"


def main(name: str, about: str, subjects: list[Subject], clients: list[int]) -> None:
    options = _options(name, about, subjects, clients)
    c_programs()
    chosen = [SUBJECTS[host] for host in options.hosts]
    left_out = {one.name: one.why_not() for one in chosen if one.why_not()}
    found: dict[tuple[str, int, str], list[Figures]] = {}
    for count in options.clients:
        for number in range(options.rounds):
            for subject in chosen:
                if subject.name in left_out or count > subject.most:
                    continue
                said = _measure(subject, count, frozenset(options.cases), left_out)
                for case, figures in said.items():
                    found.setdefault((subject.name, count, case), []).append(figures)
                print(f"{subject.name}, {count:,} clients, round {number + 1}", file=sys.stderr)
    for host, why in left_out.items():
        print(f"{host} is left out: {why}", file=sys.stderr)
    _write(name.rpartition(".")[2], rows_of(found), left_out, options)


def _options(
    name: str, about: str, subjects: list[Subject], clients: list[int]
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=about)
    hosts = [one.name for one in subjects]
    parser.add_argument("--clients", type=int, nargs="+", default=clients)
    parser.add_argument("--hosts", nargs="+", default=hosts, choices=list(SUBJECTS), metavar="HOST")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    return parser.parse_args()


def _measure(
    subject: Subject, clients: int, cases: frozenset[str], left_out: dict[str, str]
) -> dict[str, Figures]:
    """Run one session; a peer that fails is left out from then on, ours ends the run."""
    try:
        found = Session(subject, clients, cases).run()
    except (SystemExit, OSError) as err:
        if subject.ours:
            raise
        left_out[subject.name] = f"at {clients:,} clients: {err}"
        return {}
    for case, figures in found.items():
        wrong = trouble(case, figures)
        if wrong and subject.ours:
            raise SystemExit(f"{subject.name}, {clients:,} clients, {case}: {wrong}")
    return found


def facts(options: argparse.Namespace) -> dict[str, Any]:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in _lines("/proc/cpuinfo")
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "date": dt.date.today().isoformat(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "cpu": cpu,
        "options": vars(options),
    }


def _lines(path: str) -> Iterable[str]:
    return Path(path).read_text().splitlines()


def _write(
    name: str, rows: list[Row], left_out: dict[str, str], options: argparse.Namespace
) -> None:
    known = facts(options)
    RESULTS.mkdir(exist_ok=True)
    whole = {**known, "left_out": left_out, "rows": [row.as_json() for row in rows]}
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")
    text = f"{known['date']}, Python {known['python']}, {known['cores']} cores ({known['cpu']})\n\n"
    text += markdown(rows)
    text += "".join(f"\n{host} is left out: {why}\n" for host, why in left_out.items())
    (RESULTS / f"{name}.md").write_text(text)
    (RESULTS / f"{name}.svg").write_text(chart(rows))
    print(text)
    print(f"benchmarks/results/{name}.json, .md and .svg have it", file=sys.stderr)

"""The benchmarks say what the rounds said."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from benchmarks.report import TABLES, Row, derived, growth, losses, markdown, median, rows_of
from benchmarks.subjects import CASES, SUBJECTS, Subject
from benchmarks.svg import chart

LATENCY = {"p50_ms": 1.0, "p99_ms": 9.0, "max_ms": 10.0}
ROUND = {
    "deliveries": 100,
    "expected": 100,
    "least": 10,
    "most": 10,
    "messages": 10,
    "streams": 10,
    "seconds": 2.0,
    "opening": 0.5,
    "busy": 0.5,
    "cpu": 0.001,
    "latency": LATENCY,
    "took": LATENCY,
    "ping": LATENCY,
    "burner_keeps": 0.5,
    "user_bytes": 2048.0,
    "kernel_bytes": 1024.0,
    "socket_bytes": 0.0,
    "threads": 3,
    "odd": 0,
    "reordered": 0,
    "backwards": 0,
    "whole": 1,
}


def row(host: str = "limit", clients: int = 10, case: str = "one", **other: float) -> Row:
    return rows_of({(host, clients, case): [{**ROUND, **other}]})[0]


def test_the_median_of_rounds_reaches_into_percentiles() -> None:
    rounds = [{"cpu": value, "latency": {"p50_ms": 2 * value}} for value in (9.0, 1.0, 2.0)]

    assert median(rounds) == {"cpu": 2.0, "latency": {"p50_ms": 4.0}}


def test_what_asking_costs_is_a_column_and_is_not_taken_off() -> None:
    figures = derived({**ROUND, "cpu": 0.003, "asking_cpu": 0.001})
    text = markdown([row(cpu=0.003, asking_cpu=0.001)])

    assert figures["us_per_delivery"] == pytest.approx(30)
    assert "| 30.00 | 10.00 |" in text


def test_a_missing_delivery_is_said() -> None:
    assert losses([row(), row("nchan", deliveries=97)]) == [
        "nchan, 10 clients, one: 3 of 100 deliveries are missing.\n"
    ]


@pytest.mark.parametrize(
    ("case", "figures", "said"),
    [
        ("one", {"odd": 2}, "2 streams did not get each message once"),
        ("burst", {"reordered": 3}, "3 streams had another order"),
        ("users", {"whole": 0, "odd": 10}, "not each message came once"),
    ],
)
def test_the_right_number_of_wrong_messages_is_said(case: str, figures: dict, said: str) -> None:
    assert losses([row(case=case, **figures)]) == [f"limit, 10 clients, {case}: {said}.\n"]


def test_messages_to_single_users_are_no_losses_of_the_other_streams() -> None:
    assert losses([row(case="users", odd=10, reordered=9)]) == []


def test_growth_compares_a_thousand_with_ten_thousand() -> None:
    rows = [row(clients=1_000), row(clients=10_000, cpu=0.0015), row("gthread", clients=1_000)]

    (text,) = growth(rows)

    assert "| limit | 10.00 | 15.00 | 1.50 |" in text
    assert "gthread" not in text


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_a_table(case: str) -> None:
    text = markdown([row(case=case)])

    assert f"### {TABLES[case][0]}" in text
    assert "\n| limit | 10 | " in text


def test_a_server_that_delivered_nothing_has_a_table_too() -> None:
    assert "100 of 100 deliveries are missing" in markdown([row(case="burst", deliveries=0)])


def test_the_plot_has_a_bar_for_each_server() -> None:
    plot = ET.fromstring(chart([row(), row("nchan"), row("handoff", case="burst")]))

    names = [text.text for text in plot.iter("{http://www.w3.org/2000/svg}text")]
    assert {"limit", "nchan", "handoff"} <= set(names)


def test_a_server_that_cannot_be_started_here_says_why() -> None:
    subject = Subject("peer", SUBJECTS["limit"].start, needs=("no-such-program", "sh"))

    assert subject.why_not() == "missing: no-such-program"

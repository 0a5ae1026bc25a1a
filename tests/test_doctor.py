"""What the doctor says, and its look at this machine."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from sse_broker import Broker
from sse_broker.cli import main
from sse_broker.doctor import CATALOGUE, Finding, Report, local
from sse_broker.doctor.remote import _claims, _interval
from sse_broker.servers.checks import NAMES
from tests.core.streams import Hub, Tab

ROOT = Path(__file__).parents[1]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


def names(report: Report) -> list[str]:
    return [finding.name for finding in report.findings]


def test_every_finding_says_why_what_to_change_and_where_to_read_on() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    for name in CATALOGUE:
        finding = Finding(name, "seen")
        assert finding.title
        assert finding.why.endswith(".")
        assert finding.change.endswith(".")
        assert finding.more == f"docs/troubleshooting.md#{name}"
        assert f"\n## {name}\n" in page
    for anchor in re.findall(r"\]\(#([^)]+)\)", page):
        assert f"\n## {anchor}\n" in page


def test_what_a_server_says_of_itself_is_known_to_the_doctor() -> None:
    assert set(NAMES) <= set(CATALOGUE)


def test_a_log_that_is_served_has_nothing_wrong(url: str) -> None:
    with Hub(log=url) as broker:
        Tab(broker).connect().read_on()
        broker.streams.here().presence.report(broker.streams.clock.monotonic())

        report = local.look(broker, {})

    assert report.findings == []
    assert any("1 processes serve 1 streams" in note for note in report.notes)


def test_a_log_that_nobody_serves_from_is_found(url: str) -> None:
    broker = Broker(log=url)
    broker.broadcast("e", "x")

    assert names(local.look(broker, {})) == ["log_unserved"]
    assert names(local.look(Broker(log=url + "typo"), {})) == ["log_unreachable"]


def test_a_log_whose_lock_is_held_is_found(url: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(local, "LOCK_WAIT", 0.0)
    broker = Broker(log=url)
    broker.broadcast("e", "x")
    holder = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    found = names(local.look(broker, {}))

    holder.close()
    assert "log_locked" in found


def test_misspelt_settings_and_few_descriptors_are_found(url: str, monkeypatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 512))
    broker = Broker(log=url)
    broker.broadcast("e", "x")

    report = local.look(broker, {"SSE_LOG": url})

    assert names(report) == ["configuration", "descriptors", "log_unserved"]
    assert "SSE_LOG_URL?" in report.findings[0].seen


def test_the_command_has_a_form_for_people_and_one_for_programs(url: str) -> None:
    Broker(log=url).broadcast("e", "x")
    env = {"SSE_LOG_URL": url}

    shown = CliRunner().invoke(main, ["doctor"], env=env)
    found = CliRunner().invoke(main, ["doctor", "--json"], env=env)

    assert shown.exit_code == found.exit_code == 1
    for word in ("log_unserved:", "seen", "why", "change", "docs/troubleshooting.md#log_unserved"):
        assert word in shown.output
    told = json.loads(found.output)
    assert told["status"] == "findings"
    assert [one["name"] for one in told["findings"]] == ["log_unserved"]


def test_without_url_and_log_it_says_what_to_name() -> None:
    done = CliRunner().invoke(main, ["doctor"], env={"SSE_LOG_URL": ""})

    assert done.exit_code == 2
    assert "URL of a server" in done.output


def test_a_finding_of_a_name_is_enough() -> None:
    report = Report()
    report.find("cors", "one")
    report.find("cors", "two")

    assert [finding.seen for finding in report.findings] == ["one"]


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a.e30.c", "a.W10.c", "a.bnVsbA.c"])
def test_a_token_that_is_none_says_nothing(token: str) -> None:
    assert _claims(token) == {}


@pytest.mark.parametrize(
    ("value", "seconds"), [(5, 5.0), (0, 30.0), ("x", 30.0), (1e9, 30.0), (None, 30.0)]
)
def test_the_heartbeat_is_waited_for_as_the_stream_says(value: object, seconds: float) -> None:
    assert _interval({"heartbeat": value}) == seconds

"""A short fault run for each log, and one that has to fail.  The long one: ``make torture``."""

from __future__ import annotations

import pytest

from tests.live import torture
from tests.live.conftest import need

pytestmark = pytest.mark.live


@pytest.mark.parametrize(
    ("log", "worker"),
    [("sqlite", "gthread"), ("redis", "gevent"), ("sqlite", "handoff"), ("redis", "handoff")],
)
def test_nothing_acknowledged_is_missing_doubled_or_out_of_order(
    log: str, worker: str, capfd
) -> None:
    if log == "redis":
        need("redis-server", "redis-server")
    words = ["--log", log, "--worker", worker, "--seconds", "15", "--clients", "100"]

    status = torture.main(words)

    said = capfd.readouterr().out
    assert status == 0, said
    assert "acknowledged" in said


def test_the_run_finds_a_mistake(capfd) -> None:
    # A minute at most: the run ends with the first violation, and how soon it is met is chance.
    words = ["--log", "sqlite", "--seconds", "60", "--clients", "100", "--break", "skip"]

    assert torture.main(words) == 1
    assert "VIOLATION" in capfd.readouterr().out

"""A short soak in each host.  The long one: ``make soak``."""

from __future__ import annotations

import pytest

from tests.live import soak

pytestmark = pytest.mark.live


@pytest.mark.parametrize("worker", ["gthread", "gevent", "handoff"])
def test_the_end_equals_the_start(worker: str, tmp_path, capfd) -> None:
    words = ["--worker", worker, "--seconds", "14", "--picture", str(tmp_path / "soak.svg")]

    status = soak.main(words)

    assert status == 0, capfd.readouterr().out
    assert "<polyline" in (tmp_path / "soak.svg").read_text()

"""All three hosts keep one contract; gevent's in a process of its own, because it patches."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sse_broker.core.sync import patched
from sse_broker.transport.hub import Hub
from tests.transport.benches import ByHand, OwnBench, PumpBench
from tests.transport.contract import Bench, HostContract


class TestPump(HostContract):
    def make(self, **settings: Any) -> Bench:
        return PumpBench(**settings)


class TestOwn(HostContract):
    """Threads; under gevent, greenlets."""

    def make(self, **settings: Any) -> Bench:
        return OwnBench(Hub() if patched() else ByHand(), **settings)


@pytest.mark.slow
def test_greenlets_keep_it_too() -> None:
    run = (
        "from gevent import monkey; monkey.patch_all(); import pytest, sys;"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {__file__ + '::TestOwn'!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", run],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout
    assert " passed" in done.stdout

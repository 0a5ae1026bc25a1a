"""What every test has."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sse_broker import Broker


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """No thread of ours outlives its test."""
    yield
    left = [t for t in threading.enumerate() if t.name.startswith("sse-broker-")]
    for thread in left:
        thread.join(timeout=3)
    assert not [t.name for t in left if t.is_alive()]


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker with the default settings, stopped at the end."""
    with Broker() as broker:
        yield broker

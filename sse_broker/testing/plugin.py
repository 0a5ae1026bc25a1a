"""The pytest plugin: ``sse_capture``, ``sse_client`` and ``sse_clock``.

pytest finds it by its entry point.  ``sse_capture`` and ``sse_client`` need a fixture
``app`` of yours that returns the Flask app, as pytest-flask has it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from sse_broker.testing.capture import Sent, broker_of, capture
from sse_broker.testing.clock import FakeClock
from sse_broker.testing.tabs import SSEClient

__all__ = ["sse_capture", "sse_client", "sse_clock"]


@pytest.fixture
def sse_clock() -> FakeClock:
    """A clock that is moved by hand: pass it to ``Broker(clock=...)``."""
    return FakeClock()


@pytest.fixture
def sse_capture(app: Flask) -> Iterator[Sent]:
    """What the app sends during the test."""
    with capture(app) as sent:
        yield sent


@pytest.fixture
def sse_client(app: Flask) -> Iterator[SSEClient]:
    """A test client of the app with ``stream()``; closes its streams, stops the broker after."""
    client = SSEClient(app, app.response_class)
    yield client
    client.close_streams()
    broker = broker_of(app)
    broker.stop(timeout=0)
    broker.log.close()

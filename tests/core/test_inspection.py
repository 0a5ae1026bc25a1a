"""What is to be seen of a broker without a private name."""

from __future__ import annotations

import dataclasses

import pytest

from sse_broker import Broker, Client, Identity
from sse_broker.testing import FakeClock
from tests.core.streams import Hub


def test_an_inspection_shows_streams_and_what_waits_for_them() -> None:
    clock = FakeClock()
    with Hub(clock=clock) as broker:
        client = Client(1, "t", ["a", "b:*"], clock=clock, address="127.0.0.1")
        broker.register(client)
        clock.advance(5)
        broker.send_to_topic("a", "e", "x", tenant_id="t")
        seen = broker.inspect()

        (stream,) = seen.streams
        assert (stream.client_id, stream.user_id, stream.tenant_id) == (client.id, "1", "t")
        assert (stream.topics, stream.address, stream.state) == (("a", "b:*"), "127.0.0.1", "live")
        assert (stream.waiting, stream.waiting_bytes) == (1, len(client.queue.queue[0].frame))
        assert (stream.age, stream.quiet_for) == (5, 5)
        assert (seen.life, seen.follows, seen.host_is_alive) == ("running", True, True)
        assert (seen.delivered, seen.waiting) == (broker.log.tail(), 0)
        assert [name.rsplit("-", 1)[0] for name in seen.threads] == ["sse-broker-reaper"]
        with pytest.raises(dataclasses.FrozenInstanceError):
            stream.sent = 1


def test_a_broker_that_was_never_used_can_be_inspected() -> None:
    seen = Broker().inspect()

    assert (seen.life, seen.streams, seen.host, seen.threads) == ("new", (), "", ())


def test_an_inspection_follows_a_stream_to_its_end() -> None:
    with Hub() as broker:
        reader = broker.streams.open(Identity(1, token_id="t"))
        assert broker.inspect().streams[0].state == "live"
        broker.revoke("t")
        assert broker.inspect().streams[0].state == "draining"
        broker.unregister(reader.client)
        assert broker.inspect().streams == ()

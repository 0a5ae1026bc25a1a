"""The state table of transports, and the drawing of it."""

from __future__ import annotations

import re
import socket

import pytest

from sse_broker import Broker, Identity
from sse_broker.transport import transport as module
from sse_broker.transport.transport import ARROWS, State, Transport


class NoHost:
    def rung(self, transport: Transport) -> None:
        pass


@pytest.fixture
def transport():
    ours, theirs = socket.socketpair()
    with Broker() as broker:
        reader = broker.streams.open(Identity(1))
        reader.next(0)
        yield Transport(NoHost(), reader, ours)
        broker.streams.forget(reader.client, "test")
    ours.close()
    theirs.close()


def drawn() -> dict[State, set[State]]:
    """Read the lines ``A -> B, C   why`` of the module's drawing."""
    found: dict[State, set[State]] = {}
    for line in (module.__doc__ or "").splitlines():
        match = re.match(r" +([A-Z]+) +-> ([A-Z]+(?:, [A-Z]+)*|nothing)\b", line)
        if match:
            names = [] if match[2] == "nothing" else match[2].split(", ")
            found[State[match[1]]] = {State[name] for name in names}
    return found


def test_the_drawing_is_the_table() -> None:
    assert drawn() == ARROWS


@pytest.mark.parametrize("to", State)
@pytest.mark.parametrize("before", State)
def test_an_arrow_that_is_not_in_the_table_is_a_bug(transport, before, to) -> None:
    transport.state = before

    if to in ARROWS[before]:
        transport.move(to)
        assert transport.state is to
    else:
        with pytest.raises(AssertionError):
            transport.move(to)
        assert transport.state is before


def test_who_has_something_to_say_is_not_idle(transport) -> None:
    transport.client.beat(0)
    assert not transport.park()

    transport.reader.next(0)

    assert transport.park()
    assert transport.client.queue.armed

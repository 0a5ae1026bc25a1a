"""A request has a thread once its head is there; until then it has a deadline."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from sse_broker.gunicorn import heads as module
from sse_broker.gunicorn.heads import DEADLINE, SEEN, Heads, is_there
from sse_broker.testing import FakeClock

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Pair:
    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.conn = SimpleNamespace(sock=ours, parser=None, cfg=SimpleNamespace(is_ssl=False))

    def close(self) -> None:
        self.conn.sock.close()
        self.theirs.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["epoll", "looking"])
def heads(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[Heads]:
    made = Heads(clock.monotonic)
    if request.param == "looking":  # as where there is no epoll
        made.close()
        made._epoll = None
    yield made
    made.close()


def test_a_head_is_there_when_its_last_byte_is(pair: Pair) -> None:
    for byte in HEAD:
        assert not is_there(pair.conn)
        pair.theirs.send(bytes([byte]))
    assert is_there(pair.conn)
    assert pair.conn.sock.recv(1000) == HEAD  # nothing was taken


def test_an_ended_connection_and_a_long_head_are_for_the_parser(pair: Pair) -> None:
    pair.theirs.send(b"x" * SEEN)
    assert is_there(pair.conn)
    pair.conn.sock.recv(SEEN)
    pair.theirs.close()
    assert is_there(pair.conn)


def test_what_came_with_the_request_before_is_not_waited_for(pair: Pair) -> None:
    import io

    pair.conn.parser = SimpleNamespace(unreader=SimpleNamespace(buf=io.BytesIO(b"GET ")))
    assert is_there(pair.conn)


def test_a_connection_waits_until_its_head_is_there(heads: Heads, pair: Pair) -> None:
    pair.theirs.send(HEAD[:10])
    heads.wait(pair.conn)
    assert heads.complete() == []
    pair.theirs.send(HEAD[10:20])
    assert heads.complete() == []

    pair.theirs.send(HEAD[20:])

    assert heads.complete() == [pair.conn]
    assert heads.complete() == []


def test_what_came_before_the_wait_began_is_seen(heads: Heads, pair: Pair) -> None:
    pair.theirs.send(HEAD)
    heads.wait(pair.conn)
    assert heads.complete() == [pair.conn]


def test_a_client_that_leaves_in_its_head_does_not_wait_on(pair: Pair) -> None:
    heads = Heads()
    pair.theirs.send(HEAD[:10])
    heads.wait(pair.conn)
    heads.complete()

    pair.theirs.shutdown(socket.SHUT_WR)

    assert heads.complete() == [pair.conn]
    heads.close()


def test_a_connection_waits_until_its_deadline(heads: Heads, pair: Pair, clock: FakeClock) -> None:
    heads.wait(pair.conn)
    clock.advance(DEADLINE - 0.4)
    pair.theirs.send(HEAD[:10])  # a byte now and then does not buy time
    heads.complete()
    assert heads.late() == []
    assert heads.next_in() == pytest.approx(0.4)

    clock.advance(0.4)

    assert heads.late() == [pair.conn]
    assert heads.late() == []
    assert heads.next_in() == 1.0


def test_a_worker_that_stops_does_not_wait_for_that_long(
    heads: Heads, pair: Pair, clock: FakeClock
) -> None:
    heads.wait(pair.conn)
    clock.advance(2)
    assert heads.late(clock.monotonic() + 1) == []
    assert heads.late(clock.monotonic()) == [pair.conn]


def test_what_a_thread_reads_is_cut_at_its_deadline(
    heads: Heads, pair: Pair, clock: FakeClock
) -> None:
    other = Pair()
    heads.begin(pair.conn)
    heads.begin(other.conn)
    heads.parsed(other.conn)

    clock.advance(DEADLINE)
    heads.late()

    assert pair.conn.sock.recv(1) == b""  # the parser finds the end
    other.theirs.send(b"x")
    assert other.conn.sock.recv(1) == b"x"
    other.close()


def test_tls_is_read_on_a_thread(pair: Pair) -> None:
    pair.conn.cfg.is_ssl = True
    assert is_there(pair.conn)


def test_the_deadline_is_what_the_documentation_says() -> None:
    assert module.DEADLINE == 10.0

"""A client's states, its queue and its overflow policies."""

from __future__ import annotations

import itertools

import pytest

from sse_broker import Client, InvalidConfig, Message, Target
from sse_broker.core.client import ARROWS, TAKE_BYTES, State
from sse_broker.core.ports import Record


def record(position: int) -> Record:
    return Record(position, f"e-{position}", Message(Target.BROADCAST, str(position)))


def positions(client: Client) -> list[int]:
    return [one.position for one in client.take(0).records]


def test_what_is_offered_is_taken_at_once_and_in_order() -> None:
    client = Client(1)

    assert all(client.offer(record(n)) for n in (1, 2, 3))

    assert positions(client) == [1, 2, 3]
    assert positions(client) == []


def test_the_arrows_are_those_of_the_drawing_and_no_others() -> None:
    reach = {
        State.BEHIND: lambda c: None,
        State.LIVE: lambda c: c.caught_up(),
        State.DRAINING: lambda c: c.close("x"),
        State.CLOSED: lambda c: c.finish("x"),
    }
    for start, to in itertools.permutations(State, 2):
        client = Client(1, behind=True)
        if start is not State.BEHIND:
            reach[start](client)
        assert client.state is start

        if to is State.BEHIND and start is State.LIVE:
            for n in range(257):
                client.offer(record(n))
        else:
            reach[to](client)

        assert (client.state is to) == (to in ARROWS[start])


def test_a_full_queue_with_catch_up_goes_behind_and_keeps_what_it_has() -> None:
    client = Client(1, buffer_size=2)

    taken = [client.offer(record(n)) for n in (1, 2, 3, 4)]

    assert taken == [True, True, False, False]
    assert client.state is State.BEHIND
    assert positions(client) == [1, 2]
    assert client.dropped == 0


def test_a_full_queue_with_disconnect_drains_and_ends() -> None:
    client = Client(1, buffer_size=1, overflow="disconnect")

    client.offer(record(1))
    client.offer(record(2))

    took = client.take(0)
    assert [one.position for one in took.records] == [1]
    assert took.state is State.DRAINING
    assert client.reason == "overflow"


def test_dropping_the_oldest_says_so_before_the_rest() -> None:
    client = Client(1, buffer_size=2, overflow="drop_oldest")

    for n in range(1, 6):
        client.offer(record(n))

    took = client.take(0)
    assert (took.lost_before, took.lost_after, client.dropped) == (3, 0, 3)
    assert [one.position for one in took.records] == [4, 5]
    assert client.take(0).lost_before == 0


def test_dropping_the_newest_says_so_after_the_rest() -> None:
    client = Client(1, buffer_size=2, overflow="drop_newest")

    for n in range(1, 6):
        client.offer(record(n))

    took = client.take(0)
    assert (took.lost_before, took.lost_after, client.dropped) == (0, 3, 3)
    assert [one.position for one in took.records] == [1, 2]


def test_a_closed_client_takes_nothing_and_holds_nothing() -> None:
    client = Client(1)
    client.offer(record(1))

    client.finish("gone")

    assert not client.offer(record(2))
    assert positions(client) == []
    assert client.reason == "gone"


def test_the_first_reason_counts() -> None:
    client = Client(1)

    client.close("expired")
    client.finish("client_gone")

    assert client.reason == "expired"


def test_cutting_frees_the_thread_in_the_write() -> None:
    client, freed = Client(1), []
    client.abort = lambda: freed.append(True)

    client.cut("timeout")

    assert freed == [True]
    assert client.state is State.CLOSED


def test_a_heartbeat_is_for_live_clients_only() -> None:
    live, behind = Client(1), Client(1, behind=True)

    assert live.beat(7)
    assert not behind.beat(7)

    assert live.take(0).beat == 7
    assert live.take(0).beat is None


def test_a_buffer_needs_room_for_one() -> None:
    with pytest.raises(InvalidConfig, match="buffer_size = 0"):
        Client(1, buffer_size=0)


def large(position: int, size: int = TAKE_BYTES // 2) -> Record:
    return Record(position, f"e-{position}", Message(Target.BROADCAST, "x" * size))


def test_large_records_are_taken_in_parts_and_what_else_there_is_comes_last() -> None:
    client = Client(1, overflow="drop_oldest", buffer_size=3)
    for n in (1, 2, 3, 4):
        client.offer(large(n))
    client.close("bye")

    takes = [client.take(0) for _ in range(3)]

    assert [[one.position for one in took.records] for took in takes] == [[2], [3], [4]]
    assert [took.lost_before for took in takes] == [1, 0, 0]
    assert [took.state for took in takes] == [State.LIVE, State.LIVE, State.DRAINING]


def test_a_heartbeat_waits_for_the_last_part() -> None:
    client = Client(1)
    for n in (1, 2):
        client.offer(large(n))
    client.beat(2)

    assert [client.take(0).beat for _ in range(2)] == [None, 2]


def test_what_the_log_can_give_again_is_let_go_of_above_so_many_bytes() -> None:
    client = Client(1)
    for n in (1, 2, 3):
        client.offer(large(n))

    assert not client.shed(2 * TAKE_BYTES)
    assert client.shed(TAKE_BYTES)

    assert client.state is State.BEHIND
    assert positions(client) == []


@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "drop_newest"])
def test_other_policies_keep_what_they_have(overflow: str) -> None:
    client = Client(1, overflow=overflow)
    for n in (1, 2):
        client.offer(record(n))

    assert not client.shed(0)

    assert positions(client) == [1, 2]


def test_a_stream_that_ends_keeps_what_it_has() -> None:
    client = Client(1)
    for n in (1, 2):
        client.offer(record(n))
    client.close("bye")

    assert not client.shed(0)

    assert positions(client) == [1, 2]

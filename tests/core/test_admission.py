"""Whether there is room for one more stream."""

from __future__ import annotations

import pytest

from sse_broker import Broker, BrokerConfig, Client, Identity, TooManyConnections
from tests.core.streams import Hub

LIMITS = [
    # setting, one who comes in, one who does not any more, one who still does
    ("max_connections", (1, None, "a"), (2, "t", "b"), None),
    ("max_connections_per_user", (1, None, "a"), (1, None, "b"), (2, None, "a")),
    ("max_connections_per_tenant", (1, "t", "a"), (2, "t", "b"), (1, "u", "a")),
    ("max_connections_per_address", (1, "t", "a"), (2, "u", "a"), (1, "t", "b")),
]


def client(user: int, tenant: str | None, address: str) -> Client:
    return Client(Identity(user, tenant), address=address)


@pytest.mark.parametrize(("setting", "first", "refused", "other"), LIMITS)
def test_a_limit_refuses_the_newcomer_it_is_about_and_no_other(
    setting: str, first: tuple, refused: tuple, other: tuple | None
) -> None:
    with Hub(BrokerConfig(**{setting: 1})) as broker:
        inside = client(*first)
        broker.register(inside)

        with pytest.raises(TooManyConnections) as caught:
            broker.register(client(*refused))
        with pytest.raises(TooManyConnections):
            broker.streams.check_room(Identity(*refused[:2]), address=refused[2])

        assert caught.value.field == setting
        assert inside.is_open
        assert broker.streams.counts().active_connections == 1
        assert broker.streams.counts().refusals == {setting: 2}
        assert broker.streams.counts().connections_refused == 2
        if other is not None:
            broker.register(client(*other))
        broker.unregister(inside)
        broker.register(client(*refused))


def test_clients_without_a_tenant_are_no_tenant() -> None:
    with Hub(BrokerConfig(max_connections_per_tenant=1)) as broker:
        for user in range(3):
            broker.register(Client(user + 1))
        assert broker.streams.counts().active_connections == 3


def test_the_servers_room_holds_at_registration_whatever_was_said_before() -> None:
    with Hub() as broker:
        for _ in range(2):
            broker.streams.check_room(Identity(1), room=1)
        broker.streams.open(Identity(1), room=1)

        with pytest.raises(TooManyConnections) as caught:
            broker.streams.open(Identity(2), room=1)

        assert caught.value.field == "reserve_threads"
        assert broker.streams.counts().active_connections == 1


def test_what_is_not_known_is_not_asked() -> None:
    config = BrokerConfig(max_connections_per_user=1, max_connections_per_address=1)
    with Hub(config) as broker:
        broker.register(client(1, None, "a"))
        broker.streams.check_room()
        broker.streams.check_room(address="b")
        with pytest.raises(TooManyConnections):
            broker.streams.check_room(address="a")


def test_addresses_are_forgotten_with_their_last_client(broker: Broker) -> None:
    clients = [client(1, None, "a"), client(2, None, "a"), client(3, None, "")]
    for one in clients:
        broker.register(one)
    registry = broker.streams.here()._registry
    assert registry.of_address("a") == 2

    for one in clients:
        broker.unregister(one)
    assert not registry._addresses


def test_who_is_refused_is_spread_over_four_times_the_retry() -> None:
    with Hub(BrokerConfig(max_connections=1, retry=1000)) as broker:
        broker.register(Client(1))
        waits = []
        for _ in range(300):
            with pytest.raises(TooManyConnections) as caught:
                broker.streams.check_room(Identity(2))
            waits.append(caught.value.retry_after)

    assert min(waits) >= 1
    assert max(waits) <= 4
    assert max(waits) - min(waits) > 2

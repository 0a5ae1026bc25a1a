"""Equal user ids of two tenants are two users; and who is nobody is none."""

from __future__ import annotations

import logging

import pytest

from sse_broker import ALL_TENANTS, Broker, BrokerConfig, Client, Identity
from sse_broker.core.members import member_key, member_of
from sse_broker.errors import (
    InvalidMessage,
    InvalidUserID,
    TooManyConnections,
    TopicForbidden,
)
from sse_broker.signals import user_online
from sse_broker.wire.message import Message


@pytest.fixture
def people(broker: Broker):
    """User 7 of two tenants, and one without a tenant."""
    clients = {tenant: Client(7, tenant, ["a"]) for tenant in ("t1", "t2", None)}
    for client in clients.values():
        broker.register(client)
    yield clients
    for client in clients.values():
        broker.unregister(client)


def heard(client: Client) -> list[str]:
    return [record.message.data for record in client.take(0).records]


def test_a_limit_per_user_is_of_one_tenant() -> None:
    with Broker(BrokerConfig(max_connections_per_user=1)) as broker:
        readers = [broker.streams.open(Identity(7, tenant)) for tenant in ("t1", "t2", None)]
        for tenant in ("t1", "t2", None):
            with pytest.raises(TooManyConnections):
                broker.streams.open(Identity("7", tenant))
        for reader in readers:
            broker.streams.forget(reader.client, "test")


@pytest.mark.parametrize(
    ("tenant", "hit"),
    [("t1", {"t1"}), (None, {"t1", "t2", None}), (ALL_TENANTS, {"t1", "t2", None}), ("t3", set())],
)
def test_a_user_is_disconnected_in_one_tenant(broker: Broker, people, tenant, hit) -> None:
    broker.disconnect_user(7, tenant_id=tenant)
    assert {name for name, client in people.items() if not client.is_open} == hit


def test_a_disconnect_that_was_lost_with_its_record_is_of_one_tenant_too(people, broker) -> None:
    here = broker.streams.here()
    broker.log.roster.revoke(
        'disconnect_user 7 {"tenant_id": "t2"}', broker.streams.clock.time() + 60
    )
    here.delivery.must_recheck = True
    here._report(0)
    assert {name for name, client in people.items() if not client.is_open} == {"t2"}


def test_online_is_said_of_one_tenant_or_of_all(broker: Broker, people) -> None:
    broker.unregister(people[None])
    broker.unregister(people["t2"])

    assert broker.is_user_online(7, tenant_id="t1")
    assert not broker.is_user_online(7, tenant_id="t2")
    assert broker.is_user_online(7)
    assert broker.is_user_online(7, tenant_id=ALL_TENANTS)
    assert broker.get_online_users(tenant_id="t1") == ["7"]
    assert broker.get_online_users(tenant_id="t2") == []
    assert broker.get_online_users() == ["7"]


def test_another_process_says_so_too(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with Broker(log=url) as one, Broker(log=url) as two:
        reader = one.streams.open(Identity(7, "t1"))
        here = one.streams.here()
        here.presence.report(one.streams.clock.monotonic())

        assert two.is_user_online(7, tenant_id="t1")
        assert not two.is_user_online(7, tenant_id="t2")
        assert two.is_user_online(7)
        assert two.get_online_users(tenant_id="t1") == ["7"]
        assert two.get_online_users(tenant_id="t2") == []
        one.streams.forget(reader.client, "test")


def test_the_signals_tell_the_tenant(broker: Broker) -> None:
    came: list[object] = []

    def receiver(sender: object, user_id: str, tenant_id: str | None = None) -> None:
        came.append((tenant_id, user_id))

    user_online.connect(receiver, broker)
    broker.streams.here().reaper.stop()
    clients = [Client(7, "t1"), Client(7, "t2"), Client(7)]
    for client in clients:
        broker.register(client)
    broker.streams.here().presence.report(broker.streams.clock.monotonic())
    assert came == [("t1", "7"), ("t2", "7"), (None, "7")]
    for client in clients:
        broker.unregister(client)


@pytest.mark.parametrize(
    "member",
    [(None, "7"), ("t", "7"), (None, '["t","7"]'), ("t", '["t","7"]'), ('","', '"]'), (None, "[")],
)
def test_no_id_reads_as_another_member(member) -> None:
    assert member_of(member_key(*member)) == member
    others = [(None, "7"), ("t", "7"), (None, '["t","7"]')]
    assert [member_key(*other) for other in others].count(member_key(*member)) == (member in others)


def test_a_send_without_a_tenant_among_tenants_is_warned_of_once(
    broker: Broker, people, caplog
) -> None:
    for _ in range(3):
        broker.send_to_topic("a", "e", "x")
        broker.broadcast("e", "y")
    broker.send_to_topic("a", "e", "for t1", tenant_id="t1")
    broker.streams.here().delivery.host.say()

    (line,) = [r.getMessage() for r in caplog.records if "no tenant" in r.getMessage()]
    assert "tenant_id=" in line
    assert "ALL_TENANTS" in line
    assert heard(people["t1"]) == ["for t1"]
    assert heard(people[None]) == ["x", "y"] * 3
    assert all(r.levelno == logging.WARNING for r in caplog.records)


def test_require_tenant_makes_a_forgotten_one_an_error() -> None:
    with Broker(BrokerConfig(require_tenant=True)) as broker:
        for call in (
            lambda: broker.send_to_user(7, "e", "x"),
            lambda: broker.disconnect_user(7),
            lambda: broker.recheck(7),
            lambda: broker.is_user_online(7),
            lambda: broker.get_online_users(),
        ):
            with pytest.raises(InvalidMessage) as refused:
                call()
            assert refused.value.field == "tenant_id"
        assert not broker.is_user_online(7, tenant_id="t")
        assert broker.get_online_users(tenant_id=ALL_TENANTS) == []


@pytest.mark.parametrize("forgotten", ["", "  ", "00000000-0000-0000-0000-000000000000"])
def test_an_empty_tenant_is_an_error_everywhere(broker: Broker, forgotten: str) -> None:
    for call in (
        lambda: broker.send_to_user(7, "e", "x", tenant_id=forgotten),
        lambda: broker.disconnect_user(7, tenant_id=forgotten),
        lambda: broker.recheck(7, tenant_id=forgotten),
        lambda: broker.is_user_online(7, tenant_id=forgotten),
        lambda: Identity(7, forgotten),
        lambda: Message("broadcast", "x", tenant_id=forgotten),
    ):
        with pytest.raises(InvalidUserID):
            call()


def test_a_visitor_whom_nobody_knows_reads_public_topics_and_nothing_else() -> None:
    with Broker(BrokerConfig(max_anonymous_per_address=2)) as broker:
        visitor = Identity.anonymous(["public:*"])
        known = Client(7, topics=["public:a"])
        broker.register(known)
        with pytest.raises(TopicForbidden):
            broker.streams.check_topics(visitor, ["private"])
        topics = broker.streams.check_topics(visitor, ["public:a"])
        reader = broker.streams.open(visitor, topics, address="192.0.2.1")
        client = reader.client

        broker.send_to_topic("public:a", "e", "public")
        broker.broadcast("e", "everybody who is known")
        broker.broadcast("e", "of every tenant", tenant_id=ALL_TENANTS)
        broker.send_to_user(7, "e", "mine")

        assert heard(client) == ["public"]
        assert heard(known) == ["public", "everybody who is known", "of every tenant", "mine"]
        assert broker.get_online_users() == ["7"]
        assert broker.get_stats().total_users == 1
        assert broker.get_stats().total_clients == 2
        second = broker.streams.open(visitor, (), address="192.0.2.1")
        with pytest.raises(TooManyConnections) as full:
            broker.streams.open(visitor, (), address="192.0.2.1")
        assert full.value.field == "max_anonymous_per_address"
        third = broker.streams.open(visitor, (), address="192.0.2.2")
        for one in (reader, second, third):
            broker.streams.forget(one.client, "test")
        again = broker.streams.open(visitor, (), address="192.0.2.1")
        broker.streams.forget(again.client, "test")
        broker.unregister(known)


def test_an_anonymous_identity_says_what_it_may_read() -> None:
    assert Identity.anonymous().topics == ()
    with pytest.raises(InvalidUserID):
        Identity("", topics=["a"])
    with pytest.raises(InvalidUserID):
        Identity("", is_anonymous=True)
    with pytest.raises(InvalidUserID):
        Identity("7", topics=["a"], is_anonymous=True)

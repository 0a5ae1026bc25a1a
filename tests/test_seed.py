"""The seed's own examples, in its order, in Python."""

from __future__ import annotations

import time
import uuid

import jwt
import pytest
from flask import Flask

from sse_broker import (
    Broker,
    BrokerConfig,
    Client,
    EventType,
    Identity,
    InvalidTopic,
    InvalidUserID,
    TopicsNotEnabled,
    create_blueprint,
    default_authenticator,
    default_topic_resolver,
    jwt_authenticator,
)
from sse_broker.testing import read_events


@pytest.fixture
def user() -> uuid.UUID:
    return uuid.uuid4()


def connect(broker: Broker, url: str, authenticator=default_authenticator):
    app = Flask(__name__)
    blueprint = create_blueprint(broker, authenticator, default_topic_resolver)
    app.register_blueprint(blueprint, url_prefix="/sse")
    return app.test_client().get(url)


def events(response, count: int):
    found = read_events(response.response, count)
    response.close()
    return found


# 1, 2: the broker and its configuration


def test_the_default_and_the_production_configuration() -> None:
    config = BrokerConfig()
    assert (config.client_buffer_size, config.heartbeat_interval) == (256, 30)
    assert (config.client_timeout, config.enable_topics) == (300, True)
    assert (config.max_connections, config.history_size) == (0, 0)

    BrokerConfig(
        client_buffer_size=512,
        heartbeat_interval=30,
        client_timeout=600,
        max_connections=10_000,
        history_size=0,
    )


# Basic use


def test_basic_use(user) -> None:
    broker = Broker(BrokerConfig())
    broker.start()
    response = connect(broker, f"/sse/stream?user_id={user}")
    broker.send_to_user(user, "notification", '{"title":"新消息","content":"您有一条新通知"}')

    welcome, note = events(response, 2)
    broker.stop()

    assert welcome.event == "welcome"
    assert note.event == "notification"
    assert note.data == '{"title":"新消息","content":"您有一条新通知"}'


# Custom authentication (JWT)


@pytest.mark.parametrize("where", ["query", "header"])
def test_jwt(user, broker, where) -> None:
    key = "a" * 32
    token = jwt.encode({"sub": str(user), "exp": time.time() + 60}, key)
    app = Flask(__name__)
    app.register_blueprint(
        create_blueprint(broker, jwt_authenticator(key, query="token")), url_prefix="/sse"
    )
    headers = {"Authorization": f"Bearer {token}"} if where == "header" else {}
    query = f"?token={token}" if where == "query" else ""

    response = app.test_client().get("/sse/stream" + query, headers=headers)

    assert events(response, 1)[0].event == "welcome"
    assert app.test_client().get("/sse/stream").status_code == 401


# Sending


def test_the_three_sends(user, broker) -> None:
    response = connect(broker, f"/sse/stream?user_id={user}&topics=approval:pending,task:assigned")
    broker.send_to_user(user, "notification", {"title": "New message"})
    broker.send_to_topic("approval:pending", "task", {"task_id": "123", "type": "approval"})
    broker.broadcast("announcement", {"message": "Maintenance"})
    broker.send_to_topic("approval:done", "task", "not subscribed")
    broker.send_to_user(uuid.uuid4(), "notification", "somebody else's")
    broker.send_to_user(user, EventType.MESSAGE, "last")

    names = [event.event for event in events(response, 5)]

    assert names == ["welcome", "notification", "task", "announcement", "message"]


# The notification module


class NotificationService:
    def __init__(self, repo: list[dict], broker: Broker) -> None:
        self.repo, self.broker = repo, broker

    def send_notification(self, recipient: uuid.UUID, title: str) -> None:
        notification = {"recipient_id": recipient, "title": title}
        self.repo.append(notification)
        self.broker.send_to_user(recipient, "notification", notification)


def test_the_notification_module(user, broker) -> None:
    client = Client(user)
    broker.register(client)
    service = NotificationService([], broker)

    service.send_notification(user, "Hello")

    message = client.queue.get(timeout=1).message
    assert message.data == f'{{"recipient_id":"{user}","title":"Hello"}}'
    broker.unregister(client)


# The approval flow


def test_the_approval_flow(user, broker) -> None:
    process, follower = uuid.uuid4(), uuid.uuid4()
    approver = Client(user)
    following = Client(follower, topics=[f"approval:process:{process}"])
    for client in (approver, following):
        broker.register(client)
    data = {"task_id": uuid.uuid4(), "status": "approved"}

    broker.send_to_user(user, "approval:status_changed", data)
    broker.send_to_topic(f"approval:process:{process}", "approval:status_changed", data)

    for client in (approver, following):
        assert client.queue.get(timeout=1).message.event == "approval:status_changed"
        assert client.queue.empty()
        broker.unregister(client)


# Errors


def test_the_error_table(broker) -> None:
    for nobody in (uuid.UUID(int=0), None, ""):
        with pytest.raises(InvalidUserID, match="invalid user ID"):
            broker.send_to_user(nobody, "event", "x")
    with pytest.raises(InvalidTopic, match="invalid topic"):
        broker.send_to_topic("", "event", "x")
    with Broker(BrokerConfig(enable_topics=False)) as without:
        with pytest.raises(TopicsNotEnabled, match="topics not enabled"):
            without.send_to_topic("a", "event", "x")
        with pytest.raises(TopicsNotEnabled):
            without.register(Client(1, topics=["a"]))
    assert connect(broker, "/sse/stream").status_code == 400


# Monitoring


def test_get_stats_and_who_is_online(user, broker) -> None:
    clients = [Client(user, topics=["a", "b"]), Client(user), Client(uuid.uuid4(), topics=["a"])]
    for client in clients:
        broker.register(client)

    stats = broker.get_stats()

    assert (stats.total_clients, stats.total_users, stats.total_topics) == (3, 2, 2)
    assert (stats.is_running, stats.buffer_size, stats.max_connections) == (True, 256, 0)
    assert broker.is_user_online(user)
    assert broker.is_user_online(str(user).upper())
    assert set(broker.get_online_users()) == {client.user_id for client in clients}
    for client in clients:
        broker.unregister(client)
    assert not broker.is_user_online(user)


# The test case at its end


def test_broker_send_to_user() -> None:
    broker = Broker(BrokerConfig())
    broker.start()
    user_id = uuid.uuid4()
    client = Client(user_id, None, None or ())
    broker.register(client)

    assert broker.send_to_user(user_id, "test", "hello")

    message = client.queue.get(timeout=1).message
    assert (message.event, message.data) == ("test", "hello")
    broker.unregister(client)
    broker.stop()


def test_lifecycle_is_idempotent_and_signals_are_told() -> None:
    from sse_broker.signals import client_connected, client_disconnected, message_dropped

    told: list[str] = []

    def connected(sender, client) -> None:
        told.append("connected")
        raise RuntimeError("a receiver that raises does no harm")

    def disconnected(sender, client, reason) -> None:
        told.append(reason)

    def dropped(sender, client, count) -> None:
        told.append(f"dropped {count}")

    config = BrokerConfig(client_buffer_size=1, overflow="drop_newest")
    broker = Broker(config)
    client_connected.connect(connected, broker)
    client_disconnected.connect(disconnected, broker)
    message_dropped.connect(dropped, broker)
    for _ in range(2):
        broker.start()
        broker.start()
        reader = broker.streams.open(Identity(1))
        for n in range(3):
            broker.broadcast("e", str(n))
        while reader.next(0):
            pass
        broker.stop(timeout=0)
        broker.stop()

    assert told == ["connected", "dropped 2", "shutdown"] * 2

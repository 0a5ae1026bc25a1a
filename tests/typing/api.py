"""What users write; checked by mypy, never run."""

from __future__ import annotations

import uuid

from flask import Flask, Request
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sse_broker import (
    ALL_TENANTS,
    SSE,
    Broker,
    BrokerConfig,
    Identity,
    create_blueprint,
    event_stream,
    format_event,
    jwt_authenticator,
)
from sse_broker.outbox import Outbox


def authenticator(request: Request) -> tuple[uuid.UUID, None]:
    return uuid.UUID(request.args["user"]), None


def authorizer(identity: Identity, topic: str) -> bool:
    return topic.startswith(f"user:{identity.user_id}:")


app = Flask(__name__)
broker = Broker(BrokerConfig(client_buffer_size=512), log="memory://", authorizer=authorizer)
app.register_blueprint(create_blueprint(broker, authenticator), url_prefix="/sse")
sse = SSE(app, authenticator=jwt_authenticator("k" * 32, algorithms=["HS256"]))

message_id: str = broker.send_to_user(uuid.uuid4(), "notification", {"title": "x"})
message_id = broker.send_to_topic("a:b", "event", "text", tenant_id="t", id="order-1")
message_id = broker.send_to_topic(["project:7", "user:3"], "event", "text", retain=True)
message_id = broker.broadcast("event", ["x", 1], tenant_id=ALL_TENANTS, retry=5000)
moment: str = broker.last_event_id()
frame: bytes = format_event("event", {"a": 1})
total: int = broker.get_stats().total_clients
users: list[str] = broker.get_online_users()

with Broker() as running:
    online: bool = running.is_user_online("someone")
    response = event_stream(("tick", n) for n in range(3))

engine = create_engine("sqlite://")
outbox = Outbox(broker, engine, interval=0.5)
current = scoped_session(sessionmaker(engine))
maybe_id: str | None = broker.after_commit(current).send_to_user(7, "event", {"a": 1})
with Session(engine) as session, engine.begin() as connection:
    maybe_id = broker.after_commit(session).broadcast("event", "text", tenant_id=ALL_TENANTS)
    message_id = outbox.within(session).send_to_topic(("a:b", "c"), "event", "text")
    message_id = outbox.within(current).send_to_user("someone", "event", "text", id="x")
    message_id = outbox.within(connection).broadcast("event", None)
sent: int = outbox.drain()

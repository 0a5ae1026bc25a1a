"""Orders: announced when their transaction has committed, and only then.

Run:  flask --app samples/orders.py run        (needs sse-broker[sqlalchemy])
See:  curl -N 'http://localhost:5000/sse/stream?user_id=11111111-1111-4111-8111-111111111111'
      curl http://localhost:5000/orders -H 'Content-Type: application/json' \
           -d '{"user_id": "11111111-1111-4111-8111-111111111111", "item": "Tea"}'
      curl http://localhost:5000/orders/unpaid -H 'Content-Type: application/json' \
           -d '{"user_id": "11111111-1111-4111-8111-111111111111", "item": "Tea"}'
The stream shows ``event: order`` for the first order and nothing for the second,
which is announced by the same line and rolled back after it.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, Response, jsonify
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from samples.common import field, open_engine, single, user_field
from sse_broker import SSE


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    item: Mapped[str]


class Unpaid(Exception):
    """The customer did not pay."""


def place(sse: SSE, session: Session, user_id: str, item: str) -> dict[str, Any]:
    """Store an order and announce it; the caller commits, or it never happened."""
    order = Order(user_id=user_id, item=item)
    session.add(order)
    session.flush()  # so that it has its id
    placed = {"id": order.id, "item": item}
    sse.after_commit(session).send_to_user(user_id, "order", placed)
    return placed


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("orders", __name__)
    engine = open_engine()
    Base.metadata.create_all(engine)

    @blueprint.post("/orders")
    def paid() -> Response:
        with Session(engine) as session, session.begin():
            placed = place(sse, session, user_field("user_id"), field("item"))
        return jsonify(placed)

    @blueprint.post("/orders/unpaid")
    def unpaid() -> Response:
        with Session(engine) as session, session.begin():
            place(sse, session, user_field("user_id"), field("item"))
            raise Unpaid

    @blueprint.errorhandler(Unpaid)
    def refuse(_: Unpaid) -> tuple[Response, int]:
        return jsonify(error="not paid"), 402

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)

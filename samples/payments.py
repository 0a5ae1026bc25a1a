"""Payments: each is announced, even if the process dies right after the commit.

Run:  flask --app samples/payments.py run        (needs sse-broker[sqlalchemy])
See:  curl -N 'http://localhost:5000/sse/stream?user_id=11111111-1111-4111-8111-111111111111'
      curl http://localhost:5000/payments -H 'Content-Type: application/json' \
           -d '{"user_id": "11111111-1111-4111-8111-111111111111", "invoice": "2024-17"}'
The stream shows ``event: payment``.  What was to be said is a row beside the
payment until a thread of the outbox has sent it; with several workers, or
several machines, one of them does it at a time.
"""

from __future__ import annotations

import secrets

from flask import Blueprint, Flask, Response, jsonify
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from samples.common import field, open_engine, single, user_field
from sse_broker import SSE
from sse_broker.outbox import Outbox


class Base(DeclarativeBase):
    pass


class Payment(Base):
    __tablename__ = "payments"
    number: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    invoice: Mapped[str]


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("payments", __name__)
    engine = open_engine()
    outbox = Outbox(sse.broker, engine)
    Base.metadata.create_all(engine)
    outbox.create()
    blueprint.record_once(lambda state: state.app.extensions.update(outbox=outbox))
    blueprint.before_request(outbox.start)  # in the worker, not before its fork; idempotent

    @blueprint.post("/payments")
    def pay() -> Response:
        user_id, invoice = user_field("user_id"), field("invoice", most=40)
        number = secrets.token_hex(4)
        with Session(engine) as session, session.begin():
            session.add(Payment(number=number, user_id=user_id, invoice=invoice))
            said = {"number": number, "invoice": invoice}
            outbox.within(session).send_to_user(user_id, "payment", said, id=f"payment-{number}")
        return jsonify(said)

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)

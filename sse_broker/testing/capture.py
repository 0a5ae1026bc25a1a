"""What an application sent, as a list with questions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from flask import Flask

from sse_broker.broker import Broker
from sse_broker.web.extension import SSE
from sse_broker.wire.ids import UserID, normal_user_id
from sse_broker.wire.message import Message, Target, encode_data
from sse_broker.wire.parse import parse

__all__ = ["Sent", "broker_of", "capture"]

_ANY: Any = object()


def broker_of(target: Broker | SSE | Flask) -> Broker:
    """Return the broker that *target*, an app, an extension or a broker, sends with.

    :raises TypeError: *target* is something else, or an app without the extension.
    """
    if isinstance(target, Flask):
        target = target.extensions.get("sse", target)
    if isinstance(target, SSE):
        target = target.broker
    if isinstance(target, Broker):
        return target
    raise TypeError(f"{target!r} is neither a Broker, nor an SSE, nor an app with SSE(app)")


class Sent:
    """The messages that were sent while they were captured, oldest first."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(list(self.messages))

    def __repr__(self) -> str:
        if not self.messages:
            return "nothing was sent"
        return "\n".join(["what was sent:", *(f"  {_shown(one)}" for one in self.messages)])

    def matching(
        self,
        *,
        user: UserID | None = None,
        topic: str | None = None,
        event: str | None = None,
        data: Any = _ANY,
        tenant: Any = _ANY,
    ) -> list[Message]:
        """Return the messages that fit all that is said.

        *data* is compared as a client reads it: the value for JSON, the text for text.
        *tenant* ``None`` is a message without a tenant.
        """
        user_id = None if user is None else normal_user_id(user)
        tenant_id = tenant
        if isinstance(tenant, str | int):
            tenant_id = normal_user_id(tenant)
        return [
            one
            for one in self
            if (user_id is None or (one.target is Target.USER and one.user_id == user_id))
            and (topic is None or topic in _topics(one))
            and (event is None or one.event == event)
            and (data is _ANY or _same(one, data))
            and (tenant is _ANY or one.tenant_id == tenant_id)
        ]

    def assert_pushed(self, *, times: int | None = None, **wanted: Any) -> Message:
        """Fail unless a message fits *wanted*, as in :meth:`matching`; return the first one.

        With *times*, exactly so many have to fit.  The failure shows what was sent instead.
        """
        __tracebackhide__ = True
        found = self.matching(**wanted)
        if found and times in (None, len(found)):
            return found[0]
        said = ", ".join(f"{name}={value!r}" for name, value in wanted.items()) or "anything"
        count = "no message" if not found else f"{len(found)} messages, not {times},"
        raise AssertionError(f"{count} with {said}; {self!r}")

    def assert_nothing_pushed(self, **wanted: Any) -> None:
        """Fail if a message fits *wanted*; without it, if any was sent."""
        __tracebackhide__ = True
        if self.matching(**wanted):
            raise AssertionError(f"nothing was to be sent; {self!r}")


@contextlib.contextmanager
def capture(target: Broker | SSE | Flask) -> Iterator[Sent]:
    """Collect what *target* sends, from any thread, in this process; streams get it as well.

    A message of ``after_commit`` is there when its transaction has committed, one
    of the outbox when the outbox sends it.  What the broker refuses is not.
    """
    broker, sent = broker_of(target), Sent()
    publish = broker.publish

    def publish_and_note(message: Message) -> str:
        message_id = publish(message)
        sent.messages.append(message)
        return message_id

    # On this one object: everything that sends in this process goes through it.
    before = vars(broker).get("publish")
    vars(broker)["publish"] = publish_and_note
    try:
        yield sent
    finally:
        if before is None:
            del vars(broker)["publish"]
        else:
            vars(broker)["publish"] = before


def _topics(message: Message) -> tuple[str, ...]:
    return tuple(getattr(message, "topics", ())) or ((message.topic,) if message.topic else ())


def _text(message: Message) -> str:
    """Return the data as a client gets it."""
    (event,) = parse(message.body)
    return event.data


def _same(message: Message, data: Any) -> bool:
    text = _text(message)
    if isinstance(data, str) and data == text:
        return True
    return not isinstance(data, str) and text == encode_data(data)


def _shown(message: Message) -> str:
    to = {Target.USER: f"to user {message.user_id}", Target.BROADCAST: "to all"}.get(
        message.target, f"to topic {', '.join(_topics(message))}"
    )
    tenant = "" if message.tenant_id is None else f" of tenant {message.tenant_id}"
    return f"{message.event} {to}{tenant}: {_text(message)}"

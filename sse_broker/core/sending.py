"""The three ways to send, written once for everything that sends: all lead to ``publish``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

from sse_broker.config import BrokerConfig
from sse_broker.core.topic_limits import check_segments
from sse_broker.errors import InvalidMessage, MessageTooLarge, TopicsNotEnabled
from sse_broker.wire.ids import UserID
from sse_broker.wire.message import AllTenants, Message, Target
from sse_broker.wire.topics import check_names

__all__ = ["Publisher", "Sender", "check_message"]

Returned = TypeVar("Returned", covariant=True)


class Publisher(Protocol):
    """What a message is sent through in the end: a broker."""

    @property
    def config(self) -> BrokerConfig:
        """The settings that a message has to meet."""

    def publish(self, message: Message) -> str:
        """Send a message; return its id."""


class Sender(Generic[Returned]):
    """``send_to_user``, ``send_to_topic`` and ``broadcast``, in terms of ``publish``.

    *data* is a string, or anything JSON can hold.  *event* names the event that
    the page listens for.  *id* is an id of the caller's own: a second message with
    the same id is not sent again while the log remembers the first one.  *retry*
    is the client's reconnection time from then on, in milliseconds.

    With *retain* the message is kept as the state of its addressee: a stream that
    begins later gets it first.  The next one to the same tenant, addressee and event
    takes its place; after *retain_for* seconds (which says *retain* too) it is gone.

    What is returned, whether the call waits, and what else it raises is said by
    the ``publish`` of the class: a broker's sends now and returns the message's id.
    """

    def send_to_user(
        self,
        user_id: UserID,
        event: str,
        data: Any,
        *,
        tenant_id: UserID | AllTenants | None = None,
        id: str = "",
        retry: int | None = None,
        retain: bool = False,
        retain_for: float | None = None,
    ) -> Returned:
        """Send to every stream of one user.

        Without *tenant_id* the message reaches the user in every tenant; with it, only there.

        :raises InvalidUserID: *user_id* is nil, empty or no id.
        :raises InvalidMessage: the message cannot be sent as it is meant.
        :raises LogUnavailable: the message was not recorded and nobody gets it.
        """
        return self.publish(
            Message(
                *(Target.USER, data, event, user_id, "", tenant_id),
                id=id,
                retry=retry,
                retain=retain,
                retain_for=retain_for,
            )
        )

    def send_to_topic(
        self,
        topic: str | Iterable[str],
        event: str,
        data: Any,
        *,
        tenant_id: UserID | AllTenants | None = None,
        id: str = "",
        retry: int | None = None,
        retain: bool = False,
        retain_for: float | None = None,
    ) -> Returned:
        """Send to every stream that subscribes to *topic*, or to one of several topics.

        A stream that subscribes to more than one of them gets the message once.
        Without *tenant_id* the message reaches the streams that have no tenant;
        ``ALL_TENANTS`` means every tenant.

        :raises InvalidTopic: *topic*, or one of them, is empty or a pattern.
        :raises InvalidMessage: the message cannot be sent as it is meant.
        :raises TopicsNotEnabled: ``enable_topics`` is off.
        :raises LogUnavailable: the message was not recorded and nobody gets it.
        """
        return self.publish(
            Message(
                *(Target.TOPIC, data, event, None, "", tenant_id),
                id=id,
                retry=retry,
                topics=check_names(topic),
                retain=retain,
                retain_for=retain_for,
            )
        )

    def broadcast(
        self,
        event: str,
        data: Any,
        *,
        tenant_id: UserID | AllTenants | None = None,
        id: str = "",
        retry: int | None = None,
    ) -> Returned:
        """Send to every stream of a tenant.

        Without *tenant_id* the message reaches the streams that have no tenant;
        ``ALL_TENANTS`` means every tenant.

        :raises InvalidMessage: the message cannot be sent as it is meant.
        :raises LogUnavailable: the message was not recorded and nobody gets it.
        """
        return self.publish(
            Message(Target.BROADCAST, data, event, None, "", tenant_id, id=id, retry=retry)
        )

    def publish(self, message: Message) -> Returned:
        """Take a message; the subclass says what becomes of it."""
        raise NotImplementedError


def check_message(config: BrokerConfig, message: Message) -> None:
    """Refuse a message that a broker with these settings would refuse.  Never waits.

    :raises MessageTooLarge: longer than ``max_message_bytes``.
    :raises TopicsNotEnabled: the message is for a topic and ``enable_topics`` is off.
    :raises InvalidTopic: a topic has more segments than ``max_topic_segments``.
    :raises InvalidMessage: the message has no tenant and ``require_tenant`` is on.
    """
    if message.target is Target.TOPIC:
        if not config.enable_topics:
            raise TopicsNotEnabled(field="topic")
        for topic in message.topics:
            check_segments(config, topic)
    if config.require_tenant and message.tenant_id is None:
        raise InvalidMessage("tenant_id is required; or say ALL_TENANTS", field="tenant_id")
    size = len(message.body)
    if message.retain and size > config.retained_bytes:
        raise MessageTooLarge(
            f"{size} bytes, at most {config.retained_bytes} can be retained", field="retain"
        )
    if size > config.max_message_bytes:
        raise MessageTooLarge(
            f"{size} bytes, at most {config.max_message_bytes} are allowed", field="data"
        )

"""The topics of a live stream: changed while it lives, from any process that shares the log.

Flow of a change::

    change() ── the stream is here ──────────────────────▶ applied, in the order of delivery
        └────── it is elsewhere: SUBSCRIBE in the log ───▶ applied there, SUBSCRIBED in the log

A change is applied where records are matched: from then on messages are matched
with the new topics.  What was matched before is on its way; the host's turn comes to
the change after it, takes what is not wanted any more out of the client's queue, and
only then the change is answered.  So after the answer nothing of a removed topic is
written but what the socket was in the midst of, and nothing of an added one is missing.

Lock map
    _lock     the lock of the process: guards the registry; held for dictionary work
    order     as for Delivery, which calls ``take_locked``
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sse_broker.config import BrokerConfig
from sse_broker.core.client import Client
from sse_broker.core.delivery import Delivery
from sse_broker.core.identity import Identity, may_read
from sse_broker.core.lanes import Lane
from sse_broker.core.ports import Log
from sse_broker.core.registry import Registry
from sse_broker.core.sync import Bell, NativeLock, make_bell
from sse_broker.core.topic_limits import excess_of
from sse_broker.errors import (
    BrokerError,
    InvalidTopic,
    LogUnavailable,
    NoSuchStream,
    TopicForbidden,
)
from sse_broker.wire.command import Act, Command

__all__ = ["Change", "Subscriptions"]

ANSWER_TIMEOUT = 3.0  # seconds until a stream that nobody answers for is taken for gone

_log = logging.getLogger("sse_broker.subscriptions")


@dataclass(frozen=True)
class Change:
    """What is to become of a stream's topics, and whose stream it has to be."""

    client_id: str
    tenant_id: str | None
    user_id: str
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    request: str = ""

    @property
    def command(self) -> Command:
        """The change as it goes through the log."""
        detail = {
            "tenant_id": self.tenant_id,
            "user_id": self.user_id,
            "add": self.add,
            "remove": self.remove,
            "request": self.request,
        }
        return Command(Act.SUBSCRIBE, self.client_id, "asked", json.dumps(detail))

    @classmethod
    def of(cls, command: Command) -> Change:
        """Return the change that a command of the log is.

        :raises ValueError: it is none.
        """
        try:
            found = json.loads(command.detail)
            add, remove = tuple(found.pop("add")), tuple(found.pop("remove"))
            return cls(command.value, add=add, remove=remove, **found)
        except (TypeError, KeyError, AttributeError) as err:
            raise ValueError(f"{command.act} without its detail") from err


class _Waiting:
    """Somebody who waits for the answer to a change."""

    def __init__(self) -> None:
        self.bell: Bell = make_bell()
        self.answer: dict[str, object] | None = None

    def tell(self, answer: dict[str, object]) -> None:
        self.answer = answer
        self.bell.ring()

    def wait(self, timeout: float) -> dict[str, object] | None:
        end = time.monotonic() + timeout
        while self.answer is None:
            rest = end - time.monotonic()
            if rest <= 0:
                break
            self.bell.wait(rest)
        return self.answer


class Subscriptions:
    """Changes of topics in one process."""

    def __init__(
        self,
        config: BrokerConfig,
        registry: Registry,
        lock: NativeLock,
        delivery: Delivery,
        log: Log,
    ) -> None:
        self._config = config
        self._registry = registry
        self._lock = lock
        self._delivery = delivery
        self._source = log
        self._waiting: dict[str, _Waiting] = {}
        self._answers: Lane | None = None
        self.recheck: Callable[[Command], None] = lambda _: None
        """Called with the command RECHECK, in the log's turn; must not wait."""
        delivery.on_command = self.take_locked

    def stop(self) -> None:
        """End the thread that answers."""
        lane, self._answers = self._answers, None
        if lane is not None:
            lane.stop()

    def change(
        self,
        identity: Identity,
        client_id: str,
        add: Sequence[str],
        remove: Sequence[str],
        *,
        is_alone: bool,
    ) -> tuple[str, ...]:
        """Change the topics of a stream of *identity*; return all that it has then.

        *add* is checked and authorised already.  *is_alone* is whether no other
        process has streams.  Waits for the answer, some seconds at most.

        :raises NoSuchStream: nobody has it, or it is somebody else's.
        :raises TopicForbidden: the stream's own credentials do not cover a topic.
        :raises InvalidTopic: it would have too many.
        :raises LogUnavailable: the log does not take the change.
        """
        change = Change(
            client_id,
            None if identity.tenant_id is None else str(identity.tenant_id),
            str(identity.user_id),
            tuple(add),
            tuple(remove),
            secrets.token_hex(8),
        )
        waiting = self._waiting[change.request] = _Waiting()
        try:
            with self._lock:
                is_here = self._registry.find(client_id) is not None
            if is_here:
                self._delivery.insert(lambda: self._apply_locked(change, waiting.tell))
            elif is_alone:
                raise NoSuchStream(field="client_id")
            else:
                self._source.append(change.command)
            return _topics_of(waiting.wait(ANSWER_TIMEOUT))
        finally:
            self._waiting.pop(change.request, None)

    def withdraw(self, client: Client, topics: Iterable[str]) -> None:
        """Take topics from a client that may not read them any more, and have it told.

        A client that has none left ends.  Any thread; never waits.
        """
        lost = tuple(topics)

        def apply_locked() -> Callable[[], None] | None:
            rest = tuple(topic for topic in client.topics if topic not in lost)
            if not client.is_open or rest == client.topics:
                return None
            self._registry.subscribe(client, rest)
            return lambda: self._say_withdrawn(client, lost)

        self._delivery.insert(apply_locked)

    def _say_withdrawn(self, client: Client, lost: tuple[str, ...]) -> None:
        client.withdraw(lost)
        self._heed(client)
        if not client.topics:
            client.close("revoked", self._delivery.delivered, soon=True)

    def take_locked(self, command: Command) -> Callable[[], None] | None:
        """Return what the host's turn has to do about a command of the log, if anything."""
        if command.act is Act.RECHECK:
            self.recheck(command)
        elif command.act is Act.SUBSCRIBED:
            waiting = self._waiting.get(command.value)
            if waiting is not None:
                waiting.tell(_answer_in(command))
        elif command.act is Act.SUBSCRIBE:
            try:
                change = Change.of(command)
            except ValueError:
                return None
            if self._registry.find(change.client_id) is not None:
                return self._apply_locked(change, lambda answer: self._send(change, answer))
        return None

    def _send(self, change: Change, answer: dict[str, object]) -> None:
        command = Command(Act.SUBSCRIBED, change.request, "answered", json.dumps(answer))

        def append() -> None:
            try:
                self._source.append(command)
            except LogUnavailable as err:  # who asked is told that nobody answered
                _log.warning("a change of topics could not be answered: %s", err)

        if self._answers is None:
            self._answers = Lane("answers", 1)
        self._answers.submit(append)

    def _apply_locked(
        self, change: Change, tell: Callable[[dict[str, object]], None]
    ) -> Callable[[], None]:
        """Change the client's topics; return what the host's turn has to do."""
        client = self._registry.find(change.client_id)
        owner = (change.tenant_id, change.user_id)
        if client is None or not client.is_open or (client.tenant_id, client.user_id) != owner:
            return lambda: tell({"error": "unknown"})
        for topic in change.add:
            if not may_read(client.identity, topic):
                return lambda: tell({"error": "forbidden", "topic": topic})
        rest = [topic for topic in client.topics if topic not in change.remove]
        topics = tuple(dict.fromkeys([*rest, *change.add]))
        excess = excess_of(self._config, topics)
        if excess:
            return lambda: tell({"error": "many", "detail": excess})
        if topics != client.topics:
            self._registry.subscribe(client, topics)

        def finish() -> None:
            self._heed(client)
            tell({"topics": topics})

        return finish

    def _heed(self, client: Client) -> None:
        client.drop_unwanted()
        assert self._delivery.host is not None
        self._delivery.host.heed((client,))


def _answer_in(command: Command) -> dict[str, object]:
    try:
        found = json.loads(command.detail)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"error": "unknown"}


def _topics_of(answer: dict[str, object] | None) -> tuple[str, ...]:
    """Return the topics of an answer, or raise what it says."""
    error: BrokerError = NoSuchStream(field="client_id")
    if answer is not None:
        topics = answer.get("topics")
        if isinstance(topics, list | tuple):
            return tuple(str(topic) for topic in topics)
        if answer.get("error") == "forbidden":
            error = TopicForbidden(repr(answer.get("topic")), field="topics")
        elif answer.get("error") == "many":
            error = InvalidTopic(str(answer.get("detail")), field="topics")
    raise error

"""The topics of a live stream: changed by who has it, and withdrawn by who may."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from sse_broker import Broker, BrokerConfig, Client, Identity
from sse_broker.core.reader import Reader
from sse_broker.errors import InvalidTopic, NoSuchStream, TopicForbidden
from sse_broker.testing import FakeClock, read_events
from sse_broker.wire.command import Act, Command
from sse_broker.wire.envelope import pack, unpack

ME = Identity(7, "t1")


@contextlib.contextmanager
def opened(broker: Broker, *topics: str, identity: Identity = ME) -> Iterator[Reader]:
    reader = broker.streams.open(identity, topics)
    yield reader
    broker.streams.forget(reader.client, "test")


def said(reader: Reader) -> list[tuple[str, str]]:
    """Return what is written for a stream by now."""
    found = []
    while chunk := reader.next(0):
        found += [(event.event, event.data) for event in read_events(chunk)]
    return [one for one in found if one[0] != "welcome"]


def send(broker: Broker, topic: str, data: str) -> None:
    broker.send_to_topic(topic, "e", data, tenant_id="t1")


def change(broker: Broker, reader: Reader, add: object = (), remove: object = ()) -> object:
    return broker.streams.change_topics(ME, reader.client.id, add, remove)  # type: ignore[arg-type]


def test_nothing_of_a_removed_topic_follows_and_nothing_of_an_added_one_is_missing(
    broker: Broker,
) -> None:
    with opened(broker, "a", "b") as reader:
        send(broker, "a", "waits when its topic is removed")
        send(broker, "b", "1")

        topics = change(broker, reader, add=["c", "d:*"], remove=["a"])
        for topic in ("a", "c", "d:x", "b"):
            send(broker, topic, topic)

        assert topics == ("b", "c", "d:*")
        assert said(reader) == [("e", "1"), ("e", "c"), ("e", "d:x"), ("e", "b")]


def test_a_change_that_changes_nothing_tells_the_topics(broker: Broker) -> None:
    with opened(broker, "a") as reader:
        assert change(broker, reader) == ("a",)
        assert change(broker, reader, add=["a"], remove=["x"]) == ("a",)
        assert change(broker, reader, remove=["a"], add=["a"]) == ("a",)


@pytest.mark.parametrize(
    "other", [Identity(8, "t1"), Identity(7, "t2"), Identity(7)], ids=["user", "tenant", "none"]
)
def test_a_stream_of_somebody_else_is_not_there(broker: Broker, other: Identity) -> None:
    with opened(broker, "a") as reader:
        with pytest.raises(NoSuchStream):
            broker.streams.change_topics(other, reader.client.id, ["b"])
        with pytest.raises(NoSuchStream):
            broker.streams.change_topics(ME, "no such client", ["b"])
        assert reader.client.topics == ("a",)


def test_what_may_not_be_read_cannot_be_added_and_nothing_is_changed() -> None:
    with Broker(authorizer=lambda identity, topic: topic != "secret") as broker:
        narrow = Identity(7, "t1", topics=["a", "b"])
        with opened(broker, "a", identity=narrow) as reader:
            for bad in ("secret", "c"):
                with pytest.raises(TopicForbidden):
                    broker.streams.change_topics(narrow, reader.client.id, ["b", bad], ["a"])
            # whoever has better credentials by now has a new stream for them
            with pytest.raises(TopicForbidden):
                broker.streams.change_topics(ME, reader.client.id, ["c"])
            with pytest.raises(InvalidTopic):
                change(broker, reader, add=["**:a"])
            assert reader.client.topics == ("a",)


def test_topics_of_one_stream_have_a_bound(broker: Broker) -> None:
    with opened(broker) as reader:
        change(broker, reader, add=[f"t{n}" for n in range(900)])
        with pytest.raises(InvalidTopic, match="1000"):
            change(broker, reader, add=[f"u{n}" for n in range(200)])


def test_a_pattern_that_is_added_is_no_grant_for_what_it_takes() -> None:
    hub = Broker(authorizer=lambda identity, topic: topic != "d:secret")
    with hub as broker, opened(broker, "a") as reader:
        assert said(reader) == []
        change(broker, reader, add=["d:*"])
        send(broker, "d:secret", "secret")
        send(broker, "d:open", "open")
        assert said(reader) == [("e", "open")]


def test_a_stream_of_another_process_is_changed_there(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with Broker(log=url) as here, Broker(log=url) as there, opened(there, "a") as reader:
        assert said(reader) == []

        topics = change(here, reader, add=["b"], remove=["a"])
        send(here, "a", "not any more")
        send(here, "b", "from now on")

        assert topics == ("b",)
        got: list[tuple[str, str]] = []
        while not got:
            got += [
                (event.event, event.data)
                for event in read_events(reader.next(5) or b"")
                if event.event == "e"
            ]
        assert got == [("e", "from now on")]
        with pytest.raises(TopicForbidden):
            here.streams.change_topics(Identity(7, "t1", topics=["z"]), reader.client.id, ["y"])


def test_nobody_answers_for_a_stream_that_is_gone(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sse_broker.core.subscriptions.ANSWER_TIMEOUT", 0.05)
    with Broker(log=f"sqlite:///{tmp_path}/log.db") as broker, pytest.raises(NoSuchStream):
        broker.streams.change_topics(ME, "gone", ["a"])


def test_a_command_with_a_detail_comes_back_from_a_log_as_it_was() -> None:
    command = Command(Act.SUBSCRIBE, "client", "asked", json.dumps({"add": ["a"]}))
    assert unpack(pack(command)) == command


@pytest.mark.parametrize("detail", ["", "[]", "{}", '{"add": 1, "remove": []}', "{"])
def test_a_change_that_cannot_be_read_changes_nothing(broker: Broker, detail: str) -> None:
    with opened(broker, "a") as reader:
        broker.log.append(Command(Act.SUBSCRIBE, reader.client.id, "asked", detail))
        broker.log.append(Command(Act.RECHECK, "7", "recheck", detail))
        send(broker, "a", "still here")
        assert said(reader) == [("e", "still here")]


class Permissions:
    """An authorizer whose answers are changed."""

    def __init__(self) -> None:
        self.denied: set[str] = set()
        self.fails = False
        self.asked = threading.Semaphore(0)

    def __call__(self, identity: Identity, topic: str) -> bool:
        self.asked.release()
        if self.fails:
            raise RuntimeError
        return topic not in self.denied


def asked_again(permissions: Permissions, count: int) -> None:
    for _ in range(count):
        assert permissions.asked.acquire(timeout=5)


def settled(broker: Broker) -> None:
    """Wait until the thread that asks has come to its end."""
    broker.streams.here().rechecks.stop()


def test_a_stream_is_told_which_topics_it_lost_and_goes_on_with_the_rest() -> None:
    may = Permissions()
    with Broker(authorizer=may) as broker, opened(broker, "a", "b", "p:*") as reader:
        assert said(reader) == []
        send(broker, "a", "waits when it is withdrawn")
        may.denied = {"a", "p:*"}

        broker.recheck(7)
        asked_again(may, 3)
        settled(broker)
        for topic in ("a", "p:x", "b"):
            send(broker, topic, topic)

        assert said(reader) == [("revoked", '{"topics":["a","p:*"]}'), ("e", "b")]
        assert reader.client.topics == ("b",)


def test_a_stream_that_lost_all_its_topics_ends() -> None:
    may = Permissions()
    with Broker(authorizer=may) as broker, opened(broker, "a") as reader:
        assert said(reader) == []
        may.denied = {"a"}
        broker.recheck(7, tenant_id="t1")
        asked_again(may, 1)
        settled(broker)
        events = said(reader)
        assert events == [("revoked", '{"topics":["a"]}'), ("close", '{"reason":"revoked"}')]


def test_a_recheck_is_for_one_user_and_one_tenant() -> None:
    may = Permissions()
    with Broker(authorizer=may) as broker, opened(broker, "a") as reader:
        may.denied = {"a"}
        broker.recheck(8)
        broker.recheck(7, tenant_id="t2")
        settled(broker)
        assert reader.client.topics == ("a",)


def test_what_a_pattern_let_in_is_asked_again_after_a_recheck() -> None:
    may = Permissions()
    with Broker(authorizer=may) as broker, opened(broker, "p:*") as reader:
        send(broker, "p:x", "1")
        assert said(reader) == [("e", "1")]
        may.denied = {"p:x"}
        send(broker, "p:x", "remembered")
        assert said(reader) == [("e", "remembered")]

        broker.recheck(7)
        settled(broker)
        send(broker, "p:x", "2")

        assert said(reader) == []


def test_an_authorizer_that_cannot_answer_withdraws_nothing(caplog) -> None:
    may = Permissions()
    with Broker(authorizer=may) as broker, opened(broker, "a") as reader:
        may.fails = True
        broker.recheck(7)
        settled(broker)
        assert reader.client.topics == ("a",)
        assert broker.streams.counts().authorizer_failures == 1


def test_answers_are_remembered_for_a_settable_time() -> None:
    may, clock = Permissions(), FakeClock()
    config = BrokerConfig(recheck_interval=60)
    with Broker(config, authorizer=may, clock=clock) as broker, opened(broker, "a") as reader:
        here = broker.streams.here()
        may.denied = {"a"}
        clock.advance(59)
        here.rechecks.tick()
        settled(broker)
        assert reader.client.topics == ("a",)
        clock.advance(2)
        here.rechecks.tick()
        settled(broker)
        assert reader.client.topics == ()


def test_a_client_by_hand_has_its_topics_changed_too(broker: Broker) -> None:
    client = Client(7, "t1", ["a"])
    broker.register(client)
    assert broker.streams.change_topics(ME, client.id, ["b"], ["a"]) == ("b",)
    send(broker, "b", "x")
    assert client.queue.get(timeout=1).message.data == "x"
    broker.unregister(client)


def test_retained_messages_of_a_topic_that_was_removed_are_not_said_any_more(
    broker: Broker,
) -> None:
    for topic in ("a", "b"):
        broker.send_to_topic(topic, "e", topic, tenant_id="t1", retain=True)
    with opened(broker, "a", "b") as reader:
        change(broker, reader, remove=["a"])
        assert said(reader) == [("e", "b")]

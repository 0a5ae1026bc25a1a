"""Questions to the application's functions: answers, errors, and those that hang."""

from __future__ import annotations

import threading

import pytest

from sse_broker import Broker, Identity
from sse_broker.core.asking import WIDTH, Asking
from sse_broker.core.lanes import SLOW
from tests.core.streams import Hub, Tab


@pytest.fixture
def asking():
    made = Asking(deadline=2 * SLOW)
    yield made
    made.stop()


def test_an_answer_and_an_error_come_back(asking) -> None:
    assert asking.ask(lambda: True)
    assert not asking.ask(lambda: False)
    with pytest.raises(ZeroDivisionError):
        asking.ask(lambda: 1 / 0)


def test_who_hangs_costs_its_own_and_not_the_next_question(asking) -> None:
    gate, hung = threading.Event(), []

    def hang() -> None:
        with pytest.raises(TimeoutError):
            asking.ask(gate.wait)
        hung.append(True)

    threads = [threading.Thread(target=hang) for _ in range(2 * WIDTH)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(hung) == 2 * WIDTH
    assert asking.ask(lambda: True)
    gate.set()


def test_a_record_that_nobody_can_judge_in_time_is_hidden_and_counted() -> None:
    gate = threading.Event()

    def authorizer(identity: Identity, topic: str) -> bool:
        return topic == "a:*" or topic == "a:1" or (topic == "a:3") or gate.wait(20)

    with Hub(authorizer=authorizer) as broker:
        broker.streams.access.asking = Asking(deadline=SLOW)
        tab = Tab(broker, topics=["a:*"]).connect().read_on()
        for n in range(1, 4):
            broker.send_to_topic(f"a:{n}", "e", str(n))
        tab.read_on()
        failures = broker.streams.counts().authorizer_failures
        gate.set()
        tab.leave()

    assert tab.data == ["1", "3"]
    assert failures == 1


def test_a_broker_that_has_only_its_own_rule_asks_nobody() -> None:
    with Broker() as broker:
        assert not broker.streams.access.asking._lanes
        reader = broker.streams.open(Identity(1, topics=["a:*"]), ["a:*"])
        broker.send_to_topic("a:1", "e", "x")
        while b"data: x" not in (reader.next(0) or b""):
            pass
        assert not broker.streams.access.asking._lanes
        broker.streams.forget(reader.client, "test")

"""How often one may ask."""

from __future__ import annotations

import sys
import threading

import limits
import pytest

from sse_broker import Broker, BrokerConfig, InvalidConfig, TooManyRequests
from sse_broker.limits import PAUSE, SAY_EVERY, Rates
from sse_broker.testing import FakeClock

RATES = ["30/minute", "1 per second", "5/2 hours", "10/second;100/year", " 7/DAYS , 9/month"]
NO_RATES = ["many", "0/minute", "30", "30/fortnight", "-1/minute", "1/minute;", "1 /0 minute"]
STORAGES = [
    "async+memory://",
    "async+redis://h:1",
    "memory",
    "redis://",
    "mongodb://h:1",
    "sqlite:///x",
]


class Away:
    """A storage's limiter that fails, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def hit(self, *args: object) -> bool:
        self.asked += 1
        raise ConnectionError("nobody answers")


@pytest.mark.parametrize("text", RATES)
def test_what_the_settings_take_the_library_understands(text: str) -> None:
    assert limits.parse_many(BrokerConfig(connect_rate=text).connect_rate)


@pytest.mark.parametrize("text", NO_RATES)
def test_what_is_no_rate_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(InvalidConfig, match="like 30/minute") as caught:
        BrokerConfig(publish_rate=text)
    assert caught.value.field == "publish_rate"


@pytest.mark.parametrize("url", STORAGES)
def test_a_storage_that_would_wait_otherwise_than_threads_do_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig, match="memory:// or redis://host:port"):
        BrokerConfig(rate_storage=url)


def test_a_refused_storage_shows_no_password() -> None:
    with pytest.raises(InvalidConfig) as caught:
        BrokerConfig(rate_storage="async+redis://me:s3cret@example.com:1")
    assert "s3cret" not in str(caught.value)
    assert "***@example.com" in str(caught.value)


@pytest.mark.parametrize(
    ("module", "storage", "line"),
    [
        ("limits", "memory://", r"pip install 'sse-broker\[limits\]'"),
        ("redis", "redis://localhost:1", r"pip install 'sse-broker\[limits,redis\]'"),
    ],
)
def test_a_missing_library_is_named_with_the_pip_line(
    module: str, storage: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    Rates(Broker(BrokerConfig(rate_storage=storage)).streams)  # no rate, no need

    with pytest.raises(InvalidConfig, match=line):
        Rates(Broker(BrokerConfig(connect_rate="1/year", rate_storage=storage)).streams)


def test_who_is_over_its_rate_is_refused_and_nobody_else() -> None:
    broker = Broker(BrokerConfig(connect_rate="2/year"))
    rates = Rates(broker.streams)
    for _ in range(2):
        rates.check("connect_rate", lambda: "192.0.2.1")

    with pytest.raises(TooManyRequests) as caught:
        rates.check("connect_rate", lambda: "192.0.2.1")

    assert caught.value.field == "connect_rate"
    assert 1 <= caught.value.retry_after <= 1.5 * 2 * 360 * 86_400
    rates.check("connect_rate", lambda: "192.0.2.2")
    assert broker.streams.counts().connections_refused == 1
    assert broker.streams.counts().refusals == {"connect_rate": 1}


def test_every_part_of_a_rate_holds() -> None:
    rates = Rates(Broker(BrokerConfig(connect_rate="100/second; 3/year")).streams)
    for _ in range(3):
        rates.check("connect_rate", lambda: "a")
    with pytest.raises(TooManyRequests):
        rates.check("connect_rate", lambda: "a")


def test_one_rate_does_not_count_for_another_and_no_key_is_joined() -> None:
    config = BrokerConfig(connect_rate="1/year", connect_rate_per_user="1/year")
    rates = Rates(Broker(config).streams)
    rates.check("connect_rate", lambda: "a")
    rates.check("connect_rate_per_user", lambda: "a")
    rates.check("connect_rate_per_user", lambda: ("a/b", "c"))
    rates.check("connect_rate_per_user", lambda: ("a", "b/c"))


def test_without_a_rate_nobody_is_looked_at() -> None:
    def who() -> str:
        raise AssertionError("was asked")

    Rates(Broker().streams).check("connect_rate", who)


def test_threads_that_come_at_once_are_each_counted() -> None:
    rates = Rates(Broker(BrokerConfig(connect_rate="50/year")).streams)
    passed: list[int] = []
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait()
        for _ in range(20):
            try:
                rates.check("connect_rate", lambda: "a")
            except TooManyRequests:
                continue
            passed.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 50


def test_a_storage_that_is_away_lets_through_counts_and_is_left_alone_for_a_while(caplog) -> None:
    clock = FakeClock()
    broker = Broker(BrokerConfig(connect_rate="1/year"), clock=clock)
    rates, away = Rates(broker.streams), Away()
    rates._storage()._limiter = away

    for _ in range(5):
        rates.check("connect_rate", lambda: "a")

    assert away.asked == 1
    assert broker.streams.counts().rates_unchecked == 5
    assert len(caplog.records) == 1
    assert "ConnectionError: nobody answers" in caplog.text
    clock.advance(PAUSE)
    rates.check("connect_rate", lambda: "a")
    assert away.asked == 2
    assert len(caplog.records) == 1
    clock.advance(SAY_EVERY)
    rates.check("connect_rate", lambda: "a")
    assert caplog.records[-1].message.startswith("6 requests passed uncounted")


def test_a_storage_that_is_back_counts_again() -> None:
    clock = FakeClock()
    rates = Rates(Broker(BrokerConfig(connect_rate="1/year"), clock=clock).streams)
    rates._storage()._limiter = Away()
    rates.check("connect_rate", lambda: "a")
    rates._storage()._limiter = None
    clock.advance(PAUSE)

    rates.check("connect_rate", lambda: "a")
    with pytest.raises(TooManyRequests):
        rates.check("connect_rate", lambda: "a")


def test_nothing_starts_before_the_first_request() -> None:
    before = set(threading.enumerate())
    Rates(Broker(BrokerConfig(connect_rate="1/year")).streams)
    assert set(threading.enumerate()) == before

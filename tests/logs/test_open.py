"""``open_log`` picks by scheme, lets others add theirs, and says what is missing."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from sse_broker import Broker, InvalidConfig, open_log
from sse_broker.logs import MemoryLog
from sse_broker.logs.redis.server import parse


def test_each_scheme_has_its_log(tmp_path) -> None:
    pytest.importorskip("redis")
    for url, name in [
        ("memory://", "MemoryLog"),
        (f"sqlite:///{tmp_path}/log.db", "SqliteLog"),
        ("redis://localhost/1", "RedisLog"),
        ("rediss://localhost", "RedisLog"),
        ("valkey://localhost", "RedisLog"),
        ("unix:///run/redis.sock", "RedisLog"),
        ("redis+sentinel://localhost:26379,example.com/shop", "RedisLog"),
        ("rediss+cluster://localhost:7000", "RedisLog"),
    ]:
        log = open_log(url)
        assert type(log).__name__ == name
        assert log.url.partition("?")[0] == url


@pytest.mark.parametrize("url", ["nats://localhost", "", "log.db", "memory://shared"])
def test_what_names_no_log_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        open_log(url)
    assert caught.value.field == "log"


def test_a_missing_driver_is_a_sentence_with_the_cure(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(InvalidConfig, match=r"pip install 'sse-broker\[redis\]'"):
        Broker(log="redis://localhost")


def test_a_package_may_bring_a_log_of_its_own(monkeypatch) -> None:
    opened: list[str] = []

    def make(url: str) -> MemoryLog:
        opened.append(url)
        return MemoryLog()

    class Entry:
        def load(self):
            return make

    def entry_points(*, group: str, name: str):
        assert group == "sse_broker.logs"
        return [Entry()] if name == "nats" else []

    monkeypatch.setattr(metadata, "entry_points", entry_points)
    assert isinstance(open_log("nats://localhost"), MemoryLog)
    assert opened == ["nats://localhost"]
    with pytest.raises(InvalidConfig):
        open_log("amqp://localhost")


def test_a_redis_url_is_taken_apart() -> None:
    pytest.importorskip("redis")
    options = parse("rediss://ada:secret@example.com:7000/2?prefix=shop&timeout=2.5&buffer=10")

    assert options.url == "rediss://ada:secret@example.com:7000/2"
    assert "secret" not in options.shown
    assert (options.prefix, options.timeout, options.buffer) == ("shop", 2.5, 10)
    assert options.key("log") == "{shop}:log"


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost?prefix=a{b}",
        "redis://localhost?timeout=0",
        "redis://localhost?timeout=soon",
        "redis://localhost?buffer=-1",
        "redis://localhost?no_such_option=1",
        "redis+sentinel://localhost:26379",
        "redis+sentinel:///shop",
        "redis+cluster://",
    ],
)
def test_a_redis_url_that_says_something_wrong_is_refused(url: str) -> None:
    pytest.importorskip("redis")
    with pytest.raises(InvalidConfig) as caught:
        open_log(url)
    assert caught.value.field == "log"


@pytest.mark.parametrize("url", ["redis://:p/ssw0rd@localhost:6379", "redis://u:pa#ss@localhost"])
def test_a_password_that_is_not_encoded_is_not_shown(url: str) -> None:
    pytest.importorskip("redis")
    with pytest.raises(InvalidConfig, match="percent-encoded") as refused:
        open_log(url)
    assert "ss" not in str(refused.value).replace("password", "")


@pytest.mark.parametrize(
    "url",
    [
        "redis://[s3cret",
        "http://[s3cret",
        "memory://u:s3cret@host",
        "//u:s3cret@host",
        "rediss://u:s3cret@host?ssl_cert_reqs=bad",
        "redis://u:s3cret@host?foo=s3cret",
        "sqlite://u:s3cret@host/x",
    ],
)
def test_a_url_that_is_wrong_is_refused_and_its_password_not_repeated(url: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        open_log(url)

    assert "s3cret" not in str(caught.value)
    assert caught.value.field == "log"

"""Messages and frames: what is refused, and what the bytes are."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid

import pytest
from flask import Flask
from flask.json.provider import DefaultJSONProvider

from sse_broker import (
    ALL_TENANTS,
    EventType,
    InvalidMessage,
    InvalidTopic,
    InvalidUserID,
    Message,
    Target,
    format_event,
)
from sse_broker.wire.ids import normal_user_id
from sse_broker.wire.message import comment_frame, retry_frame
from sse_broker.wire.parse import Event, Parser

CONTROLS = ["\n", "\r", "\r\n", "\0", "\x1b", "\x7f", "\x85"]


@pytest.mark.parametrize("bad", CONTROLS)
def test_a_field_cannot_smuggle_another_line(bad: str) -> None:
    for event, own in [(f"a{bad}data: x", ""), ("a", f"1{bad}2")]:
        with pytest.raises(InvalidMessage):
            format_event(event, "x", id=own)
        with pytest.raises(InvalidMessage):
            Message(Target.BROADCAST, "x", event, id=own)
    with pytest.raises(InvalidMessage):
        comment_frame(f"a{bad}b")


@pytest.mark.parametrize("id", ["a b", "ü", "x" * 257, "a\nb", "a\x7f", "\t"])
def test_an_own_id_is_printable_ascii_without_spaces(id: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        Message(Target.BROADCAST, "x", id=id)
    assert caught.value.field == "id"


@pytest.mark.parametrize("name", ["welcome", "heartbeat", "reset", "dropped", "error", "close"])
def test_the_librarys_own_events_are_its_own(name: str) -> None:
    with pytest.raises(InvalidMessage, match="by the library only"):
        Message(Target.BROADCAST, "x", name)
    assert format_event(name, "x").startswith(f"event: {name}\n".encode())


def test_the_seeds_event_types_are_strings() -> None:
    assert [str(kind) for kind in EventType] == ["message", "heartbeat", "error", "close"]
    assert Message(Target.BROADCAST, "x", EventType.MESSAGE).body == b"data: x\n\n"


@pytest.mark.parametrize("retry", [0, 999, 60_001, 1.5, True, "3000", -1])
def test_a_retry_that_would_hurt_is_refused(retry: object) -> None:
    with pytest.raises(InvalidMessage) as caught:
        format_event("e", "x", retry=retry)
    assert caught.value.field == "retry"


def test_the_frame_has_its_fields_in_order() -> None:
    message = Message(Target.BROADCAST, "a\nb", "e", id="i-1", retry=5000)

    assert message.frame == b"id: i-1\nevent: e\nretry: 5000\ndata: a\ndata: b\n\n"
    assert retry_frame(1000) == b"retry: 1000\n\n"
    assert comment_frame("x") == b": x\n\n"


def test_a_frame_says_its_topic_in_a_field_that_other_clients_ignore() -> None:
    message = Message(Target.TOPIC, "x", "e", topic="orders:7", id="i-1")

    assert message.frame == b"id: i-1\ntopic: orders:7\nevent: e\ndata: x\n\n"
    assert Parser().feed(message.frame) == [Event("e", "x", "i-1")]


def test_an_empty_event_still_has_its_data_line() -> None:
    assert format_event("", "") == b"data: \n\n"


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_a_lone_surrogate_is_named(text: str) -> None:
    for data in (text, {"a": text}):
        with pytest.raises(InvalidMessage, match="lone surrogate") as caught:
            Message(Target.BROADCAST, data)
        assert caught.value.field == "data"
    with pytest.raises(InvalidMessage) as caught:
        Message(Target.BROADCAST, "x", event=text)
    assert caught.value.field == "event"


@pytest.mark.parametrize("data", [float("nan"), float("inf"), object(), {1, 2}, b"bytes"])
def test_what_json_cannot_hold_is_refused(data: object) -> None:
    with pytest.raises(InvalidMessage, match="JSON") as caught:
        Message(Target.BROADCAST, data)
    assert caught.value.field == "data"


@dataclasses.dataclass
class Point:
    x: int
    when: dt.date


@pytest.mark.parametrize(
    "value",
    [
        uuid.UUID(int=7),
        decimal.Decimal("1.50"),
        dt.date(2026, 1, 2),
        dt.datetime(2026, 1, 2, 3, 4, 5),
        dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone(dt.timedelta(hours=8))),
        Point(1, dt.date(2026, 1, 2)),
        {"deep": [Point(2, dt.date(2026, 3, 4)), None, True, 1.5, "ü"]},
    ],
)
def test_json_is_as_flasks_own_provider_writes_it(value: object) -> None:
    flasks = DefaultJSONProvider(Flask(__name__)).dumps(value)

    assert json.loads(Message(Target.BROADCAST, value).data) == json.loads(flasks)


def test_a_message_says_whom_it_is_for() -> None:
    user = uuid.uuid4()

    assert Message("user", "x", user_id=str(user).upper()).user_id == str(user)
    assert Message("topic", "x", topic="a:b", tenant_id=ALL_TENANTS).tenant_id is ALL_TENANTS
    for nobody in (None, "", uuid.UUID(int=0), str(uuid.UUID(int=0)), "  ", True, 1.5, "a\nb"):
        with pytest.raises(InvalidUserID):
            Message("user", "x", user_id=nobody)
    for topic in ("", "a:*", "**", "a::b", ":", "a\nb", "x" * 513, "\ud800"):
        with pytest.raises(InvalidTopic):
            Message("topic", "x", topic=topic)
    for forgotten in ("", uuid.UUID(int=0), str(uuid.UUID(int=0)), "  "):
        with pytest.raises(InvalidUserID):
            Message("broadcast", "x", tenant_id=forgotten)
    with pytest.raises(InvalidMessage):
        Message("everybody", "x")
    with pytest.raises(InvalidMessage):
        Message("broadcast", "x", user_id=1)
    with pytest.raises(InvalidMessage):
        Message("user", "x", user_id=1, topic="a")


def test_ids_compare_equal_however_they_were_written() -> None:
    one = uuid.UUID("0d9f1c7e-7d3c-4d65-9b7a-6d1f3c2b1a00")
    ways = [one, str(one), str(one).upper(), one.hex, f"{{{one}}}", one.urn]

    assert {Message("user", "x", user_id=way).user_id for way in ways} == {str(one)}
    assert Message("user", "x", user_id=42).user_id == Message("user", "x", user_id="42").user_id


def test_a_message_can_be_given_its_id_without_being_made_again() -> None:
    message = Message("broadcast", {"a": 1}, "e")

    twin = message.with_id("e-1")

    assert (twin.id, twin.data, twin.body) == ("e-1", message.data, message.body)
    assert message.id == ""


def test_a_user_id_is_its_plain_text_whoever_asked_first() -> None:
    class Role(str, enum.Enum):
        ADMIN = "the admin"

    assert normal_user_id(Role.ADMIN) == "the admin"
    assert type(normal_user_id("the admin")) is str
    assert Message(Target.USER, "x", user_id=Role.ADMIN).user_id == "the admin"


def test_json_is_one_line_however_a_client_splits_lines() -> None:
    value = {"t": "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh\u00e9\U0001f600"}

    frame = Message("broadcast", value).frame.decode()

    (line,) = [line for line in frame.splitlines() if line]
    assert json.loads(line.removeprefix("data: ")) == value
    assert "\u00e9\U0001f600" in line  # what splits nothing is left as it is
    assert Message("broadcast", "a\u2028b").frame == "data: a\u2028b\n\n".encode()


@pytest.mark.parametrize("event", ["open", "revoked", "welcome"])
def test_names_that_a_page_could_mistake_are_the_librarys(event: str) -> None:
    with pytest.raises(InvalidMessage) as refused:
        Message("broadcast", "x", event)
    assert refused.value.field == "event"

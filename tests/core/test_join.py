"""The join of replay and live: no hole, no double, no reversal, whatever comes in between.

Order is forced by a log that does something at the very moment of a read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest

from sse_broker import Broker, BrokerConfig
from sse_broker.core import reader as reader_module
from sse_broker.core.client import State
from sse_broker.logs import MemoryLog
from tests.core.streams import Hub, Tab


class GatedLog(MemoryLog):
    """Calls ``before`` and ``after`` around each read, with the number of the read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.given = 0
        self.before: Callable[[int], None] = lambda n: None
        self.after: Callable[[int], None] = lambda n: None

    def read(self, after: int, limit: int):
        self.reads += 1
        self.before(self.reads)
        records = super().read(after, limit)
        self.given += len(records)
        self.after(self.reads)
        return records


WHO = [(1, (), 1), (1, (), 1), (1, (), 2), (1, (), None), (2, (), 1), ("1,1", (), None)]


def make(**settings: object) -> tuple[Broker, GatedLog]:
    log = GatedLog()
    return Hub(BrokerConfig(**settings), log=log), log


def say(broker: Broker, *numbers: int) -> None:
    for n in numbers:
        broker.broadcast("e", str(n))


def expect(tab: Tab, count: int, first: int = 1) -> None:
    assert tab.data == [str(n) for n in range(first, count + 1)]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("read", [1, 2, 3])
def test_a_message_at_any_moment_of_a_resume_arrives_once(moment: str, read: int) -> None:
    broker, log = make()
    with broker:
        tab = Tab(broker).connect().read_on().leave()
        say(broker, 1, 2)
        setattr(log, moment, lambda n: say(broker, 3) if n == read else None)

        tab.connect().read_on()
        log.before = log.after = lambda n: None
        say(broker, *([4] if "3" in tab.data else [3, 4]))
        tab.read_on()

        expect(tab, 4)
        assert tab.count("reset") == 0


def test_a_message_between_locating_and_registering_arrives_once() -> None:
    broker, log = make()
    with broker:
        tab = Tab(broker).connect().read_on().leave()
        locate = log.locate

        def located(*args) -> int:
            position = locate(*args)
            say(broker, 1)
            return position

        log.locate = located  # type: ignore[method-assign]
        tab.connect().read_on()
        say(broker, 2)

        expect(tab.read_on(), 2)


def test_a_message_between_registering_and_the_first_byte_of_a_fresh_stream_arrives() -> None:
    broker, _ = make()
    with broker:
        tab = Tab(broker).connect()
        say(broker, 1)

        expect(tab.read_on(), 1)
        assert [event.event for event in tab.events] == ["welcome", "e"]


def test_a_stream_says_when_all_that_was_missed_is_told() -> None:
    broker, _ = make()
    with broker:
        tab = Tab(broker).connect().read_on().leave()
        say(broker, 1)
        reader = tab.connect().reader

        chunks = [reader.next(0) for _ in range(3)]

        assert b"data: 1\n" in chunks[1]
        assert chunks[2] == b": live\n\n"


def test_welcome_tells_the_same_user_of_the_same_tenant_from_all_others() -> None:
    broker, _ = make()
    with broker:
        tabs = [Tab(broker, *who).connect().read_on() for who in WHO]

        first, again, *others = [json.loads(tab.events[0].data)["identity"] for tab in tabs]

        assert first == again
        assert len({first, *others}) == 1 + len(others)


def test_a_fresh_stream_gets_nothing_that_is_older() -> None:
    broker, _ = make()
    with broker:
        say(broker, 1, 2)
        tab = Tab(broker).connect().read_on()
        say(broker, 3)

        expect(tab.read_on(), 3, first=3)


def test_a_tab_that_reconnects_before_its_first_message_loses_nothing() -> None:
    broker, _ = make()
    with broker:
        tab = Tab(broker).connect()
        tab.step()
        tab.leave()
        say(broker, 1)

        expect(tab.connect().read_on(), 1)


def test_a_flood_during_a_resume_overflows_and_is_caught_up() -> None:
    broker, log = make(client_buffer_size=2)
    with broker:
        tab = Tab(broker).connect().read_on().leave()
        say(broker, 1)
        # after the second read the log was at its end; before the third the client is live
        log.before = lambda n: say(broker, *range(2, 12)) if n == 3 else None

        tab.connect().read_on()

        expect(tab, 11)
        assert tab.reader.client.state is State.LIVE


def test_falling_behind_again_and_again_is_caught_up(monkeypatch) -> None:
    monkeypatch.setattr(reader_module, "READ_RECORDS", 3)
    broker, _ = make(client_buffer_size=2)
    with broker:
        tab = Tab(broker).connect()
        sent = 0
        for burst in (1, 5, 2, 3, 9, 1, 4):
            say(broker, *range(sent + 1, sent + burst + 1))
            sent += burst
            tab.step()
            tab.step()

        expect(tab.read_on(), sent)
        assert tab.count("dropped") == 0


def test_a_history_ten_times_the_queue_is_replayed_whole() -> None:
    broker, _ = make(client_buffer_size=16)
    with broker:
        tab = Tab(broker).connect().read_on().leave()
        say(broker, *range(1, 2_001))

        expect(tab.connect().read_on(), 2_000)
        assert tab.reader.client.dropped == 0


@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "drop_newest"])
def test_a_long_replay_does_not_overflow_the_client_that_asked_for_it(overflow: str) -> None:
    broker, log = make(client_buffer_size=4, overflow=overflow)
    with broker:
        tab = Tab(broker).connect().read_on().leave()
        say(broker, *range(1, 601))
        log.after = lambda n: say(broker, *range(601, 701)) if n == 2 else None

        tab.connect().read_on()

        expect(tab, 700)
        assert tab.count("dropped") == tab.count("close") == 0


def test_falling_behind_what_the_log_keeps_is_a_reset_said_once() -> None:
    broker, _ = make(client_buffer_size=2, resume_window=0, history_size=3)
    with broker:
        tab = Tab(broker).connect().read_on()
        say(broker, *range(1, 21))

        tab.read_on()
        say(broker, 21)
        tab.read_on()

        assert tab.count("reset") == 1
        assert tab.data == ["1", "2", "21"]
        at = [event.event for event in tab.events].index("reset")
        assert tab.events[at].data == '{"reason":"trimmed"}'
        assert broker.streams.counts().resets == 1
        # what comes back with the id of the reset is not reset again
        tab.leave()
        say(broker, 22)
        assert tab.connect().read_on().data[-1] == "22"
        assert tab.count("reset") == 1


def test_an_id_that_proves_nothing_is_a_reset_before_all_else() -> None:
    broker, _ = make()
    with broker:
        say(broker, 1)
        for last, reason in [
            ("0123456789ab-1", "epoch"),
            ("other-1", "unknown"),
            ("never-seen-it", "unknown"),
            ("a b", "malformed"),
            ("x" * 300, "malformed"),
            (broker.log.cursor(99), "ahead"),
        ]:
            tab = Tab(broker)
            tab.last_event_id = last
            tab.connect().read_on()

            assert [event.event for event in tab.events] == ["reset", "welcome"]
            assert tab.events[0].data == f'{{"reason":"{reason}"}}'
            assert tab.last_event_id == broker.log.cursor(1)
            assert tab.data == []


def test_a_quiet_tab_is_not_lost_while_others_are_busy() -> None:
    broker, _ = make(resume_window=0, history_size=2)
    with broker:
        tab = Tab(broker, topics=["quiet"]).connect().read_on()
        for n in range(10):
            broker.send_to_user(2, "e", str(n))
        here = broker.streams.here()
        tab.reader.client.beat(here.delivery.delivered)
        tab.read_on().leave()
        broker.send_to_topic("quiet", "e", "for me")

        tab.connect().read_on()

        assert tab.count("reset") == 0
        assert tab.data == ["for me"]


def test_a_heartbeat_never_moves_the_cursor_back() -> None:
    broker, _ = make()
    with broker:
        tab = Tab(broker).connect().read_on()
        say(broker, 1, 2)
        tab.read_on()
        tab.reader.client.beat(1)
        tab.read_on()

        assert tab.events[-1].event == "heartbeat"
        assert tab.last_event_id == broker.log.cursor(2)


def test_comment_heartbeats_become_events_only_to_move_the_cursor() -> None:
    broker, _ = make(heartbeat_style="comment")
    with broker:
        tab = Tab(broker).connect().read_on()
        client, here = tab.reader.client, broker.streams.here()
        client.beat(here.delivery.delivered)
        assert tab.reader.next(0) == b": heartbeat\n\n"

        broker.send_to_user(2, "e", "not mine")
        client.beat(here.delivery.delivered)
        tab.read_on()

        assert tab.events[-1].event == "heartbeat"
        assert tab.last_event_id == broker.log.cursor(1)


def test_dropping_is_said_to_the_client_with_how_many() -> None:
    broker, _ = make(client_buffer_size=2, overflow="drop_oldest")
    with broker:
        tab = Tab(broker).connect().read_on()
        say(broker, 1, 2, 3, 4, 5)
        tab.read_on()

        assert [(e.event, e.data) for e in tab.events[1:]] == [
            ("dropped", '{"count":3}'),
            ("e", "4"),
            ("e", "5"),
        ]
        assert broker.get_stats().messages_dropped == 3


def test_disconnecting_flushes_says_why_and_loses_nothing() -> None:
    broker, _ = make(client_buffer_size=2, overflow="disconnect")
    with broker:
        tab = Tab(broker).connect().read_on()
        say(broker, 1, 2, 3, 4)
        tab.read_on()
        assert tab.events[-1].event == "close"
        assert tab.events[-1].data == '{"reason":"overflow"}'
        assert tab.reader.next(0) is None

        tab.leave().connect().read_on()

        expect(tab, 4)


def test_replay_is_filtered_as_live_delivery_is() -> None:
    broker, _ = make()
    with broker:
        mine = Tab(broker, user=1, tenant="t1", topics=["a:*"]).connect().read_on().leave()
        broker.send_to_topic("a:b", "e", "mine", tenant_id="t1")
        broker.send_to_topic("a:b", "e", "of t2", tenant_id="t2")
        broker.send_to_topic("a:b", "e", "of no tenant")
        broker.send_to_user(2, "e", "of another user")
        broker.broadcast("e", "to t1", tenant_id="t1")

        assert mine.connect().read_on().data == ["mine", "to t1"]


def test_a_pattern_is_no_grant_for_each_topic_it_takes() -> None:
    asked: list[str] = []

    def authorizer(identity, topic: str) -> bool:
        asked.append(topic)
        return topic != "a:secret"

    broker = Hub(authorizer=authorizer)
    with broker:
        tab = Tab(broker, topics=["a:*"]).connect().read_on()
        for topic in ("a:open", "a:secret", "a:open"):
            broker.send_to_topic(topic, "e", topic)

        assert tab.read_on().data == ["a:open", "a:open"]
        assert asked == ["a:open", "a:secret"]
        tab.leave()
        broker.send_to_topic("a:secret", "e", "replayed")
        broker.send_to_topic("a:open", "e", "replayed too")
        assert tab.connect().read_on().data[2:] == ["replayed too"]


def test_big_messages_leave_in_bounded_chunks_of_whole_frames() -> None:
    broker, _ = make()
    with broker:
        tab = Tab(broker).connect().read_on()
        for _ in range(8):
            broker.broadcast("e", "x" * 30_000)

        sizes = []
        while chunk := tab.reader.next(0):
            assert chunk.endswith(b"\n\n")
            tab.parser.feed(chunk)
            sizes.append(len(chunk))

        assert len(sizes) == 4
        assert max(sizes) <= reader_module.CHUNK_BYTES


def test_a_replay_of_large_messages_holds_one_chunk_at_a_time() -> None:
    broker, log = make(history_size=1000)
    with broker:
        tab = Tab(broker).connect().read_on().leave()
        for n in range(100):
            broker.broadcast("e", f"{n};" + "x" * 50_000)
        tab.connect()
        tab.step()  # the welcome
        start = tab.reader.cursor

        while tab.step():
            got = [event for event in tab.events if event.event == "e"]
            assert tab.reader.cursor == start + len(got)  # nothing is held that was not given

        assert [event.data.split(";")[0] for event in got] == [str(n) for n in range(100)]
        assert log.given < 500  # at first all, then a little more than what a chunk holds


def test_a_stuck_reader_whose_queue_was_let_go_of_goes_on_from_the_log() -> None:
    broker, _ = make()
    with broker:
        tab = Tab(broker).connect().read_on()
        say(broker, 1)
        tab.step()
        say(broker, *range(2, 10))

        assert tab.reader.client.shed(0)

        say(broker, 10)
        tab.read_on()
        expect(tab, 10)


def test_the_close_frame_carries_what_was_delivered_to_others() -> None:
    """A quiet client's own last message may be far behind what the log keeps."""
    broker, _ = make()
    with broker:
        quiet = Tab(broker, topics=["quiet"]).connect().read_on()
        for _ in range(100):
            broker.send_to_topic("busy", "e", "x" * 200_000)
        quiet.reader.client.close("max_age", broker.streams.here().delivery.delivered)
        quiet.read_on().leave()
        broker.send_to_topic("quiet", "e", "1")
        quiet.connect().read_on()

    assert quiet.count("reset") == 0
    assert quiet.data == ["1"]


def test_a_stream_that_is_behind_when_it_is_closed_keeps_its_own_place() -> None:
    broker, log = make(history_size=100)
    with broker:
        tab = Tab(broker).connect().read_on()
        log.before = lambda n: tab.reader.client.close(
            "max_age", broker.streams.here().delivery.delivered
        )
        tab.reader.client.fall_behind()
        say(broker, 1, 2, 3)
        tab.read_on().leave()
        log.before = lambda n: None
        tab.connect().read_on()

    expect(tab, 3)


def test_an_authorizer_that_raises_hides_one_record_and_is_asked_again(caplog) -> None:
    rooms, asked = {"room:2": True}, []

    def authorizer(identity: object, topic: str) -> bool:
        asked.append(topic)
        return topic == "room:*" or rooms[topic]

    with Hub(authorizer=authorizer) as broker:
        tab = Tab(broker, topics=["room:*"]).connect().read_on()
        for n, room in enumerate(["room:1", "room:2", "room:1"]):
            broker.send_to_topic(room, "e", str(n))
        tab.read_on()
        rooms["room:1"] = True
        broker.send_to_topic("room:1", "e", "3")
        tab.read_on()
        failures = broker.streams.counts().authorizer_failures

    assert tab.data == ["1", "3"]
    assert asked == ["room:1", "room:2", "room:1", "room:1"]
    assert failures == 2
    assert len(caplog.records) == 1


def test_a_replay_of_thousands_gives_other_greenlets_their_turns() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.core.gevent_replay"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.stderr) == ("ok\n", "")

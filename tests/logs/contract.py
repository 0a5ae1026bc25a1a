"""What every log promises; each log's test class runs all of this."""

from __future__ import annotations

import threading

import pytest

from sse_broker import ALL_TENANTS, BrokerConfig, Message, Target
from sse_broker.core.ports import LogLimits, PositionLost
from sse_broker.wire.command import Act, Command
from tests.core.streams import Hub, Tab
from tests.logs.case import message
from tests.logs.id_contract import IdContract
from tests.logs.roster_contract import RosterContract
from tests.logs.state_contract import StateContract

__all__ = ["LogContract", "message"]


class LogContract(IdContract, RosterContract, StateContract):
    """Subclass it and say how a log is made."""

    def test_positions_only_grow(self) -> None:
        positions = self.fill(5)

        assert positions == sorted(set(positions))
        assert self.log.tail() == positions[-1]

    def test_reading_goes_on_after_a_position_up_to_a_limit(self) -> None:
        positions = self.fill(5)

        assert [r.position for r in self.log.read(positions[0], 2)] == positions[1:3]
        assert [r.position for r in self.log.read(positions[2], 9)] == positions[3:]
        assert not self.log.read(positions[4], 9)

    def test_a_record_has_its_frame(self) -> None:
        record = self.log.append(message("hello"))

        assert record.frame == b"id: %b\ndata: hello\n\n" % record.id.encode()

    def test_the_history_is_bounded_by_count(self) -> None:
        self.log.bind(LogLimits(resume_window=0, history_size=3), self.clock)
        positions = self.fill(10)

        assert self.lost(self.log.cursor(positions[5])) == "trimmed"
        kept = self.log.read(self.log.locate(self.log.cursor(positions[6])), 9)
        assert [r.position for r in kept] == positions[7:]
        self.fill(200)  # a log may trim now and then instead of each time
        with pytest.raises(PositionLost, match="trimmed"):
            self.log.read(positions[5], 9)

    def test_the_history_is_bounded_by_age(self) -> None:
        self.log.bind(LogLimits(resume_window=0, history_size=99, history_ttl=10), self.clock)
        before = self.log.cursor(self.log.tail())
        self.fill(2)
        self.clock.advance(11)

        assert self.lost(before) == "trimmed"
        assert self.log.locate(self.log.cursor(self.log.tail())) == self.log.tail()

    def test_the_history_is_bounded_by_bytes(self) -> None:
        limits = LogLimits(resume_window=0, history_size=99, history_bytes=4_000)
        self.log.bind(limits, self.clock)
        before = self.log.cursor(self.log.tail())
        positions = [self.log.append(message("x" * 1000)).position for _ in range(10)]

        assert self.lost(before) == "trimmed"
        assert len(self.log.read(positions[-2], 99)) == 1

    def test_the_resume_window_holds_without_a_history(self) -> None:
        self.log.bind(LogLimits(resume_window=60, history_size=0), self.clock)
        before = self.log.cursor(self.log.tail())
        positions = self.fill(3)

        self.clock.advance(60)
        assert [r.position for r in self.log.read(self.log.locate(before), 9)] == positions
        self.clock.advance(1)
        assert self.lost(before) == "trimmed"

    def test_without_window_and_history_nothing_is_kept(self) -> None:
        self.log.bind(LogLimits(resume_window=0, history_size=0), self.clock)
        before = self.log.cursor(self.log.tail())
        self.fill(1)

        assert self.lost(before) == "trimmed"

    def test_listeners_get_every_record_in_log_order_from_many_publishers(self) -> None:
        seen: list[int] = []
        done = threading.Event()

        def listen(record) -> None:
            seen.append(record.position)
            if len(seen) == 400:
                done.set()

        following = self.log.listen(listen, self.fail_on_loss)
        threads = [threading.Thread(target=self.fill, args=(100,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done.wait(5)
        following.stop()
        self.fill(1)

        assert len(seen) == 400
        assert seen == sorted(set(seen))

    def test_order_holds_when_a_publisher_is_held_up_before_handing_out(self) -> None:
        """Gate: the first publisher stops inside a listener while a second one publishes."""
        inside, go, both = threading.Event(), threading.Event(), threading.Event()
        seen: list[int] = []

        def listen(record) -> None:
            if not seen:
                inside.set()
                assert go.wait(5)
            seen.append(record.position)
            if len(seen) == 2:
                both.set()

        following = self.log.listen(listen, self.fail_on_loss)
        first = threading.Thread(target=self.fill, args=(1,))
        second = threading.Thread(target=self.fill, args=(1,))
        first.start()
        assert inside.wait(5)
        second.start()
        go.set()
        first.join()
        second.join()
        assert both.wait(5)
        following.stop()

        assert seen == sorted(seen)

    def test_a_command_has_its_place_and_no_frame(self) -> None:
        seen: list = []
        done = threading.Event()

        def listen(record) -> None:
            seen.append(record.message)
            if len(seen) == 2:
                done.set()

        following = self.log.listen(listen, self.fail_on_loss)
        record = self.log.append(Command(Act.DISCONNECT_USER, "7", "logout"))
        self.log.append(message("after"))
        assert done.wait(5)
        following.stop()

        assert record.frame == b""
        assert seen[0] == Command(Act.DISCONNECT_USER, "7", "logout")
        assert seen[1].data == "after"

    def test_a_message_comes_back_as_it_was_sent(self) -> None:
        after = self.log.tail()
        sent = [
            Message(
                Target.USER, "a\nb\u2028", "e", user_id="u", tenant_id="t", id="own", retry=2000
            ),
            Message(Target.TOPIC, {"n": [1, None, "ä"]}, topic="a:b", tenant_id=ALL_TENANTS),
            Message(Target.TOPIC, "x", topics=["b", "a:b"], retain_for=2.5),
            Message(Target.BROADCAST, ""),
        ]
        for one in sent:
            self.log.append(one)

        read = [record.message for record in self.log.read(after, 9)]
        assert read == sent
        assert [one.body for one in read] == [one.body for one in sent]
        assert [one.created_at for one in read] == [one.created_at for one in sent]

    def test_a_tab_that_comes_and_goes_while_messages_flow_misses_and_doubles_nothing(self) -> None:
        """Each time it comes, replay is joined to what is just being sent."""
        config = BrokerConfig(history_size=5000, client_buffer_size=8)
        with Hub(config, log=self.log) as broker:
            tab = Tab(broker).connect().read_on()
            publisher = threading.Thread(
                target=lambda: [broker.broadcast("e", str(n)) for n in range(600)]
            )
            publisher.start()
            for turn in range(60):
                for _ in range(turn % 4):
                    tab.step()
                tab.leave()
                tab.connect()
            publisher.join()
            for _ in range(300):
                if len(tab.data) >= 600:
                    break
                tab.step(0.1)

        assert tab.data == [str(n) for n in range(600)]
        assert tab.count("reset") == tab.count("dropped") == 0

    def test_a_fresh_stream_is_welcomed_where_its_process_began_to_listen(self) -> None:
        """What another process records while a broker starts is behind the welcome, or arrives."""
        listen, early = self.log.listen, []

        def recorded_before(*args):
            early.append(self.log.append(message("early")).position)
            return listen(*args)

        self.log.listen = recorded_before  # type: ignore[method-assign]
        with Hub(log=self.log) as broker:
            tab = Tab(broker).connect().read_on()

        welcome = next(event for event in tab.events if event.event == "welcome")
        assert self.log.locate(welcome.id) >= early[0] or tab.data == ["early"]

    def test_a_listener_gets_everything_after_the_position_it_was_told(self) -> None:
        self.fill(3)
        got: list[int] = []
        done = threading.Event()

        def listen(record) -> None:
            got.append(record.position)
            if len(got) == 2:
                done.set()

        following = self.log.listen(listen, self.fail_on_loss)
        start = following.start
        after = self.fill(2)
        assert done.wait(10)
        following.stop()

        assert got == after
        assert [record.position for record in self.log.read(start, 10)] == after

    def test_the_id_of_now_leads_to_what_is_sent_afterwards(self) -> None:
        with Hub(BrokerConfig(history_size=99), log=self.log) as broker:
            begin = broker.last_event_id()
            broker.broadcast("e", "1")
            later = broker.last_event_id()
            broker.broadcast("e", "2")
            first, second = Tab(broker), Tab(broker)
            first.last_event_id, second.last_event_id = begin, later

            for tab, wanted in ((first, ["1", "2"]), (second, ["2"])):
                tab.connect()
                while len(tab.data) < len(wanted):
                    assert tab.step(10)
                assert tab.data == wanted

"""What every log promises; each log's test class runs all of this."""

from __future__ import annotations

import re
import threading

import pytest

from sse_broker import Message, Target
from sse_broker.core.ports import Log, LogLimits, PositionLost
from sse_broker.testing import FakeClock

KEEP = LogLimits(resume_window=0, history_size=1000)


def message(data: str = "x", id: str = "") -> Message:
    return Message(Target.BROADCAST, data, id=id)


class LogContract:
    """Subclass it and say how a log is made."""

    def make(self, tmp_path) -> Log:
        raise LookupError("say how the log is made")

    @pytest.fixture(autouse=True)
    def _log(self, tmp_path):
        self.clock = FakeClock()
        self.log = self.make(tmp_path)
        self.log.bind(KEEP, self.clock)
        yield
        self.log.close()

    def fill(self, count: int) -> list[int]:
        return [self.log.append(message(str(n))).position for n in range(count)]

    def lost(self, id: str) -> str:
        with pytest.raises(PositionLost) as caught:
            self.log.locate(id)
        return caught.value.reason

    def test_positions_only_grow(self) -> None:
        positions = self.fill(5)

        assert positions == sorted(set(positions))
        assert self.log.tail() == positions[-1]

    def test_wire_ids_are_of_the_safe_alphabet_and_lead_back(self) -> None:
        for _ in range(3):
            record = self.log.append(message())
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", record.id)
            assert self.log.locate(record.id) == record.position
            assert self.log.cursor(record.position) == record.id

    def test_reading_goes_on_after_a_position_up_to_a_limit(self) -> None:
        positions = self.fill(5)

        assert [r.position for r in self.log.read(positions[0], 2)] == positions[1:3]
        assert [r.position for r in self.log.read(positions[2], 9)] == positions[3:]
        assert not self.log.read(positions[4], 9)

    def test_a_record_has_its_frame(self) -> None:
        record = self.log.append(message("hello"))

        assert record.frame == b"id: %b\ndata: hello\n\n" % record.id.encode()

    def test_an_own_id_is_kept_and_recorded_once(self) -> None:
        first = self.log.append(message("one", id="order-1"))
        second = self.log.append(message("two", id="order-1"))

        assert first.id == "order-1"
        assert second.position == first.position
        assert self.log.locate("order-1") == first.position
        assert len(self.log.read(first.position - 1, 9)) == 1

    def test_an_own_id_published_by_many_at_one_moment_is_recorded_once(self) -> None:
        gate, found = threading.Barrier(8), []

        def publish() -> None:
            gate.wait(5)
            found.append(self.log.append(message(id="order-2")).position)

        threads = [threading.Thread(target=publish) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(set(found)) == 1

    def test_an_id_that_proves_nothing_says_why(self) -> None:
        self.fill(2)
        epoch, _, tail = self.log.cursor(self.log.tail()).rpartition("-")

        assert self.lost(f"0{epoch}-{tail}") == "epoch"
        assert self.lost(f"{epoch}-{int(tail) + 1}") == "ahead"
        assert self.lost("never-seen") == "unknown"
        assert self.lost("order-3") in ("unknown", "epoch")

    def test_the_history_is_bounded_by_count(self) -> None:
        self.log.bind(LogLimits(resume_window=0, history_size=3), self.clock)
        positions = self.fill(10)

        assert self.lost(self.log.cursor(positions[5])) == "trimmed"
        kept = self.log.read(self.log.locate(self.log.cursor(positions[6])), 9)
        assert [r.position for r in kept] == positions[7:]
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
        for _ in range(10):
            self.log.append(message("x" * 1000))

        assert self.lost(before) == "trimmed"
        assert len(self.log.read(self.log.tail() - 1, 99)) == 1

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

    def test_an_own_id_is_forgotten_with_its_message(self) -> None:
        self.log.bind(LogLimits(resume_window=0, history_size=1), self.clock)
        first = self.log.append(message(id="order-4"))
        self.fill(1)

        assert self.log.append(message(id="order-4")).position > first.position

    def test_listeners_get_every_record_in_log_order_from_many_publishers(self) -> None:
        seen: list[int] = []
        done = threading.Event()

        def listen(record) -> None:
            seen.append(record.position)
            if len(seen) == 400:
                done.set()

        stop = self.log.listen(listen)
        threads = [threading.Thread(target=self.fill, args=(100,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done.wait(5)
        stop()
        self.fill(1)

        assert len(seen) == 400
        assert seen == sorted(set(seen))

    def test_order_holds_when_a_publisher_is_held_up_before_handing_out(self) -> None:
        """Gate: the first publisher stops inside a listener while a second one publishes."""
        inside, go, seen = threading.Event(), threading.Event(), []

        def listen(record) -> None:
            if not seen:
                inside.set()
                assert go.wait(5)
            seen.append(record.position)

        stop = self.log.listen(listen)
        first = threading.Thread(target=self.fill, args=(1,))
        second = threading.Thread(target=self.fill, args=(1,))
        first.start()
        assert inside.wait(5)
        second.start()
        go.set()
        first.join()
        second.join()
        stop()

        assert seen == sorted(seen)
        assert len(seen) == 2

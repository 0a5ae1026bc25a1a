"""``memory://`` keeps the contract of all logs, and one of its own: fork."""

from __future__ import annotations

import multiprocessing

import pytest

from sse_broker import Broker, Message, Target
from sse_broker.logs import MemoryLog
from tests.logs.contract import LogContract, message


class TestMemoryLog(LogContract):
    def make(self, tmp_path) -> MemoryLog:
        return MemoryLog()

    def test_a_long_history_is_trimmed_without_growing(self) -> None:
        from sse_broker.core.ports import LogLimits

        self.log.bind(LogLimits(resume_window=0, history_size=10), self.clock)
        self.fill(5_000)

        life = self.log._here()
        assert len(life._records) < 600
        assert len(self.log.read(self.log.tail() - 10, 99)) == 10


def _child(log, broker, answer) -> None:
    answer.put((log.cursor(0), log.append(message()).position))
    broker.broadcast("e", "x")
    answer.put(broker.get_stats().is_running)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_a_log_and_a_broker_of_its_own() -> None:
    log = MemoryLog()
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    with Broker(log=log) as broker:
        log.append(message())
        child = context.Process(target=_child, args=(log, broker, answer))
        child.start()
        cursor, position = answer.get()
        running = answer.get()
        child.join()

    assert cursor.partition("-")[0] != log.cursor(0).partition("-")[0]
    assert position == 1
    assert not running


def test_a_listener_that_sends_gets_it_after_what_it_was_called_for() -> None:
    log, got = MemoryLog(), []

    def listener(record) -> None:
        got.append(record.message.data)
        if record.message.data == "first":
            log.append(Message(Target.BROADCAST, "second"))
            got.append("sent")

    log.listen(listener, lambda position: None)
    log.append(Message(Target.BROADCAST, "first"))

    assert got == ["first", "sent", "second"]

"""The buffer of a log that is away, without a log."""

from __future__ import annotations

import threading

from sse_broker import Message, Target
from sse_broker.logs.redis.buffer import Buffer


def test_a_buffer_whose_thread_died_is_emptied_after_the_next_message() -> None:
    sent: list[str] = []
    deadly, died = [SystemExit], threading.Event()

    def send(message) -> None:
        if deadly:
            died.set()
            raise deadly.pop()
        sent.append(message.data)

    buffer = Buffer(10, send)
    buffer.put(Message(Target.BROADCAST, "one"))
    assert died.wait(10)
    for thread in threading.enumerate():
        if thread.name.startswith("sse-broker-buffer-"):
            thread.join(10)
    assert not sent

    buffer.put(Message(Target.BROADCAST, "two"))
    buffer.flush(10)

    assert sent == ["one", "two"]

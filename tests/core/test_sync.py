"""Bells, the wake chain, and the queue on top of them."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading

import pytest

from sse_broker import Client
from sse_broker.core.sync import WakeChain
from tests.core.test_client import record


class Bell:
    def __init__(self, name: str, rung: list[str]) -> None:
        self.name, self.rung = name, rung

    def wait(self, timeout: float) -> bool:
        return True

    def ring(self) -> None:
        self.rung.append(self.name)


def test_a_chain_wakes_a_few_and_each_calls_the_next() -> None:
    chain, rung = WakeChain(), []
    names = [str(n) for n in range(WakeChain.WIDTH + 3)]

    for name in names:
        chain.call(Bell(name, rung))
    assert rung == names[: WakeChain.WIDTH]
    chain.woke()
    chain.woke()

    assert rung == names[: WakeChain.WIDTH + 2]
    for _ in names:
        chain.woke()
    chain.call(Bell("later", rung))
    assert rung == [*names, "later"]


def test_a_chain_with_a_lost_link_begins_anew() -> None:
    chain, rung = WakeChain(), []
    for n in range(WakeChain.WIDTH + 2):
        chain.call(Bell(str(n), rung))  # nobody ever says that it woke

    chain.restart()

    assert len(rung) == WakeChain.WIDTH + 2


def test_a_waiting_consumer_is_woken_by_an_offer_and_by_the_end() -> None:
    client, got = Client(1), []
    thread = threading.Thread(target=lambda: got.append(client.take(30)))
    thread.start()
    assert client.offer(record(1))
    thread.join(5)
    assert [r.position for r in got[0].records] == [1]

    thread = threading.Thread(target=lambda: got.append(client.take(30)))
    thread.start()
    client.finish("gone")
    thread.join(5)
    assert not thread.is_alive()


def test_the_queue_keeps_the_contract_of_queue_queue() -> None:
    frames = Client(1, buffer_size=1).queue

    assert isinstance(frames, queue.Queue)
    frames.put(record(1))
    with pytest.raises(queue.Full):
        frames.put_nowait(record(2))
    assert frames.full()
    assert frames.get_nowait().position == 1
    with pytest.raises(queue.Empty):
        frames.get_nowait()
    with pytest.raises(queue.Empty):
        frames.get(timeout=0.01)
    assert frames.empty()
    frames.join()
    with pytest.raises(ValueError, match="task_done"):
        frames.task_done()


def test_a_native_thread_that_rings_just_before_a_greenlet_waits_is_heard() -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.core.gevent_bell"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr

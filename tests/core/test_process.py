"""The life of a broker in one process."""

from __future__ import annotations

import threading

from sse_broker import Broker, Client
from sse_broker.core.process import Life
from sse_broker.signals import client_disconnected


def test_a_start_during_a_stop_comes_after_it(tmp_path) -> None:
    broker = Broker(log=f"sqlite:///{tmp_path}/log.db")
    client, stopping, end = Client(1), threading.Event(), threading.Event()
    broker.register(client)
    here = broker.streams.here()

    def told(sender, **facts) -> None:
        stopping.set()
        end.wait(10)

    with client_disconnected.connected_to(told, broker):
        stop = threading.Thread(target=lambda: broker.stop(0))
        stop.start()
        stopping.wait(10)
        start = threading.Thread(target=broker.start)
        start.start()
        end.set()
        stop.join(10)
        start.join(10)

    assert here.life is Life.RUNNING
    assert here.follows
    assert here.reaper.is_alive
    broker.stop()
    assert here.life is Life.STOPPED


def test_a_receiver_may_stop_the_broker_that_stops() -> None:
    broker = Broker()
    broker.register(Client(1))

    def told(sender, **facts) -> None:
        broker.stop()

    with client_disconnected.connected_to(told, broker):
        broker.stop(0)

    assert broker.streams.here().life is Life.STOPPED

"""Run by test_threads.py: a log handler that switches greenlets stops nobody."""

from gevent import monkey

monkey.patch_all()

import logging  # noqa: E402

import gevent  # noqa: E402

from sse_broker import Broker, Client  # noqa: E402
from sse_broker.core.client import Client as CoreClient  # noqa: E402


class Yielding(logging.Handler):
    """As handlers that send over a socket do."""

    def emit(self, record: logging.LogRecord) -> None:
        gevent.sleep(0.01)
        said.append(record.getMessage())


def fail(self: CoreClient, records: object) -> None:
    raise MemoryError


said: list[str] = []
logging.getLogger("sse_broker").addHandler(Yielding())
CoreClient.offer_all = fail  # type: ignore[method-assign,assignment]
with Broker() as broker:
    broker.register(Client(1, topics=["t"]))
    senders = [gevent.spawn(broker.send_to_topic, "t", "e", str(n)) for n in range(3)]
    with gevent.Timeout(20):
        gevent.joinall(senders, raise_error=True)
        while not any("delivery failed" in one for one in said):
            gevent.sleep(0.01)
print("ok")

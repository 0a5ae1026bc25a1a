"""One publisher of the fault run: says before and after each message what becomes of it."""

from __future__ import annotations

import os
import signal
import sys
import time

from sse_broker import Broker, BrokerConfig, LogUnavailable


def main(url: str, name: str, path: str, rate: str, topic: str) -> None:
    running = [True]
    signal.signal(signal.SIGTERM, lambda *_: running.clear())
    broker = Broker(BrokerConfig(), log=url)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while running:
        message = f"{name}:{number}"
        os.write(fd, f"try {message} -\n".encode())
        try:
            wire_id = broker.send_to_topic(topic, "message", message)
            os.write(fd, f"ack {message} {wire_id}\n".encode())
        except LogUnavailable as err:
            what = "unknown" if err.maybe_recorded else "no"
            os.write(fd, f"{what} {message} -\n".encode())
        number += 1
        time.sleep(1 / float(rate))


if __name__ == "__main__":
    main(*sys.argv[1:])

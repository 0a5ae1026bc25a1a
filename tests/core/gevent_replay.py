"""Run by test_join.py: a replay of thousands gives other greenlets their turns."""

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402

from sse_broker import BrokerConfig  # noqa: E402
from tests.core.streams import Hub, Tab  # noqa: E402


def main() -> None:
    with Hub(BrokerConfig(history_size=10_000)) as broker:
        first = broker.broadcast("e", "first")
        for number in range(4_000):
            broker.send_to_topic("somebody:else", "e", str(number))
        broker.broadcast("e", "last")
        tab, turns = Tab(broker), []
        tab.last_event_id = first

        def others() -> None:
            while tab.data != ["last"]:
                turns.append(0)
                gevent.sleep(0)

        other = gevent.spawn(others)
        tab.connect().read_on()
        other.join(timeout=20)
    assert tab.data == ["last"]
    assert len(turns) >= 4_000 // 256, turns


main()
print("ok")

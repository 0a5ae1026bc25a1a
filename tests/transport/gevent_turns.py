"""Run by test_threads.py: what is for many is written by the hub, and nothing passes it."""

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402

from sse_broker.transport.hub import Hub  # noqa: E402


def main() -> None:
    loop, order = Hub(), []

    loop.hand_out(lambda: order.append("few"), lambda: Hub.FEW)
    assert order == ["few"]
    loop.hand_out(lambda: order.append("a second time"), lambda: 1)
    assert order == ["few"]  # the hub has not run
    gevent.sleep(0)
    assert order.pop() == "a second time"

    loop.hand_out(lambda: order.append("many"), lambda: Hub.FEW + 1)
    loop.call(lambda: order.append("close"))
    loop.hand_out(lambda: order.append("few again"), lambda: 1)
    assert order == ["few"]  # whoever sent goes on first
    gevent.sleep(0)
    assert order == ["few", "many", "close", "few again"]

    loop.call(lambda: order.append("at once"))
    assert order[-1] == "at once"

    sent = monkey.get_original("_thread", "start_new_thread")
    sent(lambda: loop.hand_out(lambda: order.append("from a thread"), lambda: 1), ())
    with gevent.Timeout(20):
        while order[-1] != "from a thread":
            gevent.sleep(0.01)


main()
print("ok")

"""For the tests of applications: what was pushed, streams without a server, a clock moved by hand.

::

    def test_a_paid_order_is_announced(app, sse):
        with capture(sse) as sent:
            app.test_client().post("/orders/7/paid")
        sent.assert_pushed(user=7, event="paid", data={"order": 7})


    def test_the_tab_shows_it(app, sse):
        with SSEClient(app).stream("/sse/stream?user_id=7") as tab:
            sse.send_to_user(7, "paid", {"order": 7})
            assert tab.next("paid").json == {"order": 7}

Nothing here needs pytest; with it, the plugin (:mod:`sse_broker.testing.plugin`, which
pytest finds by itself) has the fixtures ``sse_capture``, ``sse_client`` and ``sse_clock``.
"""

from sse_broker.testing.capture import Sent, capture
from sse_broker.testing.clock import FakeClock
from sse_broker.testing.tabs import NothingCame, SSEClient, Tab, read_events
from sse_broker.wire.parse import Event

__all__ = [
    "Event",
    "FakeClock",
    "NothingCame",
    "SSEClient",
    "Sent",
    "Tab",
    "capture",
    "read_events",
]

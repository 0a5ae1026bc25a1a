"""gevent's own server, with the standard library patched first, later, partly or not at all.

``python -m tests.live.patching <how> <port>``
"""

from __future__ import annotations

import sys
from typing import Any


def patch(**what: Any) -> None:
    from gevent import monkey

    monkey.patch_all(**what)


def main(how: str, port: int) -> None:
    if how == "first":
        patch()
    import tests.live.app

    app = tests.live.app.create_app()
    broker = app.extensions["sse"]
    if how == "after sending":
        broker.broadcast("early", "x")
    if how == "after starting":
        broker.start()
    if how == "without sockets":
        patch(socket=False, ssl=False, dns=False)
    elif how not in ("first", "not at all"):
        patch()
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", port), app, log=None).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

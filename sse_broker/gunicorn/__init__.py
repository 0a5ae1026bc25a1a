"""gunicorn: a worker whose streams leave their threads.

``gunicorn -k sse_broker.gunicorn.StreamWorker --threads 4 --worker-connections 20000 app:app``

A ``gthread`` worker like gunicorn's own, for any app.  Where what the app returned is a
stream of this library itself, gunicorn sends its headers and first frames; then the
socket goes to the pump (:mod:`sse_broker.transport.pump`) and the thread is free, as with
``wsgi.file_wrapper``.  The connection stays counted in ``worker_connections``; its
access-log line, ``post_request`` and the response's ``close()`` come at the
stream's end, with the bytes and the time of all of it.  A stream that something is in
between of and its server (a tracer, an encoder) keeps its thread, and the log says so
once.

What else differs from gunicorn's own worker:

* A request has a thread once its head is there, and has to be there within 10 s.
* Connections that gunicorn closes gracefully (it waits up to 2 s for each, since
  26.0 on the worker's main thread) are closed by the pump, so that clients which
  do not close their end stop nobody.
* The soft limit of descriptors is raised as far as ``worker_connections`` needs; where the
  hard one is lower, fewer connections are accepted at a time, and running out of
  descriptors all the same is survived.

If this gunicorn is not as expected the worker is a plain ``gthread`` one and says
so once.
"""

from typing import Any

from sse_broker.gunicorn.fits import incompatibility

StreamWorker: Any
if incompatibility():
    from sse_broker.gunicorn.plain import PlainWorker as StreamWorker
else:
    from sse_broker.gunicorn.worker import StreamWorker

__all__ = ["StreamWorker"]

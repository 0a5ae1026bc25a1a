"""Settings of gunicorn that suit streams: ``gunicorn -c python:sse_broker.gunicorn_conf app:app``.

Or, in a ``gunicorn.conf.py`` of your own, ``from sse_broker.gunicorn_conf import *`` and
then whatever is to be otherwise.
"""

__all__ = ["backlog", "graceful_timeout", "threads", "worker_class", "worker_connections"]

worker_class = "sse_broker.gunicorn.StreamWorker"
threads = 8  # for ordinary requests; a stream needs none
worker_connections = 10_000  # streams count here; each needs a descriptor too (ulimit -n)
backlog = 4096  # connections that wait to be accepted when everybody comes back at once
graceful_timeout = 30  # for ordinary requests; streams end within drain_timeout

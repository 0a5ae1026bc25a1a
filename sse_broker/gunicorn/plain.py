"""What the worker is where gunicorn is not as hand-off needs it: a plain gthread one."""

from __future__ import annotations

import logging

from gunicorn.workers.gthread import ThreadWorker

from sse_broker.gunicorn.fits import incompatibility

__all__ = ["PlainWorker"]

_log = logging.getLogger("sse_broker.gunicorn")


class PlainWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own worker, which says once why it is that."""

    def init_process(self) -> None:
        """Say so, and run."""
        _log.warning("streams stay in their threads: this gunicorn %s", incompatibility())
        super().init_process()

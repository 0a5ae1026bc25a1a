"""The gunicorn worker that this process is.

gunicorn tells its applications nothing of their worker.  But the worker is whom the
process's signals call, whatever wraps the application.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

__all__ = ["gunicorn_worker"]

_SIGNALS = (signal.SIGTERM, signal.SIGABRT, signal.SIGINT)


def gunicorn_worker() -> Any:
    """Return gunicorn's worker, or ``None`` elsewhere."""
    base = sys.modules.get("gunicorn.workers.base")
    for number in _SIGNALS if base else ():
        owner = getattr(signal.getsignal(number), "__self__", None)
        if isinstance(owner, base.Worker):  # type: ignore[union-attr]  # there is one
            return owner
    return None

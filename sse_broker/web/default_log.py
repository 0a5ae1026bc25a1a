"""What an application's configuration leaves out, and what it says that nobody reads."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask

from sse_broker.config import strangers

__all__ = ["WHY_MEMORY", "default_log", "say_strangers"]

FILE = "sse_broker.db"
WHY_MEMORY = "sse_why_memory"
"""The key of ``app.extensions`` that says why the log is not where it should be."""

_log = logging.getLogger("sse_broker.config")


def default_log(app: Flask) -> str:
    """Return the URL of the log of an app that has no ``SSE_LOG_URL``.

    That is SQLite in the app's instance folder, which is made if it is not there:
    all workers of a machine share it, and what was sent while the server restarts is
    not lost.  An app that is ``TESTING`` when the extension is set up, and one whose
    folder cannot be written, has ``memory://``; the second is said once, also by
    ``readyz``.
    """
    if app.testing:
        return "memory://"
    folder = app.instance_path
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as err:
        why = (
            f"the instance folder cannot be written ({err.strerror or err}), so the log is"
            " memory://, which each process has for itself; set SSE_LOG_URL to"
            " sqlite:////a/path/that/can/be/written.db or redis://host:6379/0, or make"
            " the folder writable"
        )
        app.extensions[WHY_MEMORY] = why
        _log.warning("%s (%s)", why, folder)
        return "memory://"
    return f"sqlite:///{Path(folder, FILE)}"


def say_strangers(config: Mapping[str, Any]) -> None:
    """Log each key of *config* that looks like a setting and that nobody reads."""
    for sentence in strangers(config):
        _log.warning("%s", sentence)

"""Signals (blinker).  The sender is the broker; no lock is held while a receiver runs.

``client_connected``     ``client``; on the stream's thread, before its first byte
``client_disconnected``  ``client, reason``; once for each connected client
``message_dropped``      ``client, count``; a full queue cost this client *count* frames
``user_online``          ``user_id``; the user had no stream in any process that shares the log
``user_offline``         ``user_id``; the user has had none for the setting ``presence_grace``

``listeners_changed``    ``topic, tenant_id, count``; streams that listen to a topic, over all
                         processes; for a minute after ``count_listeners``, where that was called

``user_online`` and ``user_offline`` are fired once for all processes, in one of them,
on its reaper's thread.
They have ``tenant_id`` as well where the user has a tenant: equal ids of two tenants
are two users.

Each receiver is called in an app context of the Flask app that serves the broker's
streams, if one does.  A receiver that raises is logged and does no harm to the stream.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from blinker import NamedSignal, Namespace

__all__ = [
    "client_connected",
    "client_disconnected",
    "listeners_changed",
    "message_dropped",
    "user_offline",
    "user_online",
]

_names = Namespace()
client_connected = _names.signal("sse-client-connected")
client_disconnected = _names.signal("sse-client-disconnected")
message_dropped = _names.signal("sse-message-dropped")
listeners_changed = _names.signal("sse-listeners-changed")
user_online = _names.signal("sse-user-online")
user_offline = _names.signal("sse-user-offline")

_log = logging.getLogger("sse_broker.signals")


def fire(signal: NamedSignal, sender: Any, **facts: Any) -> None:
    """Call every receiver, each on its own: one that raises keeps nothing from the others."""
    if not signal.receivers:
        return
    context = getattr(getattr(sender, "streams", None), "app_context", contextlib.nullcontext)
    for receiver in list(signal.receivers_for(sender)):
        try:
            with context():
                receiver(sender, **facts)
        except Exception:  # a receiver is not ours
            _log.exception("a receiver of %s failed", signal.name)

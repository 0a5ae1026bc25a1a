"""Signals (blinker).  The sender is the broker; no lock is held while a receiver runs.

``client_connected``     ``client``; on the stream's thread, before its first byte
``client_disconnected``  ``client, reason``; once for each connected client
``message_dropped``      ``client, count``; a full queue cost this client *count* frames

A receiver that raises is logged and does no harm to the stream.
"""

from __future__ import annotations

import logging
from typing import Any

from blinker import NamedSignal, Namespace

__all__ = ["client_connected", "client_disconnected", "message_dropped"]

_names = Namespace()
client_connected = _names.signal("sse-client-connected")
client_disconnected = _names.signal("sse-client-disconnected")
message_dropped = _names.signal("sse-message-dropped")

_log = logging.getLogger("sse_broker.signals")


def fire(signal: NamedSignal, sender: Any, **facts: Any) -> None:
    """Call every receiver, each on its own: one that raises keeps nothing from the others."""
    if not signal.receivers:
        return
    for receiver in list(signal.receivers_for(sender)):
        try:
            receiver(sender, **facts)
        except Exception:  # a receiver is not ours
            _log.exception("a receiver of %s failed", signal.name)

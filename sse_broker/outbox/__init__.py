"""Messages that are written with the application's data, and sent from there.

``broker.after_commit`` loses a message when the process dies between the commit
and the send, or when the log is away just then.  An :class:`Outbox` does not:
the message is a row in the application's own database, written in the same
transaction, and stays there until the log has it.

Flow::

    within(session).send_to_user ──▶ row ──commit──▶ drain ──▶ broker.publish ──▶ row deleted

One worker drains at a time, whoever holds the lease: a row of its own with an
owner and the time until which that is true.  A worker that dies between publish
and delete leaves a row that is published again under the same id, which the log
records once as long as it remembers that id.  No transaction is open while
publishing.

Threads: ``sse-broker-outbox-<pid>``, from ``start()``, one per process
(:mod:`sse_broker.outbox.worker`).
"""

from sse_broker.outbox.outbox import Outbox, Writer
from sse_broker.outbox.tables import load

__all__ = ["Outbox", "Writer", "load"]

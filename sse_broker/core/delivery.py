"""From the log's record to the audience: collect, match once, group neighbours.

Flow::

    log ──deliver()──▶ incoming ──host's turn──▶ match ──▶ batch of neighbours ──▶ host.write()
                           │                       │
                           └── lose(position)      └── command: end the streams that it means

Records are taken in log order.  A record is matched once, when it is collected,
and neighbours for the same audience leave as one batch.

Lock map
    _lock     the lock of the process: guards the registry and ``matched``
    order     taken alone here; no client's lock and no host's is taken inside
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Callable, Sequence

from sse_broker.core.client import Client
from sse_broker.core.ports import Record, StreamHost
from sse_broker.core.registry import Registry
from sse_broker.core.sync import NativeLock
from sse_broker.wire.command import Act, Command
from sse_broker.wire.message import Message

__all__ = ["Delivery"]

BATCH_BYTES = 32 * 1024  # of frames that leave together
MOST_WAITING, MOST_BYTES = 16_384, 32 * 1024 * 1024  # records on their way to the clients

_log = logging.getLogger("sse_broker.broker")


class Delivery:
    """Takes records in log order and has this process's host of streams write them.

    The log calls :meth:`deliver` and :meth:`lose`, one at a time; all else is
    called by the process and its reaper.
    """

    def __init__(
        self, registry: Registry, lock: NativeLock, make_host: Callable[[], StreamHost]
    ) -> None:
        self._registry = registry
        self._make_host = make_host
        self._lock = lock
        self.host: StreamHost | None = None
        self.matched = 0  # who is registered now is offered everything after this; under the lock
        self.delivered = 0  # who was registered has been offered everything up to this
        # Records, and between them the positions from which on they follow after a loss.
        self._incoming: collections.deque[Record | int] = collections.deque()
        self._is_due = False  # whether the host has been asked for a turn that has not begun
        self._is_at_it = False  # a log handler that sends comes in between
        # In bytes; each is written by one side alone, but at a skip.
        self._received = self.collected = 0

    @property
    def is_alive(self) -> bool:
        """Whether what arrives here is written to the streams."""
        return self.host is None or self.host.is_alive

    def start(self) -> None:
        """Use the host of streams that this process has now."""
        self.host, self._is_due = self._make_host(), False

    def begin_after(self, position: int) -> None:
        """Say from where on the log delivers.  The caller holds the lock."""
        self.matched = max(self.matched, position)
        self.delivered = max(self.delivered, position)

    def restart(self) -> None:
        """Start the host again should it have died, and ask for a turn that it owes."""
        if self.host is not None:
            self.host.restart()
            if self._incoming:
                self.host.again(self._fan_out)

    def settle(self, clients: Sequence[Client]) -> None:
        """Have clients know what was written to them so far.  Waits a second at most."""
        if self.host is not None:
            self.host.settle(clients)

    def look(self, clients: Sequence[Client]) -> None:
        """Have clients know what was written to them, as far as that needs no wait."""
        if self.host is not None:
            self.host.look(clients)

    def release(self) -> None:
        """Let the host of streams go: nothing is delivered any more."""
        if self.host is not None:
            self.host.release()

    def close(self, clients: Sequence[Client], reason: str) -> None:
        """End streams in order, after all that was sent before.  Never waits."""
        assert self.host is not None

        def close_each() -> None:
            for client in clients:
                client.close(reason, self.delivered)

        self.host.call(close_each)  # on the host, so that what was sent before comes first

    def deliver(self, record: Record) -> None:
        """Offer one record to the clients it is for.  Called in log order; waits for nobody."""
        self._take(record)

    def lose(self, position: int) -> None:
        """Have every client told what it missed: records before *position* never came here."""
        self._take(position)

    def _take(self, item: Record | int) -> None:
        host, incoming = self.host, self._incoming
        assert host is not None
        incoming.append(item)
        if isinstance(item, Record):
            self._received += len(item.frame)
            if len(incoming) > MOST_WAITING or self._received - self.collected > MOST_BYTES:
                incoming.clear()  # a host that is this far behind: the log has them all
                self.collected = self._received
                incoming.append(item.position)
        if self._is_due:  # the turn that was asked for finds this one too
            return
        self._is_due = True
        if isinstance(item, int) or isinstance(item.message, Command):
            host.call(self._fan_out)
        else:
            message = item.message
            host.hand_out(self._fan_out, lambda: self._audience_of(message))

    def _audience_of(self, message: Message) -> int:
        with self._lock:
            return len(self._registry.match(message))

    def _fan_out(self) -> None:
        """Write what came in.  One turn at a time; a call in between leaves its work to that."""
        self._is_due = False  # first, or what comes in at the end is found by nobody
        if not self._is_at_it:
            self._is_at_it = True
            try:
                self._collect()
            finally:
                self._is_at_it = False

    def _collect(self) -> None:
        """Neighbours for the same clients go together: one write each."""
        incoming, size = self._incoming, 0
        batch: list[Record] = []
        audience: Sequence[Client] = ()
        while incoming:
            try:
                item = incoming.popleft()
            except IndexError:  # cleared a moment ago
                continue
            if isinstance(item, int) or isinstance(item.message, Command):
                self._spread(audience, batch, size)
                audience, batch, size = (), [], 0
                self._act_on(item)
                continue
            with self._lock:
                clients = self._registry.match(item.message)
                self.matched = item.position
            others = clients is not audience and (len(clients) > 1 or clients != audience)
            if others or size > BATCH_BYTES:
                self._spread(audience, batch, size)
                audience, batch, size = clients, [], 0
            batch.append(item)
            size += len(item.frame)
        self._spread(audience, batch, size)

    def _spread(self, audience: Sequence[Client], batch: list[Record], size: int) -> None:
        if batch:
            if audience:
                self._write(audience, batch)
            self.delivered = batch[-1].position
            self.collected += size

    def _write(self, audience: Sequence[Client], batch: Sequence[Record]) -> None:
        assert self.host is not None
        try:
            self.host.write(audience, batch)
        except Exception:  # some may have it, and some not: the log has it for all
            self.host.trouble(f"a delivery failed; {len(audience)} streams go on from the log")
            self._have_read(audience)

    def _have_read(self, clients: Sequence[Client]) -> None:
        """Have clients go on from the log, before anything else is written to them."""
        for client in clients:
            client.fall_behind()
        self._tell(clients)

    def _act_on(self, item: Record | int) -> None:
        if isinstance(item, int):
            self._go_on_from(item)
            return
        assert isinstance(item.message, Command)
        self._obey(item.message)
        with self._lock:
            self.matched = item.position
        self.delivered = item.position

    def _go_on_from(self, position: int) -> None:
        assert self.host is not None
        with self._lock:
            clients = self._registry.clients()
            self.matched = position
        self._have_read(clients)
        self.delivered = position
        self.host.trouble(
            f"{len(clients)} streams go on from the log: not all records came to them"
        )

    def _obey(self, command: Command) -> None:
        """End the streams here that a command is about."""
        with self._lock:
            if command.act is Act.DISCONNECT_USER:
                clients = self._registry.clients_of(command.value)
            elif command.act is Act.DISCONNECT_CLIENT:
                found = self._registry.find(command.value)
                clients = () if found is None else (found,)
            elif command.act is Act.REVOKE:
                clients = self._registry.clients()
            else:
                clients = ()
        for client in clients:
            if command.act is not Act.REVOKE or client.identity.token_id == command.value:
                client.close(command.reason, self.delivered)
        self._tell(clients)

    def _tell(self, clients: Sequence[Client]) -> None:
        assert self.host is not None
        self.host.heed(clients)

"""From the log's record to the audience: match once, collect, group neighbours.

Flow::

    log ──deliver()──▶ match ──▶ incoming ──host's turn──▶ batch of neighbours ──▶ host.write()
        ──lose()─────▶ commands of the gap ──▶ incoming ──▶ end the streams that they mean

Records are taken in log order.  A record is matched once, when it arrives, and
neighbours for the same audience leave as one batch.  Where the host is so far
behind that records are skipped, their clients go on from the log; commands are
never skipped.

Lock map
    _lock     the lock of the process: guards the registry and ``matched``
    order     taken alone, or inside a log's own turn; no client's lock and no
              host's is taken inside
"""

from __future__ import annotations

import collections
from _thread import get_ident
from collections.abc import Callable, Sequence

from sse_broker.core.client import Client
from sse_broker.core.commands import is_about
from sse_broker.core.latency import Latency
from sse_broker.core.ports import Log, PositionLost, Record, StreamHost
from sse_broker.core.registry import Registry
from sse_broker.core.sync import NativeLock
from sse_broker.core.trace import Trace
from sse_broker.errors import LogUnavailable
from sse_broker.wire.command import Act, Command
from sse_broker.wire.message import Message, Target

__all__ = ["Delivery"]

BATCH_BYTES = 32 * 1024  # of frames that leave together
MOST_WAITING, MOST_BYTES = 16_384, 32 * 1024 * 1024  # records on their way to the clients
READ_RECORDS = 256  # of a gap, at a time

Matched = tuple[Record, Sequence[Client]]
"""A message's record and its audience."""


Step = Callable[[], None]
"""What the host's turn does when it has come to it; it must not wait."""


class Gap:
    """Messages up to a position that did not come this way."""

    __slots__ = ("position",)

    def __init__(self, position: int) -> None:
        self.position = position


class Delivery:
    """Takes records in log order and has this process's host of streams write them.

    The log calls :meth:`deliver` and :meth:`lose`, one at a time; all else is
    called by the process and its reaper.
    """

    def __init__(
        self,
        registry: Registry,
        lock: NativeLock,
        log: Log,
        make_host: Callable[[], StreamHost],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._registry = registry
        self._make_host = make_host
        self._lock = lock
        self._source = log
        self._most_bytes = most_bytes
        self.host: StreamHost | None = None
        self.matched = 0  # who is registered now is offered everything after this; under the lock
        self.delivered = 0  # who was registered has been offered everything up to this
        # Messages with their audiences, commands, and gaps between them.
        self._incoming: collections.deque[Matched | Record | Gap | Step] = collections.deque()
        self._urgent: collections.deque[Command] = collections.deque()  # do not wait their turn
        self.on_command: Callable[[Command], Step | None] = lambda _: None
        """Called with each command in log order, under the lock; returns a step, if one is due."""
        self._has_warned = False  # of messages without a tenant
        self.trace: Trace | None = None
        self.latency = Latency()
        self.must_recheck = False  # commands may have been missed; the process clears it
        self._is_due = False  # whether the host has been asked for a turn that has not begun
        self._is_at_it = False  # a log handler that sends comes in between
        self._turn_of = 0  # the thread that has the turn
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

    @property
    def is_mine(self) -> bool:
        """Whether the caller is called by a turn of this delivery, so must not wait for it."""
        return self._turn_of == get_ident()

    @property
    def waiting(self) -> tuple[int, int]:
        """How many records are on their way to the streams, and their bytes."""
        return len(self._incoming), max(0, self._received - self.collected)

    def deliver(self, record: Record) -> None:
        """Offer one record to the clients it is for.  Called in log order; waits for nobody."""
        if isinstance(record.message, Command):
            self._take_command(record)
            return
        incoming, size = self._incoming, len(record.frame)
        with self._lock:  # matched and put in its place in one step, or a change comes between
            audience = self._registry.match(record.message)
            self.matched = record.position
            incoming.append((record, audience))
        self._received += size
        if self._registry.has_tenants and record.message.tenant_id is None:
            self._warn_of_no_tenant(record.message)
        if self.trace is not None and audience:
            self.trace.matched(record, audience)
        if len(incoming) > MOST_WAITING or self._received - self.collected > self._most_bytes:
            self._skip_to(record.position)
        if not self._is_due:  # else the turn that was asked for finds this one too
            self._is_due = True
            assert self.host is not None
            self.host.hand_out(self._fan_out, lambda: len(audience))

    def _warn_of_no_tenant(self, message: Message) -> None:
        """Say once that tenants hear nothing of what is sent without one."""
        if self._has_warned or message.target is Target.USER:
            return
        self._has_warned = True
        assert self.host is not None
        self.host.trouble(
            f"a {message.target} message names no tenant and reaches no client that has one; say"
            " tenant_id=..., or ALL_TENANTS for everybody (require_tenant=True makes it an error)"
        )

    def _take_command(self, record: Record) -> None:
        assert isinstance(record.message, Command)
        if record.message.act is Act.REVOKE:
            self._urgent.append(record.message)
        with self._lock:
            self.matched = record.position
            self._append_locked(record)
        self._ask_for_turn()

    def _append_locked(self, record: Record) -> None:
        """Put a command in its place, and after it what is due because of it."""
        assert isinstance(record.message, Command)
        step = self.on_command(record.message)
        self._incoming.append(record)
        if step is not None:
            self._incoming.append(step)

    def insert(self, make_locked: Callable[[], Step | None]) -> None:
        """Change something between two records; *make_locked* does it, under the lock.

        The step that it returns, if any, is taken when all that was matched before
        has been offered.  Any thread; never waits.
        """
        with self._lock:
            step = make_locked()
            if step is not None:
                self._incoming.append(step)
        if step is not None:
            self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        if not self._is_due:
            self._is_due = True
            assert self.host is not None
            self.host.call(self._fan_out)

    def _skip_to(self, position: int) -> None:
        """Let messages be read from the log by who they were for; keep the commands among them."""
        incoming, kept = self._incoming, list[Record | Step]()
        while True:
            try:  # the host may take items at the same time
                item = incoming.popleft()
            except IndexError:
                break
            if not isinstance(item, tuple | Gap):
                kept.append(item)
        self.collected = self._received
        incoming.append(Gap(position))
        incoming.extend(kept)

    def lose(self, position: int) -> None:
        """Have every client told what it missed: records before *position* never came here.

        Called by the log in place of a record.  May read the log: commands of the
        gap are obeyed.  Where they cannot be had any more, :attr:`must_recheck` says
        that commands may have been missed.
        """
        with self._lock:
            after, self.matched = self.matched, position
        commands = self._commands_between(after, position)
        self._incoming.append(Gap(position))
        if commands is None:
            self.must_recheck = True
        else:
            with self._lock:
                for record in commands:
                    self._append_locked(record)
        self._ask_for_turn()

    def _commands_between(self, after: int, position: int) -> list[Record] | None:
        """Return the commands of a gap; ``None`` if they cannot be had any more."""
        commands: list[Record] = []
        try:
            while after < position:
                records = self._source.read(after, READ_RECORDS)
                if not records:
                    break
                commands += [one for one in records if isinstance(one.message, Command)]
                after = records[-1].position
        except (PositionLost, LogUnavailable):
            return None
        return commands

    def _fan_out(self) -> None:
        """Write what came in.  One turn at a time; a call in between leaves its work to that."""
        self._is_due = False  # first, or what comes in at the end is found by nobody
        if not self._is_at_it:
            self._is_at_it, self._turn_of = True, get_ident()
            try:
                self._collect()
            finally:
                self._is_at_it, self._turn_of = False, 0

    def _collect(self) -> None:
        """Neighbours for the same clients go together: one write each."""
        incoming, size = self._incoming, 0
        batch: list[Record] = []
        audience: Sequence[Client] = ()
        while incoming:
            while self._urgent:
                self._obey(self._urgent.popleft())
            try:
                item = incoming.popleft()
            except IndexError:  # skipped a moment ago
                continue
            if not isinstance(item, tuple):
                self._spread(audience, batch, size)
                audience, batch, size = (), [], 0
                self._act_on(item)
                continue
            record, clients = item
            others = clients is not audience and (len(clients) > 1 or clients != audience)
            if others or size > BATCH_BYTES:
                self._spread(audience, batch, size)
                audience, batch, size = clients, [], 0
            batch.append(record)
            size += len(record.frame)
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
            self.latency.note(batch[-1], len(audience))
            if self.trace is not None:
                self.trace.written(batch[0].position, batch[-1].position)
        except Exception:  # some may have it, and some not: the log has it for all
            self.host.trouble(f"a delivery failed; {len(audience)} streams go on from the log")
            self._have_read(audience)

    def _have_read(self, clients: Sequence[Client]) -> None:
        """Have clients go on from the log, before anything else is written to them."""
        for client in clients:
            client.fall_behind()
        self._tell(clients)

    def _act_on(self, item: Record | Gap | Step) -> None:
        if isinstance(item, Gap):
            self._go_on_after(item)
            return
        if not isinstance(item, Record):
            item()
            return
        assert isinstance(item.message, Command)
        self._obey(item.message)
        self.delivered = max(self.delivered, item.position)

    def _go_on_after(self, gap: Gap) -> None:
        assert self.host is not None
        with self._lock:
            clients = self._registry.clients()
        self._have_read(clients)
        self.delivered = gap.position
        self.host.trouble(
            f"{len(clients)} streams go on from the log: not all records came to them"
        )

    def obey(self, commands: Sequence[Command]) -> None:
        """End the streams here that some commands are about.  Any thread; never waits."""

        def obey_each() -> None:
            for command in commands:
                self._obey(command)

        assert self.host is not None
        self.host.call(obey_each)

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
        if command.act is Act.DISCONNECT_USER:
            clients = tuple(one for one in clients if is_about(command, one))
        if command.act is Act.REVOKE:
            clients = tuple(one for one in clients if one.identity.token_id == command.value)
        for client in clients:
            if command.act is Act.REVOKE:
                client.end(command.reason, self.delivered)
            else:
                client.close(command.reason, self.delivered, soon=True)
        self._tell(clients)

    def _tell(self, clients: Sequence[Client]) -> None:
        assert self.host is not None
        self.host.heed(clients)

"""Why did this user not get that message?  One process's part of the answer, and the verdict."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any

from sse_broker.core.client import Client
from sse_broker.core.ports import Log, PositionLost
from sse_broker.core.trace import Trace
from sse_broker.errors import InvalidMessage
from sse_broker.wire.message import ALL_TENANTS, AllTenants, Message, Target, check_id
from sse_broker.wire.topics import matches

__all__ = [
    "Explanation",
    "StreamAccount",
    "accounts_here",
    "addressed",
    "explain",
    "nearest",
    "verdict_of",
]

MOST_STREAMS = 20  # of a user, in an answer
MOST_TOPICS = 20  # of a stream, in an answer


@dataclasses.dataclass(frozen=True)
class StreamAccount:
    """What one stream of the user had to do with the message.

    Times are seconds since the Unix epoch.  ``queued_at`` and ``written_at`` are known
    where the process remembers the message (the setting ``trace_size``).  ``near`` is
    the topic of the stream that is most like the message's, where it is not subscribed.
    """

    process: str
    client_id: str
    tenant_id: str | None
    topics: tuple[str, ...]
    connected_at: float
    left_at: float | None
    reason: str
    state: str
    same_tenant: bool
    subscribed: bool
    allowed: bool
    near: str
    queued_at: float | None
    written_at: float | None
    waiting: bool
    dropped: int
    reset: str
    replayed: bool


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why a user got a message, or did not: a verdict in a word and in a sentence.

    ``verdict`` is ``unknown_message``, ``other_user``, ``not_connected``,
    ``other_tenant``, ``not_subscribed``, ``not_allowed``, ``waiting``, ``dropped``,
    ``reset``, ``replayed``, ``written`` or ``not_traced``.  ``missing`` is how many
    processes did not answer in time.
    """

    message_id: str
    user_id: str
    verdict: str
    text: str
    target: str = ""
    topic: str = ""
    tenant_id: str | None = None
    event: str = ""
    created_at: float | None = None
    streams: tuple[StreamAccount, ...] = ()
    missing: int = 0

    def __str__(self) -> str:
        return self.text


def accounts_here(
    process: str,
    message: Message | None,
    message_id: str,
    user_id: str,
    clients: Sequence[Client],
    trace: Trace | None,
    now: tuple[float, float],
) -> list[dict[str, Any]]:
    """Return what this process knows, for JSON.  *now* is monotonic and Unix time."""
    ended = {} if trace is None else {one.client.id: one for one in trace.departed.copy()}
    gone = [one.client for one in ended.values() if one.client.user_id == user_id]
    known = None if trace is None else trace.of(message_id)
    found = []
    for client in [*clients, *gone][-MOST_STREAMS:]:
        left = ended.get(client.id)
        found.append(
            {
                "process": process,
                "client_id": client.id,
                "tenant_id": client.tenant_id,
                "topics": list(client.topics[:MOST_TOPICS]),
                "connected_at": now[1] - (now[0] - client.connected_at),
                "left_at": None if left is None else left.at,
                "reason": client.reason,
                "state": client.state.value,
                "dropped": 0,
                **_fit(client, message),
                **_fate(client, known, trace),
            }
        )
    return found


def _fit(client: Client, message: Message | None) -> dict[str, Any]:
    if message is None:
        return {"same_tenant": True, "subscribed": True, "allowed": True, "near": ""}
    tenant = message.tenant_id
    same = isinstance(tenant, AllTenants) or tenant == client.tenant_id
    if message.target is Target.USER and tenant is None:
        same = True
    if message.target is not Target.TOPIC:
        return {"same_tenant": same, "subscribed": True, "allowed": True, "near": ""}
    names = message.topics
    subscribed = any(name in client.names for name in names) or any(
        matches(pattern, name) for pattern in client.patterns for name in names
    )
    granted = client.identity.topics
    allowed = granted is None or any(matches(one, name) for one in granted for name in names)
    near = "" if subscribed else nearest(names[0], client.topics)
    return {"same_tenant": same, "subscribed": subscribed, "allowed": allowed, "near": near}


def _fate(
    client: Client, known: tuple[int, frozenset[str], float, float | None] | None, trace: Any
) -> dict[str, Any]:
    fate: dict[str, Any] = {
        "queued_at": None,
        "written_at": None,
        "waiting": False,
        "reset": "",
        "replayed": False,
    }
    if trace is None:
        return fate
    began = next((one for one in reversed(trace.opened.copy()) if one.client_id == client.id), None)
    if began is not None:
        fate["reset"] = began.lost
    if known is None:
        return fate
    position, audience, queued_at, written_at = known
    fate["replayed"] = began is not None and began.after is not None and began.after < position
    if client.id in audience:
        fate["queued_at"], fate["written_at"] = queued_at, written_at
        waiting = {record.position for record in client.queue.snapshot()}
        fate["waiting"] = position in waiting or client.state.value == "behind"
        drops = [
            count for who, count, at in trace.drops.copy() if who == client.id and at >= queued_at
        ]
        fate["dropped"] = sum(drops)
    return fate


def nearest(name: str, topics: Sequence[str]) -> str:
    """Return the one of *topics* that is most like *name*; empty if none is."""
    near = difflib.get_close_matches(name, list(topics), 1, 0.6)
    return near[0] if near else ""


def verdict_of(
    message_id: str,
    user_id: str,
    message: Message | None,
    why_unknown: str,
    accounts: Sequence[StreamAccount],
    missing: int = 0,
) -> Explanation:
    """Return the verdict over what all processes know."""
    if message is None:
        text = f"the log has no message {message_id}: {why_unknown}"
        return Explanation(
            message_id, user_id, "unknown_message", text, streams=tuple(accounts), missing=missing
        )
    sent_at = message.created_at.timestamp()
    word, text = _judge(message, user_id, sent_at, accounts)
    if missing:
        text += f" ({missing} processes did not answer, so this may not be all)"
    tenant = message.tenant_id
    return Explanation(
        message_id,
        user_id,
        word,
        text,
        target=str(message.target.value),
        topic=", ".join(message.topics) if message.target is Target.TOPIC else "",
        tenant_id="*" if isinstance(tenant, AllTenants) else (tenant and str(tenant)) or None,
        event=message.event,
        created_at=sent_at,
        streams=tuple(accounts),
        missing=missing,
    )


def _judge(
    message: Message, user_id: str, sent_at: float, accounts: Sequence[StreamAccount]
) -> tuple[str, str]:
    if message.target is Target.USER and message.user_id != user_id:
        return "other_user", f"the message is for user {message.user_id}, not for {user_id}"
    there = [one for one in accounts if _was_open(one, sent_at)]
    late = [one for one in accounts if one.connected_at > sent_at]
    for one in late:
        if one.replayed and one.subscribed and one.same_tenant and one.allowed:
            return "replayed", (
                f"no stream was open when it was sent; stream {one.client_id} got it"
                f" {one.connected_at - sent_at:.1f} s later, in the replay when it came back"
            )
    if not there:
        return _not_there(user_id, sent_at, accounts, late)
    fits = [one for one in there if one.same_tenant and one.subscribed and one.allowed]
    if not fits:
        return _does_not_fit(message, there[-1])
    return _fate_of(fits[-1], sent_at)


def _was_open(one: StreamAccount, at: float) -> bool:
    return one.connected_at <= at and (one.left_at is None or one.left_at >= at)


def _not_there(
    user_id: str, sent_at: float, accounts: Sequence[StreamAccount], late: Sequence[StreamAccount]
) -> tuple[str, str]:
    lost = [one for one in late if one.reset]
    if lost:
        return "reset", (
            f"user {user_id} came back {lost[0].connected_at - sent_at:.1f} s after it was sent and"
            f" was told to start anew (reset: {lost[0].reset}), so it was not replayed"
        )
    text = f"user {user_id} had no open stream when it was sent"
    before = [one for one in accounts if one.left_at is not None and one.left_at < sent_at]
    if before:
        last = max(before, key=lambda one: one.left_at or 0.0)
        gap = sent_at - (last.left_at or 0.0)
        text += f"; the last one had ended {gap:.1f} s before ({last.reason or 'no reason'})"
    if late:
        text += f"; the next one began {late[0].connected_at - sent_at:.1f} s after"
    return "not_connected", text


def _does_not_fit(message: Message, one: StreamAccount) -> tuple[str, str]:
    who = f"stream {one.client_id}"
    if not one.same_tenant:
        tenant = message.tenant_id or "no tenant"
        return "other_tenant", (
            f"{who} is in {one.tenant_id or 'no tenant'} and the message is for {tenant}"
        )
    if not one.subscribed:
        has = ", ".join(one.topics) or "no topic"
        hint = f"; did you mean {one.near}?" if one.near else ""
        return "not_subscribed", (
            f"{who} does not subscribe to {', '.join(message.topics)}; it has {has}{hint}"
        )
    return "not_allowed", f"{who} may not read {', '.join(message.topics)}: its identity's topics"


def _fate_of(one: StreamAccount, sent_at: float) -> tuple[str, str]:
    who = f"stream {one.client_id}"
    if one.queued_at is None:
        return "not_traced", (
            f"{who} was open and the message is for it; what became of it is not remembered: set"
            " SSE_TRACE_SIZE before the next one"
        )
    if one.dropped:
        return "dropped", (
            f"{who} was slow and its full queue cost it {one.dropped} messages since then"
            " (setting overflow); it was told so by event: dropped"
        )
    if one.waiting:
        return "waiting", (
            f"the message waits for {who}, which takes nothing now ({one.state}): its network or"
            " its page is slow"
        )
    after = (one.written_at or one.queued_at) - sent_at
    return "written", (
        f"it was written to {who} {1000 * max(0.0, after):.0f} ms after it was sent, and the socket"
        " took it; look at what is between here and the page (sse_broker doctor), and at the"
        " page's listener for this event's name"
    )


def address_of(message: Message) -> dict[str, Any]:
    """Return whom a message is for, for JSON."""
    tenant = message.tenant_id
    return {
        "target": str(message.target.value),
        "user_id": message.user_id,
        "topics": list(message.topics),
        "tenant_id": "*" if isinstance(tenant, AllTenants) else tenant,
    }


def addressed(address: dict[str, Any]) -> Message:
    """Return an empty message to *address*."""
    topics, tenant = tuple(address["topics"]), address["tenant_id"]
    several = topics if len(topics) > 1 else ()
    return Message(
        address["target"],
        "",
        user_id=address["user_id"],
        topic=topics[0] if topics else "",
        tenant_id=ALL_TENANTS if tenant == "*" else tenant,
        topics=several,
    )


def explain(
    log: Log, ask: Callable[[str, dict[str, Any]], tuple[dict[str, Any], int]], id: str, user: str
) -> Explanation:
    """Return why *user* got the message *id*, or did not.  Asks the log and all processes.

    :raises LogUnavailable: the log cannot be read, or nobody can be asked.
    """
    message, why = _find(log, id)
    about = {
        "message_id": id,
        "user_id": user,
        "message": None if message is None else address_of(message),
    }
    answers, missing = ask("explain", about)
    accounts = [
        StreamAccount(**{**one, "topics": tuple(one["topics"])})
        for answer in answers.values()
        for one in answer or ()
    ]
    accounts.sort(key=lambda one: one.connected_at)
    return verdict_of(id, user, message, why, accounts, missing)


def _find(log: Log, id: str) -> tuple[Message | None, str]:
    try:
        position = log.locate(check_id(id))
        for record in log.before(position, 1):
            if record.position == position and isinstance(record.message, Message):
                return record.message, ""
    except PositionLost as lost:
        return None, _WHY.get(lost.reason, lost.reason)
    except InvalidMessage:
        return None, "it is no id"
    return None, "there is no message at that place"


_WHY = {
    "trimmed": "it is older than what is kept (settings history_size, resume_window)",
    "epoch": "it is from another life of the log, which was wiped or restored since",
    "ahead": "it is newer than the newest; it is from another log",
    "unknown": "it was never sent to this log, or is older than what is kept",
    "malformed": "it is no id of this log",
}

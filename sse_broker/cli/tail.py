"""``sse_broker tail``: what passes through a log, or what a stream brings, as it happens."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click

from sse_broker.cli.access import Access, answers, wants_json
from sse_broker.core.ports import Log, Record
from sse_broker.doctor.http import open_stream, with_query
from sse_broker.wire.command import Command
from sse_broker.wire.ids import normal_user_id
from sse_broker.wire.message import AllTenants, Message, Target
from sse_broker.wire.parse import Event, Parser
from sse_broker.wire.topics import check_pattern, matches

__all__ = ["header", "tail"]

COLOURS = {"user": "green", "topic": "cyan", "broadcast": "magenta", "command": "yellow"}
LOUD = {"gap", "reset", "dropped", "error", "close", "reconnect", "refused"}
MOST_HISTORY = 10_000  # messages
MOST_CHARS = 200  # of data on a terminal
PAUSE = 3.0  # seconds before a connection is made again, where the server has said nothing


@click.command()
@click.argument("url", required=False)
@click.option("--user", "user_id", metavar="ID", help="Only what is for this user.")
@click.option(
    "--topic", "topics", multiple=True, metavar="NAME", help="Only this topic, or pattern."
)
@click.option("--tenant", "tenant_id", metavar="ID", help="Only in this tenant.")
@click.option("--token", envvar="SSE_TOKEN", help="With URL: a bearer token.  Default: SSE_TOKEN.")
@click.option(
    "--header", "headers", multiple=True, metavar="NAME:VALUE", help="With URL: a header."
)
@click.option(
    "--history", is_flag=True, help="Begin with the messages that are kept, 10,000 at most."
)
@click.option("--count", "-n", default=0, metavar="N", help="End after N messages.")
@wants_json
@click.pass_obj
def tail(
    access: Access,
    url: str | None,
    user_id: str | None,
    topics: tuple[str, ...],
    tenant_id: str | None,
    token: str | None,
    headers: tuple[str, ...],
    history: bool,
    count: int,
    as_json: bool,
) -> None:
    """Follow the log, or with URL (of a stream) what a client gets there.

    The log shows every message and command of all processes; gaps are said.  A URL
    shows one client's view: --user, --topic and --tenant become its query, resets and
    reconnects are said, and it goes on where it was.  It ends with Ctrl-C.

    \b
      sse_broker tail --topic 'orders:*'
      sse_broker tail https://example.com/sse/stream --token "$TOKEN" --topic news
    """
    show = _print_json if as_json else _print_line
    with answers():
        if url is None:
            wanted = _Wanted(user_id, topics, tenant_id)
            _follow_log(access, wanted, history, count, show)
        else:
            sent = dict(header(text) for text in headers)
            if token:
                sent["Authorization"] = f"Bearer {token}"
            query = {
                "user_id": user_id or "",
                "tenant_id": tenant_id or "",
                "topics": ",".join(topics),
            }
            _follow_url(with_query(url, **query), sent, count, show)


def header(text: str) -> tuple[str, str]:
    """Return the name and value of ``NAME:VALUE``."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"--header {text!r}: say NAME:VALUE")
    return name.strip(), value.strip()


class _Wanted:
    """Which records are shown."""

    def __init__(self, user_id: str | None, topics: tuple[str, ...], tenant: str | None) -> None:
        self._user = None if user_id is None else normal_user_id(user_id)
        self._topics = [check_pattern(topic) for topic in topics]
        self._tenant = None if tenant is None else normal_user_id(tenant)

    def __call__(self, message: Message | Command) -> bool:
        if isinstance(message, Command):
            return not (self._topics or self._tenant) and (
                self._user is None or message.value == self._user
            )
        if self._user is not None and message.user_id != self._user:
            return False
        if self._topics and not any(matches(one, message.topic) for one in self._topics):
            return False
        tenant = message.tenant_id
        return self._tenant is None or isinstance(tenant, AllTenants) or tenant == self._tenant


Show = Callable[[str, dict[str, Any]], None]


def _follow_log(access: Access, wanted: _Wanted, history: bool, count: int, show: Show) -> None:
    broker = access.broker()
    came: queue.SimpleQueue[Record | int] = queue.SimpleQueue()
    following = broker.log.listen(came.put, came.put)
    shown = 0
    try:
        if history:
            shown = _show_history(broker.log, following.start, wanted, count, show)
        while not count or shown < count:
            try:
                item = came.get(timeout=0.5)  # not for ever: Ctrl-C has to get through
            except queue.Empty:
                continue
            if isinstance(item, int):
                show("gap", {"reason": "records were lost before they were read"})
            elif wanted(item.message):
                show(*_described(item))
                shown += 1
    finally:
        following.stop()


def _show_history(log: Log, end: int, wanted: _Wanted, count: int, show: Show) -> int:
    shown = 0
    for record in log.before(end, MOST_HISTORY):
        if wanted(record.message) and (not count or shown < count):
            show(*_described(record))
            shown += 1
    return shown


def _described(record: Record) -> tuple[str, dict[str, Any]]:
    message = record.message
    if isinstance(message, Command):
        about = {"act": str(message.act), "value": message.value, "reason": message.reason}
        return "command", {"id": record.id, **about}
    tenant = message.tenant_id
    return str(message.target.value), {
        "id": record.id,
        "to": message.user_id if message.target is Target.USER else message.topic,
        "tenant_id": "*" if isinstance(tenant, AllTenants) else tenant,
        "event": message.event,
        "data": message.data,
        "created_at": message.created_at,
    }


def _follow_url(url: str, headers: dict[str, str], count: int, show: Show) -> None:
    shown, last_event_id, pause = 0, "", PAUSE
    while True:
        sent = {**headers, **({"Last-Event-ID": last_event_id} if last_event_id else {})}
        parser = Parser()
        parser.last_event_id = last_event_id
        try:
            for event in _events(url, sent, parser, show):
                pause = (event.retry or parser.retry or PAUSE * 1000) / 1000
                last_event_id = event.id or last_event_id
                show(event.event, {"id": event.id, "event": event.event, "data": event.data})
                shown += event.event not in LOUD and event.event not in ("welcome", "heartbeat")
                if count and shown >= count:
                    return
        except (OSError, http.client.HTTPException) as err:
            show("reconnect", {"reason": f"{type(err).__name__}: {err}", "in": pause})
        else:
            show("reconnect", {"reason": "the stream has ended", "in": pause})
        threading.Event().wait(pause)


def _events(url: str, headers: dict[str, str], parser: Parser, show: Show) -> Iterator[Event]:
    try:
        stream = open_stream(url, headers, 15.0)
    except ValueError as err:
        raise click.UsageError(str(err)) from err
    try:
        if stream.status != 200:
            body = (stream.read(5.0) or b"").decode(errors="replace")[:300]
            show("refused", {"status": stream.status, "reason": body})
            if 400 <= stream.status < 500 and stream.status not in (408, 425, 429):
                raise click.exceptions.Exit(1)
            return
        while True:
            chunk = stream.read(0.5)
            if chunk == b"":
                return
            yield from parser.feed(chunk or b"")
    finally:
        stream.close()


def _print_json(kind: str, about: dict[str, Any]) -> None:
    shown = {k: v.isoformat() if isinstance(v, dt.datetime) else v for k, v in about.items()}
    click.echo(json.dumps({"kind": kind, **shown}, ensure_ascii=False, default=str))


def _print_line(kind: str, about: dict[str, Any]) -> None:
    clock = click.style(dt.datetime.now().strftime("%H:%M:%S"), dim=True)
    if "data" not in about:
        words = "  ".join(f"{name}={value}" for name, value in about.items())
        loud = kind in LOUD
        click.echo(
            f"{clock} {click.style(kind, fg='red' if loud else 'yellow', bold=loud)}  {words}"
        )
        return
    fg = "red" if kind in LOUD else COLOURS.get(kind, "blue")
    where = " ".join(str(about[name]) for name in ("to", "tenant_id") if about.get(name))
    data = _one_line(str(about["data"]))
    event = about["event"] if kind != about["event"] else ""
    parts = (click.style(kind, fg=fg, bold=kind in LOUD), where, click.style(event, bold=True))
    words = " ".join(part for part in parts if part)
    click.echo(f"{clock} {words} {data} {click.style(str(about.get('id') or ''), dim=True)}")


def _one_line(text: str) -> str:
    """Return *text* so that it cannot move a terminal's cursor or fill its screen."""
    safe = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: MOST_CHARS + 1])
    return safe if len(safe) <= MOST_CHARS else safe[:MOST_CHARS] + "..."

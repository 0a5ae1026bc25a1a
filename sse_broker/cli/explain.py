"""``sse_broker explain`` and ``sse_broker listeners``."""

from __future__ import annotations

import dataclasses
import datetime as dt

import click

from sse_broker.cli.access import Access, answers, as_json, row, wants_json
from sse_broker.wire.message import ALL_TENANTS

__all__ = ["explain", "listeners"]

_print = as_json
GOOD = ("written", "replayed")


@click.command()
@click.argument("message_id")
@click.option("--user", "user_id", required=True, metavar="ID", help="Who should have got it.")
@wants_json
@click.pass_obj
def explain(access: Access, message_id: str, user_id: str, as_json: bool) -> None:
    """Say why a user got a message, or did not.  Asks all processes of the log.

    What became of a message on its way is known where the servers set SSE_TRACE_SIZE, or
    run in debug mode.  Exit status 0 says that an answer was found, whatever it is.
    """
    with answers():
        found = access.broker().explain(message_id, user_id=user_id)
    if as_json:
        _print(dataclasses.asdict(found))
        return
    colour = "green" if found.verdict in GOOD else "yellow"
    click.echo(f"{click.style(found.verdict, fg=colour, bold=True)}: {found.text}")
    if found.target:
        row("sent to", " ".join(part for part in (found.target, found.topic) if part))
        row("event", found.event)
        row("sent at", _clock(found.created_at))
    for stream in found.streams:
        row("stream", f"{stream.client_id} of process {stream.process}, {stream.state}")
        row("  open", f"{_clock(stream.connected_at)} to {_clock(stream.left_at) or 'now'}")
        row("  topics", ", ".join(stream.topics) or "none")
        if stream.queued_at is not None:
            row("  written at", _clock(stream.written_at) or "not yet")


@click.command()
@click.argument("topic")
@click.option("--tenant", "tenant_id", metavar="ID", help="In this tenant.")
@click.option("--all-tenants", is_flag=True, help="In every tenant.")
@wants_json
@click.pass_obj
def listeners(
    access: Access, topic: str, tenant_id: str | None, all_tenants: bool, as_json: bool
) -> None:
    """Print how many streams would get a message to TOPIC now, over all processes."""
    if all_tenants and tenant_id is not None:
        raise click.UsageError("--tenant or --all-tenants, not both")
    with answers():
        tenant = ALL_TENANTS if all_tenants else tenant_id
        count = access.broker().count_listeners(topic, tenant_id=tenant)
    if as_json:
        _print({"topic": topic, "listeners": count})
    else:
        click.echo(count)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return dt.datetime.fromtimestamp(seconds).isoformat(" ", "milliseconds")

"""``sse_broker publish``."""

from __future__ import annotations

import json
import sys

import click

from sse_broker.cli.access import Access, answers
from sse_broker.wire.message import ALL_TENANTS, AllTenants, Message, Target

__all__ = ["publish"]


@click.command()
@click.argument("data")
@click.option("--user", "user_id", metavar="ID", help="To every stream of this user.")
@click.option("--topic", metavar="NAME", help="To every stream that subscribes to this topic.")
@click.option("--broadcast", is_flag=True, help="To everybody.")
@click.option("--tenant", "tenant_id", metavar="ID", help="Only in this tenant.")
@click.option("--all-tenants", is_flag=True, help="In every tenant.")
@click.option("--event", default="message", show_default=True, help="The event's name.")
@click.option("--id", "own_id", default="", help="An id of your own; sent twice, it is sent once.")
@click.option("--json", "is_json", is_flag=True, help="Check that DATA is JSON.")
@click.option("--lines", is_flag=True, help="With DATA -: each line is a message.")
@click.option("--create", is_flag=True, help="Make the log if there is none.")
@click.pass_obj
def publish(
    access: Access,
    data: str,
    user_id: str | None,
    topic: str | None,
    broadcast: bool,
    tenant_id: str | None,
    all_tenants: bool,
    event: str,
    own_id: str,
    is_json: bool,
    lines: bool,
    create: bool,
) -> None:
    """Send DATA (``-`` reads it from standard input) and print the message's id.

    Once it is printed, the log has the message.  The log has to exist, because a
    mistyped path would otherwise be a new log that no server serves from.

    \b
      sse_broker publish --user 7 --event note --json '{"text": "Hi"}'
      tail -f app.log | sse_broker publish --topic logs --lines -
    """
    if sum((user_id is not None, topic is not None, broadcast)) != 1:
        raise click.UsageError("say one of --user, --topic and --broadcast")
    if all_tenants and tenant_id is not None:
        raise click.UsageError("--tenant or --all-tenants, not both")
    if lines and (data != "-" or own_id):
        raise click.UsageError("--lines goes with DATA - and without --id")
    target = Target.BROADCAST
    if user_id is not None or topic is not None:
        target = Target.USER if topic is None else Target.TOPIC
    tenant: str | AllTenants | None = ALL_TENANTS if all_tenants else tenant_id
    texts = (line.rstrip("\n") for line in sys.stdin) if lines else [data]
    if data == "-" and not lines:
        texts = [sys.stdin.read()]
    with answers():
        for text in texts:
            if is_json:
                _check_json(text)
            message = Message(target, text, event, user_id, topic or "", tenant, id=own_id)
            click.echo(access.broker(create).publish(message))


def _check_json(data: str) -> None:
    try:
        json.loads(data)
    except ValueError as err:
        raise click.UsageError(f"DATA is no JSON: {err}") from err

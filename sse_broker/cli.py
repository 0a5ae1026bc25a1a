"""``sse_broker``: publish and look from a terminal, a cron job, a shell script.

It talks to the log, not to a server: whatever process serves streams from that
log delivers.  Exit status: 0 done, 1 the log is away or refused, 2 wrong use.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from sse_broker.broker import Broker
from sse_broker.config import BrokerConfig
from sse_broker.errors import BrokerError, LogUnavailable, QueueFull
from sse_broker.wire.message import ALL_TENANTS, Message, Target

__all__ = ["main"]


@click.group()
@click.option(
    "--log",
    "url",
    envvar="SSE_LOG_URL",
    required=True,
    metavar="URL",
    help="The log, as the servers have it.  Default: SSE_LOG_URL.",
)
@click.pass_context
def main(context: click.Context, url: str) -> None:
    """Publish to, and look at, the log that sse_broker's servers share."""
    with _answers():
        broker = Broker(BrokerConfig.from_mapping(_environment()), log=url)
        if not broker.log.shared:
            raise click.UsageError(
                f"{url} is the log of one process and nobody else sees it;"
                " use sqlite:///path or redis://host"
            )
    context.obj = broker


@main.command()
@click.argument("data")
@click.option("--user", "user_id", metavar="ID", help="To every stream of this user.")
@click.option("--topic", metavar="NAME", help="To every stream that subscribes to this topic.")
@click.option("--broadcast", is_flag=True, help="To everybody.")
@click.option("--tenant", "tenant_id", metavar="ID", help="Only in this tenant.")
@click.option("--all-tenants", is_flag=True, help="In every tenant.")
@click.option("--event", default="message", show_default=True, help="The event's name.")
@click.option("--id", "own_id", default="", help="An id of your own; sent twice, it is sent once.")
@click.option("--json", "is_json", is_flag=True, help="Check that DATA is JSON.")
@click.pass_obj
def publish(
    broker: Broker,
    data: str,
    user_id: str | None,
    topic: str | None,
    broadcast: bool,
    tenant_id: str | None,
    all_tenants: bool,
    event: str,
    own_id: str,
    is_json: bool,
) -> None:
    """Send DATA (``-`` reads it from standard input) and print the message's id.

    Once it is printed, the log has the message.
    """
    if sum((user_id is not None, topic is not None, broadcast)) != 1:
        raise click.UsageError("say one of --user, --topic and --broadcast")
    if all_tenants and tenant_id is not None:
        raise click.UsageError("--tenant or --all-tenants, not both")
    if data == "-":
        data = sys.stdin.read()
    if is_json:
        _check_json(data)
    target = Target.BROADCAST
    if user_id is not None or topic is not None:
        target = Target.USER if topic is None else Target.TOPIC
    tenant = ALL_TENANTS if all_tenants else tenant_id
    with _answers():
        message = Message(target, data, event, user_id, topic or "", tenant, id=own_id)
        click.echo(broker.publish(message))


@main.command()
@click.pass_obj
def online(broker: Broker) -> None:
    """Print the ids of all users with an open stream, one a line."""
    with _answers():
        for user in broker.get_online_users():
            click.echo(user)


@main.command()
@click.option("--user", "user_id", metavar="ID", help="Every stream of this user.")
@click.option("--client", "client_id", metavar="ID", help="This one stream.")
@click.option("--reason", default="disconnected", show_default=True, help="Told to the client.")
@click.pass_obj
def disconnect(broker: Broker, user_id: str | None, client_id: str | None, reason: str) -> None:
    """End streams, whichever process has them."""
    if (user_id is None) == (client_id is None):
        raise click.UsageError("say --user or --client")
    with _answers():
        if user_id is not None:
            broker.disconnect_user(user_id, reason)
        else:
            broker.disconnect_client(client_id or "", reason)


@main.command()
@click.argument("token_id")
@click.option(
    "--expires-at",
    type=float,
    metavar="TIME",
    help="When the token ends by itself, in seconds since the Unix epoch.  Default: in a day.",
)
@click.pass_obj
def revoke(broker: Broker, token_id: str, expires_at: float | None) -> None:
    """End every stream of a token (its ``jti``) and refuse it from now on."""
    with _answers():
        broker.revoke(token_id, expires_at)


@contextmanager
def _answers() -> Iterator[None]:
    """Turn the library's errors into a line on standard error and an exit status."""
    try:
        yield
    except BrokerError as err:
        click.echo(f"sse_broker: {err}", err=True)
        sys.exit(1 if isinstance(err, LogUnavailable | QueueFull) else 2)


def _check_json(data: str) -> None:
    try:
        json.loads(data)
    except ValueError as err:
        raise click.UsageError(f"DATA is no JSON: {err}") from err


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key.startswith("SSE_")}

"""``sse_broker stats`` and ``sse_broker online``."""

from __future__ import annotations

import click

from sse_broker.cli.access import Access, answers, as_json, row, wants_json

__all__ = ["online", "stats"]


@click.command()
@wants_json
@click.pass_obj
def online(access: Access, as_json: bool) -> None:
    """Print the ids of all users with an open stream, one a line."""
    with answers():
        users = access.broker().get_online_users()
    if as_json:
        _print({"users": users})
        return
    for user in users:
        click.echo(user)


@click.command()
@wants_json
@click.pass_obj
def stats(access: Access, as_json: bool) -> None:
    """Print how many processes, streams and users there are, and where the log stands."""
    with answers():
        broker = access.broker()
        census = broker.log.roster.census()
        found = {
            "log": broker.log.url,
            "processes": census.processes,
            "clients": census.clients,
            "users": census.users,
            "last_event_id": broker.last_event_id(),
        }
    if as_json:
        _print(found)
        return
    for name, value in found.items():
        row(name.replace("_", " "), value)
    if not census.processes:
        click.echo("no process serves streams from this log now", err=True)


_print = as_json

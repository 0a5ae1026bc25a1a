"""``sse_broker disconnect`` and ``sse_broker revoke``."""

from __future__ import annotations

import click

from sse_broker.cli.access import Access, answers

__all__ = ["disconnect", "revoke"]


@click.command()
@click.option("--user", "user_id", metavar="ID", help="Every stream of this user.")
@click.option("--client", "client_id", metavar="ID", help="This one stream.")
@click.option("--reason", default="disconnected", show_default=True, help="Told to the client.")
@click.pass_obj
def disconnect(access: Access, user_id: str | None, client_id: str | None, reason: str) -> None:
    """End streams, whichever process has them.

    A browser comes back after that; the authenticator decides how it is met.
    """
    if (user_id is None) == (client_id is None):
        raise click.UsageError("say --user or --client")
    with answers():
        if user_id is not None:
            access.broker().disconnect_user(user_id, reason)
        else:
            access.broker().disconnect_client(client_id or "", reason)


@click.command()
@click.argument("token_id")
@click.option(
    "--expires-at",
    type=float,
    metavar="TIME",
    help="When the token ends by itself, in seconds since the Unix epoch.",
)
@click.pass_obj
def revoke(access: Access, token_id: str, expires_at: float | None) -> None:
    """End every stream of a token (its ``jti``) and refuse it from now on."""
    with answers():
        access.broker().revoke(token_id, expires_at)

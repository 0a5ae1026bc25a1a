"""What is remembered of a command beside its record, for who missed the record.

The roster remembers a mark with its end, as it does revoked tokens.  After a gap in
the log that cannot be read any more, each stream's marks are looked up.
"""

from __future__ import annotations

import json

from sse_broker.core.client import Client
from sse_broker.wire.command import Act, Command

__all__ = ["REMEMBERED", "commands_about", "is_about", "mark_of", "of_member"]

REMEMBERED = 3600.0  # seconds for which a disconnect is remembered


def mark_of(command: Command) -> str:
    """Return what the roster remembers a command by: a token, or the command and its value."""
    if command.act is Act.REVOKE:
        return command.value
    return f"{command.act} {command.value} {command.detail}".rstrip()


def of_member(act: Act, user_id: str, tenant_id: str | None, reason: str) -> Command:
    """Return a command about a user: of one tenant, or, without one, of whatever tenant."""
    detail = "" if tenant_id is None else json.dumps({"tenant_id": tenant_id})
    return Command(act, user_id, reason, detail)


def is_about(command: Command, client: Client) -> bool:
    """Whether a command about a user means the user of *client*."""
    if client.user_id != command.value:
        return False
    if not command.detail:
        return True
    try:
        return bool(json.loads(command.detail)["tenant_id"] == client.tenant_id)
    except (ValueError, KeyError, TypeError):  # what cannot be read is about nobody
        return False


def commands_about(client: Client) -> tuple[Command, ...]:
    """Return the commands that would end a client's stream."""
    about: tuple[Command, ...] = (
        of_member(Act.DISCONNECT_USER, client.user_id, None, "disconnected"),
        Command(Act.DISCONNECT_CLIENT, client.id),
    )
    if client.identity.is_anonymous:
        about = about[1:]
    elif client.tenant_id is not None:
        about = (
            of_member(Act.DISCONNECT_USER, client.user_id, client.tenant_id, "disconnected"),
            *about,
        )
    token = client.identity.token_id
    return (*about, Command(Act.REVOKE, token, "revoked")) if token else about

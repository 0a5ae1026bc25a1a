"""What is remembered of a command beside its record, for who missed the record.

The roster remembers a mark with its end, as it does revoked tokens.  After a gap in
the log that cannot be read any more, each stream's marks are looked up.
"""

from __future__ import annotations

from sse_broker.core.client import Client
from sse_broker.wire.command import Act, Command

__all__ = ["REMEMBERED", "commands_about", "mark_of"]

REMEMBERED = 3600.0  # seconds for which a disconnect is remembered


def mark_of(command: Command) -> str:
    """Return what the roster remembers a command by: a token, or the command and its value."""
    return command.value if command.act is Act.REVOKE else f"{command.act} {command.value}"


def commands_about(client: Client) -> tuple[Command, ...]:
    """Return the commands that would end a client's stream."""
    about = (
        Command(Act.DISCONNECT_USER, client.user_id),
        Command(Act.DISCONNECT_CLIENT, client.id),
    )
    token = client.identity.token_id
    return (*about, Command(Act.REVOKE, token, "revoked")) if token else about

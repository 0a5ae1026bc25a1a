"""``sse_broker token``: a JWT for trying things out."""

from __future__ import annotations

import time
import uuid
from importlib import import_module
from typing import Any

import click

from sse_broker.cli.access import Access, answers
from sse_broker.core.identity import Identity

__all__ = ["token"]


@click.command()
@click.option("--user", "user_id", required=True, metavar="ID", help="Whose token it is.")
@click.option("--tenant", "tenant_id", metavar="ID", help="In which tenant.")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="NAME",
    help="A topic or pattern that it may read; several times for several.  Default: any.",
)
@click.option("--seconds", default=3600.0, show_default=True, help="How long it is valid.")
@click.pass_obj
def token(
    access: Access, user_id: str, tenant_id: str | None, topics: tuple[str, ...], seconds: float
) -> None:
    """Print a JWT signed with SSE_JWT_KEY, as the servers check it.

    The key is not taken from the command line, which other users of the machine
    can read.  Algorithm, audience and issuer are those of SSE_JWT_ALGORITHMS,
    SSE_JWT_AUDIENCE and SSE_JWT_ISSUER.
    """
    settings = access.settings
    key = settings.get("SSE_JWT_KEY")
    if not key:
        raise click.UsageError("set SSE_JWT_KEY, as the servers have it")
    try:
        jwt = import_module("jwt")
    except ImportError as err:
        raise click.ClickException("tokens need PyJWT: pip install 'sse-broker[jwt]'") from err
    algorithms = settings.get("SSE_JWT_ALGORITHMS") or "HS256"
    if isinstance(algorithms, str):
        algorithms = algorithms.split(",")
    algorithm = str(next(iter(algorithms))).strip()
    if not algorithm.startswith("HS"):
        raise click.UsageError(
            f"SSE_JWT_ALGORITHMS is {algorithm}: the servers' key can check such a token and not"
            " sign it; ask whoever has the private key"
        )
    with answers():
        identity = Identity(user_id, tenant_id, topics=list(topics) or None)
    claims: dict[str, Any] = {
        "sub": str(identity.user_id),
        "exp": int(time.time() + seconds),
        "jti": uuid.uuid4().hex,
    }
    optional = {
        "tenant_id": None if identity.tenant_id is None else str(identity.tenant_id),
        "topics": list(topics) or None,
        "aud": settings.get("SSE_JWT_AUDIENCE"),
        "iss": settings.get("SSE_JWT_ISSUER"),
    }
    claims.update({name: value for name, value in optional.items() if value is not None})
    click.echo(jwt.encode(claims, key, algorithm=algorithm))

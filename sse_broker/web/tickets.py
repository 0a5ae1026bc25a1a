"""Tickets: what opens one stream for a client that can set neither header nor cookie.

``POST ticket`` gives a client that is known a ticket; ``GET stream?ticket=...`` opens
a stream with it.  A ticket is a random word in a URL, and URLs end up in logs, so

- it is used once, over all processes that share the log, and within seconds;
- the first use sets a cookie that no script can read.  A browser that reconnects by
  itself asks with the same URL, and is let in again because it has the cookie; who
  read the URL in a log has not.  The proof is in no URL and in no event;
- where there is no cookie, each connection needs a ticket of its own: ``client.js``
  fetches one.

What is kept is a digest of the ticket and of the cookie, with the identity.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import Any

from flask import Blueprint, Request, Response, after_this_request, jsonify, request

from sse_broker.core.identity import Identity
from sse_broker.core.streams import Streams
from sse_broker.errors import AuthenticationFailed, InvalidConfig
from sse_broker.web.auth import Authenticator
from sse_broker.web.credentials import hide_in_logs
from sse_broker.web.door import Door

__all__ = ["Tickets", "add_tickets"]

FIRST_USE = 30.0  # seconds from the ticket to its stream
LIFETIME = 3_600.0  # seconds for which the same browser may come back with it
PARAMETER = "ticket"

_WORD = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 random bytes, as token_urlsafe writes them


class Tickets:
    """Tickets of one broker.  Any thread; each call asks the log's roster."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def issue(self, identity: Identity) -> str:
        """Return a ticket for *identity*.

        :raises InvalidConfig: its claims are no JSON.
        :raises LogUnavailable: it cannot be kept.
        """
        now, ticket = self._streams.clock.time(), secrets.token_urlsafe(32)
        end = now + LIFETIME
        if identity.expires_at is not None:
            end = min(end, identity.expires_at)
        fields = {
            "user_id": identity.user_id,
            "tenant_id": identity.tenant_id,
            "topics": identity.topics,
            "expires_at": identity.expires_at,
            "token_id": identity.token_id,
            "claims": identity.claims,
            "is_anonymous": identity.is_anonymous,
        }
        try:
            value = json.dumps({"until": now + FIRST_USE, "end": end, "identity": fields})
        except (TypeError, ValueError) as err:
            raise InvalidConfig("the claims of an identity with a ticket must be JSON") from err
        self._streams.log.roster.keep(_name("ticket", ticket), value, end)
        return ticket

    def redeem(self, request: Request) -> Identity:
        """Return whom the ticket in *request* is for; the response gets the cookie.

        ``HEAD`` does not use it up.

        :raises AuthenticationFailed: it is none, too old, or was used by another browser.
        :raises LogUnavailable: nobody can say now.
        """
        ticket = request.args.get(PARAMETER, "")
        hide_in_logs(request, PARAMETER)
        if not _WORD.fullmatch(ticket):
            raise AuthenticationFailed("the ticket is not valid")
        roster, now = self._streams.log.roster, self._streams.clock.time()
        kept = roster.kept(_name("ticket", ticket))
        if kept is None:
            raise AuthenticationFailed("the ticket is not valid any more")
        found = json.loads(kept)
        cookie = _cookie_name(request)
        secret = request.cookies.get(cookie, "")
        used_by = roster.kept(_name("used", ticket))
        if used_by is None and now <= found["until"]:
            if request.method == "HEAD":
                return Identity(**found["identity"])
            if not _WORD.fullmatch(secret):
                secret = secrets.token_urlsafe(32)
                _set_cookie(cookie, secret, found["end"] - now, request)
            used_by = roster.keep(_name("used", ticket), _digest(secret), found["end"])
        if used_by is None or not secrets.compare_digest(used_by, _digest(secret)):
            raise AuthenticationFailed("the ticket was used already, or is too old")
        return Identity(**found["identity"])

    def or_else(self, authenticator: Authenticator) -> Authenticator:
        """Return what takes tickets, and asks *authenticator* where there is none."""

        def authenticate(request: Request) -> Any:
            if PARAMETER in request.args:
                return self.redeem(request)
            return authenticator(request)

        return authenticate


def add_tickets(blueprint: Blueprint, door: Door, tickets: Tickets) -> None:
    """Add ``POST ticket`` to *blueprint*; a ticket buys no ticket: *door* takes none."""

    @blueprint.post("/ticket")
    def ticket() -> Response:
        door.count(request)
        identity = door.identify(request)
        door.count_user(identity)
        response = jsonify(ticket=tickets.issue(identity), expires_in=round(FIRST_USE))
        response.headers["Cache-Control"] = "no-store"
        return response


def _name(kind: str, ticket: str) -> str:
    return f"{kind} {_digest(ticket)}"


def _digest(word: str) -> str:
    return hashlib.blake2b(word.encode(), digest_size=24).hexdigest()


def _cookie_name(request: Request) -> str:
    # With the prefix no neighbour of the domain can have set it (RFC 6265bis, section 4.1.3.2).
    return "__Host-sse_ticket" if request.is_secure else "sse_ticket"


def _set_cookie(name: str, secret: str, age: float, request: Request) -> None:
    # A page of another site has to say so; where cookies go nowhere but home, strictly.
    abroad = request.headers.get("Sec-Fetch-Site") == "cross-site" and request.is_secure

    @after_this_request
    def put(response: Response) -> Response:
        response.set_cookie(
            name,
            secret,
            max_age=max(1, int(age)),
            path="/",
            secure=request.is_secure,
            httponly=True,
            samesite="None" if abroad else "Strict",
            partitioned=abroad,
        )
        return response

"""JSON Web Tokens (RFC 7519) as identities.  Needs the extra ``jwt``.

A token is believed for one issuer only: the one whose key verifies it, with the
algorithms pinned for that issuer.  Where there are several, the claim ``iss``
chooses among those configured, before it is verified, and decides nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from flask import Request

from sse_broker.core.identity import Identity
from sse_broker.errors import AuthenticationFailed, BrokerError, InvalidConfig
from sse_broker.web.credentials import MAX_TOKEN_CHARS, token_of
from sse_broker.web.jwks import KeySet

__all__ = ["Issuer", "Verifier", "jwt_authenticator", "jwt_verifier"]

MIN_SECRET = 32  # bytes; RFC 7518, section 3.2, for HS256
_LOCAL = ("localhost", "127.0.0.1", "::1")

Verifier = Callable[[str], Mapping[str, Any]]
"""Returns the claims of a token, or raises AuthenticationFailed."""


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """Whose tokens are believed, and how they are verified.

    One of *key* (a secret of at least 32 bytes, or a public key in PEM) and
    *jwks_url* (``https``; asked when a key is not known, at most every 10 s).
    Only *algorithms* are accepted; by default ``HS256`` for a secret and
    ``RS256`` and ``ES256`` for public keys.  *audience* is checked where given.

    :raises InvalidConfig: there is no key or there are two, a secret is too short,
        or an algorithm does not fit the kind of key.
    """

    key: Any = None
    jwks_url: str = ""
    algorithms: Sequence[str] = ()
    audience: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if bool(self.key) is bool(self.jwks_url):
            raise InvalidConfig("JWT needs a key or a JWKS URL, and not both", field="jwt_key")
        url = urlsplit(self.jwks_url)
        if self.jwks_url and url.scheme != "https" and url.hostname not in _LOCAL:
            raise InvalidConfig("the JWKS URL must be https", field="jwt_jwks_url")
        if self.jwks_url and url.scheme not in ("http", "https"):
            raise InvalidConfig("the JWKS URL must be https", field="jwt_jwks_url")
        secret = None if self.jwks_url else _secret(self.key)
        names = self.algorithms or (("RS256", "ES256") if secret is None else ("HS256",))
        names = (names,) if isinstance(names, str) else tuple(names)
        for name in names:
            if name.lower() == "none":
                raise InvalidConfig("the algorithm 'none' is none", field="jwt_algorithms")
            if name.startswith("HS") is not (secret is not None):
                raise InvalidConfig(
                    f"{name} does not fit this kind of key: HS... is for secrets, and what is"
                    " public is none",
                    field="jwt_algorithms",
                )
        if secret is not None and len(secret) < MIN_SECRET:
            raise InvalidConfig(
                f"the JWT secret has {len(secret)} bytes, at least {MIN_SECRET} are needed;"
                " make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
                field="jwt_key",
            )
        object.__setattr__(self, "algorithms", names)


def jwt_authenticator(
    key: Any = None,
    *,
    jwks_url: str = "",
    algorithms: Sequence[str] | None = None,
    audience: str | Sequence[str] | None = None,
    issuer: str | None = None,
    issuers: Mapping[str, Issuer] | None = None,
    user_claim: str = "sub",
    tenant_claim: str = "tenant_id",
    topics_claim: str = "topics",
    cookie: str = "",
    query: str = "",
    leeway: float = 0,
) -> Callable[[Request], Identity]:
    """Return an authenticator for JSON Web Tokens.

    The token is looked for in ``Authorization: Bearer``, then in *cookie*, then
    in the query parameter *query*; an empty name, the default, leaves that place
    out.  A token in a URL ends up in logs and in histories: prefer tickets.

    *key*, *jwks_url*, *algorithms* and *audience* are those of :class:`Issuer`;
    *issuer* is checked where given.  *issuers* maps values of the claim ``iss``
    to what verifies their tokens, instead of all these.  ``exp`` is required,
    and the stream is closed when it passes.  A *topics_claim* in the token is a
    list of names and patterns; without it any topic of the tenant may be read.
    The tenant comes from the token only: with several issuers, each can speak
    for any tenant that it writes there.

    :raises InvalidConfig: PyJWT is not installed, or as for :class:`Issuer`.
    """
    if algorithms is not None and not algorithms:
        raise InvalidConfig("JWT needs at least one algorithm", field="jwt_algorithms")
    table: Mapping[str | None, Issuer]
    if issuers is not None:
        if key or jwks_url or issuer is not None or algorithms or audience is not None:
            raise InvalidConfig("say keys, algorithms and audiences in issuers, or beside none")
        table = {name: one for name, one in issuers.items()}  # noqa: C416  # a wider key type
    else:
        one = Issuer(key=key, jwks_url=jwks_url, algorithms=algorithms or (), audience=audience)
        table = {issuer: one}
    verify = jwt_verifier(table, required=("exp", user_claim), leeway=leeway)

    def authenticator(request: Request) -> Identity:
        claims = verify(token_of(request, cookie=cookie, query=query))
        return _identity(claims, user_claim, tenant_claim, topics_claim, leeway)

    return authenticator


def jwt_verifier(
    issuers: Mapping[str | None, Issuer], *, required: Sequence[str] = ("exp",), leeway: float = 0
) -> Verifier:
    """Return what checks a token and returns its claims; the key ``None`` is any issuer.

    Any thread.  May wait some seconds for a key server.

    :raises InvalidConfig: PyJWT, or what its public keys need, is not installed.
    """
    try:
        jwt = import_module("jwt")
    except ImportError as err:
        raise InvalidConfig("JWT needs PyJWT: pip install 'sse-broker[jwt]'") from err
    if not issuers:
        raise InvalidConfig("JWT needs at least one issuer")
    public = any(not name.startswith("HS") for one in issuers.values() for name in one.algorithms)
    if public and not jwt.algorithms.has_crypto:
        raise InvalidConfig("public keys need cryptography: pip install 'sse-broker[jwt]'")
    key_sets = {name: KeySet(jwt, one.jwks_url) for name, one in issuers.items() if one.jwks_url}

    def verify(token: str) -> Mapping[str, Any]:
        if len(token) > MAX_TOKEN_CHARS:
            raise AuthenticationFailed(f"the token is longer than {MAX_TOKEN_CHARS} characters")
        try:
            name = None if None in issuers else _issuer_of(jwt, token)
            one = issuers.get(name)
            if one is None:
                raise AuthenticationFailed("the token is of an unknown issuer")
            key = one.key
            if one.jwks_url:
                key = key_sets[name].find(jwt.get_unverified_header(token).get("kid"))
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=list(one.algorithms),
                audience=one.audience,
                issuer=name,
                leeway=leeway,
                options={
                    "require": list(required),
                    "verify_sub": False,  # an id may be a number
                    "verify_aud": one.audience is not None,
                },
            )
            return claims
        except jwt.PyJWTError as err:
            raise AuthenticationFailed(_said_of(err)) from err
        except (ValueError, TypeError, OverflowError, RecursionError) as err:
            raise AuthenticationFailed("the token is not valid") from err

    return verify


def _issuer_of(jwt: Any, token: str) -> str | None:
    claims = jwt.decode(token, options={"verify_signature": False})
    found = claims.get("iss")
    return found if isinstance(found, str) else None


def _said_of(error: Exception) -> str:
    """Return words for a visitor: no class name, and nothing of the token."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "ExpiredSignatureError" in kinds:
        return "the token has expired"
    if "ImmatureSignatureError" in kinds:
        return "the token is not valid yet"
    if "MissingRequiredClaimError" in kinds:
        return f"the token lacks the claim {getattr(error, 'claim', '')!r}"
    return "the token is not valid"


def _identity(
    claims: Mapping[str, Any], user: str, tenant: str, topics: str, leeway: float
) -> Identity:
    granted = claims.get(topics)
    is_list = isinstance(granted, list) and all(isinstance(topic, str) for topic in granted)
    if granted is not None and not is_list:
        raise AuthenticationFailed(f"the claim {topics!r} must be a list of strings")
    try:
        return Identity(
            claims[user],
            claims.get(tenant),
            topics=granted,
            expires_at=float(claims["exp"]) + leeway,
            token_id=str(claims.get("jti", "")),
            claims=claims,
        )
    except BrokerError as err:
        raise AuthenticationFailed(str(err)) from err


def _secret(key: Any) -> bytes | None:
    """Return *key* as the bytes of a secret, or ``None`` if it is a public key."""
    if not isinstance(key, str | bytes):
        return None
    raw = key.encode() if isinstance(key, str) else key
    public = raw.lstrip().startswith((b"-----BEGIN ", b"ssh-", b"ecdsa-sha2-"))
    return None if public else raw

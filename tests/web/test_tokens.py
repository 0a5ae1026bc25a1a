"""Tokens: whose they are, what verifies them, and where they are looked for."""

from __future__ import annotations

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from flask import Flask

from sse_broker import Broker, InvalidConfig, create_blueprint, jwt_authenticator
from sse_broker.errors import AuthenticationFailed, NotNow
from sse_broker.web.credentials import MAX_TOKEN_CHARS
from sse_broker.web.jwks import FRESH, PAUSE, STALE, KeySet
from sse_broker.web.tokens import Issuer, jwt_verifier

USER = str(uuid.uuid4())
SECRET = "s" * 32
RSA = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
EC = ec.generate_private_key(ec.SECP256R1())


def pem(private: Any) -> str:
    return (
        private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def jwk(private: Any, kid: str) -> dict[str, Any]:
    algorithm = jwt.algorithms.RSAAlgorithm if private in RSA else jwt.algorithms.ECAlgorithm
    return {**json.loads(algorithm.to_jwk(private.public_key())), "kid": kid, "use": "sig"}


def token(key: Any, algorithm: str, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    body = {"sub": USER, "exp": time.time() + 60, **claims}
    return jwt.encode(body, key, algorithm, headers=headers)


class KeyServer:
    """A client of a key server, by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[dict[str, Any]] = []
        self.away = False
        self.asked = 0
        server = self

        def fetch(self: Any) -> Any:
            server.asked += 1
            if server.away:
                raise jwt.PyJWKClientConnectionError("away")
            return {"keys": server.keys}

        monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", fetch)


@pytest.fixture
def key_server(monkeypatch: pytest.MonkeyPatch) -> KeyServer:
    return KeyServer(monkeypatch)


def test_public_keys_verify_and_are_no_secrets() -> None:
    verify = jwt_verifier({None: Issuer(key=pem(RSA[0]))})

    assert verify(token(RSA[0], "RS256"))["sub"] == USER
    confused = jwt.encode(  # a token signed with the public key as if it were a secret
        {"sub": USER, "exp": time.time() + 60}, "x" * 32, "HS256"
    )
    for bad in (token(RSA[1], "RS256"), confused, token(EC, "ES256")):
        with pytest.raises(AuthenticationFailed):
            verify(bad)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"key": ""},
        {"key": "k" * 31},
        {"key": b"k" * 31},
        {"key": "é" * 15},
        {"key": "k" * 32, "jwks_url": "https://a.example.com"},
        {"jwks_url": "http://a.example.com"},
        {"jwks_url": "file:///etc/passwd"},
        {"jwks_url": "https://a.example.com", "algorithms": ["HS256"]},
        {"key": pem(RSA[0]), "algorithms": ["HS256"]},
        {"key": pem(RSA[0]), "algorithms": ["RS256", "HS256"]},
        {"key": "k" * 32, "algorithms": ["RS256"]},
        {"key": "k" * 32, "algorithms": ["none"]},
        {"key": "k" * 32, "algorithms": ["NONE", "HS256"]},
    ],
)
def test_keys_and_algorithms_that_do_not_fit_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        Issuer(**options)


def test_a_key_server_is_asked_once_and_again_for_a_new_key(key_server: KeyServer) -> None:
    now = [0.0]
    keys = KeySet(jwt, "https://a.example.com/jwks", lambda: now[0])
    key_server.keys = [jwk(RSA[0], "one")]
    for _ in range(5):
        assert keys.find("one")
    assert key_server.asked == 1

    key_server.keys = [jwk(RSA[0], "one"), jwk(RSA[1], "two")]
    now[0] += PAUSE
    assert keys.find("two")
    assert key_server.asked == 2

    for n in range(100):  # ids that nobody has
        with pytest.raises(AuthenticationFailed):
            keys.find(f"guess-{n}")
    assert key_server.asked == 2


def test_a_key_that_was_withdrawn_is_forgotten(key_server: KeyServer) -> None:
    now = [0.0]
    keys = KeySet(jwt, "https://a.example.com/jwks", lambda: now[0])
    key_server.keys = [jwk(RSA[0], "one"), jwk(RSA[1], "two")]
    keys.find("one")
    key_server.keys = [jwk(RSA[1], "two")]
    now[0] += FRESH + 1
    with pytest.raises(AuthenticationFailed):
        keys.find("one")


def test_known_keys_serve_while_the_key_server_is_away_but_not_for_ever(
    key_server: KeyServer,
) -> None:
    now = [0.0]
    keys = KeySet(jwt, "https://a.example.com/jwks", lambda: now[0])
    key_server.away = True
    with pytest.raises(NotNow):
        keys.find("one")
    asked = key_server.asked
    with pytest.raises(NotNow):
        keys.find("one")
    assert key_server.asked == asked  # not by everybody who comes

    key_server.away, key_server.keys = False, [jwk(RSA[0], "one")]
    now[0] += PAUSE
    assert keys.find("one")
    key_server.away = True
    now[0] += FRESH + 1
    assert keys.find("one")
    now[0] += STALE
    with pytest.raises(NotNow):
        keys.find("one")


def test_a_key_of_one_issuer_is_never_anothers(key_server: KeyServer, monkeypatch) -> None:
    sets = {
        "https://a.example.com/jwks": {"keys": [jwk(RSA[0], "same-id")]},
        "https://b.example.com/jwks": {"keys": [jwk(RSA[1], "same-id")]},
    }
    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", lambda self: sets[self.uri])
    verify = jwt_verifier(
        {
            f"https://{name}.example.com/": Issuer(
                jwks_url=f"https://{name}.example.com/jwks", audience=f"app-{name}"
            )
            for name in "ab"
        }
    )
    kid = {"kid": "same-id"}
    iss_a, iss_b = "https://a.example.com/", "https://b.example.com/"

    assert verify(token(RSA[0], "RS256", kid, iss=iss_a, aud="app-a"))
    assert verify(token(RSA[1], "RS256", kid, iss=iss_b, aud="app-b"))
    for bad in (
        token(RSA[1], "RS256", kid, iss=iss_a, aud="app-a"),
        token(RSA[0], "RS256", kid, iss=iss_b, aud="app-b"),
        token(RSA[0], "RS256", kid, iss=iss_a, aud="app-b"),
        token(RSA[0], "RS256", kid, iss=iss_a + "x", aud="app-a"),
        token(RSA[0], "RS256", kid, iss="https://evil.example.com/", aud="app-a"),
        token(RSA[0], "RS256", kid, aud="app-a"),
        token(RSA[0], "RS256", {"kid": "other"}, iss=iss_a, aud="app-a"),
    ):
        with pytest.raises(AuthenticationFailed):
            verify(bad)


def test_a_crit_header_that_is_not_understood_is_refused() -> None:
    verify = jwt_verifier({None: Issuer(key=SECRET)})
    with pytest.raises(AuthenticationFailed):
        verify(token(SECRET, "HS256", {"crit": ["exp2"], "exp2": 1}))


@pytest.mark.parametrize(
    "bad",
    [
        "a.b.c",
        "eyJhbGciOiJIUzI1NiJ9." * 3,
        "\ud800.a.b",
        "x" * (MAX_TOKEN_CHARS + 1),
        token(SECRET, "HS256", exp="soon"),
        token(SECRET, "HS256", nbf=time.time() + 600),
        token(SECRET, "HS256", jti=7),
    ],
)
def test_what_is_no_token_is_refused_without_a_word_about_the_code(bad: str) -> None:
    verify = jwt_verifier({None: Issuer(key=SECRET)})
    with pytest.raises(AuthenticationFailed) as refused:
        verify(bad)
    assert "Error" not in str(refused.value)


def test_a_token_in_the_query_is_off_by_default_and_masked_where_it_is_on(
    broker: Broker,
) -> None:
    good, environ = token(SECRET, "HS256"), {}
    for query, status in (("", 401), ("token", 200)):
        app = Flask(__name__)
        blueprint = create_blueprint(broker, jwt_authenticator(SECRET, query=query))
        app.register_blueprint(blueprint, url_prefix="/sse")
        url = f"/sse/stream?a=1&token={good}&topics=b"
        with app.test_request_context(url, method="HEAD") as context:
            environ = context.request.environ
            environ["RAW_URI"] = url
            assert app.full_dispatch_request().status_code == status
    assert environ["RAW_URI"] == "/sse/stream?a=1&token=***&topics=b"


def test_a_real_key_server_is_asked_over_http() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"keys": [jwk(EC, "e")]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/jwks"
        verify = jwt_verifier({"me": Issuer(jwks_url=url)})
        assert verify(token(EC, "ES256", {"kid": "e"}, iss="me"))["sub"] == USER
        thread.join(5)

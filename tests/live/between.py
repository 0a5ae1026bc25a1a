"""An app with something between its streams and the server: tracers, encoders, iterators in C."""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from flask import Flask, jsonify
from werkzeug.wsgi import ClosingIterator

from sse_broker import SSE

WSGI = Callable[..., Any]


class Tap:
    """Notes what passes, and whether it was told the end."""

    def __init__(self) -> None:
        self.size = self.ended = self.closed = 0

    def note(self, item: bytes) -> bytes:
        self.size += len(item)
        return item

    def close(self) -> None:
        self.closed += 1


tap = Tap()


def on_streams(wrap: Callable[[Any], Any]) -> Callable[[WSGI], WSGI]:
    """Return a middleware that puts *wrap* around the bodies of streams."""

    def middleware(inner: WSGI) -> WSGI:
        def app(environ: dict[str, Any], start_response: Any) -> Any:
            body = inner(environ, start_response)
            return wrap(body) if environ["PATH_INFO"].endswith("/stream") else body

        return app

    return middleware


def changed(item: bytes) -> bytes:
    return tap.note(item).replace(b"secret", b"XXXXXX")


def generator(body: Any) -> Iterator[bytes]:
    try:
        for item in body:
            yield changed(item)
        tap.ended += 1
    finally:
        body.close()
        tap.close()


def in_c(body: Any) -> Any:
    return map(changed, body)


def chained(body: Any) -> Any:
    return itertools.chain(in_c(body), (b": the end\n\n",))


def closing(body: Any) -> Any:
    return ClosingIterator(in_c(body), [body.close, tap.close])


def deflated(inner: WSGI) -> WSGI:
    """An encoder, as it is commonly written."""

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if not environ["PATH_INFO"].endswith("/stream"):
            return inner(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*headers, ("Content-Encoding", "deflate")], *more)

        coder = zlib.compressobj()
        body = inner(environ, start)
        return (coder.compress(tap.note(item)) + coder.flush(zlib.Z_SYNC_FLUSH) for item in body)

    return app


def newrelic(app: Flask) -> None:
    import newrelic.agent as agent

    settings = agent.global_settings()
    settings.developer_mode, settings.monitor_mode = True, False
    settings.app_name, settings.license_key = "tests", "x" * 40
    agent.register_application(timeout=1)
    app.wsgi_app = agent.WSGIApplicationWrapper(app.wsgi_app)  # type: ignore[method-assign]


def elastic(app: Flask) -> None:
    from elasticapm.contrib.flask import ElasticAPM

    app.config["ELASTIC_APM"] = {
        "SERVICE_NAME": "tests",
        "SERVER_URL": "http://127.0.0.1:9",
        "DISABLE_SEND": True,
        "CENTRAL_CONFIG": False,
        "CLOUD_PROVIDER": False,
    }
    ElasticAPM(app)


def sentry(app: Flask) -> None:
    import sentry_sdk
    from sentry_sdk.transport import Transport

    del app

    class Nowhere(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            pass

    sentry_sdk.init(dsn="http://k@127.0.0.1:9/1", transport=Nowhere, traces_sample_rate=1.0)


def opentelemetry(app: Flask) -> None:
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

    app.wsgi_app = OpenTelemetryMiddleware(app.wsgi_app)  # type: ignore[method-assign]


TRACERS = {"newrelic": newrelic, "elastic": elastic, "sentry": sentry, "otel": opentelemetry}
WRAPPERS: dict[str, Callable[[WSGI], WSGI]] = {
    "generator": on_streams(generator),
    "map": on_streams(in_c),
    "chain": on_streams(chained),
    "closing": on_streams(closing),
    "deflate": deflated,
}


def create_app() -> Flask:
    how = os.environ["HOW"]
    if how == "sentry":  # it instruments Flask itself, before there is an app
        sentry(Flask("none"))
    app = Flask(__name__)
    app.config.update({k: v for k, v in os.environ.items() if k.startswith("SSE_")})
    sse = SSE(app)

    @app.get("/healthz")
    def healthz() -> Any:
        return "ok"

    @app.get("/seen")
    def seen() -> Any:
        clients = sse.broker.get_stats().total_clients
        return jsonify(size=tap.size, ended=tap.ended, closed=tap.closed, clients=clients)

    if how == "after_request":

        @app.after_request
        def put_around(response: Any) -> Any:
            if response.mimetype == "text/event-stream":
                response.response = generator(response.response)
            return response

    elif how in WRAPPERS:
        app.wsgi_app = WRAPPERS[how](app.wsgi_app)  # type: ignore[method-assign]
    elif how != "sentry":
        TRACERS[how](app)
    return app


__all__ = ["TRACERS", "WRAPPERS", "create_app"]

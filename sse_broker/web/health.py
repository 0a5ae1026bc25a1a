"""``healthz``, ``readyz`` and ``metrics``: for probes, and without a word about users or topics."""

from __future__ import annotations

from flask import Blueprint, Flask, Response, current_app, jsonify, request

from sse_broker.broker import Broker
from sse_broker.metrics import exposition
from sse_broker.servers import checks
from sse_broker.web.default_log import WHY_MEMORY

__all__ = ["add_health"]


def add_health(host: Flask | Blueprint, broker: Broker) -> None:
    """Add ``healthz``, ``readyz`` and ``metrics`` to *host*, an app or a blueprint."""

    @host.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @host.get("/readyz")
    def readyz() -> Response:
        parts, why = broker.health(), {}
        for finding in checks.examine(broker.log.shared, request.environ):
            why[finding.name] = finding.text
            if finding.is_unready:
                parts[finding.name] = False
        if WHY_MEMORY in current_app.extensions:
            why["log"] = current_app.extensions[WHY_MEMORY]
        well = all(parts.values())
        told = {"why": why} if why else {}
        seen = {  # what a proxy in front has made of the request, and this machine's clock
            "protocol": request.environ.get("SERVER_PROTOCOL"),
            "time": round(broker.streams.clock.time(), 3),
        }
        response = jsonify(status="ok" if well else "unavailable", checks=parts, seen=seen, **told)
        response.status_code = 200 if well else 503
        return response

    @host.get("/metrics")
    def metrics() -> Response:
        body, content_type = exposition(broker.streams)
        return Response(body, content_type=content_type)

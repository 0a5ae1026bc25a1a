"""Monitoring dashboard: one thread measures the machine, every open chart moves.

Run:  flask --app samples.dashboard run --with-threads
See:  curl -N 'http://localhost:5000/sse/stream?user_id=<uuid>&topics=metrics:host'
The stream shows ``event: sample`` once a second, from the first request to
``/dashboard`` on.
"""

from __future__ import annotations

import os
import threading
import time

from flask import Blueprint, Flask, Response, jsonify

from samples.common import single
from sse_broker import SSE, Broker

TOPIC = "metrics:host"


class Sampler:
    """Measures while the process lives; started by the first visitor, once per process."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._pid = 0

    def start(self) -> None:
        if self._pid != os.getpid():  # a thread does not survive a fork
            self._pid = os.getpid()
            threading.Thread(target=self._run, name="sampler", daemon=True).start()

    def _run(self) -> None:
        pause, before = threading.Event(), time.process_time()
        while not pause.wait(1):
            now = time.process_time()
            cpu, before = round(100 * (now - before), 1), now
            load = round(os.getloadavg()[0], 2)
            self._broker.send_to_topic(
                TOPIC,
                "sample",
                {"load": load, "cpu": cpu, "streams": self._broker.get_stats().total_clients},
            )


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("dashboard", __name__)
    sampler = Sampler(sse.broker)

    @blueprint.post("/dashboard")
    def open_dashboard() -> Response:
        sampler.start()
        return jsonify(topic=TOPIC)

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)

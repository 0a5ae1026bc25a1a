"""Monitoring dashboard: one thread measures the server, every open chart moves.

Run:  flask --app samples/dashboard.py run
See:  curl -N 'http://localhost:5000/sse/stream?user_id=<uuid>&topics=metrics:host'
      curl -X POST http://localhost:5000/dashboard
The stream shows ``event: sample`` once a second, from a visit of ``/dashboard``
until no stream is open.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time

from flask import Blueprint, Flask, Response, jsonify

from samples.common import data_folder, single
from sse_broker import SSE, Broker

TOPIC = "metrics:host"
EVERY = 1.0  # seconds


class Sampler:
    """Measures while a stream is open; started by a visitor, never at import.

    Of several workers one measures: the one that has the lock on a file.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._pid = 0

    def start(self) -> None:
        with self._lock:
            if self._pid == os.getpid():  # a thread does not survive a fork
                return
            self._pid = os.getpid()
        threading.Thread(target=self._run, name="sampler", daemon=True).start()

    def _run(self) -> None:
        with (data_folder() / "sampler.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._measure()
            except BlockingIOError:  # another worker measures
                pass
            finally:
                with self._lock:
                    self._pid = 0

    def _measure(self) -> None:
        pause, cpu = threading.Event(), time.process_time()
        sent = self._broker.get_stats().messages_sent
        idle = 0  # streams are counted over all workers, which takes a moment
        while not pause.wait(EVERY):
            stats = self._broker.get_stats()
            idle = 0 if stats.cluster_clients else idle + 1
            if idle == 3:
                return
            used = time.process_time()
            sample = {
                "cpu": round(100 * (used - cpu) / EVERY, 1),  # percent of one core
                "load": round(os.getloadavg()[0], 2),
                "streams": stats.cluster_clients,
                "events": stats.messages_sent - sent,  # by this worker
            }
            cpu, sent = used, stats.messages_sent
            self._broker.send_to_topic(TOPIC, "sample", sample)


def make_blueprint(sse: SSE) -> Blueprint:
    blueprint = Blueprint("dashboard", __name__)
    sampler = Sampler(sse.broker)

    @blueprint.post("/dashboard")
    def visit() -> Response:
        sampler.start()
        return jsonify(topic=TOPIC)

    return blueprint


def create_app() -> Flask:
    return single(make_blueprint)

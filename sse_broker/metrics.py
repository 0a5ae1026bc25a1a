"""Prometheus metrics.  Needs the extra ``metrics``.

The broker keeps plain counters of its own, so a delivery pays nothing for its
metric.  One process is read at the moment of the scrape.  With several workers
set ``PROMETHEUS_MULTIPROC_DIR``, as prometheus_client wants it: then each worker
carries its counters over into that directory (here, at a scrape, and by
:func:`carry_over`, which the broker's reaper calls) and any of them answers for all.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from sse_broker.core.counts import Counts
from sse_broker.core.streams import Streams
from sse_broker.core.sync import native_lock
from sse_broker.errors import InvalidConfig

__all__ = ["NAMES", "carry_over", "exposition"]

NAMES = {
    "active_connections": ("sse_active_connections_total", "Open streams."),
    "messages_published": ("sse_messages_published_total", "Messages sent by business code."),
    "messages_sent": ("sse_messages_sent_total", "Messages written to clients."),
    "messages_dropped": ("sse_messages_dropped_total", "Messages that a full queue cost a client."),
    "client_connects": ("sse_client_connect_total", "Streams that began."),
    "client_disconnects": ("sse_client_disconnect_total", "Streams that ended."),
    "connections_refused": ("sse_connections_refused_total", "Streams refused for now."),
    "resets": ("sse_resets_total", "Streams told that continuity could not be proved."),
    "authorizer_failures": (
        "sse_authorizer_failures_total",
        "Questions to the application's authorizer that raised.",
    ),
    "rates_unchecked": (
        "sse_rates_unchecked_total",
        "Requests let through because the rate storage was away.",
    ),
}
REFUSALS = ("sse_refusals_total", "Streams and publishes refused, by the limit that was reached.")
GAUGE = "active_connections"


def exposition(streams: Streams) -> tuple[bytes, str]:
    """Return the metrics as text and its content type.

    :raises InvalidConfig: prometheus_client is not installed.
    """
    client = _prometheus()
    registry = client.CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        carry_over(streams)
        import_module("prometheus_client.multiprocess").MultiProcessCollector(registry)
    else:
        registry.register(_Collector(streams))
    return client.generate_latest(registry), client.CONTENT_TYPE_LATEST


class _Collector:
    """Reads one broker's counters when asked."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def collect(self) -> Iterator[Any]:
        """Yield every metric."""
        core = import_module("prometheus_client.core")
        counts = self._streams.counts()
        for field, (name, text) in NAMES.items():
            value = getattr(counts, field)
            if field == GAUGE:
                yield core.GaugeMetricFamily(name, text, value=value)
            else:
                yield core.CounterMetricFamily(name, text, value=value)
        refusals = core.CounterMetricFamily(*REFUSALS, labels=["limit"])
        for setting, value in counts.refusals.items():
            refusals.add_metric([setting], value)
        yield refusals


def carry_over(streams: Streams) -> None:
    """Write what was counted since the last call into this process's metric files.

    Any thread; does nothing without ``PROMETHEUS_MULTIPROC_DIR``.
    """
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return
    by_process = _carriers.setdefault(streams, {})
    by_process.setdefault(os.getpid(), _Carrier()).carry(streams.counts())


class _Carrier:
    """What one process has carried over so far for one broker."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._before = Counts()

    def carry(self, counts: Counts) -> None:
        metrics = _metrics()
        with self._lock:
            before, self._before = self._before, counts
        for field in NAMES:
            change = getattr(counts, field) - getattr(before, field)
            if change > 0 or field == GAUGE:
                metrics[field].inc(change)
        for setting, value in counts.refusals.items():
            change = value - before.refusals.get(setting, 0)
            if change > 0:
                metrics["refusals"].labels(setting).inc(change)


_carriers: weakref.WeakKeyDictionary[Streams, dict[int, _Carrier]] = weakref.WeakKeyDictionary()
_made: dict[str, dict[str, Any]] = {}


def _metrics() -> dict[str, Any]:
    """Return the metrics of this process, one set for all its brokers."""
    if not _made:
        client = _prometheus()
        made: dict[str, Any] = {}
        for field, (name, text) in NAMES.items():
            options = {"registry": client.CollectorRegistry()}
            if field == GAUGE:
                made[field] = client.Gauge(name, text, multiprocess_mode="livesum", **options)
            else:
                made[field] = client.Counter(name, text, **options)
        registry = client.CollectorRegistry()
        made["refusals"] = client.Counter(*REFUSALS, ["limit"], registry=registry)
        _made.setdefault("made", made)  # one step: of two threads, both use the first one's
    return _made["made"]


def _prometheus() -> Any:
    try:
        return import_module("prometheus_client")
    except ImportError as err:
        raise InvalidConfig(
            "metrics need prometheus_client: pip install 'sse-broker[metrics]'"
        ) from err

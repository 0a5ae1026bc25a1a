"""Prometheus metrics.  Needs the extra ``metrics``.

The broker keeps plain counters of its own, so a delivery pays nothing for its
metric.  One process is read at the moment of the scrape.  With several workers
set ``PROMETHEUS_MULTIPROC_DIR``, as prometheus_client wants it: then each worker
carries its counters over into that directory (here, at a scrape, and by
:func:`carry_over`, which the broker's reaper calls) and any of them answers for all.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from sse_broker.core.counts import Counts
from sse_broker.core.latency import BOUNDS
from sse_broker.core.measures import Measures
from sse_broker.core.process import Life
from sse_broker.core.streams import Streams
from sse_broker.core.sync import native_lock
from sse_broker.errors import InvalidConfig

__all__ = ["NAMES", "carry_over", "carry_over_idle", "exposition"]

NAMES = {
    "active_connections": ("sse_active_connections_total", "Open streams."),
    "messages_published": ("sse_messages_published_total", "Messages sent by business code."),
    "messages_sent": ("sse_messages_sent_total", "Messages written to clients."),
    "messages_dropped": ("sse_messages_dropped_total", "Messages that a full queue cost a client."),
    "client_connects": ("sse_client_connect_total", "Streams that began."),
    "client_disconnects": ("sse_client_disconnect_total", "Streams that ended."),
    "connections_refused": ("sse_connections_refused_total", "Streams refused for now."),
    "resets": ("sse_resets_total", "Streams told that continuity could not be proved."),
    "replays": ("sse_replays_total", "Streams that went on where an earlier one had ended."),
    "replayed_messages": ("sse_replayed_messages_total", "Messages that replays wrote."),
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
RESETS = (
    "sse_resets_by_reason_total",
    "Streams told that continuity could not be proved, by reason.",
)
LABELLED = {"refusals": (REFUSALS, "limit"), "resets_by": (RESETS, "reason")}
GAUGE = "active_connections"
GAUGES = {
    "queued_frames": ("sse_queued_frames", "Frames that wait for a client.", "livesum"),
    "queued_most": ("sse_deepest_queue_frames", "Frames in the deepest queue.", "livemax"),
    "clients_behind": ("sse_clients_behind", "Clients that go on from the log.", "livesum"),
    "log_lag": ("sse_log_lag_records", "Records not offered to all clients yet.", "livemax"),
    "bytes_waiting": ("sse_bytes_waiting", "Bytes of these records.", "livesum"),
    "senders_waiting": ("sse_senders_waiting", "Senders slowed down.", "livesum"),
    "longest_turn": ("sse_longest_turn_seconds", "The pump's longest turn lately.", "livemax"),
    "reaper_late": ("sse_reaper_lateness_seconds", "How late the reaper is.", "livemax"),
    "calls_waiting": ("sse_helper_queue_calls", "Calls that wait for a helper.", "livesum"),
    "descriptors": ("sse_open_descriptors", "Open files of the process.", "livesum"),
}
LATENCY = ("sse_publish_to_write_seconds", "From publishing to the write, for each stream.")


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
        for field, (described, label) in LABELLED.items():
            family = core.CounterMetricFamily(*described, labels=[label])
            for name, value in getattr(counts, field).items():
                family.add_metric([name], value)
            yield family
        measures = self._streams.measures()
        for field, (name, text, _) in GAUGES.items():
            yield core.GaugeMetricFamily(name, text, value=getattr(measures, field))
        yield core.HistogramMetricFamily(
            *LATENCY, buckets=_cumulated(measures), sum_value=measures.latency_sum
        )


def _cumulated(measures: Measures) -> list[tuple[str, float]]:
    bounds = [*(repr(bound) for bound in BOUNDS), "+Inf"]
    return list(zip(bounds, itertools.accumulate(measures.latency), strict=True))


def carry_over(streams: Streams) -> None:
    """Write what was counted since the last call into this process's metric files.

    Any thread; does nothing without ``PROMETHEUS_MULTIPROC_DIR``.
    """
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return
    by_process = _carriers.setdefault(streams, {})
    by_process.setdefault(os.getpid(), _Carrier()).carry(streams.counts(), streams.measures())


def carry_over_idle(streams: Streams) -> None:
    """Carry over what a process has sent that has no streams, and so no reaper to do it.

    After each request; costs nothing where nothing was sent, or no directory is set.
    """
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        here = streams.here()
        if here.life is not Life.RUNNING and here.flow.messages:
            carry_over(streams)


class _Carrier:
    """What one process has carried over so far for one broker."""

    def __init__(self) -> None:
        self._lock = native_lock()
        self._before, self._measured = Counts(), Measures()

    def carry(self, counts: Counts, measures: Measures) -> None:
        metrics = _metrics()
        with self._lock:
            before, self._before = self._before, counts
            measured, self._measured = self._measured, measures
        for field in NAMES:
            change = getattr(counts, field) - getattr(before, field)
            if change > 0 or field == GAUGE:
                metrics[field].inc(change)
        for field in LABELLED:
            for name, value in getattr(counts, field).items():
                change = value - getattr(before, field).get(name, 0)
                if change > 0:
                    metrics[field].labels(name).inc(change)
        for field in GAUGES:
            metrics[field].set(getattr(measures, field))
        # A histogram takes one observation at a time; these are many at once.
        histogram = metrics["latency"]
        for bucket, now, then in zip(
            histogram._buckets, measures.latency, measured.latency, strict=True
        ):
            if now > then:
                bucket.inc(now - then)
        histogram._sum.inc(max(0.0, measures.latency_sum - measured.latency_sum))


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
        for field, (described, label) in LABELLED.items():
            made[field] = client.Counter(*described, [label], registry=registry)
        for field, (name, text, mode) in GAUGES.items():
            made[field] = client.Gauge(name, text, multiprocess_mode=mode, registry=registry)
        made["latency"] = client.Histogram(*LATENCY, buckets=BOUNDS, registry=registry)
        _made.setdefault("made", made)  # one step: of two threads, both use the first one's
    return _made["made"]


def _prometheus() -> Any:
    try:
        return import_module("prometheus_client")
    except ImportError as err:
        raise InvalidConfig(
            "metrics need prometheus_client: pip install 'sse-broker[metrics]'"
        ) from err

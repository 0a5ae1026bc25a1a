"""What can be told about this process's server before the first stream: findings, each with a cure.

Asked when the application is set up, where a gunicorn worker loads it, and at each
process's first request, where the application was loaded before the fork or the
server is another one.  A finding is said once: by the first of gunicorn's workers, or by
whichever process meets it first of those that were forked after this module was imported.
"""

from __future__ import annotations

import logging
import mmap
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sse_broker.servers.capacity import descriptors
from sse_broker.servers.gunicorn import find_worker as gunicorn_worker

__all__ = ["Finding", "examine", "say"]

RECOMMENDED = "gunicorn -c python:sse_broker.gunicorn_conf app:app"
FEW_THREADS = 3  # one stream, one request, and one that is at hand
SPARE_DESCRIPTORS = 20  # the log's files, the listening socket, the server's own
PATCHES = ("threading", "socket", "select")
WAITS_ON_MAIN = (26, 0)  # gunicorn's version from which on gthread closes gracefully there

_log = logging.getLogger("sse_broker.server")
_said: set[tuple[int, str]] = set()


class Finding(NamedTuple):
    """One thing that is wrong with how this process is served: its name, level, and words."""

    name: str
    level: int
    text: str
    is_unready: bool = False  # whether the process should get no traffic


def examine(shared: bool, environ: Mapping[str, Any] | None = None) -> list[Finding]:
    """Return what is wrong here.  *shared* is whether processes share the log.  Never waits."""
    worker = gunicorn_worker()
    found = [*_gevent(worker)]
    if worker is not None:
        found += [*_worker(worker), *_descriptors(worker)]
    several = worker is not None and int(getattr(worker.cfg, "workers", 1)) > 1
    if not shared and (several or bool((environ or {}).get("wsgi.multiprocess"))):
        count = f"{worker.cfg.workers} processes serve" if several else "several processes serve"
        found.append(
            Finding(
                "memory_log",
                logging.WARNING,
                f"{count} this application and the log is memory://, which each has for itself:"
                " a message reaches only the streams of the process that sends it. Set"
                " SSE_LOG_URL=sqlite:////path/to/sse.db for one machine,"
                " SSE_LOG_URL=redis://host:6379/0 for several",
                is_unready=True,
            )
        )
    return found


def say(shared: bool, environ: Mapping[str, Any] | None = None) -> None:
    """Log once what is wrong here, after the limit of descriptors was raised as far as can be."""
    connections = getattr(getattr(gunicorn_worker(), "cfg", None), "worker_connections", 0)
    if connections:
        descriptors(int(connections))
    for finding in examine(shared, environ):
        if _is_first(finding.name):
            _log.log(finding.level, "%s", finding.text)


def _worker(worker: Any) -> Iterator[Finding]:
    kinds = {kind.__name__ for kind in type(worker).__mro__}
    if "SyncWorker" in kinds:
        yield Finding(
            "sync_worker",
            logging.ERROR,
            "gunicorn's sync worker serves one request at a time, so every stream is refused"
            f" with 500; run {RECOMMENDED} (or -k gthread --threads 32, or -k gevent)",
        )
    if "ThreadWorker" not in kinds or getattr(worker, "pump", None) is not None:
        return
    threads = int(worker.cfg.threads)
    if threads < FEW_THREADS:
        yield Finding(
            "few_threads",
            logging.WARNING,
            f"gunicorn's gthread worker has {threads} thread{'s' * (threads > 1)} and each open"
            " stream holds one, so an open tab or two stop the whole site; add --threads 32,"
            f" or run {RECOMMENDED}, where a stream holds no thread",
        )
    version = tuple(getattr(sys.modules.get("gunicorn"), "version_info", ()))[:2]
    if version >= WAITS_ON_MAIN:
        shown = ".".join(str(part) for part in version)
        yield Finding(
            "gthread_waits",
            logging.WARNING,
            f"gunicorn {shown}'s gthread worker waits up to 2 s on its main thread for each client"
            " that does not close its connection, and serves nobody meanwhile; run"
            f" {RECOMMENDED}, whose worker does not",
        )


def _descriptors(worker: Any) -> Iterator[Finding]:
    if not {"ThreadWorker", "AsyncWorker"} & {kind.__name__ for kind in type(worker).__mro__}:
        return
    try:
        import resource
    except ImportError:  # Windows, where gunicorn does not run
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = int(worker.cfg.worker_connections)
    if soft == resource.RLIM_INFINITY or connections + SPARE_DESCRIPTORS <= soft:
        return
    ceiling = "no" if hard == resource.RLIM_INFINITY else str(hard)
    yield Finding(
        "descriptors",
        logging.WARNING,
        f"worker_connections is {connections} and this process may open {soft} files (hard limit:"
        f" {ceiling}), so no more than about {max(0, soft - SPARE_DESCRIPTORS)} streams fit; raise"
        f" it with ulimit -n {connections + 1000} (systemd: LimitNOFILE=) before the server"
        " starts, or lower --worker-connections",
    )


def _gevent(worker: Any) -> Iterator[Finding]:
    monkey = sys.modules.get("gevent.monkey")
    kinds = {kind.__name__ for kind in type(worker).__mro__}
    by_gevent = any("Gevent" in kind for kind in kinds)
    patched = [n for n in PATCHES if monkey is not None and monkey.is_module_patched(n)]
    missing = [n for n in PATCHES if n not in patched]
    if missing and (patched or by_gevent):
        yield Finding(
            "half_patched",
            logging.ERROR,
            f"gevent has patched {', '.join(patched) or 'nothing'} and not {', '.join(missing)}:"
            " a wait there stops every stream of the process; call"
            " gevent.monkey.patch_all() without arguments, first of all",
        )
    elif patched and "ThreadWorker" in kinds:
        yield Finding(
            "patched_threads",
            logging.WARNING,
            "gevent has patched the standard library in a gthread worker, whose threads become"
            " greenlets of a hub that nobody runs; use -k gevent, or leave out patch_all()",
        )


NAMES = (
    "sync_worker",
    "few_threads",
    "gthread_waits",
    "descriptors",
    "half_patched",
    "patched_threads",
    "memory_log",
)
_claimed = mmap.mmap(-1, len(NAMES))  # shared with the processes forked from this one


def _is_first(name: str) -> bool:
    """Whether this process is the one to say *name*, and has not yet."""
    worker = gunicorn_worker()
    key = (os.getpid(), name)
    if key in _said:
        return False
    _said.add(key)
    if worker is not None and not worker.cfg.preload_app:
        # Each worker has loaded the application: one of them speaks, again after a reload.
        workers = max(1, int(worker.cfg.workers))
        return (int(getattr(worker, "age", 1)) - 1) % workers == 0
    place = NAMES.index(name)
    if _claimed[place]:
        return False
    _claimed[place] = 1
    return True

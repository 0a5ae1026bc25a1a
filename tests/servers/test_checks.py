"""What is said of a server before its first stream."""

from __future__ import annotations

import logging
import resource
import sys
from types import SimpleNamespace

import pytest

from sse_broker.servers import checks
from sse_broker.servers.checks import examine, say


def worker_of(kind: str, *bases: str, age: int = 1, **settings: object):
    made: type = object
    for base in reversed(bases):
        made = type(base, (made,), {})
    made = type(kind, (made,), {})
    found = made()
    cfg = {"threads": 1, "workers": 1, "worker_connections": 100, "preload_app": False}
    found.cfg, found.age = SimpleNamespace(**{**cfg, **settings}), age
    return found


@pytest.fixture
def worker(monkeypatch):
    """Return a function that makes this process a gunicorn worker."""
    monkeypatch.setattr(checks, "_said", set())
    monkeypatch.setattr(checks, "_claimed", bytearray(len(checks.NAMES)))
    monkeypatch.delitem(sys.modules, "gevent.monkey", raising=False)
    gunicorn = SimpleNamespace(version_info=(25, 3, 0))
    monkeypatch.setitem(sys.modules, "gunicorn", gunicorn)

    def be(*args: str, version: tuple[int, ...] = (25, 3, 0), **settings: object) -> None:
        made = worker_of(*args, **settings)
        gunicorn.version_info = version
        monkeypatch.setattr(checks, "gunicorn_worker", lambda: made)

    monkeypatch.setattr(checks, "gunicorn_worker", lambda: None)
    return be


def names(shared: bool = True, **environ: object) -> list[str]:
    return [finding.name for finding in examine(shared, environ)]


@pytest.mark.parametrize(("threads", "found"), [(1, True), (2, True), (3, False), (32, False)])
def test_gthread_with_fewer_than_three_threads_is_said(worker, threads, found) -> None:
    worker("ThreadWorker", threads=threads)

    assert ("few_threads" in names()) is found


def test_gthread_of_a_gunicorn_that_waits_on_its_main_thread_is_said(worker) -> None:
    worker("ThreadWorker", threads=32, version=(26, 0, 0))
    assert names() == ["gthread_waits"]
    worker("ThreadWorker", threads=32, version=(25, 3, 0))
    assert names() == []


def test_the_worker_that_hands_streams_off_has_nothing_to_say(worker) -> None:
    worker("StreamWorker", "ThreadWorker", threads=1, version=(27, 0, 1))
    checks.gunicorn_worker().pump = object()

    assert names() == []


def test_a_stream_worker_without_its_pump_is_a_gthread_worker(worker) -> None:
    worker("StreamWorker", "ThreadWorker", threads=1)

    assert names() == ["few_threads"]


def test_a_sync_worker_is_an_error(worker) -> None:
    worker("SyncWorker")

    (finding,) = examine(True)

    assert finding.level == logging.ERROR
    assert "sse_broker.gunicorn_conf" in finding.text


def test_a_log_of_each_process_is_unready_where_several_serve(worker) -> None:
    assert names(shared=False) == []
    assert names(shared=False, **{"wsgi.multiprocess": True}) == ["memory_log"]
    worker("ThreadWorker", threads=32, workers=4)
    (finding,) = examine(False)

    assert finding.is_unready
    assert "4 processes" in finding.text
    assert "sqlite://" in finding.text
    assert examine(True) == []


def test_descriptors_short_of_the_connections_are_said(worker, monkeypatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    worker("GeventWorker", "AsyncWorker", worker_connections=10_000)
    monkeypatch.setitem(
        sys.modules, "gevent.monkey", SimpleNamespace(is_module_patched=lambda _: True)
    )

    (finding,) = examine(True)

    assert finding.name == "descriptors"
    assert "ulimit -n 11000" in finding.text
    worker("GeventWorker", "AsyncWorker", worker_connections=1_000)
    assert examine(True) == []


@pytest.mark.parametrize("missing", ["threading", "socket", "select"])
def test_gevent_that_has_patched_half_is_an_error_that_names_the_rest(
    worker, monkeypatch, missing
) -> None:
    monkey = SimpleNamespace(is_module_patched=lambda name: name != missing)
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)

    (finding,) = examine(True)

    assert finding.name == "half_patched"
    assert f"not {missing}:" in finding.text


def test_gevent_in_a_gthread_worker_is_said(worker, monkeypatch) -> None:
    monkey = SimpleNamespace(is_module_patched=lambda _: True)
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    worker("ThreadWorker", threads=32)

    assert names() == ["patched_threads"]


def test_it_is_said_once_and_by_one_worker(worker, caplog) -> None:
    worker("SyncWorker", workers=2, age=2)
    say(True)
    assert not caplog.records
    worker("SyncWorker", workers=2, age=3)  # the first one after a reload
    checks._said.clear()

    say(True)
    say(True, {})

    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_workers_of_a_preloaded_application_say_it_once_among_them(worker, caplog) -> None:
    worker("SyncWorker", workers=2, preload_app=True)
    say(True, {})
    checks._said.clear()  # as in another process, which shares what was claimed

    say(True, {})

    assert len(caplog.records) == 1

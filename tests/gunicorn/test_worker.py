"""What the worker does apart from gunicorn: its threads, its counts, and an accept that fails."""

from __future__ import annotations

import errno
import threading
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import ThreadWorker

from sse_broker.gunicorn import worker as module
from sse_broker.gunicorn.fits import METHODS, incompatibility
from sse_broker.gunicorn.handoff import left
from sse_broker.gunicorn.pool import Outcome, Pool
from sse_broker.gunicorn.worker import StreamWorker
from sse_broker.servers.gunicorn import HANDOFF


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    cfg = Config()
    cfg.set("worker_connections", 100)
    cfg.set("threads", 4)
    monkeypatch.setattr("gunicorn.workers.base.WorkerTmp", lambda cfg: None)
    return StreamWorker(1, 1, [], None, 30, cfg, None)


def test_the_installed_gunicorn_fits() -> None:
    assert incompatibility() == ""


@pytest.mark.parametrize("name", METHODS)
def test_another_signature_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadWorker, name, lambda self, other, another, one: None)
    assert name in incompatibility()


def test_a_body_that_is_iterated_in_another_way_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadWorker, "handle_request", lambda self, req, conn: None)
    assert "another way" in incompatibility()


def test_connections_that_the_pump_closed_are_counted_off(worker: Any) -> None:
    worker.nr_conns += 1
    worker.nr_conns += 1
    worker._accepting = worker.alive = True
    worker.handed_back()
    assert worker.nr_conns == 1
    worker.handed_back()
    worker.nr_conns += 1
    assert worker.nr_conns == 1


def test_accepting_outlives_a_process_without_descriptors(
    worker: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    enabled: list[bool] = []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ThreadWorker, "set_accept_enabled", lambda self, on: enabled.append(on))

    def fail(self: Any, listener: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(ThreadWorker, "accept", fail)

    worker.accept(None)
    worker.set_accept_enabled(True)
    assert enabled == [False]

    now[0] += module.PAUSE
    worker.set_accept_enabled(True)
    assert enabled == [False, True]
    worker.accept(None)
    assert caplog.text.count("Too many open files") == 1


def test_another_error_of_accept_is_not_hidden(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, listener: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(ThreadWorker, "accept", fail)
    with pytest.raises(OSError, match="Bad file"):
        worker.accept(None)


def test_no_more_connections_are_accepted_than_there_are_descriptors(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "descriptors", lambda wanted: 60)
    worker._count_descriptors()
    assert worker.worker_connections == 60
    monkeypatch.setattr(module, "descriptors", lambda wanted: 0)
    worker._count_descriptors()
    assert worker.worker_connections == 60


def test_a_pool_has_as_many_threads_as_it_needs() -> None:
    gate, done = threading.Semaphore(0), threading.Semaphore(0)
    threads: set[str] = set()

    def work(one: object) -> None:
        gate.acquire()
        threads.add(str(threading.get_ident()))
        done.release()

    pool = Pool(2, work)
    for n in range(5):
        pool.put(n)
    assert pool._started == 2
    gate.release(5)
    for _ in range(5):
        assert done.acquire(timeout=10)
    assert len(threads) <= 2
    pool.shutdown(wait=False, cancel_futures=True)


def test_a_pool_that_is_not_busy_starts_no_other_thread() -> None:
    done = threading.Semaphore(0)
    pool = Pool(8, lambda one: done.release())
    pool.put(1)
    assert done.acquire(timeout=10)
    assert pool._idle.acquire(timeout=10)  # the thread waits again
    pool._idle.release()
    pool.put(2)
    assert done.acquire(timeout=10)
    assert pool._started == 1
    pool.shutdown()


def test_an_outcome_is_a_future_that_is_done() -> None:
    assert Outcome(7).result() == 7
    assert not Outcome(7).cancelled()
    with pytest.raises(KeyError):
        Outcome(error=KeyError("x")).result()


def test_a_request_that_only_could_have_left_is_not_put_off() -> None:
    assert left({}) is None
    assert left({HANDOFF: True}) is None

"""A broker in forked and spawned processes: nothing of the parent's is waited for there."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import subprocess
import sys

import pytest

from sse_broker import Broker
from tests.core.streams import Hub, Tab

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads

FORKS = 12


@pytest.mark.slow
@pytest.mark.parametrize("log", ["memory", "sqlite"])
def test_a_fork_at_any_moment_leaves_the_child_a_broker_that_works(log: str, tmp_path) -> None:
    url = "memory://" if log == "memory" else f"sqlite:///{tmp_path}/log.db"
    command = [sys.executable, "-W", "ignore", "-m", "tests.core.forking", url, str(FORKS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert (done.stdout.strip(), done.returncode) == (str(FORKS), 0), done.stderr


def _send(url: str, data: str) -> None:
    Broker(log=url).broadcast("e", data)


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_reaches_the_parent_s_streams(how: str, tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/log.db"
    with Hub(log=url) as broker:
        tab = Tab(broker).connect().read_on()
        child = multiprocessing.get_context(how).Process(target=_send, args=(url, how))
        child.start()
        child.join(60)
        assert child.exitcode == 0

        for _ in range(20):
            tab.step(1)
            if tab.data:
                break
        assert tab.data == [how]


def test_a_broker_is_not_sent_to_another_process() -> None:
    with pytest.raises(TypeError, match=r"make one there.*sqlite:///path"):
        pickle.dumps(Broker())


def _say(broker: Broker, answer) -> None:
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("sse_broker").addHandler(handler)
    broker.broadcast("e", "x")
    broker.broadcast("e", "x")
    answer.send(records)


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_child_with_a_memory_log_is_told_once_that_nobody_hears_it(how: str) -> None:
    context = multiprocessing.get_context(how)
    answer, end = context.Pipe(duplex=False)
    with Hub() as broker:
        Tab(broker).connect()
        argument = broker if how == "fork" else None
        child = context.Process(target=_say_there, args=(argument, end))
        child.start()
        assert answer.poll(60)
        said = answer.recv()
        child.join(60)

    assert len(said) == 1
    assert "sqlite:///path" in said[0]


def _say_there(broker: Broker | None, answer) -> None:
    _say(broker or Broker(), answer)


def test_a_plain_fork_of_a_process_with_streams_is_told_and_of_one_without_is_not() -> None:
    for streams in (0, 1):
        answer, end = multiprocessing.Pipe(duplex=False)
        with Hub() as broker:
            broker.start()
            if streams:
                Tab(broker).connect()
            pid = os.fork()
            if pid == 0:
                try:
                    _say(broker, end)
                finally:
                    os._exit(0)
            assert answer.poll(60)
            assert len(answer.recv()) == streams
            os.waitpid(pid, 0)


def test_a_process_by_itself_is_told_nothing(caplog) -> None:
    Broker().broadcast("e", "x")

    assert not caplog.records

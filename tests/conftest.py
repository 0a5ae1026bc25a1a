"""What every test has."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from flask import Flask

from sse_broker import Broker
from sse_broker.transport import watch
from tests import databases

pytest_plugins = ["pytester"]

# An example may take its time on a busy machine.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.register_profile("fuzz", deadline=None, max_examples=20_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "no deadline"))


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    """No thread of ours outlives its test."""
    yield
    left = [t for t in threading.enumerate() if t.name.startswith("sse-broker-")]
    for thread in left:
        thread.join(timeout=3)
    assert not [t.name for t in left if t.is_alive()]


@pytest.fixture
def own_watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A watcher of sockets for one test, closed at its end."""
    watchers: dict[int, Any] = {}
    monkeypatch.setattr(watch, "_watchers", watchers)
    yield
    for one in watchers.values():
        if one._thread is not None:
            one._thread.join(10)
        for end in (one._bell, one._rung, one._selector):
            end.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker with the default settings, stopped at the end."""
    with Broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a PostgreSQL of our own."""
    from tests.live.postgres import postgres

    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.live)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path')}/application.db"
    url: str = request.getfixturevalue("postgres_url")
    databases.empty(url)
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Any]:
    """A SQLAlchemy engine for an empty database, of each kind."""
    engine = databases.connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(autouse=True)
def own_instance_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder where an app without a log keeps it is the test's own."""
    monkeypatch.setattr(
        Flask, "auto_find_instance_path", lambda app: str(tmp_path / f"{app.name}-instance")
    )

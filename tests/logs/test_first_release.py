"""A file that the first release wrote (``data/first_release.sql``) is brought up to date."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from sse_broker import ALL_TENANTS, Broker, LogUnavailable, Message, Target
from sse_broker.core.ports import PositionLost
from sse_broker.errors import IdConflict
from sse_broker.logs.sqlite import SqliteLog
from sse_broker.testing import FakeClock
from tests.logs.case import KEEP

SCRIPT = Path(__file__).with_name("data") / "first_release.sql"
WRITTEN_AT = 1_795_635_198.5  # Unix time
IDS = ["ec6202f1afc7-1", "order-7", "a.b_c-1", "ec6202f1afc7-4", "ec6202f1afc7-6"]


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "log.db"
    db = sqlite3.connect(path)
    db.executescript(SCRIPT.read_text())
    # The file is where it was written: not a copy, which would be a new life of the log.
    db.execute("UPDATE state SET inode = ?", (path.stat().st_ino,))
    db.commit()
    db.execute("PRAGMA journal_mode = WAL")
    db.close()
    return path


def opened(path: Path, query: str = "") -> SqliteLog:
    log = SqliteLog(f"sqlite:///{path}{query}")
    log.bind(KEEP, FakeClock(unix_time=WRITTEN_AT))
    return log


def test_messages_places_and_own_ids_stay(path: Path) -> None:
    log = opened(path)
    order = Message(Target.USER, "one", "e", user_id="u", tenant_id="A", id="order-7")

    after = log.locate("order-7")
    assert [one.message.data for one in log.read(after, 9) if one.frame] == [
        '{"n":2}',
        "drei ä\nzwei",
        "last",
    ]
    assert log.read(after, 1)[0].message == Message(
        Target.TOPIC, {"n": 2}, "e", topic="t:1", tenant_id=ALL_TENANTS, id="a.b_c-1", retry=2000
    )
    assert log.append(order).position == after
    with pytest.raises(IdConflict):
        log.append(Message(Target.USER, "other", "e", user_id="u", tenant_id="A", id="order-7"))
    elsewhere = Message(Target.USER, "other", "e", user_id="u", tenant_id="B", id="order-7")
    assert log.append(elsewhere).position > log.read(after, 1)[0].position
    log.close()


def test_an_id_of_the_old_form_is_one_reset(path: Path) -> None:
    log = opened(path)
    for old in (IDS[0], IDS[3], IDS[4]):
        with pytest.raises(PositionLost, match="unknown"):
            log.locate(old)
    log.close()


def test_presence_and_revoked_tokens_stay(path: Path) -> None:
    log = opened(path)

    assert log.roster.is_revoked("gone")
    assert log.roster.is_online("u")
    log.close()


def test_it_is_done_once_and_for_every_process(path: Path) -> None:
    first, second = opened(path), opened(path)
    made = first.append(Message(Target.BROADCAST, "new"))

    assert second.locate(made.id) == made.position
    first.close(), second.close()
    again = opened(path)
    assert again.locate(made.id) == made.position
    again.close()


def test_a_prefix_beside_it_is_a_log_of_its_own(path: Path) -> None:
    beside = opened(path, "?prefix=shop")
    beside.append(Message(Target.BROADCAST, "new"))
    log = opened(path)

    assert len(beside.read(0, 9)) == 1
    assert len(log.read(log.locate("order-7"), 9)) == 4
    beside.close(), log.close()


def test_a_file_of_a_later_release_is_refused_with_what_to_do(path: Path) -> None:
    opened(path).tail()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(LogUnavailable, match=r"schema version 99.*update sse-broker"):
        opened(path).append(Message(Target.BROADCAST, "x"))


def test_a_copy_of_it_is_a_new_life_as_any_copy_is(path: Path, tmp_path) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)

    with Broker(log=f"sqlite:///{copy}") as broker:
        assert broker.last_event_id().partition("-")[0] != IDS[0].partition("-")[0]

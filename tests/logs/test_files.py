"""Who may open the file of a SQLite log, whose folders are used, and several logs in one file."""

from __future__ import annotations

import grp
import os
import shutil
import stat
from pathlib import Path

import pytest

from sse_broker import InvalidConfig, LogUnavailable, Message, Target
from sse_broker.core.ports import PositionLost
from sse_broker.logs.sqlite import SqliteLog
from sse_broker.testing import FakeClock
from tests.logs.case import KEEP, message


def opened(path: Path, query: str = "") -> SqliteLog:
    log = SqliteLog(f"sqlite:///{path}{query}")
    log.bind(KEEP, FakeClock())
    return log


def modes(folder: Path) -> dict[str, str]:
    return {
        str(one.relative_to(folder)).partition("-wake/")[0]: oct(one.lstat().st_mode & 0o777)
        for one in sorted(folder.rglob("*"), reverse=True)
        if not one.is_socket()
    }


def follow(log: SqliteLog):
    return log.listen(lambda record: None, lambda position: None)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_what_is_made_is_for_its_user_alone(tmp_path, mask) -> None:
    before = os.umask(mask)
    try:
        log = opened(tmp_path / "log.db")
        follow(log)
        log.append(message("secret"))
        found = modes(tmp_path)
        log.close()
    finally:
        os.umask(before)

    assert found == {
        "log.db": "0o600",
        "log.db-shm": "0o600",
        "log.db-wal": "0o600",
        "log.db-wake": "0o700",
    }


def test_a_group_may_use_it_where_the_url_names_one(tmp_path) -> None:
    before, group = os.umask(0o077), grp.getgrgid(os.getegid()).gr_name
    try:
        log = opened(tmp_path / "log.db", f"?group={group}")
        follow(log)
        log.append(message())
        found = modes(tmp_path)
        sockets = [oct(one.lstat().st_mode & 0o777) for one in tmp_path.glob("log.db-wake/*")]
        log.close()
    finally:
        os.umask(before)

    assert found["log.db"] == found["log.db-wal"] == "0o660"
    assert found["log.db-wake"] == "0o770"
    assert sockets == ["0o660"]


def test_a_group_that_there_is_not_is_said(tmp_path) -> None:
    with pytest.raises(InvalidConfig, match="no group 'no-such-group'"):
        opened(tmp_path / "log.db", "?group=no-such-group")


def test_a_file_that_all_may_read_is_left_as_it_is_and_said_once(tmp_path, caplog) -> None:
    path = tmp_path / "log.db"
    opened(path).append(message())
    path.chmod(0o644)

    for _ in range(2):
        opened(path).append(message())

    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert caplog.text.count("mode 644") == 1
    assert "chmod o=" in caplog.text


@pytest.mark.parametrize("kind", ["all may write", "a link"])
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path, caplog, kind) -> None:
    folder, target = tmp_path / "log.db-wake", tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    if kind == "a link":
        folder.symlink_to(target)
    else:
        folder.mkdir()
        folder.chmod(0o777)
    log = opened(tmp_path / "log.db")
    got: list[str] = []
    following = log.listen(lambda one: got.append(one.message.data), lambda position: None)
    log.append(message("x"))

    assert not list(folder.iterdir())
    assert "is not used: others can put files there" in caplog.text
    following.stop()
    log.close()
    assert got in ([], ["x"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_link_that_another_user_made_is_refused(tmp_path) -> None:
    path, target = tmp_path / "log.db", tmp_path / "target.db"
    path.symlink_to(target)
    os.lchown(path, 65534, 65534)

    with pytest.raises(LogUnavailable, match="symbolic link that another user has made"):
        opened(path).append(message())
    assert not target.exists()


def test_applications_with_a_prefix_each_see_nothing_of_each_other(tmp_path) -> None:
    path = tmp_path / "log.db"
    names = ["", "shop", "Shop", "shop:message", "a.b-c_d"]
    logs = [opened(path, f"?prefix={name}" if name else "") for name in names]
    for log, name in zip(logs, names, strict=True):
        log.append(Message(Target.USER, name, user_id="1", id="same"))
        log.roster.sync(f"p-{name}", 1, {f"user-{name}": True}, 15)
        log.roster.revoke(f"t-{name}", log._clock.time() + 60)
        log.bind(KEEP, FakeClock())

    for log, name in zip(logs, names, strict=True):
        assert [one.message.data for one in log.read(0, 9)] == [name]
        assert log.roster.online() == {f"user-{name}"}
        assert [log.roster.is_revoked(f"t-{one}") for one in names] == [
            one == name for one in names
        ]
    assert len({log.cursor(log.tail()).partition("-")[0] for log in logs}) == len(names)
    for log in logs:
        log.close()


@pytest.mark.parametrize(
    "query", ["?prefix=a b", "?prefix=" + "x" * 65, "?prefix=a%22b", "?prefix=a%00", "?timeout=nan"]
)
def test_an_option_that_is_none_is_refused(tmp_path, query) -> None:
    with pytest.raises(InvalidConfig):
        opened(tmp_path / "log.db", query)


@pytest.mark.parametrize("url", ["sqlite:///a%00b", "sqlite:///a%0Ab", "sqlite:///:memory:"])
def test_a_path_that_is_none_is_refused_with_what_to_say(url) -> None:
    with pytest.raises(InvalidConfig, match="has to name a file"):
        SqliteLog(url)


def overwrite(backup: Path, path: Path) -> None:
    """Do what ``cp backup path`` does: the file stays, its content goes."""
    with backup.open("rb") as source, path.open("r+b") as target:
        target.truncate(0)
        shutil.copyfileobj(source, target)


def test_a_backup_copied_over_the_file_is_noticed(tmp_path) -> None:
    path, backup = tmp_path / "log.db", tmp_path / "backup.db"
    log = opened(path)
    before = [log.append(message(f"before {n}")) for n in range(5)]
    log.close()
    shutil.copy(path, backup)
    lost = [log.append(message(f"lost {n}")) for n in range(10)]
    log.close()
    overwrite(backup, path)
    log = opened(path)
    after = [log.append(message(f"after {n}")).message.data for n in range(20)]

    for record in lost:
        with pytest.raises(PositionLost):
            log.locate(record.id)
        with pytest.raises(PositionLost):
            log.read(record.position, 9)
    # What the backup has is the history that goes on, so who stopped there goes on too.
    place = log.locate(before[-1].id)
    assert [one.message.data for one in log.read(place, 99)] == after
    log.close()

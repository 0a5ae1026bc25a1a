"""``sqlite:///path`` keeps the contract of all logs, and what a file brings with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sse_broker import Broker, BrokerConfig, InvalidConfig, LogUnavailable, Message, Target
from sse_broker.core.client import Client
from sse_broker.core.ports import LogLimits, PositionLost
from sse_broker.logs.sqlite import SqliteLog
from sse_broker.logs.sqlite.files import File
from sse_broker.logs.sqlite.wake import Bell, Ringer
from sse_broker.logs.sqlite.writing import TRIM_EVERY
from sse_broker.testing import FakeClock
from tests.core.streams import Hub, Tab
from tests.logs.case import KEEP
from tests.logs.contract import LogContract, message


class TestSqliteLog(LogContract):
    def make(self, tmp_path) -> SqliteLog:
        return SqliteLog(f"sqlite:///{tmp_path}/log.db")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "log.db"


@pytest.fixture
def log(path):
    log = SqliteLog(f"sqlite:///{path}")
    log.bind(KEEP, FakeClock())
    yield log
    log.close()


def another(path: Path, **limits: float) -> SqliteLog:
    """Open the file a second time, as another process does."""
    log = SqliteLog(f"sqlite:///{path}")
    log.bind(LogLimits(**limits) if limits else KEEP, FakeClock())
    return log


def rows(path: Path, query: str = "SELECT count(*) FROM message") -> int:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchone()[0]
    finally:
        db.close()


def settle(tab: Tab, count: int) -> Tab:
    """Read until *count* messages are there; each wait ends with what it waits for."""
    for _ in range(200):
        if len(tab.data) >= count:
            break
        tab.step(1.0)
    return tab


PUBLISH = """
import sys
from sse_broker import Broker
broker = Broker(log=sys.argv[1])
for n in range(int(sys.argv[3])):
    broker.send_to_topic("t", "e", f"{sys.argv[2]}:{n}")
print(len(broker.streams._processes), broker.get_stats().is_running)
"""


def test_what_other_processes_send_arrives_in_one_order_in_all(path: Path) -> None:
    with Hub(log=f"sqlite:///{path}") as one, Hub(log=f"sqlite:///{path}") as two:
        tabs = [Tab(broker, topics=["t"]).connect().read_on() for broker in (one, two)]
        publishers = [
            subprocess.Popen(
                [sys.executable, "-c", PUBLISH, f"sqlite:///{path}", name, "100"],
                stdout=subprocess.PIPE,
            )
            for name in "abc"
        ]
        for publisher in publishers:
            out, _ = publisher.communicate(timeout=30)
            assert out.split() == [b"1", b"False"]
            assert publisher.returncode == 0
        seen = [settle(tab, 300).data for tab in tabs]

    assert seen[0] == seen[1]
    assert len(seen[0]) == 300
    for name in "abc":
        assert [d for d in seen[0] if d[0] == name] == [f"{name}:{n}" for n in range(100)]


def test_what_was_recorded_survives_every_process(path: Path) -> None:
    first = another(path)
    record = first.append(message("kept"))
    first.close()

    again = another(path)
    assert again.tail() == record.position
    assert again.locate(record.id) == record.position
    assert again.append(message()).position > record.position
    again.close()


def test_a_stream_goes_on_over_a_restart_of_its_server(path: Path) -> None:
    with Hub(log=f"sqlite:///{path}") as before:
        tab = Tab(before).connect().read_on()
        before.broadcast("e", "1")
        settle(tab, 1).leave()
    Broker(log=f"sqlite:///{path}").broadcast("e", "2")
    with Hub(log=f"sqlite:///{path}") as after:
        after.broadcast("e", "3")
        tab.broker = after

        assert settle(tab.connect(), 3).data == ["1", "2", "3"]
        assert tab.count("reset") == 0


def test_an_own_id_is_recorded_once_over_processes(path: Path) -> None:
    one, two = another(path), another(path)
    gate, found = threading.Barrier(2), []

    def publish(log: SqliteLog) -> None:
        for n in range(50):
            gate.wait(5)
            found.append(log.append(message(id=f"own-{n}")).id)

    threads = [threading.Thread(target=publish, args=(log,)) for log in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 100
    assert rows(path) == 50
    one.close(), two.close()


def test_threads_that_publish_at_one_moment_share_a_commit(log: SqliteLog, monkeypatch) -> None:
    log.append(message())
    life = log._here()
    writing, database, batches = life._writing, life.database, []
    insert = writing._insert

    def count(db, batch):
        batches.append(len(batch))
        return insert(db, batch)

    monkeypatch.setattr(writing, "_insert", count)
    threads = [threading.Thread(target=log.append, args=(message(str(n)),)) for n in range(20)]
    with database._turn:  # somebody else writes
        for thread in threads:
            thread.start()
        while len(writing._waiting) < 20:
            pass
    for thread in threads:
        thread.join()

    assert sum(batches) == 20
    assert len(batches) == 1


def test_a_failing_batch_fails_for_everybody_in_it(log: SqliteLog) -> None:
    log.append(message())
    writer = log._here().database._writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    before = log.tail()

    with pytest.raises(LogUnavailable, match="full") as caught:
        for _ in range(50):
            log.append(message("x" * 4000))
    assert not caught.value.maybe_recorded
    full, taken = log.tail(), len(log.read(before, 99))
    assert taken < 50

    writer.execute(f"PRAGMA max_page_count = {pages * 100}")
    assert log.append(message()).position > full
    assert len(log.read(before, 99)) == taken + 1


def test_trimming_keeps_the_file_small_and_readers_going(path: Path) -> None:
    log = another(path, resume_window=0, history_size=100)
    log.append(message())
    for _ in range(40):
        for _ in range(100):
            log.append(message("x" * 500))
    log.close()

    assert rows(path) <= 100 + TRIM_EVERY
    assert path.stat().st_size < 500_000


def test_what_has_its_position_and_is_not_visible_yet_is_not_passed_over(
    path: Path, log: SqliteLog, monkeypatch
) -> None:
    """Gate: a publisher stops before its commit while another one publishes and a reader reads."""
    start, other = log.tail(), another(path)
    assert other.tail() == start  # opened now: that needs its turn as a writer
    inside, go = threading.Event(), threading.Event()
    insert = log._here()._writing._insert

    def slow(db, batch):
        records = insert(db, batch)
        inside.set()
        assert go.wait(5)
        return records

    monkeypatch.setattr(log._here()._writing, "_insert", slow)
    threads = [
        threading.Thread(target=log.append, args=(message("first"),)),
        threading.Thread(target=other.append, args=(message("second"),)),
    ]
    threads[0].start()
    assert inside.wait(5)
    threads[1].start()
    assert not other.read(start, 9)
    assert other.tail() == start
    go.set()
    for thread in threads:
        thread.join()

    assert [record.message.data for record in other.read(start, 9)] == ["first", "second"]
    other.close()


def test_a_reader_that_is_overtaken_by_trimming_is_told(path: Path) -> None:
    log = another(path, resume_window=0, history_size=5)
    first = log.append(message())
    for _ in range(200):
        log.append(message())

    with pytest.raises(PositionLost, match="trimmed"):
        log.read(first.position, 9)
    log.close()


def test_trimming_between_two_looks_of_a_read_is_a_loss_and_not_a_hole(
    path: Path, monkeypatch
) -> None:
    """Gate: the rows are deleted after the reader got its position and before it reads."""
    log, other = another(path, resume_window=0, history_size=5), another(path)
    first = log.append(message())
    read_rows = other._here()._rows

    def slow(db, after, limit):
        for _ in range(200):
            log.append(message())
        return read_rows(db, after, limit)

    monkeypatch.setattr(other._here(), "_rows", slow)
    with pytest.raises(PositionLost, match="trimmed"):
        other.read(first.position, 9)
    log.close(), other.close()


def test_a_publisher_without_settings_keeps_what_the_servers_want(path: Path) -> None:
    with Hub(BrokerConfig(history_size=500), log=f"sqlite:///{path}"):
        script = another(path, resume_window=0)
        positions = [script.append(message()).position for _ in range(300)]

        assert [r.position for r in script.read(positions[0], 999)] == positions[1:257] or (
            len(script.read(positions[0], 999)) == 299
        )
        assert rows(path) == 300
        script.close()


def test_a_file_of_a_newer_release_is_refused_and_left_alone(path: Path, log: SqliteLog) -> None:
    log.append(message())
    log.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(LogUnavailable, match="schema version 99"):
        another(path).append(message())
    assert rows(path) == 1


def test_another_applications_database_is_refused(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE customers (id)")
    db.close()

    with pytest.raises(LogUnavailable, match="another application's"):
        another(path).tail()


def test_a_file_that_is_no_database_is_said_and_mended(path: Path, log: SqliteLog) -> None:
    path.write_bytes(b"no database at all" * 100)

    with pytest.raises(LogUnavailable, match="not a database"):
        log.append(message())
    with pytest.raises(LogUnavailable):
        log.tail()
    path.unlink()
    assert log.append(message()).position


def test_a_damaged_file_is_said(path: Path, log: SqliteLog) -> None:
    for _ in range(300):
        log.append(message("x" * 300))
    log.close()
    raw = bytearray(path.read_bytes())
    raw[4096 : len(raw)] = os.urandom(len(raw) - 4096)
    path.write_bytes(raw)

    with pytest.raises(LogUnavailable):
        log.append(message())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to everything")
def test_a_read_only_file_is_said(path: Path, log: SqliteLog) -> None:
    log.append(message())
    log.close()
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(LogUnavailable):
            log.append(message())
    finally:
        path.parent.chmod(0o700)


def test_a_read_only_database_is_said_and_streams_go_on(path: Path) -> None:
    with Hub(log=f"sqlite:///{path}") as broker:
        tab = Tab(broker).connect().read_on()
        database = broker.log._here().database
        database._writer.execute("PRAGMA query_only = ON")

        with pytest.raises(LogUnavailable, match="readonly"):
            broker.broadcast("e", "1")
        assert tab.read_on().reader.client.is_open
        broker.broadcast("e", "2")  # opened anew, as after any error that says nothing of its end

        assert settle(tab, 1).data == ["2"]


def test_a_missing_folder_is_said(tmp_path) -> None:
    with pytest.raises(LogUnavailable, match="unable to open"):
        another(tmp_path / "missing" / "log.db").append(message())


def test_a_writer_that_never_ends_is_waited_for_no_longer_than_the_timeout(path: Path) -> None:
    log = SqliteLog(f"sqlite:///{path}?timeout=0.05")
    log.append(message())
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    with pytest.raises(LogUnavailable, match="locked") as caught:
        log.append(message())
    assert not caught.value.maybe_recorded
    blocker.execute("COMMIT")
    blocker.close()
    assert log.append(message()).position
    log.close()


def test_a_file_taken_away_is_a_new_epoch_that_streams_are_told_of(path: Path) -> None:
    with Hub(log=f"sqlite:///{path}") as broker:
        tab = Tab(broker).connect().read_on()
        broker.broadcast("e", "1")
        settle(tab, 1)
        for file in path.parent.glob("log.db*"):
            if file.is_file():
                file.unlink()
        broker.broadcast("e", "in the new file")
        for _ in range(100):
            tab.step(0.1)
            if tab.count("reset"):
                break
        broker.broadcast("e", "2")

        assert settle(tab, 3).data == ["1", "in the new file", "2"]
        assert tab.count("reset") == 1
        reset = next(event for event in tab.events if event.event == "reset")
        assert reset.data == '{"reason":"epoch"}'


def test_a_restored_copy_is_a_new_epoch(path: Path, log: SqliteLog) -> None:
    kept = log.append(message())
    log.close()
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    lost = log.append(message())
    log.close()
    copy.replace(path)

    restored = another(path)
    for record in (kept, lost):
        with pytest.raises(PositionLost, match="epoch"):
            restored.locate(record.id)
    assert not restored.read(restored.tail(), 9)
    restored.close()


def test_an_entry_that_cannot_be_read_is_a_loss_that_is_said_and_the_rest_goes_on(
    path: Path, log: SqliteLog
) -> None:
    start = log.tail()
    sent = [log.append(message(str(n))).position for n in range(5)]
    smuggled = b'{"target": "broadcast", "event": "a\\nid: 9", "data": "", "created_at": 0}'
    db = sqlite3.connect(path)
    with db:
        for position, entry in ((sent[1], b"\xff{"), (sent[3], smuggled)):
            db.execute("UPDATE message SET entry = ? WHERE position = ?", (entry, position))
    db.close()

    got, after, said = [], start, []
    while after != sent[-1]:
        try:
            records = log.read(after, 9)
        except PositionLost as lost:
            said.append(lost.reason)
            after = lost.goes_on
        else:
            got += [record.message.data for record in records]
            after = records[-1].position

    assert got == ["0", "2", "4"]
    assert said == ["unreadable", "unreadable"]


def test_a_ring_ends_a_wait_and_dead_sockets_are_swept(path: Path) -> None:
    path.touch()
    bell, ringer = Bell(File(str(path))), Ringer(File(str(path)))
    folder = Path(f"{path}-wake")
    dead = Bell(File(str(path)))
    dead._socket.close()  # as a process that was killed leaves it
    assert len(list(folder.iterdir())) == 2

    ringer.ring()
    ringer.ring()
    bell._socket.settimeout(5)
    assert bell._socket.recv(1) == b"\0"
    assert len(list(folder.iterdir())) == 1
    bell.close()
    assert not list(folder.iterdir())
    ringer.ring()
    ringer.close()


def test_a_path_too_long_for_a_socket_is_rung_all_the_same(tmp_path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    path = folder / "log.db"
    path.touch()
    bell, ringer = Bell(File(str(path))), Ringer(File(str(path)))
    assert bell._socket is not None

    ringer.ring()
    bell._socket.settimeout(5)
    assert bell._socket.recv(1) == b"\0"
    bell.close()
    ringer.close()


def test_without_sockets_the_poll_delivers(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Ringer, "ring", lambda self: None)
    with Hub(log=f"sqlite:///{path}") as broker:
        tab = Tab(broker).connect().read_on()
        broker.broadcast("e", "1")

        assert settle(tab, 1).data == ["1"]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/file",
        "sqlite:///f.db?synchronous=off",
        "sqlite:///f.db?timeout=0",
        "sqlite:///f.db?timeout=soon",
        "sqlite:///f.db?cache=shared",
    ],
)
def test_a_url_that_says_something_wrong_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        SqliteLog(url)
    assert caught.value.field == "log"


def test_synchronous_is_what_the_connection_does(path: Path) -> None:
    for word, number in (("normal", 1), ("full", 2)):
        log = SqliteLog(f"sqlite:///{path}?synchronous={word}")
        log.append(message())
        writer = log._here().database._writer
        assert writer.execute("PRAGMA synchronous").fetchone()[0] == number
        assert writer.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        log.close()


def _child(broker: Broker, answer) -> None:
    broker.broadcast("e", "from the child")
    answer.put(len(broker.streams._processes))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_log_used_before_a_fork_is_opened_anew_in_the_child(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    with Hub(log=f"sqlite:///{path}") as broker:
        tab = Tab(broker).connect().read_on()
        broker.broadcast("e", "before")
        child = context.Process(target=_child, args=(broker, answer))
        child.start()
        answer.get()
        child.join()
        broker.broadcast("e", "after")

        assert settle(tab, 3).data == ["before", "from the child", "after"]


def test_a_thousand_readers_of_one_range_read_the_file_once(path: Path, monkeypatch) -> None:
    with Hub(log=f"sqlite:///{path}") as broker:
        tab = Tab(broker).connect().read_on()
        log = broker.log
        start = log.tail()
        for n in range(50):
            broker.broadcast("e", str(n))
        settle(tab, 50)
        reads = []
        life = log._here()
        read_rows = life._rows
        monkeypatch.setattr(life, "_rows", lambda *a: reads.append(1) or read_rows(*a))

        for _ in range(100):
            assert len(log.read(start, 256)) == 50
        assert len(reads) <= 3  # the feed's own polls


def test_records_keep_position_and_id_in_every_process(path: Path, log: SqliteLog) -> None:
    other, start = another(path), log.tail()
    mine = [log.append(Message(Target.BROADCAST, "x", id=i)) for i in ("", "own", "")]
    theirs = other.read(start, 9)

    assert [(r.position, r.id, r.frame) for r in mine] == [
        (r.position, r.id, r.frame) for r in theirs
    ]
    other.close()


def test_a_file_that_another_process_makes_meanwhile_is_taken_for_what_it_is(
    path: Path, monkeypatch
) -> None:
    """Gate: the other process makes the file between any two looks at whose it is."""
    looks = ("sqlite_master", "user_version", "application_id")
    for look in looks:
        file = path.with_suffix(f".{look}")
        log, made = another(file), []
        connect = log._here().database._connect

        def make_it_there(db, sql: str, file: Path = file, look: str = look, made: list = made):
            if look in sql and not made:
                made.append(another(file))
                made[0].append(message())

        class Watched:
            def __init__(self, db, act) -> None:
                self._db, self._act = db, act

            def execute(self, sql: str, *values: object):
                if look not in sql:
                    return self._db.execute(sql, *values)
                row = self._db.execute(sql, *values).fetchone()
                self._act(self._db, sql)
                return type("Rows", (), {"fetchone": lambda _: row})()

            def __getattr__(self, name: str):
                return getattr(self._db, name)

        log._here().database._connect = lambda c=connect, act=make_it_there: Watched(c(), act)
        second = log.append(message()).position
        assert [one.position for one in made[0].read(0, 9)][1:] == [second]
        made[0].close(), log.close()


def _publish_in_child(broker: Broker, number: int) -> None:
    broker.broadcast("e", f"child {number}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forks_in_the_midst_of_reads_and_writes_leave_the_child_a_log_that_works(
    path: Path,
) -> None:
    """SQLite keeps what it has locked in memory; a fork at the wrong moment copies that."""
    context = multiprocessing.get_context("fork")
    broker = Broker(log=f"sqlite:///{path}?timeout=2")
    first = broker.log.tail()
    running = [True]

    def write() -> None:
        while running:
            broker.broadcast("e", "parent")

    def read() -> None:
        while running:
            broker.log.read(first, 50)

    threads = [threading.Thread(target=act) for act in (write, read, read)]
    for thread in threads:
        thread.start()
    try:
        for number in range(30):
            child = context.Process(target=_publish_in_child, args=(broker, number))
            child.start()
            child.join(20)
            assert child.exitcode == 0, number
    finally:
        running.clear()
        for thread in threads:
            thread.join()
    broker.log.close()


def test_retained_rows_that_somebody_else_wrote_stop_nothing(tmp_path) -> None:
    log = SqliteLog(f"sqlite:///{tmp_path}/log.db")
    log.append(Message(Target.TOPIC, "good", "e", topic="a", retain=True))
    bad = [("a", "place", "0", b"{}"), (b"\xff", 5, "0", b"{}"), ("a", 7, "never", b"\xff")]
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as db, db:
        for number, (topic, place, until, entry) in enumerate(bad):
            row = ("", "topic", topic, f"e{number}", place, until, 2, entry)
            db.execute("INSERT INTO retained VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    for topics in (["a"], ["*"]):
        found = log.retained(Client(1, topics=topics))
        assert [one.message.data for one in found] == ["good"]
    log.close()

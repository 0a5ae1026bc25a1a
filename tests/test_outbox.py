"""What a committed transaction wrote into the outbox is sent once, whatever dies meanwhile."""

from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing
import os
import sys
import threading
import traceback
from pathlib import Path

import pytest

from sse_broker import (
    ALL_TENANTS,
    Broker,
    BrokerConfig,
    Client,
    InvalidConfig,
    InvalidMessage,
    InvalidTopic,
    InvalidUserID,
    LogUnavailable,
    Message,
    MessageTooLarge,
    QueueFull,
    Target,
    TopicsNotEnabled,
)
from sse_broker.core.ports import Record
from sse_broker.logs import MemoryLog
from sse_broker.outbox import Outbox, load
from sse_broker.testing import FakeClock
from sse_broker.wire.envelope import pack
from tests import databases

sqlalchemy = pytest.importorskip("sqlalchemy")
orm = pytest.importorskip("sqlalchemy.orm")


def dump_text(message: Message) -> str:
    return pack(message, ascii=True).decode()


ME = "7b2c1c1e-4a3e-4a55-9d7e-0d6a2f2f1c11"


class FileLog(MemoryLog):
    """A log that several processes write to; it knows each id once, and every try."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def append(self, message: Message) -> Record:
        with self.path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps([message.id, message.data]) + "\n")
        return super().append(message)

    def tries(self) -> list[str]:
        return [json.loads(line)[1] for line in self.path.open()] if self.path.exists() else []

    def recorded(self) -> list[str]:
        """What a log that knows each id once would hold."""
        lines = [json.loads(line) for line in self.path.open()] if self.path.exists() else []
        return [lines[at][1] for at in range(len(lines)) if lines[at] not in lines[:at]]


class FlakyLog(MemoryLog):
    """A log that can be away."""

    error: Exception | None = None
    good = 10_000  # how many go before the error

    def append(self, message: Message) -> Record:
        if self.error is not None and self.good <= 0:
            raise self.error
        self.good -= 1
        return super().append(message)


class Death(BaseException):
    """What no handler of the library's may catch."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log() -> FlakyLog:
    return FlakyLog()


@pytest.fixture
def client() -> Client:
    return Client(ME, topics=["t"])


@pytest.fixture
def broker(log, clock, client):
    with Broker(log=log, clock=clock) as broker:
        broker.register(client)
        yield broker
        broker.unregister(client)


@pytest.fixture
def make_outbox(broker, engine):
    made = []

    def make_outbox(interval: float = 1.0) -> Outbox:
        made.append(Outbox(broker, engine, interval=interval))
        return made[-1]

    yield make_outbox
    for outbox in made:
        outbox.stop()


@pytest.fixture
def outbox(make_outbox):
    outbox = make_outbox()
    outbox.create()
    return outbox


@pytest.fixture
def session(engine):
    with orm.Session(engine) as session:
        yield session


def heard(client: Client) -> list[str]:
    found = []
    while not client.queue.empty():
        found.append(client.queue.get_nowait().message.data)
    return found


def write(outbox: Outbox, *texts: str) -> None:
    with orm.Session(outbox.engine) as session:
        for text in texts:
            outbox.within(session).send_to_user(ME, "e", text)
        session.commit()


# what is written


def test_a_commit_leaves_it_waiting_and_a_drain_sends_it_in_order(outbox, session, client) -> None:
    writer = outbox.within(session)
    ids = [writer.send_to_user(ME, "e", text) for text in "abc"]
    assert (outbox.drain(), heard(client)) == (0, [])
    session.commit()
    assert (outbox.waiting(), heard(client)) == (3, [])

    assert outbox.drain() == 3

    records = [client.queue.get_nowait() for _ in ids]
    assert [(record.id, record.message.data) for record in records] == list(
        zip(ids, "abc", strict=True)
    )
    assert (outbox.waiting(), outbox.drain(), heard(client)) == (0, 0, [])


def test_a_rollback_takes_it_back_also_to_a_savepoint(outbox, session, client) -> None:
    writer = outbox.within(session)
    writer.send_to_user(ME, "e", "lost")
    session.rollback()
    writer.send_to_user(ME, "e", "kept")
    savepoint = session.begin_nested()
    writer.send_to_user(ME, "e", "lost too")
    savepoint.rollback()
    with session.begin_nested():
        writer.send_to_user(ME, "e", "kept too")
    session.commit()

    assert outbox.drain() == 2
    assert heard(client) == ["kept", "kept too"]


def test_a_connection_and_a_scoped_session_will_do(outbox, engine, client) -> None:
    with engine.begin() as connection:
        outbox.within(connection).send_to_user(ME, "e", "connection")
    with engine.connect() as connection:
        outbox.within(connection).send_to_user(ME, "e", "not committed")
    scoped = orm.scoped_session(orm.sessionmaker(engine))
    outbox.within(scoped).send_to_user(ME, "e", "scoped")
    scoped.commit()
    scoped.remove()

    outbox.drain()

    assert heard(client) == ["connection", "scoped"]


def test_each_way_to_send_takes_the_brokers_arguments(outbox, session, client) -> None:
    writer = outbox.within(session)
    assert writer.send_to_topic("t", "order", {"a": 1}, id="mine", retry=2000) == "mine"
    assert len(writer.broadcast("e", "all", tenant_id=ALL_TENANTS)) == 32
    assert writer.publish(Message(Target.USER, "x", user_id=ME, id="own")) == "own"
    writer.send_to_topic(["t", "u"], "order", "state", retain_for=60)
    session.commit()
    outbox.drain()
    assert outbox.broker.clear_retained(topic="t", event="order") == 1
    assert outbox.broker.clear_retained(topic="u") == 1

    first, second, third = (client.queue.get_nowait().message for _ in range(3))
    assert first == Message(Target.TOPIC, {"a": 1}, "order", None, "t", id="mine", retry=2000)
    assert (second.data, second.tenant_id) == ("all", ALL_TENANTS)
    assert third.id == "own"


def test_the_same_id_twice_is_delivered_once(outbox, session, client) -> None:
    for _ in range(2):
        outbox.within(session).send_to_user(ME, "e", "paid", id="order-1-paid")
    session.commit()

    assert outbox.drain() == 2
    assert heard(client) == ["paid"]


def test_bad_input_raises_at_the_call_and_writes_nothing(outbox, session) -> None:
    writer = outbox.within(session)
    with pytest.raises(InvalidUserID):
        writer.send_to_user("", "e", "x")
    with pytest.raises(InvalidTopic):
        writer.send_to_topic("a:*", "e", "x")
    with pytest.raises(InvalidMessage):
        writer.broadcast("e", {"bad": float("nan")})
    with pytest.raises(MessageTooLarge):
        writer.broadcast("e", "x" * outbox.broker.config.max_message_bytes)
    session.commit()

    assert outbox.waiting() == 0


def test_the_brokers_settings_are_asked_at_the_call(engine, session) -> None:
    broker = Broker(BrokerConfig(enable_topics=False, require_tenant=True))
    outbox = Outbox(broker, engine)
    outbox.create()
    with pytest.raises(TopicsNotEnabled):
        outbox.within(session).send_to_topic("t", "e", "x", tenant_id="acme")
    with pytest.raises(InvalidMessage, match="tenant_id is required"):
        outbox.within(session).send_to_user(ME, "e", "x")
    session.commit()

    assert outbox.waiting() == 0


def test_the_nudge_comes_after_the_commit_and_not_with_a_rollback(
    outbox, session, monkeypatch
) -> None:
    seen = []
    monkeypatch.setattr(outbox, "nudge", lambda: seen.append(outbox.waiting()))
    outbox.within(session).send_to_user(ME, "e", "x")
    session.rollback()
    outbox.within(session).send_to_user(ME, "e", "x")
    assert seen == []

    session.commit()

    assert seen == [1]


@pytest.mark.parametrize("other", [None, "session", object()])
def test_something_else_than_a_transaction_is_refused(outbox, other) -> None:
    with pytest.raises(TypeError, match="a SQLAlchemy Session, scoped_session or Connection"):
        outbox.within(other)


def test_the_tables_can_be_the_applications_own(broker, engine) -> None:
    metadata = sqlalchemy.MetaData()
    sqlalchemy.Table("note", metadata, sqlalchemy.Column("id", sqlalchemy.Integer))
    outbox = Outbox(broker, engine, "events", metadata=metadata)
    assert set(metadata.tables) == {"note", "events", "events_lease"}

    outbox.create()
    outbox.create()

    names = set(sqlalchemy.inspect(engine).get_table_names())
    assert names == {"events", "events_lease"}
    write(outbox, "a")
    assert outbox.drain() == 1


# what goes wrong


@pytest.mark.parametrize("error", [LogUnavailable("away"), QueueFull()])
def test_a_log_that_is_away_keeps_the_rows_and_their_order(
    outbox, log, clock, client, caplog, error
) -> None:
    write(outbox, "a", "b", "c", "d")
    log.error, log.good = error, 2

    assert outbox.drain() == 2
    assert outbox.drain() == 0
    write(outbox, "e")
    assert outbox.drain() == 0
    assert outbox.waiting() == 3
    said = [record for record in caplog.records if record.name == "sse_broker.outbox"]
    assert [record.levelno for record in said] == [logging.WARNING]
    clock.advance(60)
    assert outbox.drain() == 0
    assert len([record for record in caplog.records if record.name == "sse_broker.outbox"]) == 2

    log.error = None
    assert outbox.drain() == 3
    assert heard(client) == ["a", "b", "c", "d", "e"]


def test_a_drainer_that_dies_before_it_deletes_costs_no_second_delivery(
    outbox, broker, clock, engine, client, monkeypatch
) -> None:
    write(outbox, "a", "b")

    def die(*args: object) -> None:
        raise Death

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "_delete", die)
        patch.setattr("sse_broker.outbox.lease.Lease.release", die)
        with pytest.raises(Death):
            outbox.drain()
    assert (heard(client), outbox.waiting()) == (["a", "b"], 2)

    other = Outbox(broker, engine)
    assert other.drain() == 0, "the lease of the dead one still runs"
    clock.advance(30)
    assert other.drain() == 0, "until is the last moment of it"
    clock.advance(1)
    assert other.drain() == 2
    assert (heard(client), other.waiting()) == ([], 0)


def test_an_unexpected_error_keeps_its_row_and_deletes_what_was_sent(outbox, log, client) -> None:
    write(outbox, "a", "b", "c")
    log.error, log.good = RuntimeError("a bug"), 1
    with pytest.raises(RuntimeError):
        outbox.drain()
    assert outbox.waiting() == 2
    log.error = None

    assert outbox.drain() == 2, "and the lease was given back"
    assert heard(client) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        json.dumps(
            {**json.loads(dump_text(Message(Target.BROADCAST, "x", id="i"))), "target": "moon"}
        ),
        json.dumps(
            {**json.loads(dump_text(Message(Target.BROADCAST, "x", id="i"))), "event": "close"}
        ),
        json.dumps({**json.loads(dump_text(Message(Target.BROADCAST, "x", id="i"))), "target": []}),
        json.dumps(
            {**json.loads(dump_text(Message(Target.USER, "x", user_id=ME, id="i"))), "user_id": ""}
        ),
        json.dumps(
            {**json.loads(dump_text(Message(Target.TOPIC, "x", topic="t", id="i"))), "topic": "*"}
        ),
        dump_text(Message(Target.BROADCAST, "x")),
        dump_text(Message(Target.BROADCAST, "x" * 2_000_000, id="i")),
        "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_row_that_cannot_be_sent_is_set_aside_and_the_rest_goes(
    outbox, engine, client, caplog, text
) -> None:
    write(outbox, "a")
    with engine.begin() as connection:
        connection.execute(outbox.metadata.tables["sse_outbox"].insert().values(message=text))
    write(outbox, "b")

    assert outbox.drain() == 2

    assert heard(client) == ["a", "b"]
    assert (outbox.waiting(), outbox.failed(), outbox.drain()) == (0, 1, 0)
    with engine.connect() as connection:
        reason = connection.execute(sqlalchemy.text("SELECT failed FROM sse_outbox")).scalar_one()
    assert reason
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert reason in caplog.text


def test_a_row_set_aside_can_be_tried_again(outbox, session, engine, client) -> None:
    small = Outbox(Broker(BrokerConfig(max_message_bytes=1024)), engine)
    write(outbox, "x" * 2000)
    assert (small.drain(), small.failed()) == (0, 1)

    session.execute(sqlalchemy.text("UPDATE sse_outbox SET failed = NULL"))
    session.commit()

    assert outbox.drain() == 1
    assert len(heard(client)[0]) == 2000


def test_more_than_a_batch_goes_in_one_drain(outbox, log) -> None:
    write(outbox, *map(str, range(250)))

    assert outbox.drain() == 250
    assert [record.message.data for record in log.read(0, 300)] == [str(n) for n in range(250)]


def test_nothing_is_locked_while_publishing(outbox, engine, log, monkeypatch) -> None:
    write(outbox, "a", "b")
    seen = []

    def look(message: Message) -> Record:
        seen.append(engine.pool.checkedout())
        if len(seen) < 5:
            write(outbox, f"more {len(seen)}")  # on SQLite this would wait for any open transaction
        return MemoryLog.append(log, message)

    monkeypatch.setattr(log, "append", look)

    assert outbox.drain() == 6
    assert set(seen) == {0}


# one at a time


def test_one_drains_at_a_time(outbox, broker, engine, log, client, monkeypatch) -> None:
    other = Outbox(broker, engine)
    write(outbox, "a", "b")
    meanwhile = []

    def publish(message: Message) -> Record:
        meanwhile.append((other.drain(), outbox.drain()))
        return MemoryLog.append(log, message)

    monkeypatch.setattr(log, "append", publish)

    assert outbox.drain() == 2
    assert meanwhile == [(0, 0), (0, 0)]
    assert heard(client) == ["a", "b"]


def test_the_lease_is_renewed_while_draining_and_given_back(
    outbox, broker, engine, log, clock, client, monkeypatch
) -> None:
    other = Outbox(broker, engine)
    write(outbox, *"abcdef")
    meanwhile = []

    def publish(message: Message) -> Record:
        clock.advance(20)  # six of these are four times the lease
        meanwhile.append(other.drain())
        return MemoryLog.append(log, message)

    monkeypatch.setattr(log, "append", publish)

    assert (outbox.drain(), meanwhile) == (6, [0] * 6)
    write(outbox, "g")
    monkeypatch.undo()
    assert other.drain() == 1
    assert heard(client) == list("abcdefg")


def test_who_has_lost_the_lease_stops_and_nothing_is_said_twice(
    outbox, broker, engine, log, clock, client, monkeypatch
) -> None:
    other = Outbox(broker, engine)
    write(outbox, *"abc")
    tries = []

    def publish(message: Message) -> Record:
        tries.append(message.data)
        record = MemoryLog.append(log, message)
        if tries == ["a"]:
            clock.advance(31)  # it was stopped for longer than its lease
            assert other.drain() == 3
        return record

    monkeypatch.setattr(log, "append", publish)

    assert outbox.drain() == 1
    assert tries == ["a", "a", "b", "c"]
    assert heard(client) == ["a", "b", "c"]


def test_two_first_drainers_make_one_lease(outbox, broker, engine, monkeypatch) -> None:
    other = Outbox(broker, engine)
    write(outbox, "a")
    taken = []
    execute = sqlalchemy.engine.Connection.execute

    def overtaken(connection, statement, *args):
        if isinstance(statement, sqlalchemy.sql.Insert) and not taken:
            taken.append("tried")
            taken.append(other.drain())
        return execute(connection, statement, *args)

    monkeypatch.setattr(sqlalchemy.engine.Connection, "execute", overtaken)

    assert outbox.drain() == 0
    assert taken == ["tried", 1]


def _share(url: str, path: Path, name: str, count: int, ready, results) -> None:
    engine = databases.connect(url)
    outbox = Outbox(Broker(log=FileLog(path)), engine)
    ready.wait(60)
    sent = 0
    for index in range(count):
        write(outbox, f"{name} {index}")
        sent += outbox.drain()
    while outbox.waiting():
        sent += outbox.drain()
    results.put((name, sent))
    engine.dispose()


@pytest.mark.slow
def test_two_processes_share_the_work_without_doubles_or_loss(database_url, tmp_path) -> None:
    engine = databases.connect(database_url)
    log = FileLog(tmp_path / "log")
    outbox = Outbox(Broker(log=log), engine)
    outbox.create()
    context = multiprocessing.get_context("spawn")
    ready, results = context.Barrier(2), context.SimpleQueue()
    workers = [
        context.Process(target=_share, args=(database_url, log.path, name, 60, ready, results))
        for name in ("one", "two")
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]

    sent = dict(results.get() for _ in workers)
    tries = log.tries()
    assert len(tries) == sum(sent.values()) == 120
    for name in ("one", "two"):
        mine = [text for text in tries if text.startswith(name)]
        assert mine == [f"{name} {index}" for index in range(60)]
    assert (outbox.waiting(), outbox.failed()) == (0, 0)
    engine.dispose()


class _DeadlyLog(FileLog):
    def append(self, message: Message) -> Record:
        record = super().append(message)
        if message.data == "b":
            os._exit(9)  # as a kill would: no finally, no atexit
        return record


def _die(url: str, path: Path) -> None:
    Outbox(Broker(log=_DeadlyLog(path)), databases.connect(url)).drain()


def test_a_process_that_is_killed_while_draining_is_followed_by_another(
    database_url, tmp_path
) -> None:
    engine = databases.connect(database_url)
    log = FileLog(tmp_path / "log")
    later = FakeClock()
    outbox = Outbox(Broker(log=log, clock=later), engine)
    outbox.create()
    write(outbox, "a", "b", "c")
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=_die, args=(database_url, log.path))
    worker.start()
    worker.join(60)
    assert (worker.exitcode, outbox.waiting(), log.tries()) == (9, 3, ["a", "b"])
    assert outbox.drain() == 0
    with engine.connect() as connection:
        until = connection.execute(sqlalchemy.text("SELECT until FROM sse_outbox_lease")).scalar()
    later.advance(until + 1 - later.time())

    assert outbox.drain() == 3

    assert (log.recorded(), outbox.waiting()) == (["a", "b", "c"], 0)
    engine.dispose()


# the thread


def test_the_thread_sends_at_a_nudge_of_the_commit(make_outbox, client) -> None:
    outbox = make_outbox(interval=3600)
    outbox.create()
    outbox.start()
    outbox.start()
    for index in range(5):
        write(outbox, str(index))
        assert client.queue.get(timeout=10).message.data == str(index)
    names = [t.name for t in threading.enumerate() if t.name.startswith("sse-broker-outbox")]
    assert names == [f"sse-broker-outbox-{os.getpid()}"]
    assert "running" in repr(outbox)
    outbox.stop()
    outbox.stop()

    assert not [t for t in threading.enumerate() if t.name.startswith("sse-broker-outbox")]
    assert "not running" in repr(outbox)


def test_the_thread_looks_by_itself_and_can_start_again(make_outbox, engine, client) -> None:
    outbox = make_outbox(interval=0.01)
    outbox.create()
    for text in ("first", "second"):
        outbox.start()
        with engine.begin() as connection:
            outbox.within(connection).send_to_user(ME, "e", text)
        assert client.queue.get(timeout=10).message.data == text
        outbox.stop()


def test_a_connections_caller_can_nudge(make_outbox, engine, client) -> None:
    outbox = make_outbox(interval=3600)
    outbox.create()
    outbox.nudge()  # without a thread it is nothing
    outbox.start()
    with engine.begin() as connection:
        outbox.within(connection).send_to_user(ME, "e", "x")
    outbox.nudge()
    assert client.queue.get(timeout=10).message.data == "x"
    outbox.stop()


class Heard(logging.Handler):
    """Says that something was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.said.set()


@pytest.fixture
def said():
    """Set when the outbox logs something."""
    handler = Heard()
    logging.getLogger("sse_broker.outbox").addHandler(handler)
    yield handler.said
    logging.getLogger("sse_broker.outbox").removeHandler(handler)


def test_the_thread_outlives_a_database_that_is_away(make_outbox, client, said) -> None:
    outbox = make_outbox(interval=0.01)
    outbox.start()  # its tables are missing
    assert said.wait(10)

    outbox.create()
    write(outbox, "x")

    assert client.queue.get(timeout=10).message.data == "x"


def test_a_stop_does_not_wait_for_the_pause_after_a_failure(make_outbox, log, said) -> None:
    outbox = make_outbox(interval=3600)
    outbox.create()
    write(outbox, "x")
    log.error, log.good = LogUnavailable(), 0
    outbox.start()
    assert said.wait(10)

    outbox.stop()

    assert not [t for t in threading.enumerate() if t.name.startswith("sse-broker-outbox")]
    assert outbox.waiting() == 1


def test_the_pauses_grow_up_to_a_minute_and_end_with_success(make_outbox, log) -> None:
    outbox = make_outbox(interval=1.0)
    outbox.create()
    write(outbox, "x")
    log.error, log.good = LogUnavailable(), 0
    worker, stopping = outbox._here(), threading.Event()
    pauses = []
    for _ in range(8):
        assert not worker.guarded_round(stopping)
        pauses.append(worker.pause())
    log.error = None

    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    assert worker.guarded_round(stopping)
    assert worker.pause() == 1


def test_a_stop_ends_a_round_between_two_messages(outbox, log, monkeypatch) -> None:
    write(outbox, "a", "b", "c")
    stopping = threading.Event()

    def publish(message: Message) -> Record:
        stopping.set()
        return MemoryLog.append(log, message)

    monkeypatch.setattr(log, "append", publish)

    assert outbox._here().guarded_round(stopping)
    assert outbox.waiting() == 2


def test_threads_that_write_and_drain_at_once_lose_and_double_nothing(
    outbox, engine, client, log
) -> None:
    barrier = threading.Barrier(4)

    def work(name: int) -> None:
        barrier.wait(10)
        for index in range(15):
            write(outbox, f"{name} {index}")
            outbox.drain()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    outbox.drain()

    sent = [record.message.data for record in log.read(0, 1000)]
    assert len(sent) == 60
    for name in range(4):
        mine = [text for text in sent if text.startswith(f"{name} ")]
        assert mine == [f"{name} {index}" for index in range(15)]


def test_a_thread_that_died_is_said_and_the_next_commit_starts_another(outbox, log) -> None:
    look, deadly = outbox._round, [SystemExit]

    def look_or_die(stopping):
        if deadly:
            raise deadly.pop()
        return look(stopping)

    outbox._round = look_or_die
    outbox.start()
    outbox._here()._thread.join(10)
    assert outbox.broker.health()["outbox"] is False

    write(outbox, "after")
    outbox.nudge()

    assert outbox.broker.health()["outbox"] is True
    for _ in range(500):
        if log.tail():
            break
        threading.Event().wait(0.02)
    outbox.stop()
    assert [one.message.data for one in log.read(0, 10)] == ["after"]


def _forked(outbox: Outbox, answer) -> None:
    try:
        outbox.engine.dispose(close=False)
        outbox.start()
        names = [t.name for t in threading.enumerate() if t.name.startswith("sse-broker-outbox")]
        assert names == [f"sse-broker-outbox-{os.getpid()}"]
        outbox.stop()
        write(outbox, "child")
        answer.send(outbox.drain())
    except BaseException:
        answer.send(traceback.format_exc())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own(database_url, tmp_path) -> None:
    engine = databases.connect(database_url)
    log = FileLog(tmp_path / "log")
    outbox = Outbox(Broker(log=log), engine, interval=3600)
    outbox.create()
    looked, look = threading.Event(), outbox._round

    def look_and_say(stopping):
        found = look(stopping)
        looked.set()
        return found

    outbox._round = look_and_say
    outbox.start()
    assert looked.wait(60)  # SQLite must not be in use by another thread while a process forks
    context = multiprocessing.get_context("fork")
    answer, end = context.Pipe(duplex=False)
    child = context.Process(target=_forked, args=(outbox, end))
    child.start()

    assert answer.poll(60)
    assert answer.recv() == 1

    child.join(60)
    outbox.stop()
    assert (child.exitcode, log.tries()) == (0, ["child"])
    engine.dispose()


# its values


@pytest.mark.parametrize(
    "message",
    [
        Message(Target.USER, "a\nb\x00ü\U0001f600\u2028", "e", ME, id="i", retry=1000),
        Message(Target.USER, {"a": [1, None]}, user_id=7, tenant_id="acme", id="i"),
        Message(Target.TOPIC, "", topic="a:b", tenant_id=ALL_TENANTS, id="i"),
        Message(Target.BROADCAST, "x", id="a.b_c-d"),
    ],
)
def test_a_message_survives_its_text(message) -> None:
    text = dump_text(message)

    assert load(text) == message
    assert load(text).frame == message.frame
    assert text.isascii()
    assert "\x00" not in text


def test_a_text_of_a_later_version_with_more_fields_is_read() -> None:
    message = Message(Target.BROADCAST, "x", id="i")

    assert load(json.dumps({**json.loads(dump_text(message)), "priority": 1})) == message


@pytest.mark.parametrize("name", ["interval", "lease"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_number_out_of_range_is_named(name, value) -> None:
    engine = sqlalchemy.create_engine("sqlite://")

    with pytest.raises(InvalidConfig) as caught:
        Outbox(Broker(), engine, **{name: value})

    assert caught.value.field == name


def test_without_sqlalchemy_the_cure_is_told(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sqlalchemy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)

    with pytest.raises(InvalidConfig, match="the outbox needs SQLAlchemy: pip install"):
        Outbox(Broker(), object())

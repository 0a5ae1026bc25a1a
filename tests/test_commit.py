"""What is said in a transaction is sent when it has committed, and only then."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import weakref

import pytest

from sse_broker import (
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
from sse_broker.logs import MemoryLog

sqlalchemy = pytest.importorskip("sqlalchemy")
orm = pytest.importorskip("sqlalchemy.orm")

ME = "7b2c1c1e-4a3e-4a55-9d7e-0d6a2f2f1c11"


class Base(orm.DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "note"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str]


class Listening:
    """A broker and what it has sent."""

    def __init__(self, config: BrokerConfig | None = None, **options) -> None:
        self.broker = Broker(config, **options)
        self.broker.start()
        self.client = Client(ME, topics=["t"])
        self.broker.register(self.client)

    def heard(self) -> list[str]:
        found = []
        while not self.client.queue.empty():
            found.append(self.client.queue.get_nowait().message.data)
        return found

    def stop(self) -> None:
        self.broker.unregister(self.client)
        self.broker.stop()


@pytest.fixture
def here():
    here = Listening()
    yield here
    here.stop()


@pytest.fixture
def make(engine):
    Base.metadata.create_all(engine)
    return orm.sessionmaker(engine)


@pytest.fixture
def session(make):
    with make() as session:
        yield session


@pytest.fixture
def say(here, session):
    """Stores a note and says it."""
    push = here.broker.after_commit(session)

    def say(text: str) -> None:
        session.add(Note(text=text))
        push.send_to_user(ME, "note", text)

    return say


def stored(make) -> list[str]:
    with make() as session:
        return list(session.scalars(sqlalchemy.select(Note.text).order_by(Note.id)))


def test_nothing_is_sent_before_the_commit_and_then_everything_in_order(here, session, say) -> None:
    for text in "abc":
        say(text)
    session.flush()
    assert here.heard() == []

    session.commit()

    assert here.heard() == ["a", "b", "c"]


def test_each_way_to_send_takes_the_brokers_arguments(here, session) -> None:
    push = here.broker.after_commit(session)

    given = [
        push.send_to_user(ME, "e", "user", id="mine", retry=2000),
        push.send_to_topic("t", "e", "topic", tenant_id=None),
        push.broadcast("e", ["all"], id="all-1"),
        push.publish(Message(Target.USER, "as it is", user_id=ME)),
        push.send_to_topic(["t", "u"], "e", "state", retain=True),
    ]
    session.commit()

    assert given == ["mine", None, "all-1", None, None]
    assert here.heard() == ["user", "topic", '["all"]', "as it is", "state"]
    assert here.broker.clear_retained(topic="u") == 1


def test_a_rollback_takes_back_what_was_said_and_the_session_goes_on(
    here, make, session, say
) -> None:
    say("wrong")
    session.rollback()
    say("right")
    session.commit()
    say("again")
    session.commit()

    assert here.heard() == stored(make) == ["right", "again"]


def test_a_close_without_a_commit_takes_back_what_was_said(here, make, session, say) -> None:
    say("lost")
    session.close()
    say("kept")
    session.commit()

    assert here.heard() == stored(make) == ["kept"]


@pytest.mark.parametrize("end", ["close", "reset", "expunge_all"])
def test_what_was_said_before_any_transaction_does_not_survive_a_close(here, session, end) -> None:
    push = here.broker.after_commit(session)
    push.send_to_user(ME, "e", "lost")
    getattr(session, end)()
    push.send_to_user(ME, "e", "kept")

    session.commit()

    assert here.heard() == ["kept"]


def test_what_was_said_before_any_transaction_belongs_to_the_next_one(here, session) -> None:
    push = here.broker.after_commit(session)
    push.send_to_user(ME, "e", "early")
    assert not session.in_transaction()
    with session.begin():
        session.execute(sqlalchemy.select(Note))
        assert here.heard() == []
    assert here.heard() == ["early"]

    push.send_to_user(ME, "e", "too early")
    with pytest.raises(ZeroDivisionError), session.begin():
        _ = 1 / 0
    session.commit()

    assert here.heard() == []


def test_a_begin_block_sends_at_its_end_and_not_after_an_error(here, make, session, say) -> None:
    with session.begin():
        say("good")
        assert here.heard() == []
    with pytest.raises(ZeroDivisionError), session.begin():
        say("bad")
        _ = 1 / 0

    assert here.heard() == stored(make) == ["good"]


def test_a_released_savepoint_waits_for_the_commit(here, make, session, say) -> None:
    say("before")
    with session.begin_nested():
        say("inside")
    assert here.heard() == []
    say("after")
    assert here.heard() == []
    session.commit()

    assert here.heard() == stored(make) == ["before", "inside", "after"]


def test_a_rolled_back_savepoint_takes_back_what_was_said_in_it_only(
    here, make, session, say
) -> None:
    say("before")
    savepoint = session.begin_nested()
    say("inside")
    savepoint.rollback()
    say("after")
    session.commit()

    assert here.heard() == stored(make) == ["before", "after"]


def test_a_released_savepoint_vanishes_with_the_transaction_around_it(
    here, make, session, say
) -> None:
    with session.begin_nested():
        say("inside")
    session.rollback()
    session.commit()

    assert here.heard() == stored(make) == []


@pytest.mark.parametrize(
    ("inner", "outer", "left"),
    [
        ("commit", "commit", ["0", "1", "2", "1b", "0b"]),
        ("commit", "rollback", ["0", "0b"]),
        ("rollback", "commit", ["0", "1", "1b", "0b"]),
        ("rollback", "rollback", ["0", "0b"]),
    ],
)
def test_savepoints_two_deep_each_take_back_their_own(
    here, make, session, say, inner, outer, left
) -> None:
    say("0")
    one = session.begin_nested()
    say("1")
    two = session.begin_nested()
    say("2")
    getattr(two, inner)()
    say("1b")
    getattr(one, outer)()
    say("0b")
    session.commit()

    assert here.heard() == stored(make) == left


@pytest.mark.parametrize(("end", "left"), [("commit", ["1", "2"]), ("rollback", [])])
def test_an_outer_end_ends_the_savepoints_inside(here, make, session, say, end, left) -> None:
    one = session.begin_nested()
    say("1")
    session.begin_nested()
    say("2")
    getattr(one, end)()
    session.commit()

    assert here.heard() == stored(make) == left


@pytest.mark.parametrize(("end", "left"), [("commit", ["1", "2"]), ("rollback", []), ("close", [])])
def test_the_sessions_own_end_ends_open_savepoints(here, make, session, say, end, left) -> None:
    session.begin_nested()
    say("1")
    session.begin_nested()
    say("2")
    getattr(session, end)()

    assert here.heard() == stored(make) == left


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_savepoint_older_than_the_first_word_is_known_too(here, make, session, end) -> None:
    session.add(Note(text="root"))
    one = session.begin_nested()
    two = session.begin_nested()
    push = here.broker.after_commit(session)
    push.send_to_user(ME, "e", "two")
    getattr(two, end)()
    push.send_to_user(ME, "e", "one")
    one.commit()
    session.commit()

    assert here.heard() == (["two", "one"] if end == "commit" else ["one"])


def test_a_failed_flush_in_a_savepoint_takes_back_its_words_only(here, make, session, say) -> None:
    session.add(Note(id=70, text="first"))
    session.flush()
    say("outside")
    with pytest.raises(sqlalchemy.exc.IntegrityError), session.begin_nested():
        say("inside")
        session.execute(sqlalchemy.insert(Note).values(id=70, text="twice"))
    session.commit()

    assert here.heard() == ["outside"]


def test_a_commit_that_fails_sends_nothing(here, make, session, say) -> None:
    with make() as other:
        other.add(Note(id=70, text="taken"))
        other.commit()
    say("unsaid")
    session.add(Note(id=70, text="twice"))

    with pytest.raises(sqlalchemy.exc.IntegrityError):
        session.commit()
    session.rollback()
    session.commit()

    assert here.heard() == []


def test_what_is_sent_is_committed_and_the_connection_is_free(here, make, session, engine) -> None:
    seen = []

    class Looking(MemoryLog):
        def append(self, message):
            seen.append((stored(make), engine.pool.checkedout(), session.in_transaction()))
            return super().append(message)

    broker = Broker(log=Looking())
    session.add(Note(text="a"))
    broker.after_commit(session).broadcast("e", "x")
    session.commit()

    assert seen == [(["a"], 0, False)]


def test_two_sessions_do_not_mix(here, make) -> None:
    with make() as one, make() as two:
        for session in (one, two):
            session.execute(sqlalchemy.select(Note))
        here.broker.after_commit(one).send_to_user(ME, "e", "one")
        here.broker.after_commit(two).send_to_user(ME, "e", "two")
        here.broker.after_commit(one).send_to_user(ME, "e", "one more")
        two.commit()
        assert here.heard() == ["two"]
        here.broker.after_commit(two).send_to_user(ME, "e", "two again")
        one.rollback()
        assert here.heard() == []
        two.commit()
        one.commit()
        assert here.heard() == ["two again"]


def test_two_brokers_on_one_session_do_not_mix(here, session) -> None:
    other = Listening()
    for index in range(2):
        here.broker.after_commit(session).send_to_user(ME, "e", f"here {index}")
        other.broker.after_commit(session).send_to_user(ME, "e", f"other {index}")
    session.commit()

    assert here.heard() == ["here 0", "here 1"]
    assert other.heard() == ["other 0", "other 1"]
    other.stop()


def test_a_scoped_session_is_the_callers_own(here, make) -> None:
    scoped = orm.scoped_session(make)
    push = here.broker.after_commit(scoped)
    said, go = threading.Event(), threading.Event()

    def elsewhere() -> None:
        push.send_to_user(ME, "e", "elsewhere")
        said.set()
        assert go.wait(10)
        scoped.commit()
        scoped.remove()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    assert said.wait(10)
    push.send_to_user(ME, "e", "here")
    scoped.commit()
    assert here.heard() == ["here"]
    push.send_to_user(ME, "e", "removed")
    scoped.remove()
    scoped.commit()
    assert here.heard() == []
    go.set()
    thread.join(10)

    assert here.heard() == ["elsewhere"]
    scoped.remove()


def test_threads_with_sessions_of_their_own_lose_and_double_nothing(here, make) -> None:
    barrier = threading.Barrier(4)

    def work(name: int) -> None:
        with make() as session:
            push = here.broker.after_commit(session)
            barrier.wait(10)
            for index in range(20):
                with session.begin() as transaction:
                    push.send_to_user(ME, "e", f"{name} {index}")
                    if index % 2:
                        transaction.rollback()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    heard = here.heard()
    assert len(heard) == 40
    for name in range(4):
        assert [text for text in heard if text.startswith(f"{name} ")] == [
            f"{name} {index}" for index in range(0, 20, 2)
        ]


def test_bad_input_raises_at_the_call_and_changes_nothing(here, session, say) -> None:
    push = here.broker.after_commit(session)
    say("good")
    with pytest.raises(InvalidUserID):
        push.send_to_user("", "e", "x")
    with pytest.raises(InvalidTopic):
        push.send_to_topic("a:*", "e", "x")
    with pytest.raises(InvalidMessage):
        push.broadcast("e", {"bad": float("nan")})
    with pytest.raises(InvalidMessage):
        push.broadcast("close", "x")
    with pytest.raises(MessageTooLarge):
        push.broadcast("e", "x" * here.broker.config.max_message_bytes)
    session.commit()

    assert here.heard() == ["good"]


def test_the_brokers_settings_are_asked_at_the_call(session) -> None:
    broker = Broker(BrokerConfig(enable_topics=False, require_tenant=True))
    push = broker.after_commit(session)

    with pytest.raises(TopicsNotEnabled):
        push.send_to_topic("t", "e", "x", tenant_id="acme")
    with pytest.raises(InvalidMessage, match="tenant_id is required"):
        push.send_to_user(ME, "e", "x")


@pytest.mark.parametrize("error", [LogUnavailable("away"), QueueFull(), RuntimeError("a bug")])
def test_a_send_that_fails_is_logged_and_the_rest_still_leaves(
    session, make, caplog, error
) -> None:
    class Failing(MemoryLog):
        def append(self, message):
            if message.data.startswith("lost"):
                raise error
            return super().append(message)

    here = Listening(log=Failing())
    push = here.broker.after_commit(session)
    session.add(Note(text="a"))
    for text in ("one", "lost 1", "two", "lost 2", "three"):
        push.send_to_user(ME, "e", text)
    session.commit()
    session.commit()

    assert (here.heard(), stored(make)) == (["one", "two", "three"], ["a"])
    records = [record for record in caplog.records if record.name == "sse_broker.commit"]
    assert [record.levelno for record in records] == [logging.ERROR]
    assert records[0].getMessage().startswith("2 messages were not sent after a commit: ")
    assert str(error) in records[0].getMessage()
    here.stop()


def test_a_session_is_listened_to_once_and_not_kept_alive(here, make) -> None:
    session = make()
    for _ in range(3):
        here.broker.after_commit(session).send_to_user(ME, "e", "x")
        session.commit()
    assert here.heard() == ["x"] * 3
    assert len(list(session.dispatch.after_commit)) == 1

    here.broker.after_commit(session).send_to_user(ME, "e", "unsaid")
    session.begin_nested()
    gone = weakref.ref(session)
    session.close()
    del session
    gc.collect()

    assert gone() is None


def test_what_shares_the_sessions_info_is_left_alone(here, engine) -> None:
    shared = {"tenant": "acme"}
    make = orm.sessionmaker(engine, info=shared)
    with make() as session:
        here.broker.after_commit(session).send_to_user(ME, "e", "x")
        session.commit()
        assert session.info["tenant"] == "acme"

    assert (shared, here.heard()) == ({"tenant": "acme"}, ["x"])


def test_a_words_effect_in_another_hook_of_the_commit_leaves_too(here, session) -> None:
    push = here.broker.after_commit(session)
    push.send_to_user(ME, "e", "said")
    sqlalchemy.event.listen(
        session, "after_commit", lambda session: push.send_to_user(ME, "e", "in a hook"), once=True
    )
    session.commit()

    assert here.heard() == ["said", "in a hook"]


@pytest.mark.parametrize("other", [None, "session", object()])
def test_something_else_than_a_session_is_refused(other) -> None:
    with pytest.raises(TypeError, match="a SQLAlchemy Session or scoped_session is needed"):
        Broker().after_commit(other)


def test_without_sqlalchemy_the_cure_is_told(monkeypatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sqlalchemy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)

    with pytest.raises(InvalidConfig) as caught:
        Broker().after_commit(object())

    assert str(caught.value) == (
        "invalid configuration: after_commit needs SQLAlchemy: pip install 'sse-broker[sqlalchemy]'"
    )

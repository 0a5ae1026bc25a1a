"""Whom a message is for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sse_broker import ALL_TENANTS, Client, Message, Target
from sse_broker.core.registry import Registry


# Functions with names: Hypothesis shows a lambda by parsing its source, and ast.parse of
# CPython 3.11 fails now and then ("AST constructor recursion depth mismatch").
def joined(pair: tuple[list[str], str]) -> str:
    return ":".join([*pair[0], pair[1]])


def to_user(user: int, tenant) -> Message:
    return Message(Target.USER, "", user_id=user, tenant_id=tenant)


def to_topic(name: str, tenant) -> Message:
    return Message(Target.TOPIC, "", topic=name, tenant_id=tenant)


def to_all(tenant) -> Message:
    return Message(Target.BROADCAST, "", tenant_id=tenant)


SEGMENTS = st.sampled_from(["a", "b", "c"])
NAMES = st.lists(SEGMENTS, min_size=1, max_size=3).map(":".join)
PATTERNS = st.tuples(
    st.lists(st.one_of(SEGMENTS, st.just("*")), max_size=2), st.sampled_from(["*", "**", "a"])
).map(joined)
TENANTS = st.sampled_from([None, "t1", "t2"])
USERS = st.integers(1, 3)
CLIENTS = st.builds(
    Client, USERS, TENANTS, st.lists(st.one_of(NAMES, PATTERNS), max_size=3, unique=True)
)
SENT_TO = st.one_of(TENANTS, st.just(ALL_TENANTS))
MESSAGES = st.one_of(
    st.builds(to_user, USERS, SENT_TO),
    st.builds(to_topic, NAMES, SENT_TO),
    st.builds(to_all, SENT_TO),
)


@given(st.lists(CLIENTS, max_size=8), st.data(), st.lists(MESSAGES, min_size=1, max_size=6))
def test_the_registry_and_replay_agree_on_whom_a_message_is_for(clients, data, messages) -> None:
    registry = Registry()
    for client in clients:
        registry.add(client)
    gone = data.draw(st.sets(st.sampled_from(clients))) if clients else set()
    for client in gone:
        assert registry.remove(client)

    for message in messages:
        found = registry.match(message)
        assert len(found) == len(set(found))
        assert set(found) == {c for c in clients if c not in gone and c.wants(message)}


@given(st.lists(CLIENTS, max_size=8))
def test_nothing_stays_behind_in_any_index(clients) -> None:
    registry = Registry()
    for client in clients:
        registry.add(client)

    for client in clients:
        assert registry.remove(client)
        assert not registry.remove(client)

    assert len(registry) == registry.user_count() == registry.topic_count() == 0
    assert not registry._patterns
    assert not list(registry._tenants)


def test_a_snapshot_is_left_alone_by_later_changes() -> None:
    registry, first, second = Registry(), Client(1), Client(2)
    registry.add(first)
    before = registry.clients()

    registry.add(second)

    assert before == (first,)
    assert registry.clients() == (first, second)


def test_a_client_that_matches_twice_is_found_once() -> None:
    registry, client = Registry(), Client(1, topics=["a:b", "a:*", "a:**"])
    registry.add(client)

    assert registry.match(Message(Target.TOPIC, "", topic="a:b")) == (client,)

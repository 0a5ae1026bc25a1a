"""Whom a message is for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sse_broker import ALL_TENANTS, Client, Message, Target
from sse_broker.core import patterns
from sse_broker.core import registry as registry_module
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
    assert not len(registry._patterns)
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


def many(registry: Registry, count: int, *topics: str, tenant=None) -> list[Client]:
    made = [Client(n + 1, tenant, topics) for n in range(count)]
    for one in made:
        registry.add(one)
    return made


def test_an_audience_is_the_same_object_until_it_changes() -> None:
    registry = Registry()
    many(registry, 3, "news")
    many(registry, 2, "news:*", "**", tenant="t")
    both = many(registry, 2, "news", "**")
    messages = [to_topic("news", None), to_topic("news", ALL_TENANTS), to_topic("news:x", "t")]
    before = [registry.match(message) for message in messages]

    assert [len(found) for found in before] == [5, 7, 2]
    assert all(registry.match(m) is found for m, found in zip(messages, before, strict=True))
    registry.remove(both[0])
    after = [registry.match(message) for message in messages]
    assert [len(found) for found in after] == [4, 6, 2]
    assert after[2] is before[2]


def test_all_names_that_only_one_pattern_takes_are_one_audience() -> None:
    registry = Registry()
    many(registry, 2, "order:*")

    assert registry.match(to_topic("order:1", None)) is registry.match(to_topic("order:2", None))


def test_a_pattern_that_takes_nothing_leaves_a_topic_its_audience() -> None:
    registry = Registry()
    many(registry, 3, "news")
    before = registry.match(to_topic("news", None))
    (guest,) = many(registry, 1, "task:*")

    assert registry.match(to_topic("news", None)) is before
    registry.remove(guest)
    assert registry.match(to_topic("news", None)) is before


def test_a_new_pattern_is_found_by_a_name_that_was_looked_for_before() -> None:
    registry = Registry()
    (first,) = many(registry, 1, "a:*")
    assert registry.match(to_topic("a:b", None)) == (first,)

    (second,) = many(registry, 1, "*:b")
    assert set(registry.match(to_topic("a:b", None))) == {first, second}
    registry.remove(first)
    assert registry.match(to_topic("a:b", None)) == (second,)


def test_what_is_remembered_of_names_and_of_unions_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(patterns, "MOST_REMEMBERED", 10)
    monkeypatch.setattr(registry_module, "MOST_UNIONS", 5)
    monkeypatch.setattr(registry_module, "TIDY_EVERY", 3)
    registry = Registry()
    many(registry, 2, "order:*")
    named = [many(registry, 2, f"order:{n}") for n in range(20)]
    for n in range(20):
        assert len(registry.match(to_topic(f"order:{n}", None))) == 4

    assert len(registry._patterns._walks) <= 10
    assert len(registry._unions) == 5
    for pair in named[:17]:
        registry.remove(pair[0])
        registry.remove(pair[1])
    assert len(registry._unions) <= 4

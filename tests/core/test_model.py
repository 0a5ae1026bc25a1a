"""Random histories against a simple model: a list of all messages."""

from __future__ import annotations

import random
import threading
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from sse_broker import BrokerConfig
from sse_broker.core.since import parse_since
from sse_broker.wire.topics import matches
from tests.core.streams import Hub, Tab

TOPICS = ("a", "a:b", "a:c", "b:c")
SUBSCRIPTIONS = ((), ("a",), ("a:*",), ("a:**", "a:b"), ("*:c", "b:c"))


TENANTS = (None, "t", "u")


class Sent(NamedTuple):
    """A message as the model knows it."""

    kind: str
    whom: tuple[str, ...]
    tenant: str | None
    data: str
    retain: bool


class Pushed:
    """What the model knows of a tab: from which message on it hears, and the state before."""

    def __init__(self, tab: Tab, start: int, state: list[str]) -> None:
        self.tab = tab
        self.start = start
        self.state = state
        self.has_left = False
        self.goes_back = False


class Histories(RuleBasedStateMachine):
    """Publish, connect, leave, come back, read little or much, in any order."""

    pushed = Bundle("pushed")

    @initialize(
        buffer=st.integers(1, 4),
        history=st.sampled_from([0, 5, 10_000]),
        window=st.sampled_from([0, 60]),
    )
    def begin(self, buffer: int, history: int, window: int) -> None:
        self.broker = Hub(
            BrokerConfig(client_buffer_size=buffer, history_size=history, resume_window=window)
        )
        self.broker.start()
        self.sent: list[Sent] = []
        self.own: dict[tuple[str, str | None, tuple[str, ...]], str] = {}
        self.tabs: list[Pushed] = []
        self.lossless = window > 0 or history == 10_000

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            for pushed in self.tabs:
                self.finish(pushed)
            self.broker.stop(timeout=0)

    def is_for(self, tab: Tab, one: Sent) -> bool:
        tenant = tab.identity.tenant_id
        if one.kind == "user":
            return one.whom == (str(tab.identity.user_id),) and one.tenant in (None, tenant)
        if one.tenant != tenant:
            return False
        return one.kind == "all" or any(matches(p, t) for p in tab.topics for t in one.whom)

    def mine(self, tab: Tab, start: int) -> list[str]:
        return [one.data for one in self.sent[start:] if self.is_for(tab, one)]

    def state_of(self, tab: Tab, upto: int) -> list[str]:
        """Return what is retained at that moment for a tab: the newest of each addressee."""
        newest: dict[tuple[str, str | None, str], Sent] = {}
        for one in self.sent[:upto]:
            if one.retain:
                newest.update({(one.kind, one.tenant, whom): one for whom in one.whom})
        found = {
            one.data
            for (_, _, whom), one in newest.items()
            if self.is_for(tab, one._replace(whom=(whom,)))
        }
        return sorted(found, key=int)

    @rule(
        target=pushed,
        user=st.integers(1, 2),
        topics=st.sampled_from(SUBSCRIPTIONS),
        tenant=st.sampled_from(TENANTS),
        since=st.sampled_from(["", "", "1", "3", "10000", "1h", "earliest"]),
    )
    def connect(self, user: int, topics: tuple[str, ...], tenant: str | None, since: str) -> Pushed:
        tab = Tab(self.broker, user, topics, tenant, parse_since(since))
        now = len(self.sent)
        tab.connect().step()
        back = self.back(tab, since) if self.lossless else 0
        pushed = Pushed(tab, now - back, [])
        pushed.goes_back = bool(since)
        tab.since = None  # it has begun; from now on it resumes
        self.tabs.append(pushed)
        # A stream that begins later with `since` has the state of where it begins.
        pushed.state = self.state_of(tab, pushed.start)
        return pushed

    def back(self, tab: Tab, since: str) -> int:
        """Return how many of all messages, of others too, a tab goes back."""
        if not since:
            return 0
        mine = [n for n, one in enumerate(self.sent) if self.is_for(tab, one)]
        if since.isdigit() and len(mine) >= int(since):
            return len(self.sent) - mine[-int(since)]
        return len(self.sent)

    @rule(
        kind=st.sampled_from(["user", "topic", "topics", "all"]),
        which=st.integers(0, 3),
        tenant=st.sampled_from(TENANTS),
        n=st.integers(1, 6),
        retain=st.booleans(),
    )
    def publish(self, kind: str, which: int, tenant: str | None, n: int, retain: bool) -> None:
        for _ in range(n):
            self.send(kind, which, tenant, retain)

    @rule(
        kind=st.sampled_from(["user", "topic", "topics"]),
        which=st.integers(0, 3),
        tenant=st.sampled_from(TENANTS),
        own=st.sampled_from(["order-1", "order-2"]),
    )
    def publish_once(self, kind: str, which: int, tenant: str | None, own: str) -> None:
        """An own id is one tenant's and one addressee's; the second time nothing is sent."""
        # The same id for two addressees of one client would stand for the older place.
        own = f"{own}-{kind}-{which}" + ("-anywhere" if kind == "user" and tenant is None else "")
        if not self.lossless:
            return  # how long an id is remembered is the contract's business
        whom = self.whom(kind, which)
        known = self.own.get((own, tenant, (kind[:5], *sorted(whom))))
        if known is None:
            self.own[own, tenant, (kind[:5], *sorted(whom))] = str(len(self.sent))
            self.send(kind, which, tenant, False, own)
        else:
            self.say(kind, which, tenant, known, id=own)

    def whom(self, kind: str, which: int) -> tuple[str, ...]:
        if kind == "topics":
            return tuple(dict.fromkeys((TOPICS[which], TOPICS[which - 1])))
        return () if kind == "all" else (TOPICS[which] if kind == "topic" else str(1 + which % 2),)

    def send(self, kind: str, which: int, tenant: str | None, retain: bool, id: str = "") -> None:
        retain = retain and kind != "all"
        data = str(len(self.sent))
        options = {"retain": True} if retain else {}
        self.say(kind, which, tenant, data, id=id, **options)
        said = "topic" if kind == "topics" else kind
        self.sent.append(Sent(said, self.whom(kind, which), tenant, data, retain))

    def say(self, kind: str, which: int, tenant: str | None, data: str, **options: Any) -> None:
        whom = self.whom(kind, which)
        if kind == "user":
            self.broker.send_to_user(whom[0], "e", data, tenant_id=tenant, **options)
        elif kind == "all":
            self.broker.broadcast("e", data, tenant_id=tenant, **options)
        else:
            self.broker.send_to_topic(whom, "e", data, tenant_id=tenant, **options)

    @rule(pushed=pushed, steps=st.integers(1, 3))
    def read(self, pushed: Pushed, steps: int) -> None:
        for _ in range(steps):
            if pushed.tab.reader:
                pushed.tab.step()

    @rule(pushed=pushed)
    def heartbeat(self, pushed: Pushed) -> None:
        if pushed.tab.reader:
            pushed.tab.reader.client.beat(self.broker.streams.here().delivery.delivered)

    @rule(pushed=pushed)
    def leave(self, pushed: Pushed) -> None:
        if pushed.tab.reader:
            pushed.tab.leave()
            pushed.has_left = True

    @rule(pushed=pushed)
    def come_back(self, pushed: Pushed) -> None:
        if pushed.tab.reader is None:
            pushed.tab.connect()
            pushed.tab.step()

    @invariant()
    def nobody_sees_what_is_not_theirs(self) -> None:
        for pushed in getattr(self, "tabs", ()):
            for data in pushed.tab.data:
                assert self.is_for(pushed.tab, self.sent[int(data)])

    @invariant()
    def nobody_sees_a_double_or_a_reversal(self) -> None:
        for pushed in getattr(self, "tabs", ()):
            if pushed.tab.count("reset") == 0:
                numbers = [int(data) for data in pushed.tab.data]
                assert numbers == sorted(set(numbers))

    def finish(self, pushed: Pushed) -> None:
        """In the end everything has arrived, or a reset was said."""
        if pushed.tab.reader is None:
            pushed.tab.connect()
        pushed.tab.read_on()
        wanted = self.mine(pushed.tab, pushed.start)
        if self.lossless:
            assert pushed.tab.count("reset") == 0
        if pushed.goes_back and not self.lossless:
            return  # how far back it goes is a question of what was trimmed
        if pushed.tab.count("reset") == 0:
            news = [one for one in pushed.tab.data if int(one) >= pushed.start]
            state = [one for one in pushed.tab.data if int(one) < pushed.start]
            assert news == wanted
            # What was cut amid the state and replaced since is news then, and not state.
            assert set(state) <= set(pushed.state)
            if self.lossless and not pushed.has_left and not pushed.goes_back:
                assert state == pushed.state


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_four_publishers_and_tabs_that_come_and_go_see_no_hole_double_or_reversal() -> None:
    each, publishers = 300, 4
    broker = Hub(BrokerConfig(client_buffer_size=8, history_size=100_000))
    done = threading.Event()
    chance = random.Random(7)

    def publish(who: int) -> None:
        for n in range(each):
            broker.send_to_topic("a:b", "e", f"{who}:{n}")

    def tab(seed: int, seen: list[str]) -> None:
        mine = random.Random(seed)
        one = Tab(broker, topics=["a:*"]).connect()
        one.step()
        ready.wait(10)
        while len(one.data) < each * publishers:
            if mine.random() < 0.05:
                one.leave().connect()
            one.step(timeout=0.05)
            if done.is_set() and one.count("reset"):
                break
        seen.extend(one.data)
        one.leave()

    seen: list[list[str]] = [[] for _ in range(12)]
    ready = threading.Barrier(len(seen) + 1)
    with broker:
        tabs = [
            threading.Thread(target=tab, args=(chance.random(), one), daemon=True) for one in seen
        ]
        for thread in tabs:
            thread.start()
        ready.wait(10)
        threads = [threading.Thread(target=publish, args=(who,)) for who in range(publishers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        for thread in tabs:
            thread.join(timeout=30)
        assert not any(thread.is_alive() for thread in tabs)

    assert len({tuple(one) for one in seen}) == 1
    for who in range(publishers):
        mine = [data for data in seen[0] if data.startswith(f"{who}:")]
        assert mine == [f"{who}:{n}" for n in range(each)]

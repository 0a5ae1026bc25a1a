"""Random histories against a simple model: a list of all messages."""

from __future__ import annotations

import random
import threading

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from sse_broker import BrokerConfig
from sse_broker.wire.topics import matches
from tests.core.streams import Hub, Tab

TOPICS = ("a", "a:b", "a:c", "b:c")
SUBSCRIPTIONS = ((), ("a",), ("a:*",), ("a:**", "a:b"), ("*:c", "b:c"))


class Pushed:
    """What the model knows of a tab: where in the list it stands."""

    def __init__(self, tab: Tab, start: int) -> None:
        self.tab = tab
        self.expected: list[str] = []
        self.start = start
        self.resets = 0


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
        self.sent: list[tuple[str, str, str]] = []  # (kind, whom, data)
        self.tabs: list[Pushed] = []
        self.lossless = window > 0 or history == 10_000

    def teardown(self) -> None:
        if hasattr(self, "broker"):
            for pushed in self.tabs:
                self.finish(pushed)
            self.broker.stop(timeout=0)

    def mine(self, tab: Tab, start: int) -> list[str]:
        found = []
        for kind, whom, data in self.sent[start:]:
            user = kind == "user" and whom == str(tab.identity.user_id)
            topic = kind == "topic" and any(matches(p, whom) for p in tab.topics)
            if user or topic or kind == "all":
                found.append(data)
        return found

    @rule(target=pushed, user=st.integers(1, 2), topics=st.sampled_from(SUBSCRIPTIONS))
    def connect(self, user: int, topics: tuple[str, ...]) -> Pushed:
        pushed = Pushed(Tab(self.broker, user, topics).connect(), len(self.sent))
        self.tabs.append(pushed)
        pushed.tab.step()
        return pushed

    @rule(
        kind=st.sampled_from(["user", "topic", "all"]),
        which=st.integers(0, 3),
        n=st.integers(1, 6),
    )
    def publish(self, kind: str, which: int, n: int) -> None:
        for _ in range(n):
            data = str(len(self.sent))
            whom = TOPICS[which] if kind == "topic" else str(1 + which % 2)
            if kind == "user":
                self.broker.send_to_user(whom, "e", data)
            elif kind == "topic":
                self.broker.send_to_topic(whom, "e", data)
            else:
                self.broker.broadcast("e", data)
            self.sent.append((kind, whom, data))

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

    @rule(pushed=pushed)
    def come_back(self, pushed: Pushed) -> None:
        if pushed.tab.reader is None:
            pushed.tab.connect()
            pushed.tab.step()

    @invariant()
    def nobody_sees_a_double_or_a_reversal(self) -> None:
        for pushed in getattr(self, "tabs", ()):
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
        if pushed.tab.count("reset") == 0:
            assert pushed.tab.data == wanted
        else:
            assert set(pushed.tab.data) <= set(wanted)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


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

"""No client ever sees what it may not: two tenants with equal ids, in any order of events."""

from __future__ import annotations

import contextlib
import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from sse_broker import ALL_TENANTS, BrokerConfig, Identity
from sse_broker.errors import BrokerError
from sse_broker.wire.parse import Parser
from sse_broker.wire.topics import matches
from tests.core.streams import LIBRARY, Hub

TENANTS = ("t1", "t2", None)
TOPICS = ("a", "a:b", "a:c", "b:c")
SUBSCRIPTIONS = ("a", "a:b", "a:c", "b:c", "a:*", "a:**", "*:c")
OURS = LIBRARY | {"revoked"}


class Page:
    """One stream and the rules that it is under now."""

    def __init__(self, hub: Hub, identity: Identity, topics: list[str], last_id: str = "") -> None:
        self.hub, self.identity, self.last_id = hub, identity, last_id
        self.parser = Parser()
        self.reader = hub.streams.open(
            identity, hub.streams.check_topics(identity, topics), last_id
        )

    @property
    def is_open(self) -> bool:
        return self.reader.client.is_open

    def read(self) -> list[dict[str, str]]:
        """Return what the application sent that came by now."""
        found = []
        for _ in range(50):
            chunk = self.reader.next(0)
            if not chunk:
                break
            found += self.parser.feed(chunk)
        self.last_id = self.parser.last_event_id or self.last_id
        return [json.loads(event.data) for event in found if event.event not in OURS]


class Isolation(RuleBasedStateMachine):
    """Two tenants, three users each, one hub."""

    pages = Bundle("pages")

    @initialize(history=st.sampled_from([0, 1000]), buffer=st.integers(1, 4))
    def begin(self, history: int, buffer: int) -> None:
        self.denied: set[tuple[str | None, str, str]] = set()
        self.revoked: set[str] = set()
        self.open: list[Page] = []
        self.count = 0
        config = BrokerConfig(history_size=history, client_buffer_size=buffer)
        self.hub = Hub(config, authorizer=self.may)
        self.hub.start()

    def teardown(self) -> None:
        if hasattr(self, "hub"):
            for page in self.open:
                self.check(page)
            self.hub.stop(timeout=0)

    def may(self, identity: Identity, topic: str) -> bool:
        who = (identity.tenant_id, str(identity.user_id))
        return not any((tenant, user) == who and topic == one for tenant, user, one in self.denied)

    def check(self, page: Page) -> None:
        """Whatever a page reads, it may read now."""
        identity, topics = page.identity, page.reader.client.topics
        for got in page.read():
            assert got["tenant"] in (identity.tenant_id, "all", "whatever"), (got, identity)
            if got["kind"] == "user":
                assert got["whom"] == identity.user_id
            if got["kind"] == "topic":
                assert any(matches(one, got["whom"]) for one in topics), (got, topics)
                assert self.may(identity, got["whom"]), (got, self.denied)
            assert identity.token_id not in self.revoked

    @rule(
        target=pages,
        tenant=st.sampled_from(TENANTS),
        user=st.sampled_from("12"),
        topics=st.lists(st.sampled_from(SUBSCRIPTIONS), max_size=3),
        grants=st.sampled_from([None, ("a:**", "a"), ("a:b",)]),
    )
    def connect(
        self, tenant: str | None, user: str, topics: list[str], grants: object
    ) -> Page | None:
        self.count += 1
        identity = Identity(user, tenant, topics=grants, token_id=f"token-{self.count % 7}")  # type: ignore[arg-type]
        return self.opened(identity, topics, "")

    def opened(self, identity: Identity, topics: list[str], last_id: str) -> Page | None:
        if identity.token_id in self.revoked:
            return None
        with contextlib.suppress(BrokerError):
            page = Page(self.hub, identity, topics, last_id)
            self.open.append(page)
            return page
        return None

    @rule(page=pages, other=pages)
    def come_back_with_anybodys_id(self, page: Page | None, other: Page | None) -> None:
        if page is None or other is None:
            return
        self.check(page)
        self.hub.streams.forget(page.reader.client, "test")
        self.opened(page.identity, list(page.reader.client.topics), other.last_id)

    @rule(
        kind=st.sampled_from(["user", "topic", "broadcast"]),
        tenant=st.sampled_from([*TENANTS, ALL_TENANTS]),
        whom=st.integers(0, 3),
        own_id=st.booleans(),
        retain=st.booleans(),
    )
    def send(self, kind: str, tenant: object, whom: int, own_id: bool, retain: bool) -> None:
        self.count += 1
        named = "all" if tenant is ALL_TENANTS else tenant
        if kind == "user":
            named = "whatever" if tenant is None else named
        options: dict[str, object] = {"tenant_id": tenant}
        if own_id:
            options["id"] = f"order-{self.count % 5}"  # of several tenants and addressees
        if retain and kind != "broadcast":
            options["retain"] = True
        to = {"user": "12"[whom % 2], "topic": TOPICS[whom], "broadcast": ""}[kind]
        data = {"kind": kind, "tenant": named, "whom": to, "n": self.count}
        with contextlib.suppress(BrokerError):  # the same id with other content
            if kind == "user":
                self.hub.send_to_user(to, "e", data, **options)  # type: ignore[arg-type]
            elif kind == "topic":
                self.hub.send_to_topic(to, "e", data, **options)  # type: ignore[arg-type]
            else:
                options.pop("retain", None)
                self.hub.broadcast("e", data, **options)  # type: ignore[arg-type]

    @rule(page=pages)
    def read(self, page: Page | None) -> None:
        if page is not None:
            self.check(page)

    @rule(
        page=pages,
        add=st.lists(st.sampled_from(SUBSCRIPTIONS), max_size=2),
        remove=st.lists(st.sampled_from(SUBSCRIPTIONS), max_size=2),
    )
    def change_topics(self, page: Page | None, add: list[str], remove: list[str]) -> None:
        if page is None or not page.is_open:
            return
        with contextlib.suppress(BrokerError):
            self.hub.streams.change_topics(page.identity, page.reader.client.id, add, remove)

    @rule(
        tenant=st.sampled_from(TENANTS), user=st.sampled_from("12"), topic=st.sampled_from(TOPICS)
    )
    def withdraw(self, tenant: str | None, user: str, topic: str) -> None:
        self.denied.add((tenant, user, topic))
        self.hub.recheck(user, tenant_id=tenant)
        self.hub.streams.here().rechecks.stop()  # waits until all were asked

    @rule(number=st.integers(0, 6))
    def revoke(self, number: int) -> None:
        token = f"token-{number}"
        self.hub.revoke(token, self.hub.streams.clock.time() + 600)
        self.revoked.add(token)


TestIsolation = Isolation.TestCase
TestIsolation.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

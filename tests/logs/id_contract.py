"""What every log promises about ids: whose they are, what they tell, and what they prove."""

from __future__ import annotations

import itertools
import re
import threading

import pytest

from sse_broker import ALL_TENANTS, Message, Target
from sse_broker.core.ports import LogLimits
from sse_broker.errors import IdConflict, InvalidMessage
from sse_broker.wire.scope import scopes_of_reader
from tests.logs.case import LogCase, message


class IdContract(LogCase):
    """Part of the contract of all logs."""

    def test_wire_ids_are_of_the_safe_alphabet_and_lead_back(self) -> None:
        for _ in range(3):
            record = self.log.append(message())
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", record.id)
            assert self.log.locate(record.id) == record.position
            assert self.log.cursor(record.position) == record.id

    def test_an_own_id_is_kept_and_recorded_once(self) -> None:
        before = self.log.tail()
        first = self.log.append(message("one", id="order-1"))
        second = self.log.append(message("one", id="order-1"))

        assert first.id == "order-1"
        assert second.position == first.position
        assert self.log.locate("order-1") == first.position
        assert len(self.log.read(before, 9)) == 1

    def test_an_own_id_published_by_many_at_one_moment_is_recorded_once(self) -> None:
        gate, found = threading.Barrier(8), []

        def publish() -> None:
            gate.wait(5)
            found.append(self.log.append(message(id="order-2")).position)

        threads = [threading.Thread(target=publish) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(set(found)) == 1

    def test_an_own_id_with_other_content_is_an_error_that_names_both_and_sends_nothing(
        self,
    ) -> None:
        self.log.append(Message(Target.BROADCAST, "one", "paid", id="order-1"))
        tail = self.log.tail()

        with pytest.raises(IdConflict, match=r"'order-1'.*'paid'.*'shipped'") as caught:
            self.log.append(Message(Target.BROADCAST, "one", "shipped", id="order-1"))
        with pytest.raises(IdConflict):
            self.log.append(Message(Target.BROADCAST, "two", "paid", id="order-1"))

        assert caught.value.field == "id"
        assert self.log.tail() == tail
        assert self.log.append(Message(Target.BROADCAST, "x", id="order-2")).position > tail

    def test_an_own_id_belongs_to_the_tenant_and_the_addressee(self) -> None:
        sent = [
            Message(target, "x", user_id=user, topic=topic, tenant_id=tenant, id="order-7")
            for tenant in ("A", "B", None, ALL_TENANTS)
            for target, user, topic in (
                (Target.USER, "1", ""),
                (Target.USER, "2", ""),
                (Target.TOPIC, None, "1"),
                (Target.TOPIC, None, "1:2"),
                (Target.BROADCAST, None, ""),
            )
        ]
        sent.append(Message(Target.TOPIC, "x", topics=("1", "1:2"), id="order-7"))
        start = self.log.tail()

        first = [self.log.append(one).position for one in sent]
        again = [self.log.append(one).position for one in sent]

        assert len(set(first)) == len(sent)
        assert again == first
        assert [record.message for record in self.log.read(start, 99)] == sent

    def test_an_own_id_is_found_by_who_may_read_its_message_only(self) -> None:
        mine = self.log.append(Message(Target.USER, "x", user_id="1", tenant_id="A", id="bill"))
        self.log.append(Message(Target.USER, "y", user_id="1", tenant_id="B", id="bill"))
        other = self.log.append(Message(Target.USER, "z", user_id="1", tenant_id="B", id="else"))

        def wants(record) -> bool:
            return record.tenant_id == "A"

        assert self.log.locate("bill", wants) == mine.position
        assert self.lost("else", wants) == self.lost("never-sent", wants) == "unknown"
        assert self.log.locate("else") == other.position

    def test_an_own_id_that_a_reader_has_twice_proves_nothing(self) -> None:
        self.log.append(Message(Target.TOPIC, "x", topic="a", id="bill"))
        self.log.append(Message(Target.TOPIC, "x", topic="b", id="bill"))

        assert self.lost("bill") == "unknown"

    def test_an_own_id_that_thousands_have_is_found_by_its_scope(self) -> None:
        sent = [
            self.log.append(
                Message(Target.USER, "x", user_id=str(n), tenant_id="A", id="maintenance")
            )
            for n in range(600)
        ]
        for n in (0, 300, 599):
            found = self.log.locate(
                "maintenance",
                lambda one, n=n: one.user_id == str(n),
                lambda n=n: scopes_of_reader(str(n), "A", ()),
            )
            assert found == sent[n].position

    @pytest.mark.parametrize(
        "own_id",
        ["urn:uuid:7b2c1c1e-4a3e-4a55-9d7e-0d6a2f2f1c11", "order:7", "https://example.com/a?b=c&d#e",
         'id-["https://example.com"]', "a\\b", "%00", "*", "~" * 256, "0"],
    )  # fmt: skip
    def test_an_own_id_may_be_any_printable_ascii(self, own_id) -> None:
        record = self.log.append(message("x", id=own_id))

        assert self.log.append(message("x", id=own_id)).position == record.position
        assert self.log.locate(own_id) == record.position
        assert record.frame == b"id: %b\ndata: x\n\n" % own_id.encode()

    def test_an_own_id_is_forgotten_by_age_where_nothing_else_is_sent(self) -> None:
        self.log.bind(LogLimits(resume_window=0, history_size=9, history_ttl=60), self.clock)
        monday = self.log.append(message("monday", id="daily-report"))
        self.clock.advance(30)
        assert self.log.append(message("monday", id="daily-report")).position == monday.position
        self.clock.advance(31)

        tuesday = self.log.append(message("tuesday", id="daily-report"))

        assert tuesday.position > monday.position
        assert self.log.locate("daily-report") == tuesday.position

    def test_an_id_of_the_logs_own_form_cannot_be_chosen(self) -> None:
        given = self.log.append(message()).id
        retained = f"{self.log.cursor(self.log.tail())}.r3"
        for one in (given, retained, self.log.cursor(self.log.tail()), "0123456789ab-17"):
            with pytest.raises(InvalidMessage, match="form of the ids that the log gives"):
                message(id=one)

    def test_an_id_that_proves_nothing_says_why(self) -> None:
        positions = self.fill(2)
        epoch, _, token = self.log.cursor(positions[1]).partition("-")
        other = "0" if epoch[0] != "0" else "1"
        forged = token[:-1] + ("A" if token[-1] != "A" else "B")

        assert self.lost(f"{other}{epoch[1:]}-{token}") == "epoch"
        assert self.lost(self.log.cursor(positions[1] + 1)) == "ahead"
        assert self.lost(f"{epoch}-{forged}") == "unknown"
        assert self.lost(f"{epoch}-7") == "unknown"
        assert self.lost("never-seen") == "unknown"

    def test_ids_tell_nothing_of_how_much_was_sent_between_them(self) -> None:
        """Whatever part of an id is read as a number: neighbours are not nearer than strangers."""
        ids = [record.id for record in (self.log.append(message()) for _ in range(64))]
        tokens = [one.partition("-")[2] for one in ids]

        assert len({len(one) for one in ids}) == 1
        assert len(ids[0]) <= 48
        assert sorted(tokens) != tokens
        assert not any(a[:6] == b[:6] for a, b in itertools.pairwise(tokens))
        assert len({one[:4] for one in tokens}) > 48
        assert len({one[-4:] for one in tokens}) > 48

    def test_an_own_id_is_forgotten_with_its_message(self) -> None:
        self.log.bind(LogLimits(resume_window=0, history_size=1), self.clock)
        first = self.log.append(message(id="order-4"))
        self.fill(1)

        assert self.log.append(message(id="order-4")).position > first.position

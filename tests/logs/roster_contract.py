"""What every log promises about who is online, and about revoked tokens."""

from __future__ import annotations

import threading

from sse_broker.core.ports import Census
from sse_broker.wire.command import Act, Command
from tests.logs.case import LogCase


class RosterContract(LogCase):
    """Part of the contract of all logs."""

    def test_one_of_several_processes_leaving_does_not_make_a_user_offline(self) -> None:
        roster = self.log.roster
        first = roster.sync("p1", 1, {"ada": True}, 15)
        second = roster.sync("p2", 2, {"ada": True, "grace": True}, 15)

        assert (list(first.came), list(second.came)) == (["ada"], ["grace"])
        assert roster.online() == {"ada", "grace"}
        assert roster.census() == Census(2, 3, 2)
        left = roster.sync("p2", 0, {"ada": None, "grace": None}, 15).left
        assert list(left) == ["grace"]
        assert roster.is_online("ada")
        assert not roster.is_online("ada", but="p1")
        assert not roster.is_online("grace")

    def test_who_is_away_is_not_online_and_has_not_left(self) -> None:
        roster = self.log.roster
        roster.sync("p1", 1, {"ada": True}, 15)

        away = roster.sync("p1", 0, {"ada": False}, 15)
        assert not roster.is_online("ada")
        assert not away.left
        back = roster.sync("p2", 1, {"ada": True}, 15)
        assert not back.came
        assert not roster.sync("p1", 0, {"ada": None}, 15).left

    def test_entries_of_a_dead_process_vanish(self) -> None:
        roster = self.log.roster
        roster.sync("dead", 3, {"ada": True, "grace": True}, 15)
        left = []
        for _ in range(4):
            left += roster.sync("alive", 1, {"grace": True}, 15).left
            self.clock.advance(5)

        assert not roster.is_online("ada")
        assert roster.online() == {"grace"}
        assert roster.census() == Census(1, 1, 1)
        assert not left
        assert list(roster.sync("alive", 1, {}, 15).left) == ["ada"]
        assert not roster.sync("alive", 1, {}, 15).left
        assert not roster.sync("dead", 0, {}, 15).known
        assert roster.sync("alive", 1, {}, 15).known

    def test_nobody_has_left_over_a_gap_in_which_no_process_was_heard(self) -> None:
        """The log was away, the machine slept, or its clock was put forward or back."""
        roster = self.log.roster
        for gap in (16, 40_000, -40_000, 7):
            for name in ("p1", "p2"):
                roster.sync(name, 1, {name: True}, 15)
            self.clock.advance(gap)

            assert not roster.sync("p1", 1, {"p1": True}, 15).left
            assert roster.online() == {"p1", "p2"}
            self.clock.advance(5)
            again = roster.sync("p2", 1, {"p2": True}, 15)
            assert not again.left
            assert not again.came
            assert again.known

    def test_who_died_in_a_gap_is_gone_within_one_more_life(self) -> None:
        roster, left = self.log.roster, []
        for name in ("alive", "dead"):
            roster.sync(name, 1, {name: True}, 15)
        self.clock.advance(100)
        for _ in range(4):
            left += roster.sync("alive", 1, {}, 15).left
            self.clock.advance(5)

        assert left + list(roster.sync("alive", 1, {}, 15).left) == ["dead"]
        assert roster.online() == {"alive"}

    def test_where_all_have_died_nobody_is_online(self) -> None:
        self.log.roster.sync("dead", 1, {"ada": True}, 15)
        self.clock.advance(16)

        assert not self.log.roster.is_online("ada")
        assert self.log.roster.census() == Census(0, 0, 0)

    def test_a_revoked_token_is_remembered_until_it_expires(self) -> None:
        roster = self.log.roster
        roster.revoke("token", self.clock.time() + 10)
        roster.revoke("token", self.clock.time() + 5)

        assert roster.is_revoked("token")
        assert not roster.is_revoked("another")
        self.clock.advance(9)
        assert roster.is_revoked("token")
        self.clock.advance(2)
        assert not roster.is_revoked("token")

    def test_a_token_is_revoked_and_said_so_in_one_step(self) -> None:
        after = self.log.tail()
        self.log.revoke("token", self.clock.time() + 10, Command(Act.REVOKE, "token", "stolen"))

        assert self.log.roster.is_revoked("token")
        assert [one.message for one in self.log.read(after, 9)] == [
            Command(Act.REVOKE, "token", "stolen")
        ]

    def test_of_two_words_under_one_name_the_first_is_kept_for_its_time(self) -> None:
        roster, now = self.log.roster, self.clock.time()

        assert roster.kept("name") is None
        assert roster.keep("name", "one", now + 10) == "one"
        assert roster.keep("name", "two", now + 90) == "one"
        assert roster.keep("other", "two", now + 90) == "two"
        assert roster.kept("name") == "one"

    def test_of_many_who_keep_a_word_at_once_one_wins(self) -> None:
        roster, until = self.log.roster, self.clock.time() + 60
        gate, got = threading.Barrier(6), []

        def keep(word: str) -> None:
            gate.wait(10)
            got.append(roster.keep("name", word, until))

        threads = [threading.Thread(target=keep, args=(f"word {n}",)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)

        assert len(got) == 6
        assert len(set(got)) == 1

"""What a process keeps of a shared log is always an unbroken part of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_broker import Message, Target
from sse_broker.core.ports import Record
from sse_broker.logs import recent
from sse_broker.logs.recent import Recent

STEP = 3  # positions need not be dense


def record(number: int) -> Record:
    return Record(number * STEP, f"e-{number}", Message(Target.BROADCAST, str(number)))


LOG = [record(number) for number in range(1, 61)]


def following(after: int) -> list[Record]:
    return [one for one in LOG if one.position > after]


@given(
    start=st.integers(0, 50),
    actions=st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(1, 12)), max_size=40),
    most=st.sampled_from([5, 20, 100]),
)
def test_what_is_read_is_what_the_log_would_say(start, actions, most) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent, "MOST_RECORDS", most)
        kept = Recent()
        life = kept.begin(start * STEP)
        end = start
        for grows, number, limit in actions:
            if grows and end < len(LOG):
                kept.add(LOG[end])
                end += 1
                continue
            after = number * STEP
            found = kept.read(after, limit)
            if found is None:
                kept.keep(after, following(after)[:limit], life)
            elif after >= end * STEP:
                assert found == []
            else:
                assert found
                assert list(found) == following(after)[: len(found)]


def test_a_reader_at_the_end_of_what_was_read_asks_nobody() -> None:
    kept = Recent()
    kept.begin(10 * STEP)

    assert kept.read(10 * STEP, 9) == []
    assert kept.read(11 * STEP, 9) == []  # known from its sender; the feed comes to it
    assert kept.read(9 * STEP, 9) is None


def test_what_was_asked_for_once_is_there_for_the_next_up_to_the_newest() -> None:
    kept = Recent()
    life = kept.begin(40 * STEP)
    for after in (0, 15, 30):
        kept.keep(after * STEP, following(after * STEP)[:16], life)

    seen, after = [], 2 * STEP
    while found := kept.read(after, 7):
        seen += found
        after = found[-1].position
    assert seen == LOG[2:40]


def test_nothing_is_kept_that_was_asked_for_before_everything_was_forgotten() -> None:
    kept = Recent()
    before = kept.begin(10 * STEP)
    kept.begin(50 * STEP)
    kept.keep(0, LOG[:5], before)

    assert kept.read(0, 9) is None


def test_nothing_is_kept_while_nobody_follows() -> None:
    kept = Recent()
    first = kept.begin(0)
    second = kept.begin(0)
    kept.add(LOG[0])
    kept.end(first)  # late: somebody else follows already
    assert kept.read(0, 9) == LOG[:1]

    kept.end(second)
    kept.add(LOG[1])
    assert kept.read(0, 9) is None


def test_what_is_kept_of_what_was_missed_is_bounded() -> None:
    kept = Recent()
    life = kept.begin(1_000_000)
    big = "x" * 100_000
    for number in range(0, 400, 2):
        one = Record(number + 1, f"e-{number}", Message(Target.BROADCAST, big))
        kept.keep(number, [one], life)

    held = sum(run.size for run in kept._missed)
    assert recent.MOST_BYTES / 2 < held <= recent.MOST_BYTES

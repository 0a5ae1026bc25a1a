"""Questions to a function of the application, each with a deadline.

A function that hangs costs the client that it was asked about ``DEADLINE`` seconds,
and nobody else anything: each question has a thread of a lane that grows while
calls take long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from sse_broker.core.forks import process_id
from sse_broker.core.lanes import SLOW, Lane

__all__ = ["DEADLINE", "Asking"]

DEADLINE = 5.0  # seconds
WIDTH, MOST = 8, 128  # questions at a time; and with those that take long already


class Asking:
    """Asks on threads of its own.  Any thread may ask; nothing starts before that."""

    def __init__(self, deadline: float = DEADLINE) -> None:
        self._deadline = deadline
        self._lanes: dict[int, Lane] = {}

    def ask(self, question: Callable[[], bool]) -> bool:
        """Return what *question* returns.  Waits for that, up to the deadline.

        :raises TimeoutError: there is no answer in time.
        :raises Exception: whatever *question* raises.
        """
        lane = self._lanes.get(process_id())
        if lane is None:  # setdefault is one step; a lock could be stuck after a fork
            lane = self._lanes.setdefault(process_id(), Lane("asking", WIDTH, MOST))
        answer = _Answer(question)
        lane.submit(answer.find)
        for _ in range(round(self._deadline / SLOW)):
            if answer.is_there.wait(SLOW):
                return answer.get()
            lane.look()
        answer.is_wanted = False
        raise TimeoutError(f"a function of the application took more than {self._deadline:g} s")

    def stop(self) -> None:
        """End the threads of this process; one that hangs is left alone."""
        lane = self._lanes.pop(process_id(), None)
        if lane is not None:
            lane.stop(timeout=1.0)


class _Answer:
    __slots__ = ("_answer", "_error", "_question", "is_there", "is_wanted")

    def __init__(self, question: Callable[[], bool]) -> None:
        self._question = question
        self._answer = False
        self._error: BaseException | None = None
        self.is_there = threading.Event()
        self.is_wanted = True  # nobody waits any more for one that has been in the lane too long

    def find(self) -> None:
        if not self.is_wanted:
            return
        try:
            self._answer = bool(self._question())
        except BaseException as err:  # whoever asked is told; what ends a thread is not its own
            self._error = err
        self.is_there.set()

    def get(self) -> bool:
        if self._error is not None:
            raise self._error
        return self._answer

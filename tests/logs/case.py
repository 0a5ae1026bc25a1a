"""What the parts of the contract of all logs have in common: a log, and a clock that is moved."""

from __future__ import annotations

import pytest

from sse_broker import Message, Target
from sse_broker.core.ports import Log, LogLimits, PositionLost, everything
from sse_broker.testing import FakeClock

__all__ = ["KEEP", "LogCase", "message"]

KEEP = LogLimits(resume_window=0, history_size=1000)


def message(data: str = "x", id: str = "") -> Message:
    return Message(Target.BROADCAST, data, id=id)


class LogCase:
    """Subclass it and say how a log is made."""

    def make(self, tmp_path) -> Log:
        raise LookupError("say how the log is made")

    @pytest.fixture(autouse=True)
    def _log(self, tmp_path):
        self.clock = FakeClock()
        self.log = self.make(tmp_path)
        self.log.bind(KEEP, self.clock)
        yield
        self.log.close()

    def fill(self, count: int) -> list[int]:
        return [self.log.append(message(str(n))).position for n in range(count)]

    def fail_on_loss(self, position: int) -> None:
        raise AssertionError(f"records before {position} were lost")

    def lost(self, id: str, wants=everything) -> str:
        with pytest.raises(PositionLost) as caught:
            self.log.locate(id, wants)
        return caught.value.reason

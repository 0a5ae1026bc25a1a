"""What tests of the hand-off have."""

from __future__ import annotations

import pytest

from tests.transport.rig import Rig


@pytest.fixture
def rig(monkeypatch):
    made = []

    def make(**settings) -> Rig:
        made.append(Rig(monkeypatch, **settings))
        return made[-1]

    yield make
    for one in made:
        one.broker.stop(timeout=0)
        one.turn()
        one.pump.stop()
        for fd in list(one.pump._by_fd):
            one.pump._by_fd[fd].sock.close()
        for sock in one.theirs:
            sock.close()

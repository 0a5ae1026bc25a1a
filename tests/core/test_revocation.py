"""Revoking a token: for how long that holds, and what cannot be said or revoked."""

from __future__ import annotations

import math

import pytest

from sse_broker import AuthenticationFailed, Identity, InvalidMessage
from sse_broker.testing import FakeClock
from tests.core.streams import Hub


@pytest.fixture(params=["memory", "sqlite"])
def hub(request, tmp_path):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/log.db"
    with Hub(log=url, clock=FakeClock()) as hub:
        hub.streams.here().reaper.stop()
        yield hub


def refused(hub: Hub, token: str) -> bool:
    try:
        hub.streams.check_token(Identity("u", token_id=token))
    except AuthenticationFailed:
        return True
    return False


def test_without_an_end_it_holds_for_good(hub: Hub) -> None:
    hub.revoke("stolen")
    for _ in range(3):
        hub.streams.clock.advance(400 * 86_400)
        hub.revoke("another")  # which has the log forget what is over
        assert refused(hub, "stolen")


def test_with_an_end_it_holds_until_then_and_a_nearer_one_takes_nothing_back(hub: Hub) -> None:
    now = hub.streams.clock.time()
    hub.revoke("t", now + 100)
    hub.revoke("t", now + 10)
    hub.streams.clock.advance(99)
    assert refused(hub, "t")
    hub.streams.clock.advance(2)
    assert not refused(hub, "t")


@pytest.mark.parametrize(
    "nonsense", [math.nan, -math.inf, -5.0, 0, 3600, True, "2030-01-01", None.__class__]
)
def test_an_end_that_is_no_moment_is_refused_and_revokes_nothing(hub: Hub, nonsense) -> None:
    with pytest.raises(InvalidMessage) as caught:
        hub.revoke("t", nonsense)

    assert caught.value.field == "expires_at"
    assert not refused(hub, "t")


@pytest.mark.parametrize("token", ["x" * 257, "a\nb", "\u202e", "\x00", 7])
def test_what_could_not_be_revoked_is_refused_at_the_door(token) -> None:
    with pytest.raises(AuthenticationFailed, match="revoked") as caught:
        Identity("u", token_id=token)

    assert caught.value.field == "token_id"


@pytest.mark.parametrize("token", ["x" * 256, "a b", "é", "disconnect_user u", "%00"])
def test_what_is_let_in_can_be_revoked(hub: Hub, token) -> None:
    assert not refused(hub, token)
    hub.revoke(token)
    assert refused(hub, token)

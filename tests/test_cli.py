"""``sse_broker`` on the command line, as processes and in process."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from sse_broker import AuthenticationFailed, Identity
from sse_broker.cli import main
from tests.core.streams import Hub, Tab


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


def run(*words: str, url: str = "", stdin: str | None = None):
    env = {"SSE_LOG_URL": url} if url else {}
    return CliRunner().invoke(main, words, input=stdin, env=env)


def read(tab: Tab, count: int) -> list[str]:
    for _ in range(100):
        if len(tab.data) >= count:
            break
        tab.step(0.1)
    return tab.data


def test_what_a_process_of_its_own_publishes_arrives(url: str) -> None:
    with Hub(log=url) as broker:
        tab = Tab(broker, user=7, topics=["t"]).connect().read_on()
        command = [sys.executable, "-m", "sse_broker", "--log", url, "publish"]
        done = subprocess.run(
            [*command, "--user", "7", "--event", "e", "--json", '{"n": 1}'],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )

        assert read(tab, 1) == ['{"n": 1}']
        assert done.stdout.strip() == tab.events[-1].id
        assert tab.events[-1].event == "e"


def test_topic_broadcast_tenant_own_id_and_standard_input(url: str) -> None:
    with Hub(log=url) as broker:
        plain = Tab(broker, user=1, topics=["t"]).connect().read_on()
        inside = Tab(broker, user=2, tenant="acme").connect().read_on()
        assert run("publish", "--topic", "t", "one", url=url).exit_code == 0
        assert run("publish", "--broadcast", "-", url=url, stdin="two\n").exit_code == 0
        assert run("publish", "--broadcast", "--tenant", "acme", "three", url=url).exit_code == 0
        for _ in range(2):
            done = run("publish", "--broadcast", "--all-tenants", "--id", "own", "four", url=url)
            assert done.output == "own\n"
        assert run("publish", "--user", "1", "end", url=url).exit_code == 0

        assert read(plain, 4) == ["one", "two\n", "four", "end"]
        assert inside.read_on().data == ["three", "four"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["publish", "x"], "one of --user, --topic and --broadcast"),
        (["publish", "--broadcast", "--topic", "t", "x"], "one of"),
        (["publish", "--broadcast", "--tenant", "a", "--all-tenants", "x"], "not both"),
        (["publish", "--broadcast", "--json", "{"], "no JSON"),
        (["publish", "--user", "", "x"], "invalid user ID"),
        (["publish", "--topic", "a:*", "x"], "invalid topic"),
        (["publish", "--broadcast", "--event", "a\nb", "x"], "invalid message"),
        (["disconnect"], "--user or --client"),
    ],
)
def test_wrong_use_is_said_and_does_nothing(words: list[str], said: str, url: str) -> None:
    done = run(*words, url=url)

    assert done.exit_code == 2
    assert said in done.output
    assert Hub(log=url).log.tail() == 0


def test_a_log_of_one_process_or_none_is_no_use() -> None:
    assert "nobody else sees it" in run("online", url="memory://").output
    assert "no log for" in run("online", url="nats://localhost").output
    assert run("online").exit_code == 2


def test_a_log_that_is_away_is_exit_status_one(tmp_path) -> None:
    done = run("publish", "--broadcast", "x", url=f"sqlite:///{tmp_path}/missing/log.db")

    assert done.exit_code == 1
    assert "log unavailable" in done.output


def test_online_disconnect_and_revoke(url: str) -> None:
    with Hub(log=url) as broker:
        broker.streams.here().reaper.stop()
        tabs = [Tab(broker, user=user).connect().read_on() for user in (7, 8)]
        tabs[1].reader.client.identity = Identity(8, token_id="t1")
        broker.streams.here().presence.report(broker.streams.clock.monotonic())
        assert run("online", url=url).output == "7\n8\n"

        assert run("disconnect", "--user", "7", "--reason", "logout", url=url).exit_code == 0
        assert run("revoke", "t1", url=url).exit_code == 0
        for tab, reason in zip(tabs, ("logout", "revoked"), strict=True):
            for _ in range(100):
                if tab.count("close"):
                    break
                tab.step(0.1)
            assert tab.events[-1].data == f'{{"reason":"{reason}"}}'
        with pytest.raises(AuthenticationFailed):
            broker.streams.check_token(Identity(8, token_id="t1"))

"""Help, versions, `tail`, `token`, `stats` and `flask sse`: the command line beyond sending."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import jwt
import pytest
from click.testing import CliRunner
from flask import Flask
from werkzeug.serving import make_server

import sse_broker
from sse_broker import SSE, Broker
from sse_broker.cli import COMMANDS, main
from sse_broker.cli.flask import sse
from tests.core.streams import Hub, Tab

tail_module = importlib.import_module("sse_broker.cli.tail")  # the command has its name too
USER = "5b0f1c52-8f0e-4c4e-9d4a-0d3f6f1c7a11"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/log.db"


def run(*words: str, **env: str):
    return CliRunner().invoke(main, words, env=env)


def test_the_version_is_the_packages() -> None:
    assert run("--version").output == f"sse_broker, version {sse_broker.__version__}\n"


@pytest.mark.parametrize("command", [[], *([one.name] for one in COMMANDS)])
def test_help_needs_no_configuration(command: list[str]) -> None:
    done = run(*command, "--help", SSE_LOG_URL="")

    assert done.exit_code == 0
    assert done.output.startswith("Usage:")


def test_a_command_without_a_log_says_what_to_name() -> None:
    done = run("online", SSE_LOG_URL="")

    assert done.exit_code == 2
    assert "--log URL" in done.output
    assert "SSE_LOG_URL" in done.output


def test_a_mistyped_path_is_no_new_log(tmp_path: Path) -> None:
    log = f"sqlite:///{tmp_path}/typo.db"
    for words in (["publish", "--broadcast", "x"], ["online"], ["stats"], ["revoke", "t"]):
        done = run(*words, SSE_LOG_URL=log)
        assert done.exit_code == 1
        assert "there is no log at" in done.output
    assert not list(tmp_path.iterdir())

    assert run("publish", "--create", "--broadcast", "x", SSE_LOG_URL=log).exit_code == 0
    assert (tmp_path / "typo.db").exists()


def test_a_misspelt_setting_is_said(url: str) -> None:
    Broker(log=url).broadcast("e", "x")
    done = CliRunner().invoke(main, ["online"], env={"SSE_LOG_URL": url, "SSE_RETRYY": "1"})

    assert "SSE_RETRYY is no setting" in done.output
    assert "SSE_RETRY?" in done.output


def test_each_line_of_standard_input_is_a_message(url: str) -> None:
    words = ["publish", "--create", "--topic", "logs", "--lines", "-"]
    done = CliRunner().invoke(main, words, input="one\ntwo\n", env={"SSE_LOG_URL": url})

    assert len(done.output.split()) == 2
    shown = run("tail", "--history", "-n", "2", "--json", SSE_LOG_URL=url).output
    assert [json.loads(line)["data"] for line in shown.split("\n")[:2]] == ["one", "two"]


def test_stats_and_online_have_a_form_for_programs(url: str) -> None:
    with Hub(log=url) as broker:
        Tab(broker, user=7).connect().read_on()
        broker.streams.here().presence.report(broker.streams.clock.monotonic())

        online = json.loads(run("online", "--json", SSE_LOG_URL=url).output)
        stats = json.loads(run("stats", "--json", SSE_LOG_URL=url).output)
        words = run("stats", SSE_LOG_URL=url).output

    assert online == {"users": ["7"]}
    assert (stats["processes"], stats["clients"], stats["users"]) == (1, 1, 1)
    assert stats["last_event_id"] in words


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], ["u7", "u8", "t", "acme", "all"]),
        (["--user", "7"], ["u7"]),
        (["--topic", "orders:*"], ["t"]),
        (["--tenant", "acme"], ["acme", "all"]),
    ],
)
def test_tail_shows_what_is_asked_for(url: str, options: list[str], shown: list[str]) -> None:
    broker = Broker(log=url)
    broker.send_to_user(7, "e", "u7")
    broker.send_to_user(8, "e", "u8")
    broker.send_to_topic("orders:1", "e", "t")
    broker.broadcast("e", "acme", tenant_id="acme")
    broker.broadcast("e", "all", tenant_id=sse_broker.ALL_TENANTS)

    words = ["tail", "--history", "--json", "-n", str(len(shown)), *options]
    done = run(*words, SSE_LOG_URL=url)

    assert [json.loads(line)["data"] for line in done.output.split("\n")[:-1]] == shown


def test_tail_begins_with_the_oldest_of_the_newest(url: str, monkeypatch) -> None:
    monkeypatch.setattr(tail_module, "MOST_HISTORY", 3)
    broker = Broker(log=url)
    for n in range(9):
        broker.broadcast("e", str(n))

    done = run("tail", "--history", "--json", "-n", "3", SSE_LOG_URL=url)

    assert [json.loads(line)["data"] for line in done.output.split("\n")[:-1]] == ["6", "7", "8"]


def test_tail_cannot_be_made_to_move_the_cursor(url: str) -> None:
    Broker(log=url).broadcast("e", "\x1b[2Jgone" + "x" * 1000)

    done = run("tail", "--history", "-n", "1", SSE_LOG_URL=url)

    assert "\x1b[2J" not in done.output
    assert r"\x1b[2Jgone" in done.output
    assert len(done.output) < 400


def test_tail_follows_what_is_sent_later(url: str) -> None:
    broker = Broker(log=url)
    broker.broadcast("e", "before")
    command = [sys.executable, "-m", "sse_broker", "--log", url, "tail", "-n", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        while process.poll() is None:  # until it listens nothing is shown: send until it ends
            broker.disconnect_user(7, "bye")
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        shown = process.stdout.read()
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    assert shown.count("disconnect_user") == 2
    assert "before" not in shown


def serve(app: Flask):
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    return server, thread


def test_tail_of_a_url_says_refusals_with_their_reason(own_watcher) -> None:
    app = Flask("shop")
    app.testing = True
    broker = SSE(app).broker
    server, thread = serve(app)
    try:
        done = run("tail", f"http://127.0.0.1:{server.port}/sse/stream", "--topic", ":")
    finally:
        broker.stop()
        server.shutdown()
        thread.join()
        server.server_close()

    assert done.exit_code == 1
    assert "refused" in done.output
    assert "400" in done.output
    assert run("tail", "ftp://localhost/x").exit_code == 2


def test_tail_of_a_url_shows_resets_and_messages(own_watcher) -> None:
    app = Flask("shop")
    app.testing = True
    broker = SSE(app).broker
    server, thread = serve(app)
    broker.broadcast("e", "x")
    stream = f"http://127.0.0.1:{server.port}/sse/stream?last_event_id=foreign-1"
    sending = threading.Event()

    def send() -> None:
        while not sending.wait(0.05):
            broker.send_to_user(USER, "note", "for you")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        done = run("tail", stream, "--user", USER, "-n", "1", "--json")
    finally:
        sending.set()
        sender.join()
        broker.stop()
        server.shutdown()
        thread.join()
        server.server_close()

    kinds = [json.loads(line)["kind"] for line in done.output.split("\n")[:-1]]
    assert kinds == ["reset", "welcome", "note"]


def test_a_token_is_one_that_the_servers_accept() -> None:
    key = "k" * 32
    env = {"SSE_JWT_KEY": key, "SSE_JWT_AUDIENCE": "a", "SSE_JWT_ISSUER": "i"}
    done = run("token", "--user", "7", "--tenant", "acme", "--topic", "t:*", **env)

    claims = jwt.decode(done.output.strip(), key, ["HS256"], audience="a", issuer="i")

    assert (claims["sub"], claims["tenant_id"], claims["topics"]) == ("7", "acme", ["t:*"])
    assert claims["jti"]
    assert run("token", "--user", "7").exit_code == 2
    wrong = run("token", "--user", "7", SSE_JWT_KEY=key, SSE_JWT_ALGORITHMS="RS256")
    assert "RS256" in wrong.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str) -> None:
    assert "_SSE_BROKER_COMPLETE" in run("completion", shell).output


def test_flask_sse_has_the_commands_with_the_applications_own_broker(url: str) -> None:
    app = Flask("shop")
    app.config["SSE_LOG_URL"] = url
    broker = SSE(app).broker
    broker.broadcast("e", "x")
    runner = app.test_cli_runner()

    assert {*sse.commands} == {one.name for one in COMMANDS} - {"completion"}
    assert runner.invoke(sse, ["publish", "--user", "7", "hi"]).exit_code == 0
    done = runner.invoke(sse, ["tail", "--history", "-n", "2", "--json"])
    assert [json.loads(line)["data"] for line in done.output.split("\n")[:-1]] == ["x", "hi"]


def test_flask_sse_says_what_an_application_lacks() -> None:
    done = Flask("bare").test_cli_runner().invoke(sse, ["online"])

    assert done.exit_code == 2
    assert "SSE(app)" in done.output


def test_flask_finds_the_commands(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\nfrom sse_broker import SSE\napp = Flask('shop')\nSSE(app)\n"
    )
    command = [sys.executable, "-m", "flask", "--app", "shop", "sse", "publish", "--create"]
    done = subprocess.run(
        [*command, "--broadcast", "x"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(sse_broker.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[A-Za-z0-9._-]+\n", done.stdout)
    assert (tmp_path / "instance" / "sse_broker.db").exists()


def test_explain_says_why_in_a_line_and_for_programs(url: str) -> None:
    with Hub(log=url) as broker:
        Tab(broker, user=7, topics=["orders"]).connect().read_on()
        broker.streams.here().presence.report(broker.streams.clock.monotonic())
        sent = broker.send_to_topic("order", "e", "x")

        shown = run("explain", sent, "--user", "7", SSE_LOG_URL=url).output
        found = json.loads(run("explain", sent, "--user", "7", "--json", SSE_LOG_URL=url).output)
        count = run("listeners", "orders", SSE_LOG_URL=url).output

    assert shown.startswith("not_subscribed: ")
    assert "did you mean orders?" in shown
    assert found["verdict"] == "not_subscribed"
    assert count == "1\n"

"""What is measured: how each server is started, streamed from and sent through."""

from __future__ import annotations

import base64
import hmac
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.build import BUILD, PEERS, PYTHON
from benchmarks.load import get, post
from benchmarks.process import Server, free_port, gunicorn
from benchmarks.servers.ours import PUBLISH_TOKEN
from benchmarks.servers.triggers import PAD

UUID = "00000000-0000-4000-8000-@CLIENT@"
KEY = b"benchmark-benchmark-benchmark-12"  # of tokens that are made here
OURS_PATH = f"/sse/stream?user_id={UUID}&topics=bench"
CASES = {
    "connect": "connecting, and idle memory",
    "one": "one message at a time to all",
    "ping": "ordinary requests meanwhile",
    "burst": "bursts to all, from code in the server",
    "burst_http": "bursts to all, published over HTTP",
    "beside_pattern": "bursts to all, beside one stream with a pattern that matches nothing",
    "by_pattern": "bursts to all, who subscribe by a pattern",
    "users": "messages to single users",
    "burn": "one at a time beside a thread that burns CPU",
    "burn_burst": "bursts beside a thread that burns CPU",
    "storm": "all reconnect at once and get what they missed",
}


PATTERNS = frozenset({"beside_pattern", "by_pattern"})
PLAIN = frozenset(CASES) - PATTERNS - {"storm", "burst_http"}


@dataclass(frozen=True)
class Trigger:
    """Requests that have messages sent: *count* of *text*, over *connections*."""

    text: str
    count: int
    connections: int


def from_code(count: int, users: int = 0) -> Trigger:
    """One request; code in the server sends."""
    target = f"users&users={users}" if users else "topic"
    return Trigger(post(f"/send?n={count}&target={target}"), 1, 1)


@dataclass(frozen=True)
class Subject:
    """One server under measurement.

    *trigger* makes what sends so many messages, to the topic or to users in turn.
    *in_process* says that code in the server sends; *http* makes what sends by requests
    all the same.  *head* says that a stream's response begins before its first message.
    *user_path* is for streams that get messages to a single user, if *path* does not.
    """

    name: str
    start: Callable[[int], Server]
    path: str = OURS_PATH
    user_path: str = ""
    trigger: Callable[[int, int], Trigger] = from_code
    in_process: bool = True
    http: Callable[[int], Trigger] | None = None
    ping: str = "/ping"
    head: bool = True
    most: int = 10_000
    cases: frozenset[str] = PLAIN
    needs: tuple[str, ...] = ()
    ours: bool = False

    def why_not(self) -> str:
        """Return why it cannot be measured here, if it cannot."""
        missing = [one for one in self.needs if not (shutil.which(one) or Path(one).exists())]
        return f"missing: {', '.join(missing)}" if missing else ""

    def stream(self, path: str = "") -> str:
        return get(path or self.path, "Accept: text/event-stream\r\n@RESUME@")


def _limit(clients: int) -> Server:
    port = free_port()
    return Server([str(BUILD / "limit"), str(port)], port)


def _hub(*options: str) -> Callable[[int], Server]:
    def start(clients: int) -> Server:
        port = free_port()
        return Server([str(BUILD / "hub"), str(port), *options], port)

    return start


def _mercure(clients: int) -> Server:
    port = free_port()
    return Server([str(BUILD / "mercure"), str(port), KEY.decode()], port)


def _to_mercure(count: int, users: int = 0) -> Trigger:
    topic = UUID if users else "bench"
    headers = f"Authorization: Bearer {_token({'mercure': {'publish': ['*']}})}\r\n"
    headers += "Content-Type: application/x-www-form-urlencoded\r\n"
    return Trigger(
        post("/.well-known/mercure", f"topic={topic}&data=t=@STAMP@ n=@NUMBER@ {PAD}", headers),
        count,
        4,
    )


def _to_ours(count: int) -> Trigger:
    body = '{"target": "topic", "topic": "bench", "event": "message", '
    body += f'"data": "t=@STAMP@ n=@NUMBER@ {PAD}"}}'
    headers = f"Authorization: Bearer {PUBLISH_TOKEN}\r\nContent-Type: application/json\r\n"
    return Trigger(post("/sse/publish", body, headers), count, 4)


def _better_sse(clients: int) -> Server:
    port = free_port()
    return Server(
        ["node", str(PEERS / "better_sse.cjs"), str(port)],
        port,
        NODE_PATH=str(BUILD / "node_modules"),
        NODE_ENV="production",
    )


def _starlette(clients: int) -> Server:
    port = free_port()
    command = [str(PYTHON), "-m", "uvicorn", "--port", str(port), "--log-level", "warning"]
    return Server([*command, "--no-access-log", "benchmarks.peers.starlette_app:app"], port)


def _django(clients: int) -> Server:
    port = free_port()
    command = [str(PYTHON), "-m", "daphne", "-v", "0", "-p", str(port)]
    settings = "benchmarks.peers.django_settings"
    command.append("benchmarks.peers.django_app:application")
    return Server(command, port, DJANGO_SETTINGS_MODULE=settings)


def _flask_sse(clients: int) -> Server:
    redis_port = free_port()
    redis = subprocess.Popen(
        ["redis-server", "--port", str(redis_port), "--save", "", "--loglevel", "warning"],
        stdout=subprocess.DEVNULL,
    )
    return gunicorn(
        "flask_sse_app",
        "gevent",
        clients,
        python=str(PYTHON),
        beside=(redis,),
        BENCH_LOG=f"redis://127.0.0.1:{redis_port}",
    )


def _nchan(clients: int) -> Server:
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="bench-nchan-"))
    text = (PEERS / "nchan.conf").read_text().replace("PORT", str(port))
    (folder / "nginx.conf").write_text(text)
    nginx = shutil.which("nginx") or "nginx"
    command = [nginx, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return Server(command, port, folder=folder)


def _to_nchan(count: int, users: int = 0) -> Trigger:
    channel = "u@CLIENT@" if users else "bench"
    return Trigger(post(f"/pub?id={channel}", f"t=@STAMP@ n=@NUMBER@ {PAD}"), count, 4)


def _centrifugo(clients: int) -> Server:
    port = free_port()
    command = [str(BUILD / "centrifugo"), "-c", str(PEERS / "centrifugo.json")]
    env = {"CENTRIFUGO_HTTP_SERVER_PORT": str(port)}
    return Server(command, port, probe="/health", **env)


def _to_centrifugo(count: int, users: int = 0) -> Trigger:
    body = f'{{"channel": "bench", "data": {{"text": "t=@STAMP@ n=@NUMBER@ {PAD}"}}}}'
    headers = "X-API-Key: benchmark\r\nContent-Type: application/json\r\n"
    return Trigger(post("/api/publish", body, headers), count, 4)


def _token(claims: dict[str, object]) -> str:
    """Return a JWT that says so, signed with the benchmark's key."""
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    text = b".".join(_base64(json.dumps(part).encode()) for part in parts)
    return b".".join([text, _base64(hmac.digest(KEY, text, "sha256"))]).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _gunicorn(app: str, host: str) -> Callable[[int], Server]:
    return lambda clients: gunicorn(app, host, clients)


def _over_sqlite(clients: int) -> Server:
    folder = Path(tempfile.mkdtemp(prefix="bench-log-"))
    log = f"sqlite:///{folder / 'log.db'}"
    return gunicorn("over_a_log", "handoff", clients, folder=folder, BENCH_LOG=log)


ALL = frozenset(CASES)
CENTRIFUGO_TOKEN = _token({"sub": "", "channels": ["bench"]})  # subscribes an anonymous client
NO_BURN = PLAIN - {"burn", "burn_burst"}
OVER_HTTP = (NO_BURN | {"burst_http"}) - {"burst"}
OURS = [
    Subject("handoff", _gunicorn("ours", "handoff"), cases=ALL, ours=True, http=_to_ours),
    Subject(
        "gthread", _gunicorn("ours", "gthread"), cases=ALL, most=1000, ours=True, http=_to_ours
    ),
    Subject("gevent", _gunicorn("ours", "gevent"), cases=ALL, ours=True, http=_to_ours),
    Subject(
        "handoff-sqlite",
        _over_sqlite,
        cases=ALL - PATTERNS - {"burn", "burn_burst"},
        ours=True,
        http=_to_ours,
    ),
    Subject("naive-gthread", _gunicorn("naive", "gthread"), most=1000),
    Subject("naive-gevent", _gunicorn("naive", "gevent")),
    Subject("limit", _limit, cases=NO_BURN, needs=(str(BUILD / "limit"),)),
]
PEER_SUBJECTS = [
    Subject(
        "nchan",
        _nchan,
        "/sub?id=bench",
        "/sub?id=u@CLIENT@",
        _to_nchan,
        in_process=False,
        cases=OVER_HTTP | {"storm"},
        needs=("nginx", "/usr/lib/nginx/modules/ngx_nchan_module.so"),
    ),
    Subject("go-hub", _hub(), cases=NO_BURN, needs=(str(BUILD / "hub"),)),
    Subject("go-hub-joins", _hub("join"), cases=NO_BURN, needs=(str(BUILD / "hub"),)),
    Subject(
        "mercure",
        _mercure,
        "/.well-known/mercure?topic=bench",
        f"/.well-known/mercure?topic={UUID}",
        _to_mercure,
        in_process=False,
        cases=OVER_HTTP,
        needs=(str(BUILD / "mercure"),),
    ),
    Subject(
        "centrifugo",
        _centrifugo,
        f"/connection/uni_sse?cf_connect=%7B%22token%22%3A%22{CENTRIFUGO_TOKEN}%22%7D",
        trigger=_to_centrifugo,
        in_process=False,
        ping="/health",
        cases=OVER_HTTP - {"users"},  # it would take a token per client
        needs=(str(BUILD / "centrifugo"),),
    ),
    Subject(
        "better-sse",
        _better_sse,
        cases=NO_BURN,
        needs=("node", str(BUILD / "node_modules" / "better-sse")),
    ),
    Subject("sse-starlette", _starlette, needs=(str(PYTHON),)),
    Subject(
        "django-eventstream",
        _django,
        f"/sse/stream?channel=bench&channel={UUID}",
        cases=NO_BURN,
        needs=(str(PYTHON),),
    ),
    Subject(
        "flask-sse",
        _flask_sse,
        "/sse/stream",
        f"/sse/stream?channel={UUID}",
        head=False,
        most=1000,
        needs=("redis-server", str(PYTHON)),
    ),
]
SUBJECTS = {one.name: one for one in (*OURS, *PEER_SUBJECTS)}

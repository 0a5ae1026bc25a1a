"""Broken set-ups, each a server with something in front: what the doctor is tried on."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.live.conftest import need
from tests.live.servers import Server, free_port, gunicorn, until

APP = "sse_broker.app:create_app()"
TOKEN = "publish-token-of-the-zoo"
KEY = "k" * 32
ENV = {"SSE_PUBLISH_TOKEN": TOKEN, "SSE_HEARTBEAT_INTERVAL": "5", "SSE_CLIENT_TIMEOUT": "20"}
HANDOFF = ("-k", "sse_broker.gunicorn.StreamWorker", "--threads", "4")

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 100; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location {location} {{
            proxy_pass http://127.0.0.1:{upstream}{strip};
            {lines}
        }}
    }}
}}
"""
HTTP11 = "proxy_http_version 1.1; proxy_set_header Connection '';"
APACHE = """
ServerRoot {folder}
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
ServerName localhost
Listen 127.0.0.1:{port}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule filter_module {modules}/mod_filter.so
LoadModule deflate_module {modules}/mod_deflate.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
AddOutputFilterByType DEFLATE text/event-stream
ProxyPass / http://127.0.0.1:{upstream}/
"""
HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server {timeout}
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    server app 127.0.0.1:{upstream}
"""


@contextlib.contextmanager
def hub(folder: Path, *options: str, **env: str) -> Iterator[Server]:
    """The reference hub, healthy unless *options* or *env* say otherwise."""
    port = free_port()
    settings = {"SSE_LOG_URL": f"sqlite:///{folder}/log.db", "SSE_DEV_AUTH": "1", **ENV, **env}
    server = Server(gunicorn(port, *(options or HANDOFF), app=APP), port, **settings)
    try:
        yield server.start(folder / "server.log")
    finally:
        server.stop()


@contextlib.contextmanager
def front(command: list[str], port: int) -> Iterator[Server]:
    """A proxy that runs by *command* and listens on *port*."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = Server([], port)
    try:
        until(lambda: _listens(found), 10)
        yield found
    finally:
        process.terminate()
        process.wait(10)


def _listens(server: Server) -> bool:
    try:
        server.ask("GET", "/sse/healthz")
    except OSError:
        return False
    return True


@contextlib.contextmanager
def nginx(
    folder: Path, upstream: int, lines: str, location: str = "/", strip: str = ""
) -> Iterator[Server]:
    """nginx in front, with *lines* in its location."""
    port, config = free_port(), folder / "nginx.conf"
    values = {"folder": folder, "port": port, "upstream": upstream}
    config.write_text(NGINX.format(**values, lines=lines, location=location, strip=strip))
    program = need("nginx", "nginx-light")
    with front([program, "-p", str(folder), "-c", str(config)], port) as found:
        yield found


@contextlib.contextmanager
def apache(folder: Path, upstream: int) -> Iterator[Server]:
    """Apache in front, which compresses streams."""
    port, config = free_port(), folder / "apache.conf"
    modules = "/usr/lib/apache2/modules"
    config.write_text(APACHE.format(folder=folder, port=port, upstream=upstream, modules=modules))
    program = need("apache2", "apache2")
    with front([program, "-DFOREGROUND", "-f", str(config)], port) as found:
        yield found


@contextlib.contextmanager
def haproxy(folder: Path, upstream: int, timeout: str) -> Iterator[Server]:
    """HAProxy in front, with a timeout for the server."""
    port, config = free_port(), folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, upstream=upstream, timeout=timeout))
    with front([need("haproxy", "haproxy"), "-db", "-q", "-f", str(config)], port) as found:
        yield found

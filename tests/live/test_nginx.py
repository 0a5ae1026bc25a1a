"""The nginx configuration of docs/deploying.md, with a real nginx in front."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.live.conftest import need
from tests.live.servers import ROOT, Server, free_port, read_until, serve, until

pytestmark = pytest.mark.live

CONFIG = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 100; }}
http {{
    access_log off;
    gzip on;
    gzip_types text/event-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream backend {{ server 127.0.0.1:{upstream}; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://backend; }}
        {location}
    }}
}}
"""


@pytest.mark.parametrize("kind", ["readme", "stock"])
def test_an_event_passes_at_once(kind: str, tmp_path: Path) -> None:
    nginx = need("nginx", "nginx-light")
    blocks = re.findall(
        r"^```nginx\n(.*?)^```", (ROOT / "docs/deploying.md").read_text(), re.S | re.M
    )
    port = free_port()
    with serve("gthread") as server:
        location = blocks[0] if kind == "readme" else ""
        config = tmp_path / "nginx.conf"
        config.write_text(
            CONFIG.format(folder=tmp_path, upstream=server.port, port=port, location=location)
        )
        process = subprocess.Popen([nginx, "-p", str(tmp_path), "-c", str(config)])
        try:
            front = Server([], port)
            until(lambda: answers(front))
            extra = "Accept-Encoding: gzip\r\n" if kind == "readme" else ""
            sock = front.stream("&topics=a", headers=extra)
            read_until(sock, b"event: welcome", 3)
            server.publish(target="topic", topic="a", data="through")
            read_until(sock, b"data: through\n\n", 3)
            sock.close()
            until(lambda: server.json("/numbers")["clients"] == 0, 5)
        finally:
            process.terminate()
            process.wait(5)


def answers(server: Server) -> bool:
    try:
        return server.ask("GET", "/healthz")[0] == 200
    except OSError:
        return False

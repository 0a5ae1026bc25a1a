"""A throw-away PostgreSQL: made in a directory of its own, reached by its socket there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.live.conftest import need
from tests.live.servers import until


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Start PostgreSQL and yield its URL for SQLAlchemy; stop it by its process id."""
    initdb, server = (need(name, "postgresql", _folders()) for name in ("initdb", "postgres"))
    home = Path(tempfile.mkdtemp(prefix="pg-"))  # short: a socket's path has at most 107 bytes
    # Neither initdb nor the server runs as root.
    account = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    if account:
        shutil.chown(home, **account)
    options = {"cwd": home, "stdout": subprocess.DEVNULL, **account}
    try:
        subprocess.run(
            [initdb, "-D", home / "data", "-U", "postgres", "-A", "trust", "--no-sync"],
            check=True,
            **options,
        )
        process = subprocess.Popen(
            [server, "-D", home / "data", "-k", home, "-c", "listen_addresses=", "-F"],
            stderr=(home / "log").open("wb"),
            **options,
        )
        try:
            until(lambda: _answers(process, home), 30)
            yield f"postgresql+psycopg://postgres@/postgres?host={home}"
        finally:
            process.send_signal(signal.SIGINT)  # its "fast" shutdown: sessions are cut
            process.wait(20)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _folders() -> str:
    """Return where the server's programs may be, as a PATH; Debian has them in none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    folders = [*map(str, found), os.environ.get("PATH", "")]
    config = shutil.which("pg_config")
    if config:
        asked = subprocess.run([config, "--bindir"], capture_output=True, text=True)
        folders.insert(0, asked.stdout.strip())
    return os.pathsep.join(folders)


def _answers(process: subprocess.Popen[bytes], home: Path) -> bool:
    import psycopg

    assert process.poll() is None, (home / "log").read_text()
    try:
        psycopg.connect(f"host={home} user=postgres dbname=postgres").close()
    except psycopg.OperationalError:
        return False
    return True

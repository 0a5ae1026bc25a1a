"""Looks at this machine: settings, versions, the log, descriptors."""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sse_broker.broker import Broker
from sse_broker.config import strangers
from sse_broker.doctor.findings import Report
from sse_broker.errors import BrokerError
from sse_broker.version import __version__

__all__ = ["look"]

PACKAGES = ("Flask", "Werkzeug", "gunicorn", "gevent", "redis", "PyJWT", "prometheus_client")
ENOUGH = 4096  # descriptors
LOCK_WAIT = 2.0  # seconds for the write lock of a file


def look(
    broker: Broker, settings: Mapping[str, Any], tell: Callable[[str], None] = lambda _: None
) -> Report:
    """Return what is wrong with a broker's log and settings here.  Sends nothing."""
    report = Report()
    tell("settings and versions")
    for sentence in strangers(settings):
        report.find("configuration", sentence)
    report.notes.append(f"sse_broker {__version__}, Python {platform.python_version()}")
    report.notes.append(", ".join(_versions()))
    _descriptors(report)
    tell("the log")
    _log(report, broker)
    return report


def _versions() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _descriptors(report: Report) -> None:
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and max(soft, hard) < ENOUGH:
        report.find("descriptors", f"{soft} may be open, and no more than {hard}")
    else:
        report.notes.append(f"{soft} files may be open at once (hard limit: {hard})")


def _log(report: Report, broker: Broker) -> None:
    url = broker.log.url
    path = Path(unquote(urlsplit(url).path[1:])) if url.startswith("sqlite:") else None
    if path is not None and not path.exists():
        report.find("log_unreachable", f"there is no file {path}")
        return
    try:
        tail = broker.log.tail()
        census = broker.log.roster.census()
    except BrokerError as err:
        report.find("log_unreachable", str(err))
        return
    report.notes.append(f"{url}: position {tail}, id {broker.log.cursor(tail)}")
    if path is not None:
        _file(report, path)
    streams = f"{census.clients} streams of {census.users} users"
    if census.processes:
        report.notes.append(f"{census.processes} processes serve {streams}")
    else:
        report.find("log_unserved", f"no process reports to {url}")


def _file(report: Report, path: Path) -> None:
    size = sum(one.stat().st_size for one in path.parent.glob(path.name + "*") if one.is_file())
    report.notes.append(f"the log has {size / 1e6:.1f} MB on disk")
    db = sqlite3.connect(path, timeout=LOCK_WAIT, isolation_level=None)
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute("ROLLBACK")
    except sqlite3.Error as err:
        report.find("log_locked", f"{path}: {err}")
    finally:
        db.close()

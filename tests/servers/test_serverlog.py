"""Warnings go where the server writes, unless the application has set up logging."""

from __future__ import annotations

import logging

import pytest

from sse_broker.servers import serverlog
from sse_broker.servers.serverlog import ServerLog, speak


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


@pytest.fixture
def ours(monkeypatch) -> logging.Logger:
    """The library's logger in a process that has set up nothing."""
    logger = logging.Logger("sse_broker")
    monkeypatch.setattr(serverlog, "_ours", logger)
    monkeypatch.setattr(serverlog, "_root", logging.Logger("root"))
    speak()
    speak()
    return logger


def test_the_handler_is_there_once(ours) -> None:
    assert [type(handler) for handler in ours.handlers] == [ServerLog]


def test_a_warning_goes_to_the_servers_log(ours, monkeypatch, capsys) -> None:
    kept = Kept()
    monkeypatch.setattr(logging.getLogger("gunicorn.error"), "handlers", [kept])

    ours.warning("this")
    ours.info("not this")

    assert kept.lines == ["WARNING this"]
    assert capsys.readouterr().err == ""


def test_without_a_server_that_logs_it_goes_to_standard_error_with_its_level(ours, capsys) -> None:
    ours.error("that")

    assert capsys.readouterr().err == "[ERROR] sse_broker: that\n"


def test_it_is_silent_where_the_application_logs(ours, monkeypatch, capsys) -> None:
    kept = Kept()
    ours.addHandler(kept)

    ours.warning("this")

    assert kept.lines == ["WARNING this"]
    assert capsys.readouterr().err == ""

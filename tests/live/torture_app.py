"""The app of the fault run, with a mistake in it if the environment asks for one."""

from __future__ import annotations

import os

from flask import Flask

from sse_broker.core.client import Client
from sse_broker.core.reader import READ_RECORDS, Reader
from tests.live import app


def create_app() -> Flask:
    mistake = os.environ.get("TORTURE_BREAK")
    if mistake:
        MISTAKES[mistake]()
    return app.create_app()


def without_overlap() -> None:
    """Go live without reading the log once more: what was recorded meanwhile is missing."""

    def read_on(self: Reader) -> None:
        records = self._log.read(self.cursor, READ_RECORDS)
        if records:
            self.cursor = records[-1].position
            self._write(r for r in records if self.client.wants(r.message))
        if len(records) < READ_RECORDS:
            self.client.caught_up()
            self._replaying = False

    Reader._read_on = read_on  # type: ignore[method-assign]


def without_skipping() -> None:
    """Write what was replayed already once more when it comes live."""

    def take_records(self: Reader, records: object) -> None:
        self._write(records)  # type: ignore[arg-type]

    Reader._take_records = take_records  # type: ignore[method-assign]


def without_looking_back() -> None:
    """Drop what does not fit into a queue and say nothing."""

    def overflow(self: Client, record: object) -> bool:
        return False

    Client._overflow_locked = overflow  # type: ignore[method-assign]


MISTAKES = {
    "overlap": without_overlap,
    "skip": without_skipping,
    "overflow": without_looking_back,
}

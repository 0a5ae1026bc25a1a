"""A question to all processes that share a log, and their answers.

Question and answers travel through the log as commands.  Each process that has streams
answers on a thread of its own, so that neither the log's turn nor a stream waits; who
asks listens to the log for as long as it takes, and knows from the roster how many
answers there will be.  A process that does not answer in time is left out, and that is
said.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Callable
from typing import Any

from sse_broker.core.lanes import Lane
from sse_broker.core.ports import Log, Record
from sse_broker.errors import LogUnavailable
from sse_broker.wire.command import MAX_DETAIL, Act, Command

__all__ = ["Questions", "ask"]

TIMEOUT = 2.0  # seconds that who asks waits for all answers

Answerer = Callable[[str, dict[str, Any]], Any]
"""Returns this process's answer to a question, by its kind and what it is about; memory only."""

_log = logging.getLogger("sse_broker.broker")


class Questions:
    """Answers for one process."""

    def __init__(self, log: Log, process: str, answer: Answerer) -> None:
        self._source = log
        self._process = process
        self._answer = answer
        self._lane: Lane | None = None

    def stop(self) -> None:
        """End the thread that answers."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.stop()

    def take(self, command: Command) -> None:
        """Have a question answered soon.  In the log's turn; never waits."""
        if self._lane is None:
            self._lane = Lane("questions", 1)
        self._lane.submit(lambda: self._reply(command))

    def _reply(self, command: Command) -> None:
        about = _read(command)
        if about is None:
            return
        said = {"process": self._process, "answer": self._answer(command.reason, about)}
        text = json.dumps(said, default=str)
        if len(text) > MAX_DETAIL:
            text = json.dumps({"process": self._process, "answer": None, "too_long": True})
        try:
            self._source.append(Command(Act.ANSWER, command.value, "answered", text))
        except LogUnavailable as err:  # who asked is told that this process did not answer
            _log.warning("a question of another process could not be answered: %s", err)


def ask(
    log: Log, what: str, about: dict[str, Any], timeout: float = TIMEOUT
) -> tuple[dict[str, Any], int]:
    """Return the answers of all processes that serve streams, and how many are missing.

    One that has not answered after *timeout* seconds is missing.  Waits for that.

    :raises LogUnavailable: nobody could be asked.
    """
    expected = log.roster.census().processes
    if not expected:
        return {}, 0
    request = secrets.token_hex(8)
    found: dict[str, Any] = {}
    done = threading.Event()

    def hear(record: Record) -> None:
        message = record.message
        if isinstance(message, Command) and message.value == request:
            said = _read(message) if message.act is Act.ANSWER else None
            if said is not None and isinstance(said.get("process"), str):
                found[said["process"]] = said.get("answer")
                if len(found) >= expected:
                    done.set()

    following = log.listen(hear, lambda _: None)
    try:
        log.append(Command(Act.ASK, request, what, json.dumps(about)))
        done.wait(timeout)
    finally:
        following.stop()
    return dict(found), max(0, expected - len(found))


def _read(command: Command) -> dict[str, Any] | None:
    try:
        found = json.loads(command.detail)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None

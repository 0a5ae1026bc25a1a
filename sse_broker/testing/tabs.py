"""Streams as tests read them: over Flask's test client, without a server.

A :class:`Tab` reads its stream on a thread of its own, as a server would, so that a
test never hangs: what does not come within ``timeout`` seconds is an error that says
what had come.  The thread ends with the tab.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from sse_broker.core.threads import spawn
from sse_broker.wire.parse import Event, Parser

__all__ = ["Event", "NothingCame", "SSEClient", "Tab", "read_events"]

LIBRARY = frozenset({"welcome", "heartbeat"})  # what a test asks for by name only


class NothingCame(AssertionError):
    """What a test waited for did not come; the message says what did."""


class Came(Event):
    """An event as a tab got it; ``json`` is its data, parsed."""

    __slots__ = ()

    @property
    def json(self) -> Any:
        """The data as JSON.

        :raises ValueError: it is none.
        """
        return json.loads(self.data)


class SSEClient(FlaskClient):
    """Flask's test client with :meth:`stream`.  Also as ``app.test_client_class = SSEClient``."""

    def __init__(self, application: Flask, *args: Any, **options: Any) -> None:
        super().__init__(application, *args, **options)
        self.tabs: list[Tab] = []

    def stream(self, path: str = "/sse/stream", *, timeout: float = 2.0, **request: Any) -> Tab:
        """Open a stream; return it once its headers and first bytes are there.

        *timeout* is in seconds, for each wait.  *request* is passed on to :meth:`get`.

        :raises NothingCame: the answer is no stream; the message has its status and text.
        """
        tab = Tab(self, path, timeout, request)
        self.tabs.append(tab)
        return tab

    def close_streams(self) -> None:
        """Close every tab that was opened here."""
        while self.tabs:
            self.tabs.pop().close()


class Tab:
    """One stream, as a browser's tab has it.  A context manager; used by one thread."""

    def __init__(
        self, client: FlaskClient, path: str, timeout: float, request: dict[str, Any]
    ) -> None:
        self._client, self._path, self._request = client, path, request
        self.timeout = timeout
        self.events: list[Came] = []
        """All that came so far, of this connection and of those before it."""
        self.last_event_id = ""
        self.is_open = False
        self._open()

    def __enter__(self) -> Tab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        shown = "".join(f"\n  {one.event}: {one.data}" for one in self.events)
        return f"<Tab {self._path} {state}, {len(self.events)} events>{shown}"

    def next(self, event: str | None = None) -> Came:
        """Return the next event, or the next one named *event*; waits ``timeout`` seconds at most.

        Without a name, ``welcome`` and heartbeats are passed over.

        :raises NothingCame: it did not come, or the stream has ended.
        """
        __tracebackhide__ = True
        end = time.monotonic() + self.timeout
        while True:
            try:
                one = self._came.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                wanted = f"event {event!r}" if event else "event"
                raise NothingCame(f"no {wanted} in {self.timeout:g} s; {self!r}") from None
            if one is None:
                self.is_open = False
                raise NothingCame(f"the stream has ended; {self!r}")
            self.events.append(one)
            self.last_event_id = one.id or self.last_event_id
            if one.event == event or (event is None and one.event not in LIBRARY):
                return one

    def take(self, count: int) -> list[Came]:
        """Return the next *count* events, as :meth:`next` does."""
        __tracebackhide__ = True
        return [self.next() for _ in range(count)]

    def expect_nothing(self, seconds: float = 0.1) -> None:
        """Fail if an event comes within *seconds*: the one wait that always takes its time."""
        __tracebackhide__ = True
        before, self.timeout = self.timeout, seconds
        try:
            one = self.next()
        except NothingCame:
            return
        finally:
            self.timeout = before
        raise AssertionError(f"nothing was to come, but {one.event}: {one.data}; {self!r}")

    def stall(self) -> None:
        """Stop reading, as a suspended tab does; :meth:`resume` goes on."""
        self._may_read.clear()

    def resume(self) -> None:
        """Read on."""
        self._may_read.set()

    def drop(self) -> None:
        """Lose the connection, as when a network goes; :meth:`reconnect` comes back."""
        self.close()

    def reconnect(self, last_event_id: str | None = None) -> Tab:
        """Come back with the last id that was seen, or with *last_event_id*; return this tab.

        An id that the log cannot know, such as ``"gone"``, makes a ``reset``.
        """
        self.close()
        headers = dict(self._request.get("headers") or {})
        headers["Last-Event-ID"] = self.last_event_id if last_event_id is None else last_event_id
        self._request = {**self._request, "headers": headers}
        self._open()
        return self

    def close(self) -> None:
        """Close the stream and end its thread.  Idempotent."""
        self._may_read.set()
        self._response.close()
        self._thread.join(timeout=5)
        self.is_open = False

    def _open(self) -> None:
        self._came: queue.Queue[Came | None] = queue.Queue()
        self._may_read = threading.Event()
        self._may_read.set()
        self._response = self._client.get(self._path, buffered=False, **self._request)
        if self._response.mimetype != "text/event-stream":
            text = self._response.get_data(as_text=True)[:500]
            raise NothingCame(f"{self._path} answered {self._response.status}: {text}")
        self.is_open = True
        self._thread = spawn("tab", lambda: self._read(self._response))

    def _read(self, response: TestResponse) -> None:
        parser, came, may_read = Parser(), self._came, self._may_read
        try:
            for chunk in response.response:
                assert isinstance(chunk, bytes)
                for one in parser.feed(chunk):
                    came.put(Came(one.event, one.data, one.id, one.retry))
                may_read.wait()
        finally:
            came.put(None)


def read_events(chunks: bytes | Iterable[bytes], count: int | None = None) -> list[Event]:
    """Return the events in *chunks*, all of them or the first *count*.

    *chunks* may be bytes, or the body of a response.  With *count* the body is
    read only that far; a live stream has no end, so for one use :class:`Tab`.
    """
    parser, found = Parser(), []
    for chunk in (chunks,) if isinstance(chunks, bytes) else chunks:
        found.extend(parser.feed(chunk))
        if count is not None and len(found) >= count:
            return found[:count]
    return found

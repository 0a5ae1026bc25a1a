"""Looks at a server through its public address, as a browser would.

The order is that of a request's way: is anybody there, is it our application, what
does that say of itself, does a stream begin, is it as it was sent, does a message
come through, does a quiet stream live until its next heartbeat.
"""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import socket
import ssl
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sse_broker.doctor.findings import CATALOGUE, Report
from sse_broker.doctor.http import Answer, Opened, ask, open_stream, with_query
from sse_broker.wire.parse import Event, Parser

__all__ = ["Question", "look"]

PATIENCE = 5.0  # seconds for what takes milliseconds on a healthy server
LATE = 1.0  # seconds after which an event counts as held back
SKEW = 30.0  # seconds by which clocks may differ
PROBES = 6  # messages sent: with two processes and a log each, one in 64 times all come by luck
GRACE = 3.0  # seconds that a heartbeat may be late
DEV_USER = "d0c70000-0000-4000-8000-000000000001"

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Question:
    """Where to look, and as whom.

    *url* is of the blueprint's prefix or of its stream.  *token* is a bearer token of a
    reader; without one, and without *headers*, the development authenticator's query is
    used.  *origin* is that of the page, if it is another site's.  *wait* is whether to
    wait for a heartbeat.
    """

    url: str
    token: str = ""
    publish_token: str = ""
    origin: str = ""
    tenant: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    wait: bool = True


def look(question: Question, tell: Tell = lambda _: None) -> Report:
    """Look, and return what was found.  Takes a heartbeat's time; *tell* hears of progress."""
    return _Look(question, tell).run()


class _Look:
    def __init__(self, question: Question, tell: Tell) -> None:
        self.ask, self.tell = question, tell
        self.report = Report()
        parts = urlsplit(question.url)
        path = parts.path.rstrip("/")
        path = path.removesuffix("/stream")
        self.prefix = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        self.query = parts.query
        self.topic = f"sse-doctor:{uuid.uuid4().hex}"
        claims = _claims(question.token)
        self.user = str(claims.get("sub") or "")
        self.tenant = question.tenant or str(claims.get("tenant_id") or "")

    def run(self) -> Report:
        self.tell("is anybody there")
        if not self._is_there():
            return self.report
        self.tell("what the application says of itself")
        self._asks_how_it_is()
        self._http_version()
        self.tell("a stream, as a browser opens it")
        stream = self._open()
        if stream is None:
            return self.report
        try:
            self._reads(stream)
        finally:
            stream.close()
        return self.report

    # Is anybody there?

    def _is_there(self) -> bool:
        try:
            answer = ask("GET", f"{self.prefix}/healthz", timeout=PATIENCE)
        except TimeoutError:
            self.report.find(
                "full_threads",
                f"the server takes connections and answered none within {PATIENCE:g} s",
            )
            return False
        except (OSError, http.client.HTTPException, ValueError) as err:
            self.report.find("unreachable", f"{type(err).__name__}: {err}")
            self.report.could_look = False
            return False
        if answer.status in (502, 503, 504):
            self.report.find("server_down", f"healthz was answered with {answer.status}")
            return False
        self.is_ours = answer.json() == {"status": "ok"}
        if answer.version == 10:
            self.report.find("http10", "the answer came as HTTP/1.0")
        return True

    def _asks_how_it_is(self) -> None:
        if not self.is_ours:
            self.report.notes.append("healthz is not reachable from here; streams are looked at")
            return
        try:
            began = time.time()
            answer = ask("GET", f"{self.prefix}/readyz", timeout=PATIENCE)
        except (OSError, http.client.HTTPException):
            self.report.find("full_threads", f"readyz did not answer within {PATIENCE:g} s")
            return
        said = answer.json()
        why = said.get("why") if isinstance(said.get("why"), dict) else {}
        for name, text in why.items():
            if name in CATALOGUE:
                self.report.find(name, str(text))
            else:
                self.report.notes.append(str(text))
        bad = [n for n, well in (said.get("checks") or {}).items() if not well and n not in why]
        if bad:
            self.report.find("not_well", f"readyz: {', '.join(bad)}")
        seen = said.get("seen") if isinstance(said.get("seen"), dict) else {}
        if seen.get("protocol") == "HTTP/1.0":
            self.report.find("http10", "the application was asked in HTTP/1.0 by what is in front")
        there = seen.get("time")
        if isinstance(there, int | float):
            self._clock(float(there) - (began + answer.took / 2))

    def _clock(self, skew: float) -> None:
        if abs(skew) > SKEW:
            which = "ahead of" if skew > 0 else "behind"
            self.report.find(
                "clock_skew", f"the server's clock is {abs(skew):.0f} s {which} this machine's"
            )

    def _http_version(self) -> None:
        parts = urlsplit(self.prefix)
        six = "a browser opens at most six connections to a site then, so a seventh tab waits;"
        share = "share one stream among tabs: client.js does with share: true"
        if parts.scheme != "https":
            self.report.notes.append(f"plain HTTP is HTTP/1.1 in browsers: {six} {share}")
            return
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        try:
            address = (parts.hostname or "", parts.port or 443)
            with (
                socket.create_connection(address, PATIENCE) as sock,
                context.wrap_socket(sock, server_hostname=parts.hostname) as tls,
            ):
                chosen = tls.selected_alpn_protocol()
        except OSError:
            return
        if chosen == "h2":
            self.report.notes.append("HTTP/2 is spoken, so tabs share a connection")
        else:
            self.report.notes.append(f"HTTP/2 is not spoken: {six} switch it on, or {share}")

    # Does a stream begin?

    def _headers(self) -> dict[str, str]:
        sent = {"Accept-Encoding": "gzip, deflate", **dict(self.ask.headers)}
        if self.ask.token:
            sent["Authorization"] = f"Bearer {self.ask.token}"
        if self.ask.origin:
            sent.update({"Origin": self.ask.origin, "Sec-Fetch-Site": "cross-site"})
            sent.update({"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"})
        return sent

    def _url(self) -> str:
        query = {}
        if not (self.ask.token or self.ask.headers or "user_id=" in self.query):
            self.user = DEV_USER
            query = {"user_id": DEV_USER, "tenant_id": self.tenant}
        url = f"{self.prefix}/stream" + (f"?{self.query}" if self.query else "")
        if self.ask.publish_token and not self.user:
            query["topics"] = self.topic
        return with_query(url, **query)

    def _open(self) -> Opened | None:
        try:
            stream = open_stream(self._url(), self._headers(), PATIENCE)
        except TimeoutError:
            self._nothing_came()
            return None
        except (OSError, http.client.HTTPException) as err:
            self.report.find("server_error", f"the stream was broken off: {type(err).__name__}")
            return None
        if stream.version == 10:
            self.report.find("http10", "the stream's answer came as HTTP/1.0")
        if stream.status != 200:
            self._refused(stream)
            return None
        self._check_headers(stream)
        return stream

    def _nothing_came(self) -> None:
        """Find out who holds a stream of which not even the headers came."""
        seen = f"healthz answers, and of the stream nothing came within {PATIENCE:g} s"
        plain = {**self._headers(), "Accept-Encoding": "identity"}
        try:
            open_stream(self._url(), plain, PATIENCE).close()
        except (OSError, http.client.HTTPException):
            self.report.find("buffering", f"{seen}, not even its headers")
        else:
            self.report.find("compression", f"{seen}; without Accept-Encoding it came at once")

    def _refused(self, stream: Opened) -> None:
        body = _body(stream)
        reason = str(body.get("error") or body.get("text") or "")[:300]
        seen = f"the stream was answered with {stream.status}" + (f": {reason}" if reason else "")
        status = stream.status
        if status == 401:
            expired = " (the token has expired)" if "xpired" in reason else ""
            self.report.find("authentication", seen + expired)
        elif status == 403 and self.is_ours and (self.ask.origin or "origin" in reason):
            self.report.find("cors", seen)
        elif status in (403, 404):
            ours = status == 403 and self.is_ours
            self.report.find("forbidden" if ours else "subpath", seen)
        elif status in (429, 503):
            self.report.find("no_room", seen)
        elif status in (502, 504):
            self.report.find("server_down", seen)
        elif "one request at a time" in reason:
            self.report.find("sync_worker", seen)
        elif status == 400 and "user" in reason:
            self.report.find("authentication", seen)
        else:
            self.report.find("server_error", seen)

    def _check_headers(self, stream: Opened) -> None:
        kind = stream.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            self.report.find("headers", f"Content-Type is {kind or 'missing'}")
        cache = stream.headers.get("cache-control", "")
        if "no-store" not in cache and "no-cache" not in cache:
            self.report.find("headers", f"Cache-Control is {cache or 'missing'}")
        coding = stream.headers.get("content-encoding", "")
        if coding not in ("", "identity"):
            self.report.find("compression", f"the stream came with Content-Encoding: {coding}")
        allowed = stream.headers.get("access-control-allow-origin", "")
        if self.ask.origin and allowed not in (self.ask.origin, "*"):
            self.report.find(
                "cors", f"Access-Control-Allow-Origin is {allowed or 'missing'} in the answer"
            )

    # What does it bring?

    def _reads(self, stream: Opened) -> None:
        feed = _Feed(stream)
        welcome = feed.until(lambda event: event.event in ("welcome", "error"), PATIENCE)
        if welcome is None:
            late = "ended" if feed.has_ended else f"brought no event within {PATIENCE:g} s"
            self.report.find("buffering", f"headers came, and the stream {late}")
            return
        if welcome.event == "error":
            said = _json(welcome.data).get("error", welcome.data)
            full = "thread" in str(said) or "server" in str(said)
            self.report.find("full_threads" if full else "no_room", f"the stream says: {said}")
            return
        if stream.headers_after > LATE and not self.report.has("full_threads"):
            self.report.find("buffering", f"the first bytes took {stream.headers_after:.1f} s")
        if self.ask.publish_token:
            self.tell("a message, from here to there")
            self._messages(feed)
        interval = _interval(_json(welcome.data))
        if self.ask.wait and not self.report.has("buffering", "compression"):
            self.tell(f"whether a quiet stream lives until its heartbeat ({interval:g} s)")
            self._quiet(feed, interval)

    def _messages(self, feed: _Feed) -> None:
        body: dict[str, Any] = {"target": "user", "user_id": self.user}
        if not self.user:
            body = {"target": "topic", "topic": self.topic}
        if self.tenant:
            body["tenant_id"] = self.tenant
        lost, slowest = 0, 0.0
        for number in range(PROBES):
            mark = f"{self.topic}:{number}"
            began = time.monotonic()
            answer = self._publish({**body, "event": "sse-doctor", "data": mark})
            if answer is None:
                return
            if feed.until(_says(mark), PATIENCE / 2) is None:
                lost += 1
                if feed.has_ended:
                    break
            else:
                slowest = max(slowest, time.monotonic() - began)
        if lost:
            several = self.report.has("memory_log") or lost < PROBES
            self.report.find(
                "memory_log" if several else "not_arriving",
                f"{lost} of {PROBES} messages published here did not arrive on the stream",
            )
        elif slowest > LATE:
            self.report.find("buffering", f"a message took {slowest:.1f} s to arrive")
        else:
            self.report.notes.append(f"a message takes {1000 * slowest:.0f} ms to arrive")

    def _publish(self, body: dict[str, Any]) -> Answer | None:
        bearer = {"Authorization": f"Bearer {self.ask.publish_token}"}
        try:
            answer = ask("POST", f"{self.prefix}/publish", bearer, body, PATIENCE)
        except (OSError, http.client.HTTPException) as err:
            self.report.find("not_arriving", f"publishing failed: {type(err).__name__}: {err}")
            return None
        if answer.status != 200:
            reason = str(answer.json().get("error", ""))[:200]
            self.report.find("publish_refused", f"publish answered {answer.status}: {reason}")
            return None
        return answer

    def _quiet(self, feed: _Feed, interval: float) -> None:
        began = time.monotonic()
        beat = feed.until(lambda event: event.event in ("heartbeat", "close"), interval + GRACE)
        took = time.monotonic() - began
        if beat is not None or feed.had_comment:
            return
        if feed.has_ended:
            self.report.find(
                "idle_timeout",
                f"after {took:.0f} s of silence the connection was cut; heartbeats come every"
                f" {interval:g} s",
            )
        else:
            self.report.find("no_heartbeat", f"none came within {took:.0f} s")


class _Feed:
    """The events of an open stream, decompressed if they have to be."""

    def __init__(self, stream: Opened) -> None:
        self._stream = stream
        self.had_comment = False
        self.has_ended = False
        self._parser = Parser(comment=self._heard)
        self._waiting: list[Event] = []
        coding = stream.headers.get("content-encoding", "")
        self._unpack = zlib.decompressobj(47) if coding in ("gzip", "deflate") else None

    def _heard(self, text: str) -> None:
        self.had_comment = self.had_comment or text.strip() == "heartbeat"

    def until(self, wanted: Callable[[Event], bool], timeout: float) -> Event | None:
        """Return the next event that is wanted; ``None`` if none comes in time, or any more."""
        end = time.monotonic() + timeout
        while True:
            while self._waiting:
                event = self._waiting.pop(0)
                if wanted(event):
                    return event
            rest = end - time.monotonic()
            if rest <= 0 or self.has_ended:
                return None
            self._waiting += self._read(rest)

    def _read(self, timeout: float) -> Iterator[Event] | list[Event]:
        try:
            chunk = self._stream.read(timeout)
        except (OSError, http.client.HTTPException):
            chunk = b""
        if chunk == b"":
            self.has_ended = True
        if chunk and self._unpack is not None:
            chunk = self._unpack.decompress(chunk)
        return self._parser.feed(chunk or b"")


def _says(data: str) -> Callable[[Event], bool]:
    return lambda event: event.data == data


def _claims(token: str) -> dict[str, Any]:
    """Return what a JWT says, unchecked: only to address a message to its own user."""
    try:
        middle = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _body(stream: Opened) -> dict[str, Any]:
    try:
        text = (stream.read(PATIENCE) or b"").decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return {}
    return _json(text) or {"text": " ".join(text.split())[:200]}


def _interval(welcome: dict[str, Any]) -> float:
    value = welcome.get("heartbeat_interval", welcome.get("heartbeat"))
    return float(value) if isinstance(value, int | float) and 0 < value < 600 else 30.0

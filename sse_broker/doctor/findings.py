"""Every finding that there can be: what it is called, why it matters, what to change."""

from __future__ import annotations

import dataclasses

__all__ = ["CATALOGUE", "Finding", "Report"]

PAGE = "docs/troubleshooting.md"

CATALOGUE: dict[str, tuple[str, str, str]] = {
    "unreachable": (
        "the server cannot be reached",
        "No page gets a stream where no connection is made.",
        "Check the address, DNS, the firewall, and whether the server runs and listens there.",
    ),
    "server_down": (
        "the proxy in front does not reach the application",
        "The proxy answers in place of the application, so every stream fails.",
        "Check that the application runs and that the proxy's upstream address and port are its.",
    ),
    "subpath": (
        "there is no sse_broker at this path",
        (
            "The proxy strips a path prefix that the application needs, or adds one that it does not"
            " know; pages ask where nobody answers."
        ),
        (
            "Make the proxy's location, SSE_URL_PREFIX and the page's URL agree; for an application"
            " under a subpath send X-Forwarded-Prefix and wrap it in ProxyFix(app.wsgi_app,"
            " x_prefix=1), and use url_for('sse.stream') in templates."
        ),
    ),
    "full_threads": (
        "all threads of the server are taken",
        "Each open stream holds a thread there; further requests wait for ever or are refused.",
        (
            "Run gunicorn -c python:sse_broker.gunicorn_conf app:app, where a stream holds no thread;"
            " or raise --threads, and keep reserve_threads above 0."
        ),
    ),
    "no_room": (
        "the server refuses streams for now",
        "A limit of connections or of a rate is reached; clients are told to come back later.",
        (
            "Raise the limit that is named, add workers, or find who holds the streams:"
            " sse_broker stats, sse_broker online."
        ),
    ),
    "sync_worker": (
        "the worker serves one request at a time",
        "One stream would stop everything else, so every stream is refused.",
        (
            "Run gunicorn -c python:sse_broker.gunicorn_conf app:app, or -k gthread --threads 32,"
            " or -k gevent."
        ),
    ),
    "few_threads": (
        "gthread has too few threads",
        "Each open stream holds a thread: an open tab or two stop the whole site.",
        "Run gunicorn -c python:sse_broker.gunicorn_conf app:app, or add --threads 32.",
    ),
    "gthread_waits": (
        "this gunicorn's gthread worker waits for clients on its main thread",
        "A client that does not close its connection stops the worker for up to 2 s.",
        "Run gunicorn -c python:sse_broker.gunicorn_conf app:app.",
    ),
    "memory_log": (
        "each process has a log of its own",
        "A message reaches only the streams of the process that sends it; the others lose it.",
        "Set SSE_LOG_URL=sqlite:////path/to/sse.db for one machine, or redis://host:6379/0.",
    ),
    "not_well": (
        "the application says that it is not ready",
        "readyz is what load balancers go by; something that delivery needs does not work.",
        "Look at what is named, and at the server's log, which says why.",
    ),
    "server_error": (
        "the stream is answered with an error",
        "A native EventSource gives up for good after such an answer.",
        "Look at the server's log at this moment: it has the reason, or a traceback.",
    ),
    "authentication": (
        "the credentials are refused",
        "The application does not recognise who asks; a native EventSource gives up for good.",
        (
            "Get a new token if it is expired; else check SSE_JWT_KEY, SSE_JWT_ALGORITHMS, audience"
            " and issuer, and that cookies or the Authorization header pass the proxy."
        ),
    ),
    "forbidden": (
        "the request is forbidden",
        "The identity may not read one of the topics, or something in front blocks the request.",
        "Check the topics that are asked for against the authorizer and the token's topics.",
    ),
    "cors": (
        "pages of this origin may not read the stream",
        "The browser shows the page an error and hides the reason from its script.",
        (
            "Add the page's origin, with scheme and port, to SSE_CORS_ORIGINS; and leave the CORS"
            " headers to the application, not to the proxy."
        ),
    ),
    "buffering": (
        "something in front holds events back",
        "Events arrive late, in lumps, or when the stream ends: pages look dead.",
        (
            "nginx: proxy_buffering off, and no proxy_ignore_headers X-Accel-Buffering; Apache:"
            " flushpackets=on and no mod_deflate; elsewhere switch response buffering off."
        ),
    ),
    "compression": (
        "the stream is compressed on its way",
        "A compressor holds events back until it has enough of them, and costs memory per stream.",
        (
            "Take text/event-stream out of gzip_types (nginx) or AddOutputFilterByType (Apache); the"
            " stream says no-transform."
        ),
    ),
    "idle_timeout": (
        "the connection is cut while the stream is quiet",
        "It is cut before the next heartbeat, so clients reconnect all the time.",
        (
            "Raise the proxy's read timeout (nginx: proxy_read_timeout 1h; HAProxy: timeout server 1h"
            " and timeout client 1h), or set SSE_HEARTBEAT_INTERVAL below it."
        ),
    ),
    "no_heartbeat": (
        "no heartbeat came in its time",
        "Clients take a stream without heartbeats for dead.",
        "Check that nothing in front holds small pieces back, and the server's log for the reaper.",
    ),
    "http10": (
        "the application is spoken to in HTTP/1.0",
        (
            "HTTP/1.0 has no chunked coding: some proxies then wait for the end of the answer, and no"
            " connection is kept alive."
        ),
        "nginx: proxy_http_version 1.1; and proxy_set_header Connection '' .",
    ),
    "headers": (
        "headers of the stream are missing or changed",
        "Browsers refuse what is not text/event-stream, and caches keep what they may.",
        "Have the proxy pass Content-Type and Cache-Control as the application sends them.",
    ),
    "clock_skew": (
        "the clocks differ",
        "Tokens expire too early or too late, and ages of messages are wrong.",
        "Run NTP (chrony, systemd-timesyncd) on both machines.",
    ),
    "not_arriving": (
        "a message that was published here did not arrive there",
        (
            "Sending works and delivery does not: the two talk to different logs, or the message is"
            " for somebody else."
        ),
        (
            "Check that all processes have the same SSE_LOG_URL, and the tenant; sse_broker tail shows"
            " what the log has."
        ),
    ),
    "publish_refused": (
        "the publish token is refused",
        "Without it nobody can publish over HTTP, and this program cannot look further.",
        "Check SSE_PUBLISH_TOKEN, and that the Authorization header passes the proxy.",
    ),
    "configuration": (
        "a setting is wrong or read by nobody",
        "What was meant by it does not happen.",
        "Change it as said.",
    ),
    "log_unreachable": (
        "the log cannot be read",
        "Nothing is sent and nothing delivered without it.",
        "Check the path or host in SSE_LOG_URL, its permissions, and that the server runs.",
    ),
    "log_locked": (
        "the log cannot be written now",
        "Another process holds its lock, or this user may not write it; publishes wait and fail.",
        (
            "Find who holds it (fuser, lsof), make it writable for this user, and keep it off network"
            " file systems."
        ),
    ),
    "log_unserved": (
        "no process serves streams from this log",
        "What is sent to it reaches nobody: the servers use another log, or do not run.",
        "Compare SSE_LOG_URL with the servers', and start them.",
    ),
    "descriptors": (
        "few files may be open at once",
        "Each stream needs a descriptor; beyond the limit no connection is accepted.",
        "Raise it: ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit.",
    ),
    "half_patched": (
        "gevent has patched half of the standard library",
        "A wait in the other half stops every stream of the process.",
        "Call gevent.monkey.patch_all() without arguments, first of all.",
    ),
    "patched_threads": (
        "gevent has patched a threaded worker",
        "Its threads become greenlets of a hub that nobody runs.",
        "Use -k gevent, or leave out patch_all().",
    ),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its name in :data:`CATALOGUE`, and what was seen."""

    name: str
    seen: str

    @property
    def title(self) -> str:
        """What is wrong, in a line."""
        return CATALOGUE[self.name][0]

    @property
    def why(self) -> str:
        """Why it matters."""
        return CATALOGUE[self.name][1]

    @property
    def change(self) -> str:
        """What to change."""
        return CATALOGUE[self.name][2]

    @property
    def more(self) -> str:
        """Where the documentation says more."""
        return f"{PAGE}#{self.name}"

    def as_dict(self) -> dict[str, str]:
        """Return the finding for programs."""
        names = ("name", "title", "seen", "why", "change", "more")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass
class Report:
    """What was looked at: findings, notes that are no fault, and whether looking worked at all."""

    findings: list[Finding] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    could_look: bool = True

    def find(self, name: str, seen: str) -> None:
        """Add a finding; one of a name is enough."""
        if all(finding.name != name for finding in self.findings):
            self.findings.append(Finding(name, seen))

    def has(self, *names: str) -> bool:
        """Whether there is a finding of one of these names."""
        return any(finding.name in names for finding in self.findings)

    @property
    def exit_status(self) -> int:
        """0 well, 1 findings, 2 could not look."""
        if not self.could_look:
            return 2
        return 1 if self.findings else 0

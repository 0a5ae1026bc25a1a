"""Every setting of a broker, declared once.

Validation, Flask's ``SSE_*`` keys, the environment variables of the hub and the
table in docs/settings.md are all read off the declarations in :class:`BrokerConfig`.
``python -m sse_broker.config`` prints that table.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sse_broker.errors import InvalidConfig

__all__ = ["KEYS", "OVERFLOW_POLICIES", "BrokerConfig", "Setting", "settings", "strangers"]

OVERFLOW_POLICIES = ("catch_up", "disconnect", "drop_oldest", "drop_newest")
HEARTBEAT_STYLES = ("event", "comment")
PREFIX = "SSE_"


KEYS = (
    "SSE_CORS_ORIGINS",
    "SSE_DASHBOARD_TOKEN",
    "SSE_DEV_AUTH",
    "SSE_JWT_ALGORITHMS",
    "SSE_JWT_AUDIENCE",
    "SSE_JWT_ISSUER",
    "SSE_JWT_JWKS_URL",
    "SSE_JWT_COOKIE",
    "SSE_JWT_QUERY",
    "SSE_CORS_HEADERS",
    "SSE_TICKETS",
    "SSE_JWT_KEY",
    "SSE_LOG_URL",
    "SSE_PROXIES",
    "SSE_PUBLISH_TOKEN",
    "SSE_TOKEN",
    "SSE_URL_PREFIX",
)
"""The keys that the extension, the hub and the command line read beside those of the settings."""

OTHERS = ("SSE_REDIS_", "EVENTSTREAM_")
PREDECESSORS = {
    "SSE_REDIS_URL": "flask-sse's: set SSE_LOG_URL to that URL instead",
    "SSE_REDIS_HOST": "flask-sse's: set SSE_LOG_URL=redis://host:port/0 instead",
    "SSE_REDIS_PORT": "flask-sse's: set SSE_LOG_URL=redis://host:port/0 instead",
    "SSE_REDIS_DB": "flask-sse's: set SSE_LOG_URL=redis://host:port/db instead",
    "EVENTSTREAM_REDIS": "django-eventstream's: set SSE_LOG_URL=redis://host:port/db instead",
    "EVENTSTREAM_STORAGE_CLASS": "django-eventstream's: the log keeps messages; set"
    " SSE_HISTORY_SIZE to keep more than the last minute",
    "EVENTSTREAM_CHANNELMANAGER_CLASS": "django-eventstream's: pass topic_resolver= and"
    " authorizer= to SSE instead",
    "EVENTSTREAM_ALLOW_ORIGINS": "django-eventstream's: set SSE_CORS_ORIGINS instead",
    "EVENTSTREAM_ALLOW_ORIGIN": "django-eventstream's: set SSE_CORS_ORIGINS instead",
    "EVENTSTREAM_ALLOW_CREDENTIALS": "django-eventstream's: origins in SSE_CORS_ORIGINS may send"
    " credentials",
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """What values a setting takes: its words for people, and its check."""

    words: str
    allows: Callable[[Any], bool]


def at_least(low: float) -> Rule:
    """Return the rule for a number that is not below *low*."""
    return Rule(f">= {low:g}", lambda value: value >= low)


def between(low: float, high: float) -> Rule:
    """Return the rule for a number in a closed range."""
    return Rule(f"{low:g} to {high:g}", lambda value: low <= value <= high)


def one_of(values: tuple[str, ...]) -> Rule:
    """Return the rule for one of some words."""
    return Rule(" / ".join(values), lambda value: value in values)


_RATE = (
    r"[1-9][0-9]*\s*(?:/|\s+per\s+)\s*(?:[1-9][0-9]*\s*)?(?:second|minute|hour|day|month|year)s?"
)
_RATES = re.compile(rf"(?:\s*{_RATE}\s*(?:[;,|]\s*{_RATE}\s*)*)?", re.IGNORECASE)
RATE = Rule(
    "like 30/minute or 5/second; 100/hour; empty is no limit",
    lambda value: bool(_RATES.fullmatch(value)),
)
_STORAGE = r"memory://|(?:rediss?|redis\+(?:unix|sentinel|cluster))://\S+"
RATE_STORAGE = Rule(
    "memory:// or redis://host:port", lambda value: bool(re.fullmatch(_STORAGE, value))
)
YES_NO = Rule("true / false", lambda value: value in (True, False))


def option(default: Any, rule: Rule, unit: str, help: str) -> Any:
    """Declare one setting."""
    return dataclasses.field(default=default, metadata={"rule": rule, "unit": unit, "help": help})


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting as documentation shows it."""

    name: str
    default: Any
    unit: str
    rule: str
    help: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrokerConfig:
    """The settings of a broker.  Frozen; if it exists, it is valid.

    :raises InvalidConfig: a value is outside its rule; ``.field`` names the setting.
    """

    client_buffer_size: int = option(
        256, at_least(1), "frames", "How many frames wait for one client before `overflow` decides."
    )
    heartbeat_interval: float = option(
        30.0, at_least(5), "s", "A client that got nothing for this long gets a heartbeat."
    )
    client_timeout: float = option(
        300.0,
        Rule(">= 2 x heartbeat_interval", lambda value: value >= 10),
        "s",
        "A client whose last successful write is older than this is cut.",
    )
    enable_topics: bool = option(True, YES_NO, "", "Whether topics can be used at all.")
    max_topics: int = option(
        1_000, at_least(1), "topics", "Names and patterns that one stream may subscribe to."
    )
    max_patterns: int = option(
        32, at_least(0), "patterns", "How many of them may be patterns; 0 is none."
    )
    max_topic_segments: int = option(
        16, between(1, 64), "segments", "How many segments a topic's name or pattern may have."
    )
    max_connections: int = option(
        0, at_least(0), "streams", "Open streams per process; 0 is no limit."
    )
    max_connections_per_user: int = option(
        0, at_least(0), "streams", "Open streams per user and process; 0 is no limit."
    )
    max_connections_per_tenant: int = option(
        0, at_least(0), "streams", "Open streams per tenant and process; 0 is no limit."
    )
    max_connections_per_address: int = option(
        0, at_least(0), "streams", "Open streams per client address and process; 0 is no limit."
    )
    max_anonymous_per_address: int = option(
        20,
        at_least(0),
        "streams",
        "Open streams of `Identity.anonymous()` per client address and process; 0 is no limit.",
    )
    reserve_threads: int = option(
        2,
        at_least(0),
        "threads",
        "Threads of a worker that streams leave to ordinary requests; 0 is none.",
    )
    connect_rate: str = option(
        "", RATE, "", "How often streams may be asked for from one client address."
    )
    connect_rate_per_user: str = option("", RATE, "", "How often one user may open a stream.")
    publish_rate: str = option("", RATE, "", "How often one client address may `POST publish`.")
    rate_storage: str = option(
        "memory://",
        RATE_STORAGE,
        "",
        "Where rates are counted: in each process, or in Redis for all.",
    )
    history_size: int = option(
        0, at_least(0), "messages", "How many messages the log keeps beyond `resume_window`."
    )
    history_ttl: float = option(
        86_400.0, at_least(0), "s", "How old a message of that history may be; 0 is no limit."
    )
    history_bytes: int = option(
        64 * 1024 * 1024, at_least(0), "bytes", "How large that history may be; 0 is no limit."
    )
    resume_window: float = option(
        60.0, at_least(0), "s", "Kept for reconnects in any case, up to `resume_bytes`; 0 is off."
    )
    resume_bytes: int = option(
        16 * 1024 * 1024,
        at_least(65_536),
        "bytes",
        "How large that may be; a sender waits while half of it is on its way.",
    )
    retained_size: int = option(
        10_000,
        at_least(1),
        "messages",
        "How many retained messages the log keeps, oldest first to go.",
    )
    retained_bytes: int = option(
        16 * 1024 * 1024, at_least(1), "bytes", "How large the retained messages may be in all."
    )
    overflow: str = option(
        "catch_up", one_of(OVERFLOW_POLICIES), "", "What happens to a client whose queue is full."
    )
    send_timeout: float = option(
        10.0,
        between(0, 300),
        "s",
        "How long a sender waits while this process's streams are far behind; 0 is never.",
    )
    retry: int = option(
        3_000, between(1_000, 60_000), "ms", "Reconnection time told to clients, spread by 20 %."
    )
    drain_timeout: float = option(
        3.0, between(0, 60), "s", "What streams get to write what waits when the server stops."
    )
    reconnect_window: float = option(
        5.0, between(1, 60), "s", "Streams that a stopping server ends come back spread over this."
    )
    max_stream_age: float = option(
        600.0, at_least(0), "s", "A stream is ended at this age, spread by 20 %; 0 is never."
    )
    heartbeat_style: str = option(
        "event", one_of(HEARTBEAT_STYLES), "", "Heartbeats that pages can see, or comments."
    )
    max_message_bytes: int = option(
        256 * 1024, at_least(1), "bytes", "The largest message, as it goes on the wire."
    )
    presence_grace: float = option(
        10.0, at_least(0), "s", "A user without a stream for this long is said to be offline."
    )
    recheck_interval: float = option(
        0.0,
        at_least(0),
        "s",
        "What a stream may read is asked again after this long; 0 is only when it begins.",
    )
    trace_size: int = option(
        0,
        between(0, 100_000),
        "messages",
        "The newest messages that each process remembers for `explain`; 1,000 in debug mode.",
    )
    require_tenant: bool = option(
        False, YES_NO, "", "Refuse messages and clients that name no tenant."
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _checked(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        if self.client_timeout < 2 * self.heartbeat_interval:
            raise _refusal(
                "client_timeout", self.client_timeout, f">= {2 * self.heartbeat_interval:g}"
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], prefix: str = PREFIX) -> BrokerConfig:
        """Return the configuration that *values* describe.

        Reads ``<prefix><SETTING>`` for every setting, as Flask's config or the
        environment has them; strings are converted.  Other keys are left alone,
        because they belong to others.

        :raises InvalidConfig: a value does not convert or is outside its rule.
        """
        found = {}
        for field in dataclasses.fields(cls):
            key = prefix + field.name.upper()
            if values.get(key) is not None:
                found[field.name] = _from_text(field, values[key])
        return cls(**found)


def settings() -> Iterator[Setting]:
    """Yield every setting, in the order of their declaration."""
    for field in dataclasses.fields(BrokerConfig):
        meta = field.metadata
        yield Setting(field.name, field.default, meta["unit"], meta["rule"].words, meta["help"])


def strangers(values: Mapping[str, Any], prefix: str = PREFIX) -> list[str]:
    """Return a sentence for each key of *values* that looks like ours and that nobody reads."""
    known = {*KEYS, *(prefix + setting.name.upper() for setting in settings())}
    found = []
    for key in sorted(str(key) for key in values):
        if key in known or not key.startswith((prefix, *OTHERS)):
            continue
        if key in PREDECESSORS:
            found.append(f"{key} is {PREDECESSORS[key]}; it is ignored")
            continue
        near = difflib.get_close_matches(key, sorted(known), 1, 0.6)
        if key.startswith("EVENTSTREAM_"):
            hint = "it is django-eventstream's"
        elif near:
            hint = f"did you mean {near[0]}?"
        else:
            hint = "the settings are listed by python -m sse_broker.config"
        found.append(f"{key} is no setting and is ignored; {hint}")
    return found


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    rule: Rule = field.metadata["rule"]
    kind = type(field.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    right_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if not right_kind or (kind is float and not math.isfinite(value)) or not rule.allows(value):
        raise _refusal(field.name, value, f"{_KIND[kind]}, {rule.words}")
    return value


_KIND = {bool: "a boolean", int: "a whole number", float: "a number", str: "a string"}
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _from_text(field: dataclasses.Field[Any], value: Any) -> Any:
    if not isinstance(value, str):
        return value
    kind: type[Any] = type(field.default)
    text = value.strip()
    try:
        if kind is bool:
            return {**dict.fromkeys(_YES, True), **dict.fromkeys(_NO, False)}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        words = f"{_KIND[kind]}, {field.metadata['rule'].words}"
        raise _refusal(field.name, value, words) from None


def _refusal(name: str, value: Any, right: str) -> InvalidConfig:
    shown = re.sub(r"(?<=://)[^/@]*@", "***@", repr(value))  # a URL may hold a password
    return InvalidConfig(f"{name} = {shown}; it must be {right}", field=name)


def _print_table() -> None:
    print("| setting | default | rule | what it does |\n| --- | --- | --- | --- |")
    for one in settings():
        default = str(one.default).lower() if isinstance(one.default, bool) else one.default
        default = f"{default:g}" if isinstance(default, float) else default
        shown = f"`{default}` {one.unit}".strip() if default != "" else "none"
        print(f"| `{one.name}` | {shown} | {one.rule} | {one.help} |")


if __name__ == "__main__":
    _print_table()

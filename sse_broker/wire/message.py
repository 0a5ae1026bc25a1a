"""Messages and frames: from values to the bytes of ``text/event-stream``.

A :class:`Message` is checked at birth and its bytes are made then, all but the
``id:`` line, which the log adds when it gives the message its position.  The
format is that of the HTML standard, section 9.2 (Server-sent events).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import json
import re
import uuid
from email.utils import format_datetime
from typing import Any, Final, final

from sse_broker.errors import InvalidMessage
from sse_broker.wire.ids import UserID, normal_tenant_id, normal_user_id
from sse_broker.wire.topics import check_name, check_names

__all__ = [
    "ALL_TENANTS",
    "AllTenants",
    "EventType",
    "Message",
    "Target",
    "comment_frame",
    "encode_data",
    "format_event",
    "library_frame",
    "retry_frame",
]

MIN_RETRY, MAX_RETRY = 1_000, 60_000  # 0 makes Chromium reconnect without pause
MAX_EVENT_CHARS = 256
MAX_RETAIN_FOR = 1e9  # seconds, 31 years; a bound for what logs can write

# str.splitlines() is wrong here: it also splits at U+2028, U+0085 and others.
_LINE_END = re.compile(r"\r\n|\r|\n")  # HTML standard, 9.2.5
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_ID = re.compile(r"[\x21-\x7e]{1,256}")
# What a log itself gives, in today's form and in that of the first release.  As an own
# id it would send a client that resumes to somebody else's place.
_LOG_ID = re.compile(r"[0-9a-f]{12}-(?:\d+|[A-Za-z0-9_-]{24}|[0-9a-f]{32})(?:\.r\d+)?")


class EventType(str, enum.Enum):
    """The library's event types.  All but ``MESSAGE`` are said by the library itself."""

    MESSAGE = "message"
    HEARTBEAT = "heartbeat"
    ERROR = "error"
    CLOSE = "close"

    __str__ = str.__str__


RESERVED: Final = frozenset(
    {"welcome", "heartbeat", "reset", "dropped", "revoked", "error", "close", "open"}
)
"""What the library says itself, and ``open``, which browsers fire without any frame."""


class Target(str, enum.Enum):
    """Whom a message is for."""

    USER = "user"
    TOPIC = "topic"
    BROADCAST = "broadcast"

    __str__ = str.__str__


class AllTenants(enum.Enum):
    """The type of :data:`ALL_TENANTS`."""

    ALL_TENANTS = "all tenants"

    def __repr__(self) -> str:
        return "ALL_TENANTS"


ALL_TENANTS: Final = AllTenants.ALL_TENANTS
"""Said as ``tenant_id``: clients of every tenant, and those of none."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


@final
@dataclasses.dataclass(frozen=True, slots=True, init=False)
class Message:
    """One event to send.  If it exists, it can be sent.

    ``data`` is a string, sent as it is, or anything JSON can hold, sent as JSON
    (with UUID, datetime, date, Decimal and dataclasses as Flask's own provider
    writes them); afterwards it is the string that was sent.  CR and CRLF in it
    arrive as LF, everything else unchanged.

    ``id`` is the caller's own id (1 to 256 printable ASCII characters without
    spaces, not in the form of the log's own), or empty: the log gives one.  It
    belongs to the tenant and the addressee: for others it is another message.
    ``retry`` is in milliseconds; ``None``, the default, leaves the reconnection
    time as the stream said it (setting ``retry``, 3000).

    ``topics`` are all topics of a message that is for several; ``topic`` is the
    first of them.  ``retain`` keeps the message for streams that begin later, until
    the next one of the same tenant, addressee and event, or for ``retain_for``
    seconds, which says ``retain`` too.

    :raises InvalidMessage: a field cannot be sent as it is meant; ``.field`` says which.
    :raises InvalidUserID: *user_id* or *tenant_id* is nil, empty or no id.
    :raises InvalidTopic: *topic* is empty or a pattern.
    """

    target: Target
    data: Any
    event: str = "message"
    user_id: UserID | None = None
    topic: str = ""
    tenant_id: UserID | AllTenants | None = None
    id: str = ""
    retry: int | None = None
    created_at: dt.datetime = dataclasses.field(default_factory=_now, compare=False)
    topics: tuple[str, ...] = ()
    retain: bool = False
    retain_for: float | None = None
    body: bytes = dataclasses.field(init=False, repr=False, compare=False)

    def __init__(
        self,
        target: Target,
        data: Any,
        event: str = "message",
        user_id: UserID | None = None,
        topic: str = "",
        tenant_id: UserID | AllTenants | None = None,
        id: str = "",
        retry: int | None = None,
        created_at: dt.datetime | None = None,
        topics: tuple[str, ...] = (),
        retain: bool = False,
        retain_for: float | None = None,
    ) -> None:
        # Half of what sending costs is here.  While it is made it is a draft, whose
        # fields are stored as those of any object: a quarter of the time.
        object.__setattr__(self, "__class__", _Draft)
        draft: Any = self
        draft.target = target if type(target) is Target else _target(target)
        draft.data = text = data if type(data) is str else encode_data(data)
        draft.event = name = _event(event)
        if topics != () and not isinstance(topics, list | tuple):
            raise InvalidMessage("topics is a list of names", field="topics")
        draft.user_id, draft.topic, draft.topics = user_id, topic, topics
        draft.tenant_id = (
            tenant_id
            if tenant_id is None or tenant_id is ALL_TENANTS
            else normal_tenant_id(tenant_id)
        )
        if id:
            check_own_id(id)
        draft.id = id
        draft.retry = retry
        draft.created_at = _now() if created_at is None else created_at
        draft.retain, draft.retain_for = retain, retain_for
        _address(draft)
        # Of several topics none is named: who reads one of them may not know of the others.
        draft.body = _body(name, text, retry, draft.topic if len(draft.topics) == 1 else "")
        draft.__class__ = Message

    def with_id(self, id: str) -> Message:
        """Return this message under *id*, without checking or encoding anything again."""
        twin = object.__new__(Message)
        for name in _FIELDS:
            object.__setattr__(twin, name, getattr(self, name))
        object.__setattr__(twin, "id", id)
        return twin

    @property
    def frame(self) -> bytes:
        """The bytes on the wire, with the ``id:`` line if the message has an id."""
        return b"id: %b\n%b" % (self.id.encode(), self.body) if self.id else self.body


class _Draft:
    """A message while it is made: the same slots, free to be stored to."""

    __slots__ = Message.__slots__


def _address(draft: Any) -> None:
    if draft.target is Target.USER:
        draft.user_id = normal_user_id(draft.user_id)
    elif draft.user_id is not None:
        raise InvalidMessage(f"a {draft.target} message takes no user_id", field="user_id")
    topic, topics = draft.topic, draft.topics
    if draft.target is Target.TOPIC:
        draft.topics = checked = check_names(topics or check_name(topic))
        if topics and topic not in ("", checked[0]):
            raise InvalidMessage("topic or topics, not both", field="topics")
        draft.topic = checked[0]
    elif topic or topics:
        raise InvalidMessage(f"a {draft.target} message takes no topic", field="topic")
    if draft.retain or draft.retain_for is not None:
        _check_retain(draft)


def _check_retain(draft: Any) -> None:
    if draft.retain not in (True, False):
        raise InvalidMessage("retain is true or false", field="retain")
    if draft.target is Target.BROADCAST:
        raise InvalidMessage(
            "a broadcast cannot be retained; send to a topic that everybody reads",
            field="retain",
        )
    draft.retain_for = check_retain_for(draft.retain_for)
    draft.retain = True


_FIELDS = tuple(field.name for field in dataclasses.fields(Message))


def format_event(event: str, data: Any, *, id: str = "", retry: int | None = None) -> bytes:
    """Return the bytes of one event, for a response outside the broker.

    The arguments are those of :class:`Message`; the reserved event names are
    allowed, because outside the broker there is nobody they belong to.

    :raises InvalidMessage: *event* or *id* has a line end or another control
        character, *data* has no JSON or UTF-8 form, or *retry* is out of range.
    """
    name = _event(event, reserved=frozenset())
    body = _body(name, encode_data(data), retry)
    return b"id: %b\n%b" % (check_id(id).encode(), body) if id else body


def library_frame(event: str, id: str, data: dict[str, Any]) -> bytes:
    """Return the frame of one of the library's own events; *id* may be empty."""
    head = f"event: {event}\nid: {id}\n" if id else f"event: {event}\n"
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def retry_frame(milliseconds: int) -> bytes:
    """Return a frame that sets the client's reconnection time and is no event.

    :raises InvalidMessage: not an integer from 1000 to 60000.
    """
    return b"retry: %d\n\n" % check_retry(milliseconds)


def comment_frame(text: str = "") -> bytes:
    """Return a comment, which no client shows to its page.

    :raises InvalidMessage: *text* has a line end or another control character.
    """
    if _CONTROL.search(text):
        raise InvalidMessage("a comment must be one line without control characters")
    return f": {text}\n\n".encode()


def check_id(id: str) -> str:
    """Return *id* if it can go on the wire, as the ``id:`` of a message or as Last-Event-ID.

    :raises InvalidMessage: not 1 to 256 printable ASCII characters without spaces.
    """
    if not isinstance(id, str) or not _ID.fullmatch(id):
        raise InvalidMessage(
            "id must be 1 to 256 printable ASCII characters without spaces", field="id"
        )
    return id


def check_own_id(id: str) -> str:
    """Return *id* if a caller may choose it for a message.

    :raises InvalidMessage: as :func:`check_id`, or it has the form of the ids that logs give.
    """
    if _LOG_ID.fullmatch(check_id(id)):
        raise InvalidMessage(
            f"id {id!r} has the form of the ids that the log gives; choose one of another form,"
            " for example with a prefix",
            field="id",
        )
    return id


def check_retry(retry: int) -> int:
    """Return *retry* if it is an integer from 1000 to 60000.

    :raises InvalidMessage: it is not.
    """
    whole = isinstance(retry, int) and not isinstance(retry, bool)
    if not whole or not MIN_RETRY <= retry <= MAX_RETRY:
        raise InvalidMessage(
            f"retry must be a whole number of milliseconds from {MIN_RETRY} to {MAX_RETRY},"
            f" not {retry!r}",
            field="retry",
        )
    return retry


def check_retain_for(seconds: float | None) -> float | None:
    """Return for how long a message is retained: seconds, or ``None`` for ever.

    :raises InvalidMessage: not a finite number above 0.
    """
    if seconds is None:
        return None
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= MAX_RETAIN_FOR:
        raise InvalidMessage(
            f"retain_for must be a number of seconds above 0, at most {MAX_RETAIN_FOR:g},"
            f" not {seconds!r}",
            field="retain_for",
        )
    return float(seconds)


def encode_data(data: Any) -> str:
    """Return *data* as the string that is sent.

    :raises InvalidMessage: it has no JSON form (NaN has none) or no UTF-8 form.
    """
    if isinstance(data, str):
        return data
    try:
        return _escaped(_ENCODER.encode(data))
    except (TypeError, ValueError, RecursionError) as err:
        raise InvalidMessage(f"data cannot be written as JSON: {err}", field="data") from err


# Characters that JSON may hold as they are, and at which str.splitlines() and the clients
# built on it split.  In JSON they stand inside strings only, so an escape means the same.
_SPLITTING = re.compile("[\x85\u2028\u2029]")


def _escaped(text: str) -> str:
    """Return JSON whose lines are the same however a client splits lines."""
    if text.isascii():
        return text
    return _SPLITTING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _json(value: Any) -> Any:
    """Write what JSON lacks as Flask's ``DefaultJSONProvider`` does."""
    if isinstance(value, dt.date):
        return _http_date(value)
    if isinstance(value, decimal.Decimal | uuid.UUID):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "__html__"):
        return str(value.__html__())
    raise TypeError(f"{type(value).__name__} has no JSON form")


_ENCODER = json.JSONEncoder(
    default=_json, ensure_ascii=False, allow_nan=False, separators=(",", ":")
)


def _http_date(value: dt.date) -> str:
    """Return *value* as RFC 9110, section 5.6.7, has it; a naive time is UTC."""
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)
    if value.tzinfo is None:
        value = value.replace(tzinfo=dt.timezone.utc)
    return format_datetime(value.astimezone(dt.timezone.utc), usegmt=True)


def _target(target: Target | str) -> Target:
    try:
        return Target(target)
    except ValueError:
        names = ", ".join(Target)
        raise InvalidMessage(f"target must be one of {names}", field="target") from None


def _event(event: str, reserved: frozenset[str] = RESERVED) -> str:
    if not isinstance(event, str):
        raise InvalidMessage(f"event is a string, not {type(event).__name__}", field="event")
    return _checked_event(str(event), reserved)


@functools.lru_cache(maxsize=1024)  # a sender uses few, many times; a failure is not kept
def _checked_event(event: str, reserved: frozenset[str]) -> str:
    event = event or "message"
    if _CONTROL.search(event) or len(event) > MAX_EVENT_CHARS:
        raise InvalidMessage(
            f"event must be one line of at most {MAX_EVENT_CHARS} characters"
            " without NUL or other control characters",
            field="event",
        )
    if event in reserved:
        raise InvalidMessage(f"the event {event!r} is said by the library only", field="event")
    return event


def _body(event: str, data: str, retry: int | None, topic: str = "") -> bytes:
    # A field that the standard does not know is ignored (HTML standard, 9.2.6); client.js reads it.
    head = f"topic: {topic}\n" if topic else ""
    # "message" is what a stream without an event line means (HTML standard, 9.2.6).
    if event != "message":
        head += f"event: {event}\n"
    if retry is not None:
        head += f"retry: {check_retry(retry)}\n"
    if "\n" in data or "\r" in data:
        data = _LINE_END.sub("\ndata: ", data)
    try:
        return f"{head}data: {data}\n\n".encode()
    except UnicodeEncodeError as err:
        field = "event" if err.start < len(head) else "data"
        raise InvalidMessage(
            f"{field} has no UTF-8 form (a lone surrogate, U+{ord(err.object[err.start]):04X})",
            field=field,
        ) from None

"""Messages that leave when a SQLAlchemy transaction has committed, and vanish when it has not.

A session keeps what was said in it, in ``session.info``, with one set of
listeners per session.  What SQLAlchemy (2.0) fires, and what it means here::

    after_transaction_create   begin, begin_nested, and inside flush (ignored)
    after_commit               COMMIT, and also RELEASE SAVEPOINT; before the end
    after_transaction_end      after COMMIT, RELEASE, ROLLBACK, close()

So a transaction that ends without having said ``after_commit`` takes back what
was said since it began.  Sending waits for the end of the outermost one: then
the database connection is back in its pool and the session may be used again.

A session belongs to one thread at a time, and so does what is kept for it; there
is no lock here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from sse_broker.core.sending import Publisher, Sender, check_message
from sse_broker.errors import InvalidConfig
from sse_broker.wire.message import Message

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction, scoped_session


__all__ = ["AfterCommit", "AnySession", "Sender", "need_sqlalchemy", "session_of", "when_committed"]

KEY = "sse_broker.commit"

AnySession: TypeAlias = "Session | scoped_session[Any]"  # of whatever session class

_log = logging.getLogger("sse_broker.commit")


class AfterCommit(Sender[str | None]):
    """Sends when a session's transaction has committed.  Made by ``broker.after_commit``.

    A ``scoped_session`` is asked for its session at each call, so one made from
    it may be kept and used by any thread.  One made from a Session belongs to
    whoever uses that session.
    """

    def __init__(self, broker: Publisher, session: AnySession) -> None:
        need_sqlalchemy("after_commit")
        check_session(session)
        self._broker = broker
        self._session = session

    def publish(self, message: Message) -> str | None:
        """Keep *message* until the outermost transaction has committed.  Never waits.

        It is checked now, and sent in the order of the calls.  It is dropped when
        that transaction, or the savepoint it was said in, is rolled back or closed.
        With no transaction begun it belongs to the next one; ``close()`` and
        ``expunge_all()`` drop it, but a ``rollback()`` that finds nothing begun
        does nothing in SQLAlchemy, nor here.
        Returns the caller's own id, or ``None``: the log has not given one yet.

        What cannot be sent then is logged as an error and lost, because the commit
        has happened; who cannot afford that uses :class:`~sse_broker.outbox.Outbox`.

        :raises MessageTooLarge: longer than ``max_message_bytes``.
        :raises TopicsNotEnabled: it is for a topic and ``enable_topics`` is off.
        """
        check_message(self._broker.config, message)
        broker = self._broker
        when_committed(session_of(self._session), lambda: broker.publish(message))
        return message.id or None


def need_sqlalchemy(what: str) -> None:
    """Import SQLAlchemy for *what*.

    :raises InvalidConfig: it is not installed.
    """
    try:
        import_module("sqlalchemy.orm")
    except ImportError as err:
        raise InvalidConfig(
            f"{what} needs SQLAlchemy: pip install 'sse-broker[sqlalchemy]'"
        ) from err


def check_session(session: object) -> None:
    """Raise TypeError if *session* is neither a Session nor a scoped_session."""
    from sqlalchemy.orm import Session, scoped_session

    if not isinstance(session, Session | scoped_session):
        raise TypeError(
            f"a SQLAlchemy Session or scoped_session is needed, not {type(session).__name__}"
        )


def session_of(session: AnySession) -> Session:
    """Return the session itself: for a ``scoped_session``, the caller's current one."""
    from sqlalchemy.orm import scoped_session

    found: Session = session() if isinstance(session, scoped_session) else session
    return found


def when_committed(session: Session, act: Callable[[], object]) -> None:
    """Call *act* when the outermost transaction of *session* has committed, else never.

    *act* is called by whoever commits, after the commit, with no transaction
    begun.  What it raises is logged as an error and does not reach the caller.
    """
    kept = session.info.get(KEY)
    if kept is None:
        kept = session.info[KEY] = _Kept()
        kept.listen(session)
    kept.add(session, act)


class _Kept:
    """What was said in one session and is not sent yet.

    It holds no session, or only through a transaction that has not ended.
    """

    def __init__(self) -> None:
        self._acts: list[Callable[[], object]] = []
        self._marks: dict[SessionTransaction, int] = {}  # how many there were at a savepoint
        self._committed: SessionTransaction | None = None
        self._identities: object = None

    def listen(self, session: Session) -> None:
        """Hear of every transaction of *session* from now on."""
        from sqlalchemy import event

        event.listen(session, "after_transaction_create", self._on_create)
        event.listen(session, "after_commit", self._on_commit)
        event.listen(session, "after_transaction_end", self._on_end)

    def add(self, session: Session, act: Callable[[], object]) -> None:
        """Keep *act* for the transaction that *session* is in, or for its next one."""
        if not session.in_transaction():
            self._forget_if_closed(session)
        self._acts.append(act)

    def _forget_if_closed(self, session: Session) -> None:
        # close() fires nothing when no transaction has begun, but it, reset() and
        # expunge_all() put a new identity map in place; that is how it is seen here.
        if self._identities is not session.identity_map:
            self._identities = session.identity_map
            self._acts.clear()

    def _on_create(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self._marks[transaction] = len(self._acts)
        elif transaction.parent is None:
            self._forget_if_closed(session)

    def _on_commit(self, session: Session) -> None:
        self._committed = session.get_nested_transaction() or session.get_transaction()

    def _on_end(self, _session: Session, transaction: SessionTransaction) -> None:
        committed = transaction is self._committed
        if transaction.nested:
            # A savepoint older than the first message has no mark: nothing was said before it.
            mark = self._marks.pop(transaction, 0)
            if not committed:
                del self._acts[mark:]
        elif transaction.parent is None:
            acts, self._acts, self._committed = self._acts, [], None
            if committed:
                _call(acts)


def _call(acts: list[Callable[[], object]]) -> None:
    failed = 0
    first: Exception | None = None
    for act in acts:
        try:
            act()
        except Exception as err:  # the commit has happened, so its caller must not hear of this
            failed += 1
            first = first or err
    if failed:
        _log.error("%d messages were not sent after a commit: %s", failed, first, exc_info=first)

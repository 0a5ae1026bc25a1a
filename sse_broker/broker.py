"""The broker as applications make it: :class:`~sse_broker.core.broker.Broker` with a log by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sse_broker.commit import AfterCommit
from sse_broker.config import BrokerConfig
from sse_broker.core.broker import Broker as CoreBroker
from sse_broker.core.ports import Authorizer, Clock, Log
from sse_broker.logs import open_log

if TYPE_CHECKING:
    from sse_broker.commit import AnySession

__all__ = ["Broker"]


class Broker(CoreBroker):
    """Sends messages, and knows who is connected to this process.

    *log* is a URL (:func:`~sse_broker.open_log`) or an open log.  *authorizer*
    is asked whether an identity may read a topic; by default the identity's own
    ``topics`` decide.  Nothing starts here.

    :raises InvalidConfig: no log has that URL's scheme.
    """

    def __init__(
        self,
        config: BrokerConfig | None = None,
        *,
        log: Log | str = "memory://",
        authorizer: Authorizer | None = None,
        clock: Clock | None = None,
    ) -> None:
        opened = open_log(log) if isinstance(log, str) else log
        super().__init__(config, log=opened, authorizer=authorizer, clock=clock)

    def after_commit(self, session: AnySession) -> AfterCommit:
        """Return what sends like this broker, but when *session* has committed.

        *session* is a SQLAlchemy Session or scoped_session (Flask-SQLAlchemy's
        ``db.session``).  The result has ``send_to_user``, ``send_to_topic``,
        ``broadcast`` and ``publish``, with the same arguments; they raise at once
        what the broker's own would raise for the message, return ``None`` or the
        caller's own id, and never wait.  What was said leaves in that order when
        the outermost transaction has committed; what was said in a transaction or
        savepoint that is rolled back never does.  A message that cannot be sent
        then is logged as an error and lost: the commit does not fail for it.  See
        :meth:`AfterCommit.publish <sse_broker.commit.AfterCommit.publish>`.

        :raises InvalidConfig: SQLAlchemy is not installed.
        :raises TypeError: *session* is something else.
        """
        return AfterCommit(self, session)

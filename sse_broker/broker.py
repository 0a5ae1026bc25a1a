"""The broker as applications make it: :class:`~sse_broker.core.broker.Broker` with a log by URL."""

from __future__ import annotations

from sse_broker.config import BrokerConfig
from sse_broker.core.broker import Broker as CoreBroker
from sse_broker.core.ports import Authorizer, Clock, Log
from sse_broker.logs import open_log

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

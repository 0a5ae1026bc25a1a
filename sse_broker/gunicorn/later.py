"""What gunicorn tells of a request's end, put off to the end of its stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gunicorn.glogging import Logger

from sse_broker.gunicorn.handoff import left

__all__ = ["LateLog", "LateSettings", "wants_the_end"]

_ACCESS_LOGS = ("accesslog", "logconfig", "logconfig_dict", "logconfig_json", "syslog")


class LateLog:
    """gunicorn's logger, with the access line of a stream put off to its end."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.access_now: Callable[..., None] = log.access

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        """Write the access line of a request that is over."""
        handoff = left(environ)
        if handoff is None:
            self.access_now(resp, req, environ, request_time)
        else:
            handoff.keep(req)


class LateSettings:
    """gunicorn's settings, with ``post_request`` of a stream put off to its end."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._cfg, name)
        if not callable(value):  # settings do not change while a worker runs
            self.__dict__[name] = value
        return value

    @property
    def post_request_now(self) -> Callable[..., None]:
        """The hook itself."""
        hook: Callable[..., None] = self._cfg.post_request
        return hook

    @property
    def post_request(self) -> Callable[..., None]:
        """The hook, for requests that are over."""
        return self._post_request

    def _post_request(self, worker: Any, req: Any, environ: dict[str, Any], resp: Any) -> None:
        if left(environ) is None:
            self.post_request_now(worker, req, environ, resp)


def wants_the_end(cfg: Any, log: Any) -> bool:
    """Whether anybody is told of a request's end; if not, nothing of it is kept."""
    hook = cfg.settings["post_request"]
    if hook.get() is not hook.default or type(log) is not Logger:  # statsd has a logger of its own
        return True
    return any(getattr(cfg, name, None) for name in _ACCESS_LOGS)

class _Log:
    """gunicorn's logger, with the access line of a stream put off to its end."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.access_now: Callable[..., None] = log.access

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        """Write the access line of a request that is over."""
        handoff = _handed(environ)
        if handoff is None:
            self.access_now(resp, req, environ, request_time)
        else:
            handoff.keep(req)


class _Settings:
    """gunicorn's settings, with ``post_request`` of a stream put off to its end."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cfg, name)

    @property
    def post_request_now(self) -> Callable[..., None]:
        """The hook itself."""
        hook: Callable[..., None] = self._cfg.post_request
        return hook

    @property
    def post_request(self) -> Callable[..., None]:
        """The hook, for requests that are over."""

        def hook(worker: Any, req: Any, environ: dict[str, Any], resp: Any) -> None:
            if _handed(environ) is None:
                self.post_request_now(worker, req, environ, resp)

        return hook



class _Handoff:
    """One request whose stream is to leave, and what is left of the request then."""

    __slots__ = ("_began", "_environ", "_request", "_response", "_worker", "is_taken", "stream")

    def __init__(
        self, worker: StreamWorker, response: Any, environ: dict[str, Any], stream: Stream
    ) -> None:
        self._worker, self._response, self._environ = worker, response, environ
        self.stream = stream
        self._began = dt.datetime.now()
        self._request: Any = None
        self.is_taken = False
        """Whether the stream has left, so that what ends its request has to wait."""

    def keep(self, request: Any) -> None:
        """Note the request whose end will have to be told."""
        self._request = request

    def adopt(self, handed: tuple[Streams, Reader], sock: Any) -> None:
        """Give the socket and the stream to the pump."""
        worker, response = self._worker, self._response
        streams, reader = handed
        wants_end = worker.keeps_requests or self.stream.at_close
        end = _End(worker, streams, reader, self if wants_end else None)
        assert worker.pump is not None
        worker.pump.adopt(reader, sock, bool(response.chunked), end)

    def conclude(self, written: int) -> None:
        """Do what was put off: close the stream, write the access line, call the hook."""
        self.stream.close()
        worker, response = self._worker, self._response
        if not worker.keeps_requests:
            return
        response.sent += written
        took = dt.datetime.now() - self._began
        worker.log.access_now(response, self._request, self._environ, took)
        worker.cfg.post_request_now(worker, self._request, self._environ, response)


class _End:
    """What is done at a handed-off stream's end, on a side thread."""

    __slots__ = ("_late", "_reader", "_streams", "_worker")

    def __init__(
        self, worker: StreamWorker, streams: Streams, reader: Reader, late: _Handoff | None
    ) -> None:
        self._worker, self._streams, self._reader, self._late = worker, streams, reader, late

    def __call__(self, written: int) -> None:
        try:
            self._streams.forget(self._reader.client, "client_gone")
            if self._late is not None:
                self._late.conclude(written)
        finally:
            self._worker.handed_back()


class _Leaving(Iterator[bytes]):
    """A stream as gunicorn iterates it here: after its first frames it leaves."""

    __slots__ = ("_handoff", "_has_begun")

    def __init__(self, handoff: _Handoff) -> None:
        self._handoff, self._has_begun = handoff, False

    def __next__(self) -> bytes:
        handoff = self._handoff
        stream, pump = handoff.stream, handoff._worker.pump
        assert pump is not None
        if not self._has_begun:
            self._has_begun = True
            pump.restart()  # should it have died; the broker would do it within a second
            handoff._response.force_close()  # nothing is asked on this connection afterwards
            stream.leave()
            return next(stream)
        handed = stream.hand_off()
        if handed is None:  # it was refused, or is over already
            return next(stream)
        handoff.is_taken = True
        raise Detach(handoff, handed)

    def close(self) -> None:
        """Close the stream, unless it lives on."""
        if not self._handoff.is_taken:
            self._handoff.stream.close()


def _handed(environ: dict[str, Any]) -> _Handoff | None:
    handoff = environ.get(HANDOFF)
    return handoff if isinstance(handoff, _Handoff) and handoff.is_taken else None



"""Lines for the server's log that a crowd of visitors must not multiply.

Of each kind the first is written at once; then, for a minute, they are counted,
and the next line says how many were not written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

__all__ = ["SAY_EVERY", "Said", "one_line"]

SAY_EVERY = 60.0  # seconds between two lines of one kind
MOST_CHARS = 500
MOST_KINDS = 256  # kinds are named by us and by functions of the app, so they are few


class Said:
    """Writes to the logger *name*, each kind once a minute.  Any thread; never waits.

    Two threads at one moment may both write; that is harmless and spares a lock.
    """

    def __init__(self, name: str, now: Callable[[], float] = time.monotonic) -> None:
        self._log = logging.getLogger(name)
        self._now = now
        self._kinds: dict[str, tuple[float, int]] = {}  # kind: (next line at, not written)

    def warning(self, kind: str, text: str, *args: object) -> None:
        """Say that a visitor was refused, or lost something."""
        self._say(logging.WARNING, kind, text, args)

    def error(self, kind: str, text: str, *args: object) -> None:
        """Say that something of ours or of the application is broken."""
        self._say(logging.ERROR, kind, text, args)

    def failure(self, kind: str, text: str, traceback: str) -> None:
        """Say that a function of the application is broken; *traceback* is several lines."""
        self._say(logging.ERROR, kind, text + "%s", (_Lines(traceback),))

    def _say(self, level: int, kind: str, text: str, args: tuple[object, ...]) -> None:
        now = self._now()
        due, more = self._kinds.get(kind, (float("-inf"), 0))
        if now < due:
            self._kinds[kind] = (due, more + 1)
            return
        if len(self._kinds) >= MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = (now + SAY_EVERY, 0)
        shown = [one_line(arg) if isinstance(arg, str) else arg for arg in args]
        if more:
            text, shown = f"%d more since the last line like this: {text}", [more, *shown]
        self._log.log(level, text, *shown)


class _Lines:
    """Lines that are made safe already."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return f":\n{self._text}"


def one_line(text: str) -> str:
    """Return *text* as one bounded line of a log: what a visitor wrote forges no other."""
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:MOST_CHARS])
    return f"{shown} ..." if len(text) > MOST_CHARS else shown

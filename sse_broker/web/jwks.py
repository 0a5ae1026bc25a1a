"""The public keys of one issuer, as its key server says them (RFC 7517).

Asked when it is needed and in the thread that needs it; never in the background.
A key server that is away does not matter while its keys are known.

Lock map
    _lock     held while the key server is asked, by one thread; others use the
              keys that are known, or wait for that one where there are none
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from sse_broker.errors import AuthenticationFailed, NotNow

__all__ = ["KeySet"]

FRESH = 300.0  # seconds after which the server is asked again, so that withdrawn keys go
STALE = 3_600.0  # seconds for which keys are used while the server does not answer
PAUSE = 10.0  # seconds between two questions: unknown key ids come from anybody
TIMEOUT = 3.0  # seconds for one question
MOST_KEYS = 64


class KeySet:
    """The keys behind one URL.  Any thread; *jwt* is PyJWT."""

    def __init__(self, jwt: Any, url: str, now: Callable[[], float] = time.monotonic) -> None:
        self._jwt = jwt
        self._client = jwt.PyJWKClient(
            url, cache_keys=False, cache_jwk_set=False, timeout=int(TIMEOUT)
        )
        self._now = now
        self._lock = threading.Lock()
        self._keys: dict[str | None, Any] = {}
        self._asked = self._got = float("-inf")

    def find(self, kid: object) -> Any:
        """Return the key with this id.

        :raises AuthenticationFailed: the issuer has none.
        :raises NotNow: the key server does not answer.
        """
        if kid is not None and not isinstance(kid, str):
            raise AuthenticationFailed("the token is not valid")
        now = self._now()
        if kid not in self._keys or now - self._got > FRESH:
            self._refresh(now)
        if self._now() - self._got > STALE:
            raise NotNow("the key server does not answer", retry_after=PAUSE)
        if kid not in self._keys:
            raise AuthenticationFailed("the token is signed with an unknown key")
        return self._keys[kid]

    def _refresh(self, now: float) -> None:
        if now - self._asked < PAUSE:
            return
        # Without any keys everybody waits for the one answer; with some nobody waits.
        if not self._lock.acquire(timeout=-1 if not self._keys else 0):
            return
        try:
            if now < self._asked:  # another thread has asked meanwhile
                return
            self._asked = self._now()
            self._keys = self._ask()
            self._got = self._now()
        except (self._jwt.PyJWTError, OSError, ValueError) as err:
            if not self._keys:
                raise NotNow("the key server does not answer", retry_after=PAUSE) from err
        finally:
            self._lock.release()

    def _ask(self) -> dict[str | None, Any]:
        found = self._client.get_jwk_set(refresh=True).keys[:MOST_KEYS]
        keys = {key.key_id: key for key in found if key.public_key_use in ("sig", None)}
        if len(found) == 1:  # a token need not name the only key
            keys.setdefault(None, found[0])
        return keys

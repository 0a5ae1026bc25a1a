"""Where a request comes from, for what is counted per address.

Only the address that the server gives is believed, never a header: a client
writes into ``X-Forwarded-For`` what it likes.  Behind a proxy werkzeug's
``ProxyFix``, told how many proxies there are, puts the right address there.
"""

from __future__ import annotations

import ipaddress
import logging

from flask import Request

from sse_broker.errors import InvalidConfig

__all__ = ["client_address"]

FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
PREFIX = 64  # bits; whoever has an IPv6 address has at least such a network to choose from

_log = logging.getLogger("sse_broker.address")
_said: set[str] = set()


def client_address(request: Request, setting: str) -> str:
    """Return the address to count *request* under: of IPv6 the /64 network.

    :raises InvalidConfig: the server gives none, as on a unix socket, and
        *setting* cannot be kept.
    """
    found = (request.remote_addr or "").strip()
    if not found:
        error = InvalidConfig(
            f"{setting} needs the client's address and the server gives none, as on a unix socket;"
            " wrap the app: app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1), of"
            " werkzeug.middleware.proxy_fix, and have the proxy send X-Forwarded-For",
            field=setting,
        )
        if setting not in _said:
            _said.add(setting)
            _log.error("%s", error)
        raise error
    _look_for_a_proxy(request, found, setting)
    return _normal(found)


def _look_for_a_proxy(request: Request, found: str, setting: str) -> None:
    """Say once that a proxy hides the clients' addresses, so that all count as one."""
    if "proxy" in _said or "werkzeug.proxy_fix.orig" in request.environ:
        return
    names = [name for name in FORWARDED if name in request.headers]
    try:
        near = ipaddress.ip_address(found.partition("%")[0])
    except ValueError:
        return
    if names and (near.is_private or near.is_loopback):
        _said.add("proxy")
        _log.warning(
            "%s counts every client as %s, the address of the proxy in front, which sends %s;"
            " wrap the app: app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1), of"
            " werkzeug.middleware.proxy_fix (for the hub: SSE_PROXIES=1)",
            setting,
            found,
            names[0],
        )


def _normal(text: str) -> str:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        host, _, port = text.rpartition(":")  # some proxies say 192.0.2.7:50123
        bare = host.strip("[]")
        return _normal(bare) if bare and port.isdigit() and bare != text else text[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return str(ipaddress.ip_network((address, PREFIX), strict=False))
        address = address.ipv4_mapped
    return str(address)

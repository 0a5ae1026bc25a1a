"""A hook of MkDocs: roles of docstrings, as ``help()`` shows them, become plain code on a page."""

from __future__ import annotations

import re

_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):\s*<code>([^<]+)</code>")


def on_page_content(html: str, **_: object) -> str:
    """Return the page's HTML with each role replaced by the name that it shows."""
    return _ROLE.sub(lambda role: f"<code>{_shown(role[1])}</code>", html)


def _shown(text: str) -> str:
    title = text.partition(" &lt;")[0]  # as in: Broker.send <sse_broker.broker.Broker.send>
    return title.rpartition(".")[2] if title.startswith("~") else title

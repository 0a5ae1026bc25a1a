"""``GET dashboard``: the operators' page, and what it asks for.

Aggregates of all processes are pushed every two seconds; lists are asked for, in
pages.  Whoever may see it is decided here, apart from readers and publishers: by a
function of the application, by the token ``SSE_DASHBOARD_TOKEN`` (the password that a
browser asks for), or, in debug mode, by coming from this machine.  Elsewhere the page
does not exist.
"""

from sse_broker.web.dashboard.routes import add_dashboard

__all__ = ["add_dashboard"]

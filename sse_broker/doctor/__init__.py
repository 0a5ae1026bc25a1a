"""What is wrong between a browser and the application, and on this machine, in plain words.

:func:`~sse_broker.doctor.remote.look` opens streams through the public address as a
browser would; :func:`~sse_broker.doctor.local.look` looks at configuration, versions
and log.  Neither changes anything, but for messages to a topic of its own where a
publish token is given.
"""

from sse_broker.doctor.findings import CATALOGUE, Finding, Report

__all__ = ["CATALOGUE", "Finding", "Report"]

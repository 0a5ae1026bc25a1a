"""``sse_broker``: serve, publish and look from a terminal, a cron job, a shell script.

Most commands talk to the log, not to a server: whatever process serves streams
from that log delivers.  ``flask sse ...`` has the same commands with the
application's own configuration (:mod:`sse_broker.cli.flask`).

Exit status: 0 done; 1 the log or the server is away or has refused, or ``doctor``
has findings; 2 wrong use, or ``doctor`` could not look.
"""

from __future__ import annotations

import click

from sse_broker.cli.access import Access
from sse_broker.cli.completion import completion
from sse_broker.cli.doctor import doctor
from sse_broker.cli.ends import disconnect, revoke
from sse_broker.cli.explain import explain, listeners
from sse_broker.cli.looks import online, stats
from sse_broker.cli.publish import publish
from sse_broker.cli.serve import serve
from sse_broker.cli.tail import tail
from sse_broker.cli.token import token
from sse_broker.version import __version__

__all__ = ["COMMANDS", "main"]

COMMANDS = (
    serve,
    publish,
    tail,
    stats,
    online,
    disconnect,
    revoke,
    token,
    doctor,
    explain,
    listeners,
    completion,
)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="sse_broker")
@click.option(
    "--log",
    "url",
    envvar="SSE_LOG_URL",
    metavar="URL",
    help="The log, as the servers have it.  Default: SSE_LOG_URL.",
)
@click.pass_context
def main(context: click.Context, url: str | None) -> None:
    """Serve streams; publish to, and look at, the log that sse_broker's servers share.

    Settings are read from the environment, as SSE_<SETTING>.

    \b
    Exit status: 0 done; 1 the log or the server is away or has refused, or doctor
    has findings; 2 wrong use, or doctor could not look.
    """
    context.obj = Access(url)


for _command in COMMANDS:
    main.add_command(_command)

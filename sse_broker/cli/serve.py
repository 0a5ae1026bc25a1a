"""``sse_broker serve``: the reference hub, or the application, under gunicorn as it should be."""

from __future__ import annotations

import importlib.util
import os
import sys

import click

from sse_broker.cli.access import Access

__all__ = ["serve"]


@click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.option("--bind", "-b", default="127.0.0.1:8000", show_default=True, metavar="HOST:PORT")
@click.option("--workers", "-w", default=1, show_default=True, help="Processes.")
@click.option("--dev", is_flag=True, help="Believe ?user_id= (never where others reach it).")
@click.argument("gunicorn_options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def serve(
    access: Access, bind: str, workers: int, dev: bool, gunicorn_options: tuple[str, ...]
) -> None:
    """Serve streams under gunicorn, with the worker whose streams hold no thread.

    Further options are gunicorn's.  It is the hub of this library, configured by the
    environment; ``flask sse serve`` is the application itself.
    """
    if importlib.util.find_spec("gunicorn") is None:
        raise click.ClickException("gunicorn is missing: pip install 'sse-broker[gunicorn]'")
    environ = dict(os.environ)
    if access.url:
        environ["SSE_LOG_URL"] = access.url
    if dev:
        environ["SSE_DEV_AUTH"] = "1"
    command = [sys.executable, "-m", "gunicorn", "-c", "python:sse_broker.gunicorn_conf"]
    command += ["--bind", bind, "--workers", str(workers), *gunicorn_options, access.wsgi]
    sys.stdout.flush()
    os.execve(sys.executable, command, environ)

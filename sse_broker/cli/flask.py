"""``flask sse ...``: the same commands with the application's own broker and configuration."""

from __future__ import annotations

import os
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import ScriptInfo, with_appcontext

from sse_broker.broker import Broker
from sse_broker.cli import COMMANDS
from sse_broker.cli.access import Access

__all__ = ["load", "sse"]

WSGI = "sse_broker.cli.flask:load()"


def load() -> Flask:
    """Return the application that ``flask`` would run: what ``flask sse serve`` serves."""
    return ScriptInfo(app_import_path=os.environ.get("FLASK_APP")).load_app()


@click.group()
@click.pass_context
def sse(context: click.Context) -> None:
    """Publish to, look at and serve this application's streams."""


def _in_app(command: click.Command) -> click.Command:
    """Return *command*, run in the application's context with its broker."""

    @click.pass_context
    @with_appcontext
    def run(context: click.Context, /, **arguments: Any) -> Any:
        info = context.find_object(ScriptInfo)
        if info is not None and info.app_import_path:
            os.environ["FLASK_APP"] = info.app_import_path  # for the server that `serve` becomes
        broker = current_app.extensions.get("sse")
        if not isinstance(broker, Broker):
            raise click.UsageError("this application has no SSE extension; call SSE(app)")
        ours = {key: value for key, value in current_app.config.items() if key.startswith("SSE_")}
        access = Access(current_app.config.get("SSE_LOG_URL"), ours, broker)
        access.wsgi = WSGI
        context.obj = access
        assert command.callback is not None
        return context.invoke(command.callback, **arguments)

    return type(command)(
        command.name,
        callback=run,
        params=command.params,
        help=command.help,
        context_settings=command.context_settings,
    )


for _command in COMMANDS:
    if _command.name != "completion":
        sse.add_command(_in_app(_command))

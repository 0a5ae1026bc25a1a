"""How a command gets at the broker: made when it is first needed, so that help needs none."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from sse_broker.broker import Broker
from sse_broker.config import BrokerConfig, strangers
from sse_broker.errors import BrokerError, InvalidConfig, LogUnavailable, QueueFull

__all__ = ["Access", "answers", "as_json", "environment", "row", "wants_json"]

wants_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class Access:
    """A way to the broker and its configuration.  One command, one thread.

    *url* is the log's; *settings* are read instead of the environment, and *broker*
    is used instead of one made here, where an application has them.
    """

    def __init__(
        self,
        url: str | None,
        settings: Mapping[str, Any] | None = None,
        broker: Broker | None = None,
    ) -> None:
        self.url = url
        self.wsgi = "sse_broker.app:create_app()"  # what `serve` serves
        self._settings = settings
        self._broker = broker

    @property
    def settings(self) -> Mapping[str, Any]:
        """The keys ``SSE_*`` of the application, or of the environment."""
        return environment() if self._settings is None else self._settings

    def broker(self, create: bool = False) -> Broker:
        """Return the broker; without *create* its log has to exist.

        :raises click.UsageError: no log is named, or the log is one that nobody else sees.
        :raises InvalidConfig: a setting is wrong.
        :raises LogUnavailable: there is no such file.
        """
        if self._broker is None:
            if not self.url:
                raise click.UsageError(
                    "no log is named: say --log URL (before the command) or set SSE_LOG_URL,"
                    " as the servers have it: sqlite:////path/to/sse.db or redis://host:6379/0"
                )
            for sentence in strangers(self.settings):
                click.echo(f"sse_broker: {sentence}", err=True)
            self._broker = Broker(BrokerConfig.from_mapping(self.settings), log=self.url)
        broker = self._broker
        if not broker.log.shared:
            raise click.UsageError(
                f"{broker.log.url} is the log of one process and nobody else sees it;"
                " use sqlite:///path or redis://host"
            )
        path = _file(broker.log.url)
        if path is not None and not create and not path.exists():
            raise LogUnavailable(
                f"there is no log at {path}, so no server serves from it; check the path, or say"
                " --create to make it"
            )
        return broker


def _file(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(unquote(parts.path[1:])) if parts.scheme == "sqlite" else None


@contextmanager
def answers() -> Iterator[None]:
    """Turn the library's errors into a line on standard error and an exit status."""
    try:
        yield
    except BrokerError as err:
        click.echo(f"sse_broker: {err}", err=True)
        away = isinstance(err, LogUnavailable | QueueFull) and not isinstance(err, InvalidConfig)
        sys.exit(1 if away else 2)


def environment() -> dict[str, str]:
    """Return the environment's keys that are, or look like, ours."""
    return {key: value for key, value in os.environ.items() if key.startswith("SSE_")}


def as_json(value: object) -> None:
    """Print one line of JSON."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def row(name: str, value: object) -> None:
    """Print a name and its value, aligned."""
    click.echo(f"{click.style(name.ljust(24), dim=True)}{value}")

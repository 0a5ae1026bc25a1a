"""``sse_broker doctor``."""

from __future__ import annotations

import sys
import textwrap

import click

from sse_broker.cli.access import Access, as_json, wants_json
from sse_broker.cli.tail import header
from sse_broker.doctor import Finding, Report, local, remote
from sse_broker.errors import BrokerError

__all__ = ["doctor"]

_print = as_json


@click.command()
@click.argument("url", required=False)
@click.option("--token", default="", envvar="SSE_TOKEN", help="A reader's bearer token.")
@click.option(
    "--publish-token",
    default="",
    envvar="SSE_PUBLISH_TOKEN",
    help="Sends messages to itself with it.  Default: SSE_PUBLISH_TOKEN.",
)
@click.option("--origin", default="", help="The page's origin, if it is another site's.")
@click.option("--tenant", default="", metavar="ID", help="The reader's tenant.")
@click.option("--header", "headers", multiple=True, metavar="NAME:VALUE", help="A header to send.")
@click.option("--quick", is_flag=True, help="Do not wait for a heartbeat.")
@wants_json
@click.pass_obj
def doctor(
    access: Access,
    url: str | None,
    token: str,
    publish_token: str,
    origin: str,
    tenant: str,
    headers: tuple[str, ...],
    quick: bool,
    as_json: bool,
) -> None:
    """Say what is wrong: with URL between here and the application, without it on this machine.

    URL is where the blueprint is, or its stream, through the public address; streams are
    opened as a browser would.  Without --token and --header the development
    authenticator's query is used.

    \b
      sse_broker doctor https://example.com/sse --token "$TOKEN"
      sse_broker --log sqlite:////var/lib/shop/sse.db doctor

    Exit status: 0 well, 1 findings, 2 could not look.
    """

    def tell(what: str) -> None:
        if not as_json and sys.stderr.isatty():
            click.echo(f"\r\x1b[K{what} ...", err=True, nl=False)

    if url is not None:
        sent = tuple(header(text) for text in headers)
        question = remote.Question(url, token, publish_token, origin, tenant, sent, wait=not quick)
        report = remote.look(question, tell)
    else:
        report = _here(access, tell)
    if not as_json and sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    _show(report, as_json)
    sys.exit(report.exit_status)


def _here(access: Access, tell: remote.Tell) -> Report:
    try:
        broker = access.broker(create=True)
    except click.UsageError as err:
        raise click.UsageError(f"{err.message}; or say the URL of a server to look at") from err
    except BrokerError as err:
        report = Report()
        report.find("configuration", str(err))
        return report
    return local.look(broker, access.settings, tell)


def _show(report: Report, for_programs: bool) -> None:
    if for_programs:
        found = [finding.as_dict() for finding in report.findings]
        status = ("well", "findings", "could not look")[report.exit_status]
        _print({"status": status, "findings": found, "notes": report.notes})
        return
    for note in report.notes:
        click.echo(f"{click.style('-', dim=True)} {note}")
    for finding in report.findings:
        _show_one(finding)
    if not report.findings:
        click.secho("nothing is wrong", fg="green", bold=True)


def _show_one(finding: Finding) -> None:
    click.echo()
    click.echo(f"{click.style(finding.name, fg='red', bold=True)}: {finding.title}")
    for name, text in (
        ("seen", finding.seen),
        ("why", finding.why),
        ("change", finding.change),
        ("more", finding.more),
    ):
        lead = f"  {name.ljust(8)}"
        click.echo(textwrap.fill(text, 96, initial_indent=lead, subsequent_indent=" " * 10))

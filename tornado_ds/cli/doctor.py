"""`doctor`: what is wrong with an installation."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tornado_ds.cli.common import JsonOption, current_settings, fail, print_json, print_table, visible
from tornado_ds.cli.deepstream import reachable
from tornado_ds.clock import SystemClock
from tornado_ds.doctor.findings import Finding, warning, wrong
from tornado_ds.doctor.targets import parse_target
from tornado_ds.errors import SettingsError
from tornado_ds.logs import configure_logging
from tornado_ds.settings import Settings, UnixAddress

_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red"}


def doctor(
    url: Annotated[
        str | None,
        typer.Argument(help="The webhook as deepstream is given it, such as https://auth.example.com/check-token."),
    ] = None,
    deepstream_config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Look at deepstream's config.yml too, and ask the webhook that it names."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """
    Find out what is wrong: settings, files, database, webhook, pages and what lies between; changes nothing.

    Exits with 1 if something is wrong; warnings are no failure. Without URL it asks internal_listen.

    Example: python -m tornado_ds doctor --deepstream-config /etc/deepstream/config.yml

    Example: python -m tornado_ds doctor https://auth.example.com/check-token
    """
    # Libraries have nothing to say here that a finding does not say better.
    configure_logging("console", level="error")
    try:
        findings = _examine(current_settings(), url, deepstream_config)
    except SettingsError as exc:
        findings = [wrong("settings", str(exc), "Everything else depends on it, and was left out.")]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    if count := sum(finding.level == "wrong" for finding in findings):
        fail(f"{count} of {len(findings)} findings {'is' if count == 1 else 'are'} wrong")


def _examine(settings: Settings, url: str | None, file: Path | None) -> list[Finding]:
    # Not at the top: every start of the server would import all of it for nothing.
    from tornado_ds.doctor.deepstream import examine_deepstream_config
    from tornado_ds.doctor.examination import examine, examine_alone
    from tornado_ds.doctor.files import find_secret

    clock, listen = SystemClock(), settings.internal_listen
    if isinstance(listen, UnixAddress):
        # Only what stands in front of that socket can be asked, as deepstream does.
        internal = None if url is None else parse_target(url).origin
    else:
        internal = f"http://{reachable(listen)}"
    config = None
    if file is not None:
        address = "" if internal is None else parse_target(internal).parts.netloc
        config = examine_deepstream_config(
            file, settings, internal=address, secret=find_secret(settings), environment=os.environ
        )
        if internal is None and config.webhook is not None:
            internal = config.webhook.origin
    if internal is None:
        text = f"{listen} is for what stands in front of it, and that is not known: no server was asked"
        advice = "Name the webhook as deepstream is given it: doctor URL."
        findings = asyncio.run(examine_alone(settings, config=config, clock=clock))
        return [*findings, warning("internal_listen", text, advice)]
    return asyncio.run(examine(settings, internal=internal, url=url, config=config, clock=clock))


def _print(findings: Sequence[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        text = Text(visible(finding.text))
        if finding.advice:
            text.append(f"\n-> {visible(finding.advice)}", style="italic")
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), finding.topic, text)
    print_table(table)

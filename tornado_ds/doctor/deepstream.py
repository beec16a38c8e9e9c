"""All that is to be said of deepstream's config.yml, and whom it makes deepstream ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tornado_ds.doctor.deepstream_auth import examine_auth, webhook_options
from tornado_ds.doctor.deepstream_file import TOPIC, read_deepstream_file, text_of
from tornado_ds.doctor.deepstream_server import examine_server, feed_targets
from tornado_ds.doctor.findings import Finding, ok, wrong
from tornado_ds.doctor.targets import Target, parse_target
from tornado_ds.errors import ProbeError
from tornado_ds.settings import Settings


@dataclass(frozen=True, slots=True)
class DeepstreamConfig:
    """The findings, and the addresses that can be asked."""

    findings: Sequence[Finding]
    webhook: Target | None = None
    feeds: Sequence[Target] = ()


def examine_deepstream_config(
    path: Path, settings: Settings, *, secret: str | None, variables: Mapping[str, str]
) -> DeepstreamConfig:
    """Return what is to be said of the file *path*, with *variables* as deepstream's environment."""
    try:
        file = read_deepstream_file(path, variables)
    except ProbeError as exc:
        return DeepstreamConfig([wrong(TOPIC, str(exc), "Give the file that deepstream is started with.")])
    findings = [*file.findings, *examine_auth(file.content, settings, secret), *examine_server(file, secret)]
    return DeepstreamConfig(
        findings=findings or [ok(TOPIC, f"{path} has all that it needs, and nothing dangerous")],
        webhook=_webhook(text_of(webhook_options(file.content).get("endpointUrl"))),
        feeds=feed_targets(file.content),
    )


def _webhook(url: str) -> Target | None:
    try:
        return parse_target(url)
    except ProbeError:
        return None

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
from tornado_ds.settings import Settings, variable_of


@dataclass(frozen=True, slots=True)
class DeepstreamConfig:
    """The findings, and the addresses that can be asked."""

    findings: Sequence[Finding]
    webhook: Target | None = None
    feeds: Sequence[Target] = ()


def examine_deepstream_config(
    path: Path, settings: Settings, *, internal: str, secret: str | None, environment: Mapping[str, str]
) -> DeepstreamConfig:
    """
    Return what is to be said of the file *path*.

    Of the variables that it names, the two that our own config.yml wants may be
    missing from *environment*: their values are *internal* and *secret*.
    """
    ours = {variable_of("internal_listen"): internal, variable_of("webhook.secret"): secret or ""}
    try:
        file = read_deepstream_file(path, {**ours, **environment})
    except ProbeError as exc:
        return DeepstreamConfig([wrong(TOPIC, str(exc), "Give the file that deepstream is started with.")])
    findings = [*file.findings, *examine_auth(file.content, settings, secret), *examine_server(file, settings, secret)]
    if not findings:
        unset = sorted(file.variables & ours.keys() - environment.keys())
        condition = f", if deepstream starts with {' and '.join(unset)} in its environment" if unset else ""
        findings = [ok(TOPIC, f"{path} has all that it needs, and nothing dangerous{condition}")]
    return DeepstreamConfig(
        findings=findings,
        webhook=_webhook(text_of(webhook_options(file.content, settings, secret).get("endpointUrl"))),
        feeds=feed_targets(file.content),
    )


def _webhook(url: str) -> Target | None:
    try:
        return parse_target(url)
    except ProbeError:
        return None

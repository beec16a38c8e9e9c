"""All checks, in the order in which one is the reason for the next."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from tornado_ds.clock import Clock
from tornado_ds.doctor.configuration import examine_settings
from tornado_ds.doctor.database import examine_database
from tornado_ds.doctor.deepstream import DeepstreamConfig
from tornado_ds.doctor.feed import examine_feed, examine_readiness
from tornado_ds.doctor.files import examine_files, find_secret, has_data
from tornado_ds.doctor.findings import Finding, wrong
from tornado_ds.doctor.pages import examine_deepstream, examine_pages
from tornado_ds.doctor.targets import Target, basic_auth, parse_target
from tornado_ds.doctor.tls import examine_certificate
from tornado_ds.doctor.webhook import examine_webhook
from tornado_ds.errors import ProbeError
from tornado_ds.settings import Settings


async def examine_alone(settings: Settings, *, config: DeepstreamConfig | None, clock: Clock) -> list[Finding]:
    """Return what is to be said without asking a server."""
    findings = [*examine_files(settings), *examine_settings(settings), *(config.findings if config else ())]
    return [*findings, *(await examine_database(settings, clock) if _is_ours(settings) else ())]


async def examine(
    settings: Settings, *, internal: str, url: str | None, config: DeepstreamConfig | None, clock: Clock
) -> list[Finding]:
    """
    Return everything that is to be said, good and bad.

    *internal* is where a neighbour reaches the internal listener (scheme, host
    and port), *url* the webhook if it is not the one that *config*, or else
    *internal*, names. When the server is down, one finding says so, and what would
    have to ask it is left out.

    Raises:
        ProbeError: *url* is no URL.
    """
    is_ours = _is_ours(settings)
    webhook = _webhook(internal, url, config, secret=find_secret(settings))
    findings = await examine_alone(settings, config=config, clock=clock)
    home = internal if is_ours else webhook.origin
    try:
        findings += await examine_readiness(home, clock)
    except ProbeError as exc:
        advice = "Start it: python -m tornado_ds. What only a running server can tell was left out."
        return [*findings, wrong("server", f"nothing answers at {home}: {exc}", advice)]
    findings += await _examine_webhook(webhook, settings, clock, is_ours=is_ours)
    findings += await _examine_feeds(home, webhook, config, is_ours=is_ours)
    if is_ours:
        findings += await examine_pages(settings, clock)
        findings.append(await examine_deepstream(settings))
    return findings


def _is_ours(settings: Settings) -> bool:
    """True if the settings are those of an installation that we may look into."""
    return has_data(settings) or not settings.uses_embedded_database


def _webhook(internal: str, url: str | None, config: DeepstreamConfig | None, *, secret: str | None) -> Target:
    """Return the webhook; with our own secret where a person, or these settings, say whom to give it to."""
    if url is None and config is not None and config.webhook is not None:
        target = config.webhook
    else:
        target = parse_target(internal if url is None else url)
        if target.parts.path in ("", "/"):
            target = replace(target, url=f"{target.origin}/check-token")
    if target.authorization is None and secret is not None and (url is not None or target.origin == internal):
        target = replace(target, authorization=basic_auth(f"deepstream:{secret}"))
    return target


async def _examine_webhook(target: Target, settings: Settings, clock: Clock, *, is_ours: bool) -> list[Finding]:
    try:
        certificate = await examine_certificate(target, clock)
        if certificate is not None and certificate.level == "wrong":
            return [certificate]
        findings = await examine_webhook(target, settings, is_ours=is_ours)
    except ProbeError as exc:
        advice = f"Run this where deepstream runs; internal_listen is {settings.internal_listen}."
        return [wrong("webhook", f"{target.url} does not answer: {exc}", advice)]
    return findings if certificate is None else [certificate, *findings]


async def _examine_feeds(
    home: str, webhook: Target, config: DeepstreamConfig | None, *, is_ours: bool
) -> Sequence[Finding]:
    if config is not None and config.webhook is not None:
        return await asyncio.gather(*(examine_feed(feed) for feed in config.feeds))
    feed = replace(webhook, url=f"{home}/session-events")
    return [await examine_feed(feed, is_guess=not is_ours)]

"""What the plugin session-guard follows: does it flow, and is the server that sends it ready."""

from email.utils import parsedate_to_datetime

import orjson

from tornado_ds.clock import Clock
from tornado_ds.doctor.client import Answer, ask, ask_stream
from tornado_ds.doctor.clocks import compare_clocks
from tornado_ds.doctor.findings import Finding, ok, warning, wrong
from tornado_ds.doctor.targets import Target
from tornado_ds.errors import CertificateError, ProbeError

TOPIC = "session feed"


async def examine_feed(target: Target, *, is_guess: bool = False) -> Finding:
    """Say whether events arrive from *target* at the moment they happen; with *is_guess* it need not be the address."""
    headers = {"Accept": "text/event-stream"}
    if target.authorization is not None:
        headers["Authorization"] = target.authorization
    try:
        answer = await ask_stream(target.url, headers=headers)
    except ProbeError as exc:
        return _unreachable(target, str(exc), is_guess=is_guess)
    if answer.status == 401 and "WWW-Authenticate" in answer.headers:
        if target.authorization is None:
            advice = "Run this where the server's settings are, or set TORNADO_DS_WEBHOOK__SECRET here."
            return warning(TOPIC, f"{target.url} wants the secret, which is not known here", advice)
        advice = "options.secret of the plugin must be that server's webhook.secret, and a proxy must pass it on."
        return wrong(TOPIC, f"{target.url} refuses the secret", advice)
    if answer.status != 200 or not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
        return _unreachable(target, f"the answer is {answer.status}, and no stream of events", is_guess=is_guess)
    if not answer.body:
        text = f"{target.url} is held back on its way: nothing arrives at once"
        return wrong(TOPIC, text, "Switch buffering off in the proxy (nginx: proxy_buffering off), or go around it.")
    return ok(TOPIC, f"{target.url} flows")


async def examine_readiness(url: str, clock: Clock) -> list[Finding]:
    """
    Return what the internal listener at *url* says of itself, and whether its clock is right.

    Raises:
        ProbeError: Nobody answers there.
    """
    try:
        answer = await ask(f"{url}/readyz")
    except CertificateError:
        # That is said where certificates are looked at.
        return []
    state = _json(answer)
    if "ready" not in state:
        text = f"{url}/readyz is not there ({answer.status}), so it is not seen whether the server is ready"
        return [warning("server", text, "Ask the internal listener itself, if the proxy is not to pass this on.")]
    if answer.status != 200 or not state["ready"]:
        why = ", ".join(map(str, _as_object(state.get("not_ready")).values())) or "it does not say why"
        text = f"{url} is not ready: {why:.300}"
        return [wrong("server", text, "See the line about the database, and the server's log."), *_clock(answer, clock)]
    age = state.get("feed_age_seconds")
    aged = f", and has read the change feed {age:.1f} s ago" if isinstance(age, int | float) else ""
    return [ok("server", f"{url} is ready{aged}"), *_clock(answer, clock)]


def _unreachable(target: Target, why: str, *, is_guess: bool) -> Finding:
    text = f"{target.url}: {why}; without it, sessions that end keep their connections"
    advice = "options.url of the plugin session-guard must name /session-events of internal_listen."
    return (warning if is_guess else wrong)(TOPIC, text, advice)


def _json(answer: Answer) -> dict[str, object]:
    try:
        return _as_object(orjson.loads(answer.body))
    except orjson.JSONDecodeError:
        return {}


def _as_object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _clock(answer: Answer, clock: Clock) -> list[Finding]:
    try:
        date = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return []
    return [compare_clocks("the server", date.timestamp(), clock.now())]

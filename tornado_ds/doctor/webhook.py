"""Asks the webhook what deepstream asks, and a few things that only a stranger would."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from tornado_ds.cookies import SessionCookie
from tornado_ds.doctor.client import Answer, ask, ask_all
from tornado_ds.doctor.findings import Finding, ok, warning, wrong
from tornado_ds.doctor.headers import examine_headers
from tornado_ds.doctor.targets import Target, basic_auth
from tornado_ds.settings import Settings

TOPIC = "webhook"

# What deepstream's HTTP client (needle 2.9) sends.
HEADERS = {
    "Accept": "application/json",
    "User-Agent": "Needle/2.9.1 (Node.js; tornado_ds doctor)",
    "Content-Type": "application/json; charset=utf-8",
}

SLOW_SECONDS = 0.5

# RFC 2606 keeps this name from ever being somebody's.
FOREIGN_ORIGIN = "https://doctor.invalid"

_STATUSES = {401, 403, 405, 413, 415, 429, 503}

Answers = Mapping[str, Answer]


@dataclass(frozen=True, slots=True)
class Question:
    """A request that deepstream, or a stranger, sends; *expected* is the status and the text of the answer."""

    what: str
    expected: tuple[int, str]
    connection: Mapping[str, object]
    auth: Mapping[str, object]
    authorization: str | None
    method: str = "POST"

    async def ask(self, url: str) -> Answer:
        headers = HEADERS if self.authorization is None else {**HEADERS, "Authorization": self.authorization}
        if self.method == "GET":
            return await ask(url, headers=headers)
        body = json.dumps({"connectionData": self.connection, "authData": self.auth})
        return await ask(url, method=self.method, headers=headers, body=body.encode())

    def accepts(self, answer: Answer) -> bool:
        return (answer.status, _text(answer)) == self.expected


async def examine_webhook(target: Target, settings: Settings, *, is_ours: bool) -> list[Finding]:
    """
    Return what is to be said of the webhook at *target*, whose authorization should be good.

    Nobody is logged in for it: the origin is looked at before the token, so a
    made-up token shows whether pages of strangers are refused. With *is_ours*
    the settings are those of that server, and it should take its own pages.

    Raises:
        ProbeError: It does not answer.
    """
    questions = _questions(target.authorization, settings)
    answers = dict(zip(questions, await ask_all(*(q.ask(target.url) for q in questions.values())), strict=True))
    for check in (_redirects, _pages, _strangers, _secret):
        if (finding := check(answers, target)) is not None:
            return [finding]
    if (finding := _codes(questions, answers)) is not None:
        return [finding]
    return [
        ok(TOPIC, f"{target.url} wants the secret, redirects nobody and answers no page"),
        ok(TOPIC, "sockets, the HTTP API and MQTT get the answers that deepstream understands"),
        _origins(answers, settings.public_url if is_ours else None),
        examine_headers(TOPIC, answers["stranger"], settings),
        _time(answers),
    ]


def _questions(authorization: str | None, settings: Settings) -> dict[str, Question]:
    cookie = f"{SessionCookie(settings.public_url).name}=doctor"
    any_cookie = "; ".join(f"{SessionCookie(url).name}=doctor" for url in ("http://", "https://"))
    address, wrong_secret = {"remoteAddress": "127.0.0.1"}, basic_auth("deepstream:this-is-the-wrong-one")
    nobody, no_token = (403, "not_logged_in"), (403, "session_invalid")

    def socket(**headers: str) -> dict[str, object]:
        return {**address, "headers": {"host": "localhost", "user-agent": "tornado_ds doctor", **headers}}

    known = {
        "stranger": Question("without the secret", (401, "unauthorized"), socket(), {}, None),
        "wrong": Question("with a wrong secret", (401, "unauthorized"), socket(), {}, wrong_secret),
    }
    if authorization is None:
        return known
    foreign, own = {"cookie": any_cookie, "origin": FOREIGN_ORIGIN}, {"cookie": cookie, "origin": settings.public_url}
    return {
        **known,
        "socket": Question("about a socket without a cookie", nobody, socket(), {}, authorization),
        "api": Question("about the HTTP API", nobody, {"headers": {}, "url": "/api"}, {}, authorization),
        "mqtt": Question("about an MQTT client", nobody, {}, {}, authorization),
        "token": Question("about a made-up token", no_token, socket(), {"token": "doctor"}, authorization),
        "foreign": Question("about another site's page", (403, "origin_denied"), socket(**foreign), {}, authorization),
        "own": Question("about a page of ours", no_token, socket(**own), {}, authorization),
        "get": Question("GET", (405, "send POST"), {}, {}, authorization, method="GET"),
    }


def _redirects(answers: Answers, target: Target) -> Finding | None:
    for answer in answers.values():
        if answer.is_redirect:
            text = (
                f"{target.url} redirects ({answer.status} to {answer.headers.get('Location', 'nowhere')!a:.80}):"
                " deepstream follows, and takes any page at the end for a valid login"
            )
            return wrong(TOPIC, text, "Give deepstream an address that answers itself, best internal_listen's.")
    return None


def _pages(answers: Answers, target: Target) -> Finding | None:
    for answer in answers.values():
        if answer.is_page:
            text = f"{target.url} answers {answer.status} with a page (HTML)"
            if answer.status == 200:
                text += ": deepstream takes it for a valid login, and lets everybody in"
            advice = "See that no proxy or login of another kind stands before /check-token, or answers for it."
            return wrong(TOPIC, text, advice)
    return None


def _strangers(answers: Answers, target: Target) -> Finding | None:
    for answer in answers.values():
        if 200 <= answer.status < 300:
            text = f"{target.url} answers {answer.status} to somebody without a session: deepstream lets everybody in"
            return wrong(TOPIC, text, "Give deepstream the address of tornado_ds itself.")
    for name, how in (("stranger", "no secret"), ("wrong", "a wrong secret")):
        if answers[name].status == 403:
            text = f"{target.url} takes {how}: whoever reaches it can try out stolen tokens"
            return wrong(TOPIC, text, "See that the proxy passes on Authorization as it is, and adds none of its own.")
    for name in ("stranger", "wrong"):
        if answers[name].status != 401:
            text = f"{target.url} answers {answers[name].status} where 401 is expected: this is not tornado_ds"
            return wrong(TOPIC, text, "Check host, port and path; the path is /check-token.")
    return None


def _secret(answers: Answers, target: Target) -> Finding | None:
    if "socket" not in answers:
        advice = "Run this where the server's settings are, or set TORNADO_DS_WEBHOOK__SECRET here."
        return warning(TOPIC, f"{target.url} wants the secret, which is not known here: no more was tried", advice)
    if answers["socket"].status == 401:
        text = f"{target.url} refuses the secret"
        advice = "It must be the webhook.secret of that server, as the user deepstream; a proxy must pass it on."
        if target.parts.path != "/check-token":
            advice += " Or the path is wrong: ours is /check-token."
        return wrong(TOPIC, text, advice)
    return None


def _codes(questions: Mapping[str, Question], answers: Answers) -> Finding | None:
    for name in ("socket", "api", "mqtt", "token", "get"):
        if questions[name].accepts(answers[name]):
            continue
        status, (expected, code) = answers[name].status, questions[name].expected
        what, given = questions[name].what, _text(answers[name])
        text = f"asked {what}, it answers {status} {given!a:.60} instead of {expected} {code}"
        if status not in _STATUSES:
            text += "; deepstream may ask again, or misunderstand"
        return wrong(TOPIC, text, "See that no proxy changes what is asked or answered; both must be of one version.")
    return None


def _origins(answers: Answers, public_url: str | None) -> Finding:
    foreign, own = (_text(answers[name]) for name in ("foreign", "own"))
    if foreign != "origin_denied":
        text = f"a page of another site is not refused ({foreign!a:.60}): it could connect with your user's cookie"
        return wrong("origin", text, "See that the body reaches the server unchanged.")
    if public_url is None:
        return ok("origin", "pages of other sites may not connect")
    if own == "not_logged_in":
        text = "the server looks for a cookie of another name than these settings say"
        return wrong("origin", text, "Restart it: its public_url has changed between http and https.")
    if own != "session_invalid":
        text = f"pages at {public_url} may not connect ({own!a:.60})"
        return wrong("origin", text, "Set public_url to what the address bar shows, and restart the server.")
    return ok("origin", f"pages at {public_url} may connect, those of other sites may not")


def _time(answers: Answers) -> Finding:
    # Some of it is our own time, as all questions are asked at once.
    usual = median(answer.seconds for answer in answers.values())
    text = f"answers in {usual * 1000:.0f} ms, deepstream waits 2000 ms"
    if usual > SLOW_SECONDS:
        return warning(TOPIC, text, "See what holds it up: an answer needs no database, and takes a few milliseconds.")
    return ok(TOPIC, text)


def _text(answer: Answer) -> str:
    return answer.body.decode("utf-8", "replace")

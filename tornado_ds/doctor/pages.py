"""What a browser finds at `public_url`."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from tornado_ds.clock import Clock
from tornado_ds.cookies import SessionCookie
from tornado_ds.doctor.client import Answer, ask, ask_all, ask_websocket
from tornado_ds.doctor.findings import Finding, ok, warning, wrong
from tornado_ds.doctor.headers import examine_headers
from tornado_ds.doctor.targets import parse_target
from tornado_ds.doctor.tls import examine_certificate
from tornado_ds.errors import ProbeError
from tornado_ds.settings import Settings

TOPIC = "public_url"


async def examine_pages(settings: Settings, clock: Clock) -> list[Finding]:
    """Return what is to be said of the pages, of their cookie, and of what must not be there."""
    url = settings.public_url
    try:
        certificate = await examine_certificate(parse_target(url), clock)
        if certificate is not None and certificate.level == "wrong":
            return [certificate]
        login, logout, figures = await ask_all(
            ask(f"{url}/login", headers={"Accept": "text/html"}),
            # For somebody who is not logged in this changes nothing, and clears the cookie as it was set.
            ask(f"{url}/logout", method="POST", headers={"Accept": "text/html", "Origin": url}, body=b""),
            ask(f"{url}/metrics", headers={"Accept": "text/plain"}),
        )
    except ProbeError as exc:
        advice = "See that the server or its proxy runs, and that public_url is what browsers should open."
        return [wrong(TOPIC, f"{url} does not answer: {exc}", advice)]
    findings = [] if certificate is None else [certificate]
    if (problem := _problem(url, login)) is not None:
        return [*findings, problem]
    return [
        *findings,
        ok(TOPIC, f"{url} shows the login page"),
        examine_headers(TOPIC, login, settings),
        _cookie(settings, logout),
        *_figures(url, figures),
    ]


async def examine_deepstream(settings: Settings) -> Finding:
    """Say whether browsers that stand here reach deepstream."""
    url = settings.deepstream_url
    try:
        await ask_websocket(url)
    except ProbeError as exc:
        advice = "Start deepstream, or set deepstream_url to where browsers reach it."
        return warning("deepstream_url", f"there is no deepstream at {url}: {exc}", advice)
    return ok("deepstream_url", f"deepstream answers at {url}")


def _problem(url: str, login: Answer) -> Finding | None:
    if login.is_redirect:
        text = f"{url} redirects to {login.headers.get('Location', 'nowhere')!a:.80}"
        return wrong(TOPIC, text, "Set public_url to the address where browsers end up.")
    if login.status in (502, 503, 504):
        text = f"{url} answers {login.status}: the proxy does not reach the server, or the server is not ready"
        return wrong(TOPIC, text, "See that the proxy passes on to listen, and the lines about the server.")
    if login.status != 200 or b'action="/handle-login"' not in login.body:
        text = f"{url}/login answers {login.status}, and it is not our login page"
        return wrong(TOPIC, text, "See that the proxy passes everything below / on, with the path as it is.")
    return None


def _cookie(settings: Settings, logout: Answer) -> Finding:
    name = SessionCookie(settings.public_url).name
    cookies = [text for text in logout.headers.get_list("Set-Cookie") if "access_token=" in text.partition(";")[0]]
    if not cookies:
        text = f"POST {settings.public_url}/logout answers {logout.status} without clearing the cookie"
        return wrong("cookie", text, "See that the proxy passes on POST, Origin and Set-Cookie.")
    given, *attributes = (part.strip().lower() for part in cookies[0].split(";"))
    problems = list(_cookie_problems(settings, attributes))
    if given.partition("=")[0] != name.lower():
        problems = [f"has another name than {name}"]
    if problems:
        text = f"the session's cookie {', '.join(problems)}"
        return wrong("cookie", text, "Let the proxy leave Set-Cookie alone, and restart after a change of public_url.")
    return ok("cookie", f"{name} arrives with the attributes that it needs")


def _cookie_problems(settings: Settings, attributes: list[str]) -> Iterator[str]:
    is_https = urlsplit(settings.public_url).scheme == "https"
    if is_https and "secure" not in attributes:
        yield "lost Secure, so it would also travel over http"
    if not is_https and "secure" in attributes:
        yield "is Secure, so browsers drop it over http"
    if "httponly" not in attributes:
        yield "lost HttpOnly, so scripts can read it"
    if "samesite=lax" not in attributes:
        yield "lost SameSite=Lax, so other sites' forms carry it"
    if "path=/" not in attributes:
        yield "lost Path=/"
    if any(attribute.startswith("domain=") for attribute in attributes):
        yield "has a Domain, so other hosts get it"


def _figures(url: str, answer: Answer) -> Iterator[Finding]:
    if answer.status == 200 and b"# HELP" in answer.body:
        text = f"{url}/metrics shows the figures of the server to everybody: the proxy passes on to internal_listen"
        yield wrong(TOPIC, text, "Let the proxy pass on to listen only.")

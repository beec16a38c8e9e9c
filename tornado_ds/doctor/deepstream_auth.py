"""Does the `auth` part of deepstream's config.yml let in whom it should, and nobody else."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from tornado_ds.doctor.configuration import is_local
from tornado_ds.doctor.deepstream_file import TOPIC, items, mapping, text_of
from tornado_ds.doctor.findings import Finding, warning, wrong
from tornado_ds.doctor.targets import Target, basic_auth, parse_target, port_of
from tornado_ds.errors import ProbeError
from tornado_ds.settings import Address, Settings

_NUMBERS = ("requestTimeout", "retryAttempts", "retryInterval")
_OUTAGES = {"502", "503", "504"}
_REFUSALS = {"200", "401", "403"}


def webhook_options(content: Mapping[str, Any], settings: Settings, secret: str | None) -> Mapping[str, Any]:
    """Return the options of the entry of type http that asks us, else of the first one; empty if there is none."""
    found = _http_options(content)
    return next((options for options in found if _asks_us(options, settings, secret)), found[0] if found else {})


def examine_auth(content: Mapping[str, Any], settings: Settings, secret: str | None) -> Iterator[Finding]:
    """Yield what is missing or dangerous in the list of authentication types."""
    is_list = isinstance(content.get("auth"), list)
    if not is_list:
        yield _misplaced(content)
    for entry in _entries(content):
        yield from _entry(entry)
    found, ours = _http_options(content), webhook_options(content, settings, secret)
    # deepstream asks one after the other until somebody says yes.
    for options in found:
        is_ours = options is ours or _asks_us(options, settings, secret)
        yield from _endpoint(text_of(options.get("endpointUrl")), settings, secret, is_ours=is_ours)
        yield from _options(options)
    if is_list and not found:
        yield wrong(TOPIC, "auth has no entry of type http, so nobody asks tornado_ds", _PASTE)


_PASTE = "Take the part from `python -m tornado_ds deepstream-config`."


def _entries(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    auth = content.get("auth")
    # As a mapping deepstream 4 wanted it; at the top the tutorial shows it.
    alone = auth if isinstance(auth, dict) else content if "type" in content else None
    return [mapping(entry) for entry in ([alone] if alone else items(auth)[:100])]


def _http_options(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [mapping(entry.get("options")) for entry in _entries(content) if entry.get("type") == "http"]


def _asks_us(options: Mapping[str, Any], settings: Settings, secret: str | None) -> bool:
    """True if our secret, or the address of a listener, is in the endpointUrl of *options*."""
    try:
        target = parse_target(text_of(options.get("endpointUrl")))
    except ProbeError:
        return False
    if secret is not None and target.authorization == basic_auth(f"deepstream:{secret}"):
        return True
    return is_local(target.parts.hostname) and port_of(target.url) in _ports(settings)


def _ports(settings: Settings) -> set[int]:
    listeners = (settings.listen, settings.internal_listen)
    return {address.port for address in listeners if isinstance(address, Address)} | {port_of(settings.public_url)}


def _misplaced(content: Mapping[str, Any]) -> Finding:
    if isinstance(content.get("auth"), dict):
        # It is merged into the default, a list with one entry of type none, which stays in force.
        return wrong(TOPIC, "auth is no list: deepstream overlooks it, and lets everybody in", _PASTE)
    if "auth" in content:
        return wrong(TOPIC, "auth is no list, so deepstream does not start", _PASTE)
    if "type" in content:
        return wrong(TOPIC, "type and options stand at the top instead of in a list below auth", _PASTE)
    return wrong(TOPIC, "auth is missing: deepstream lets everybody in", _PASTE)


def _entry(entry: Mapping[str, Any]) -> Iterator[Finding]:
    kind = text_of(entry.get("type"))
    if "name" in entry or "path" in entry:
        yield warning(TOPIC, "auth has a plugin that is not known here", "See that it lets nobody in without a login.")
    elif kind == "none":
        yield wrong(TOPIC, "auth has an entry of type none: everybody gets in", "Remove it.")
    elif kind == "storage" and mapping(entry.get("options")).get("createUser") == "true":
        yield wrong(TOPIC, "auth has createUser: whoever comes becomes a user", "Set createUser to false.")
    elif kind in ("file", "storage"):
        text = f"auth has an entry of type {kind}: its users have no session, and nothing ends what they do"
        yield warning(TOPIC, text, "Bring them over with `python -m tornado_ds seed`, and remove it.")
    elif kind != "http":
        yield wrong(TOPIC, f"auth has an entry of type {kind!a:.40}, which deepstream has not", "Remove it.")


def _endpoint(url: str, settings: Settings, secret: str | None, *, is_ours: bool) -> Iterator[Finding]:
    try:
        target = parse_target(url)
    except ProbeError:
        yield wrong(TOPIC, "endpointUrl is missing or no URL", _PASTE)
        return
    if not is_ours:
        text = f"auth has another entry of type http, which asks {target.origin:.80}: its users have no session"
        yield warning(TOPIC, text, "Remove it, unless they are meant to get in without one.")
        return
    if target.parts.path != "/check-token":
        text = f"endpointUrl has the path {target.parts.path!a:.80}; the webhook is at /check-token"
        yield wrong(TOPIC, text, _PASTE)
    yield from examine_secret("endpointUrl", target.authorization, secret)
    yield from _address(target, settings)


def examine_secret(where: str, authorization: str | None, secret: str | None) -> Iterator[Finding]:
    """Yield what is wrong with the credentials that stand in *where*, as far as the right ones are known."""
    if authorization in (None, basic_auth("deepstream:"), basic_auth(":")):
        yield wrong(TOPIC, f"{where} has no secret: tornado_ds refuses deepstream", _PASTE)
    elif secret is not None and authorization != basic_auth(f"deepstream:{secret}"):
        text = f"{where} has another secret than webhook.secret, or another user than deepstream"
        yield wrong(TOPIC, text, _PASTE)


def _address(target: Target, settings: Settings) -> Iterator[Finding]:
    host, port = target.parts.hostname, port_of(target.url)
    if is_local(host) and port not in _ports(settings):
        text = f"endpointUrl asks port {port} of this machine; tornado_ds listens on {settings.internal_listen}"
        yield warning(TOPIC, text, "Correct it, unless something passes on from there.")
    if target.parts.scheme == "http" and _is_far(host):
        text = f"endpointUrl sends the secret and everybody's cookies to {host} without TLS"
        yield warning(TOPIC, text, "Use https, unless that network is yours alone.")


def _is_far(host: str | None) -> bool:
    """True for addresses of the Internet and full host names; not for those of a container's network."""
    try:
        return ip_address(host or "").is_global
    except ValueError:
        return "." in (host or "") and not is_local(host)


def _options(options: Mapping[str, Any]) -> Iterator[Finding]:
    missing = [key for key in _NUMBERS if not text_of(options.get(key)).isdecimal()]
    missing += [key for key in ("permittedStatusCodes", "retryStatusCodes") if not isinstance(options.get(key), list)]
    if missing:
        text = f"the http entry has no (good) {', '.join(sorted(missing))}; deepstream does not start without"
        yield wrong(TOPIC, text, _PASTE)
    if "permittedStatusCodes" not in missing and options["permittedStatusCodes"] != ["200"]:
        text = "permittedStatusCodes is not [200]: deepstream takes each code there for a valid login"
        yield wrong(TOPIC, text, "Set it to [200].")
    if "retryStatusCodes" not in missing:
        yield from _retries({text_of(code) for code in options["retryStatusCodes"][:100]})
    if "requestTimeout" not in missing and not 1000 <= int(options["requestTimeout"][:9]) <= 10_000:
        text = f"requestTimeout is {options['requestTimeout']:.12} ms: too short for a busy moment, or too long to wait"
        yield warning(TOPIC, text, "Set it to 2000.")
    if options.get("promoteToHeader") not in (None, "", "null", "~", []):
        text = "promoteToHeader is set: with it, a client without a login can crash deepstream"
        yield wrong(TOPIC, text, "Remove it; tornado_ds reads the body.")


def _retries(codes: set[str]) -> Iterator[Finding]:
    if codes & _REFUSALS:
        text = "retryStatusCodes has answers that are final (200, 401 or 403): logins hang instead of failing"
        yield wrong(TOPIC, text, "Set it to [502, 503, 504].")
    if not codes >= _OUTAGES:
        missing = ", ".join(sorted(_OUTAGES - codes))
        text = (
            f"retryStatusCodes lacks {missing}: while the auth server restarts, people are told that their login fails"
        )
        yield warning(TOPIC, text, "Set it to [502, 503, 504].")
    if "404" in codes:
        text = "retryStatusCodes has 404, which only a wrong address answers: the mistake shows as waiting"
        yield warning(TOPIC, text, "Set it to [502, 503, 504].")

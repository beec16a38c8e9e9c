"""The rest of deepstream's config.yml: what reaches the webhook, what is open, who closes connections, who may what."""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tornado_ds.doctor.configuration import is_local
from tornado_ds.doctor.deepstream_auth import examine_secret
from tornado_ds.doctor.deepstream_file import TOPIC, DeepstreamFile, is_file, items, mapping, text_of
from tornado_ds.doctor.findings import Finding, warning, wrong
from tornado_ds.doctor.targets import Target, basic_auth, parse_target
from tornado_ds.errors import ProbeError
from tornado_ds.settings import Settings

_NEEDED, _USEFUL = {"cookie", "origin"}, {"user-agent", "x-forwarded-for"}
_HEADERS = "List all four: headers: [cookie, origin, user-agent, x-forwarded-for]."

_SECTIONS = ("record", "event", "rpc", "presence")
_ACTIONS = (
    *("create", "read", "write", "delete", "listen", "notify"),
    *("publish", "subscribe", "provide", "request", "allow"),
)
_GUARD = re.compile(r"now\s{0,20}<=?\s{0,20}user\.data\.expiresAt|user\.data\.expiresAt\s{0,20}>=?\s{0,20}now")
_MAX_PATTERNS, _MAX_RULE, _MAX_FEEDS = 2000, 4096, 8

_FEED_PATH = "/session-events"

# deepstream's own defaults.
_SOCKET_PATH, _SOCKET_PORT = "/deepstream", "6020"


def examine_server(file: DeepstreamFile, settings: Settings, secret: str | None) -> Iterator[Finding]:
    """Yield what is missing or dangerous outside of `auth`."""
    yield from _http_server(mapping(file.content.get("httpServer")))
    yield from _endpoints(file.content)
    yield from _deepstream_url(file.content, settings.deepstream_url)
    yield from _guard(file.content, secret)
    yield from _permission(file)


def feed_targets(content: Mapping[str, Any]) -> list[Target]:
    """Return the feeds that the plugin session-guard follows, with its secret."""
    options = mapping(_find_guard(content).get("options"))
    secret = text_of(options.get("secret"))
    authorization = basic_auth(f"deepstream:{secret}") if secret else None
    targets = []
    for url in _urls(options):
        try:
            targets.append(Target(parse_target(url).url, authorization))
        except ProbeError:
            continue
    return targets


def _http_server(server: Mapping[str, Any]) -> Iterator[Finding]:
    if server.get("type") != "uws":
        return
    listed = {text_of(name) for name in items(mapping(server.get("options")).get("headers"))[:100]}
    if missing := sorted(_NEEDED - listed):
        text = f"the uws service does not hand over {' and '.join(missing)} (in lower case): no cookie logs in"
        yield wrong(TOPIC, text, _HEADERS)
    elif missing := sorted(_USEFUL - listed):
        text = f"the uws service does not hand over {' and '.join(missing)}, which sessions are recognised by"
        yield warning(TOPIC, text, _HEADERS)


def _endpoints(content: Mapping[str, Any]) -> Iterator[Finding]:
    endpoints = content.get("connectionEndpoints")
    if not isinstance(endpoints, list):
        text = "connectionEndpoints is missing: deepstream also opens MQTT on 0.0.0.0:1883, and two more protocols"
        yield warning(TOPIC, text, "List what you use, such as ws-binary and http.")
    if any(mapping(mapping(entry).get("options")).get("logInvalidAuthData") == "true" for entry in items(endpoints)):
        text = "logInvalidAuthData is on: passwords and tokens get into deepstream's log"
        yield warning(TOPIC, text, "Set it to false.")


def _deepstream_url(content: Mapping[str, Any], url: str) -> Iterator[Finding]:
    """Compare with where the pages of tornado_ds let browsers look for deepstream."""
    parts = urlsplit(url)
    entries = [mapping(entry) for entry in items(content.get("connectionEndpoints"))[:100]]
    sockets = [entry for entry in entries if text_of(entry.get("type")).startswith("ws-")]
    paths = [text_of(mapping(entry.get("options")).get("urlPath")) or _SOCKET_PATH for entry in sockets]
    if entries and (parts.path or "/") not in paths:
        text = f"deepstream_url is {url}, and no WebSocket endpoint has the urlPath {parts.path or '/'}"
        yield warning(TOPIC, text, "Correct one of the two, unless a proxy between them changes the path.")
    port = text_of(mapping(mapping(content.get("httpServer")).get("options")).get("port")) or _SOCKET_PORT
    # Without a port it is 80, and something stands in front.
    if parts.scheme == "ws" and parts.port is not None and is_local(parts.hostname) and str(parts.port) != port:
        text = f"deepstream_url is {url}, and deepstream listens on port {port!a:.20}"
        yield warning(TOPIC, text, "Correct one of the two, unless something between them changes the port.")


def _guard(content: Mapping[str, Any], secret: str | None) -> Iterator[Finding]:
    plugin = _find_guard(content)
    if not plugin:
        text = "the plugin session-guard is missing: who logs out stays connected, and goes on receiving"
        yield wrong(TOPIC, text, "Take plugins from `python -m tornado_ds deepstream-config`.")
        return
    yield from _guard_path(text_of(plugin.get("path")))
    options = mapping(plugin.get("options"))
    urls = _urls(options)
    if not urls:
        yield wrong(TOPIC, "session-guard has no options.url", "Name /session-events of internal_listen.")
    for url in urls:
        try:
            path = parse_target(url).parts.path
        except ProbeError:
            path = None
        if path != _FEED_PATH:
            yield wrong(TOPIC, "options.url of session-guard is no URL of /session-events", "Correct it.")
    authorization = basic_auth(f"deepstream:{text_of(options.get('secret'))}")
    yield from examine_secret("session-guard", authorization, secret)


def _guard_path(path: str) -> Iterator[Finding]:
    if not path.startswith("/"):
        text = f"the path of session-guard, {path!a:.80}, depends on where deepstream is started"
        yield warning(TOPIC, text, "Write file(session-guard.js), from the folder of config.yml, or a whole path.")
    elif not is_file(Path(path)):
        yield wrong(
            TOPIC, f"there is no {path!a:.200}, so deepstream does not start", "Correct the path of session-guard."
        )


def _find_guard(content: Mapping[str, Any]) -> Mapping[str, Any]:
    for plugin in map(mapping, islice(mapping(content.get("plugins")).values(), 100)):
        is_named = text_of(plugin.get("path")).endswith("session-guard.js")
        if is_named or any(_FEED_PATH in url for url in _urls(mapping(plugin.get("options")))):
            return plugin
    return {}


def _urls(options: Mapping[str, Any]) -> list[str]:
    """Return the feeds as session-guard.js takes them: a list, or text with commas or blanks between."""
    url = options.get("url")
    texts = [text_of(part) for part in items(url)[:_MAX_FEEDS]] or [text_of(url)]
    return [part for text in texts for part in re.split(r"[\s,]+", text) if part][:_MAX_FEEDS]


def _permission(file: DeepstreamFile) -> Iterator[Finding]:
    permission = mapping(file.content.get("permission"))
    if permission.get("type") == "none" or not permission:
        text = "permission is missing or none: whoever is logged in may do everything"
        yield wrong(TOPIC, text, "Start from config/deepstream/permissions.yml of tornado_ds.")
        return
    rules = mapping(permission.get("options")).get("permissions")
    rules = file.loaded.get(rules) if isinstance(rules, str) else rules
    if permission.get("type") != "config" or not isinstance(rules, dict):
        return
    if unguarded := list(_unguarded(rules)):
        text = f"{len(unguarded)} permission rules do not look at the end of the session, such as {unguarded[0]}"
        yield warning(TOPIC, text, "Repeat `user.data !== null && now < user.data.expiresAt` in each rule.")


def _unguarded(rules: Mapping[str, Any]) -> Iterator[str]:
    for section in _SECTIONS:
        for pattern, actions in islice(mapping(rules.get(section)).items(), _MAX_PATTERNS):
            for action in _ACTIONS:
                rule = text_of(mapping(actions).get(action, "false"))[:_MAX_RULE]
                if rule.strip() != "false" and not _GUARD.search(rule):
                    yield f"{section} {pattern!a:.80} {action}"

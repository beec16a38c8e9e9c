"""Settings that are accepted, and still are a mistake."""

import resource
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from tornado_ds.addresses import UNIX
from tornado_ds.doctor.findings import Finding, ok, warning, wrong
from tornado_ds.doctor.targets import port_of
from tornado_ds.settings import Address, Settings, UnixAddress

# Below this, a few hundred people with several connections each fill the server.
FEW_DESCRIPTORS = 4096


def examine_settings(settings: Settings) -> Iterator[Finding]:
    """Yield what is to be said of *settings* without asking anybody."""
    yield from _public_url(settings)
    yield from _deepstream_url(settings)
    yield from _origins(settings)
    yield from _proxies(settings)
    yield from _internal_listen(settings)
    yield from _passwords(settings)
    yield _descriptors()


def is_local(host: str | None) -> bool:
    """True for names and addresses that never leave the machine."""
    if host is None or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _public_url(settings: Settings) -> Iterator[Finding]:
    parts = urlsplit(settings.public_url)
    if parts.scheme == "http" and not is_local(parts.hostname):
        text = f"{settings.public_url} is not https: passwords and cookies can be read on their way"
        yield wrong("public_url", text, "Put a proxy with TLS in front, and set public_url to the https address.")


def _deepstream_url(settings: Settings) -> Iterator[Finding]:
    page, socket = urlsplit(settings.public_url), urlsplit(settings.deepstream_url)
    if page.hostname != socket.hostname:
        text = f"pages are at {page.hostname}, deepstream at {socket.hostname}: the cookie does not reach deepstream"
        yield wrong("deepstream_url", text, "Serve both under one host name; the port may differ.")
    elif page.scheme == "https" and socket.scheme == "ws":
        text = f"a page at {settings.public_url} may not open {settings.deepstream_url}: browsers refuse ws from https"
        yield wrong("deepstream_url", text, "Put TLS in front of deepstream too, and set deepstream_url to wss://...")
    else:
        yield ok("deepstream_url", f"pages and deepstream share the host name {page.hostname}")


def _origins(settings: Settings) -> Iterator[Finding]:
    if settings.public_url not in settings.allowed_origins:
        text = f"{settings.public_url} is not among them: its own pages cannot connect to deepstream"
        yield wrong("allowed_origins", text, "Add the origin of public_url, or leave the setting out.")
    for origin in settings.allowed_origins:
        parts = urlsplit(origin)
        if parts.scheme == "http" and not is_local(parts.hostname) and settings.public_url.startswith("https:"):
            text = f"{origin} is not https: whoever sits on the way can put a script into its pages, and connect"
            yield warning("allowed_origins", text, "List https origins only.")


def _proxies(settings: Settings) -> Iterator[Finding]:
    trusted, listen = settings.trusted_proxies, settings.listen
    if any(ip_network(network).prefixlen == 0 for network in trusted if network != UNIX):
        text = "everybody is trusted, so everybody can make up the address that failed logins count for"
        yield wrong("trusted_proxies", text, "Name the addresses of your proxies only.")
    elif isinstance(listen, UnixAddress):
        if UNIX not in trusted:
            yield _untrusted(f"whoever connects to {listen} is a proxy, and is not trusted", UNIX)
    elif port_of(settings.public_url) != listen.port and not trusted:
        text = f"{settings.public_url} seems to be a proxy in front of {listen}, and none is trusted"
        yield _untrusted(text, "the proxy's address")


def _untrusted(text: str, proxy: str) -> Finding:
    return warning("trusted_proxies", text, f"Set it to {proxy}, or everybody's failed logins count as the proxy's.")


def _internal_listen(settings: Settings) -> Iterator[Finding]:
    address = settings.internal_listen
    if isinstance(address, Address) and not is_local(address.host):
        text = f"{address} can be reached from other machines, and shows figures and readiness to whoever asks"
        yield warning("internal_listen", text, "Make sure that only deepstream and your monitoring get there.")


def _passwords(settings: Settings) -> Iterator[Finding]:
    passwords = settings.passwords
    if passwords.bcrypt_cost < 10:
        text = f"bcrypt_cost {passwords.bcrypt_cost}: a stolen database gives the passwords away in no time"
        yield wrong("passwords", text, "Set passwords.bcrypt_cost to 12; hashes are renewed at the next logins.")
    elif passwords.allow_weak_cost:
        text = "allow_weak_cost is on, so a slip in bcrypt_cost would go unnoticed"
        yield warning("passwords", text, "Leave it out; it is for tests.")
    else:
        yield ok("passwords", f"bcrypt at cost {passwords.bcrypt_cost}")


def _descriptors() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FEW_DESCRIPTORS:
        text = f"a program started from here may open {hard} files, and each connection is one"
        return warning("limits", text, "Raise it where the server starts: LimitNOFILE=65536 in systemd, or ulimit -n.")
    return ok("limits", f"{'any number of' if hard == resource.RLIM_INFINITY else hard} files and connections at once")

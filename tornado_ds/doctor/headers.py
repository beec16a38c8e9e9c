"""Do our security headers arrive."""

from urllib.parse import urlsplit

from tornado_ds.doctor.client import Answer
from tornado_ds.doctor.findings import Finding, ok, warning
from tornado_ds.handlers.headers import SECURITY_HEADERS
from tornado_ds.settings import Settings


def examine_headers(topic: str, answer: Answer, settings: Settings) -> Finding:
    """Compare the headers of an answer that came through proxies with those that we send."""
    lost = [name for name, value in SECURITY_HEADERS.items() if value not in answer.headers.get_list(name)]
    if "frame-ancestors 'none'" not in answer.headers.get("Content-Security-Policy", ""):
        lost.append("Content-Security-Policy")
    # A proxy may well have a stricter one of its own.
    if urlsplit(settings.public_url).scheme == "https" and "Strict-Transport-Security" not in answer.headers:
        lost.append("Strict-Transport-Security")
    if lost:
        text = f"security headers are missing or changed on the way: {', '.join(lost)}"
        return warning(topic, text, "See that the proxy passes them on; a restart may be due if public_url changed.")
    return ok(topic, "security headers arrive")

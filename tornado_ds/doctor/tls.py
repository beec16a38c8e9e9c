"""Is the certificate of an https address good, and for how long."""

import ssl

from tornado_ds.clock import Clock
from tornado_ds.doctor.client import ask_certificate
from tornado_ds.doctor.findings import Finding, ok, warning, wrong
from tornado_ds.doctor.targets import Target
from tornado_ds.errors import CertificateError

TOPIC = "certificate"

SOON_DAYS = 14


async def examine_certificate(target: Target, clock: Clock) -> Finding | None:
    """
    Say how the certificate of *target* stands, None if it needs none.

    Raises:
        ProbeError: Nobody answers there.
    """
    if target.parts.scheme != "https":
        return None
    host = target.parts.hostname
    try:
        certificate = await ask_certificate(target.url)
    except CertificateError as exc:
        text = f"that of {host} is not to be trusted: {exc}"
        advice = (
            "Renew it. If its authority is your own, name its file in SSL_CERT_FILE here, and for deepstream in"
            " NODE_EXTRA_CA_CERTS."
        )
        return wrong(TOPIC, text, advice)
    days = int((ssl.cert_time_to_seconds(certificate["notAfter"]) - clock.now()) // 86400)
    if days < SOON_DAYS:
        return warning(TOPIC, f"that of {host} ends in {days} days", "Renew it, and see why that was not automatic.")
    return ok(TOPIC, f"that of {host} is good for {days} days")

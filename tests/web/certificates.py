"""Certificates that sign themselves, for tests."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from tornado_ds.settings import TLSSettings


def write_certificate(folder: Path, *, password: bytes | None = None) -> TLSSettings:
    """Return the names of a new certificate for `localhost` and its key, in *folder*."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption: KeySerializationEncryption = BestAvailableEncryption(password) if password else NoEncryption()
    settings = TLSSettings(certificate=folder / "tls.crt", key=folder / "tls.key")
    assert settings.certificate is not None
    assert settings.key is not None
    settings.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    settings.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    settings.key.chmod(0o600)
    return settings


def trusting(certificate: Path) -> ssl.SSLContext:
    """Return what a client needs that trusts *certificate*, as it is in the file now, and no other."""
    return ssl.create_default_context(cafile=certificate)

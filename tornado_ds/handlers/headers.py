"""The headers that every answer carries, whoever gives it."""

# For `Strict-Transport-Security` (RFC 6797), sent only where `public_url` is https.
HSTS = "max-age=31536000"

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

# What an answer that is not a page may load: nothing.
NOTHING = "default-src 'none'"


def content_security_policy(policy: str) -> str:
    """Return *policy* with the directives that do not fall back to default-src (CSP level 3)."""
    return f"{policy}; base-uri 'none'; frame-ancestors 'none'"

"""Whom a request is for and where its body ends, beyond doubt, whichever server has read it (RFC 9112)."""

import re

from tornado.httputil import HTTPHeaders, HTTPInputError, RequestStartLine

# Commas are for reg-names in theory, and for two Host headers that somebody joined in practice.
# No name is longer than 253 characters, and Tornado fails on ports of thousands of digits.
_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]{0,260}")
# No list, as several headers of that name are, not even of the same length.
_LENGTH = re.compile(r"[0-9]{1,18}")


def is_host(text: str) -> bool:
    """True if *text* can be the value of a Host header."""
    return _HOST.fullmatch(text) is not None


def check_framing(start_line: RequestStartLine, headers: HTTPHeaders) -> None:
    """
    Refuse what Tornado would let pass, because a proxy in front may read it otherwise.

    Raises:
        HTTPInputError: This is such a request.
    """
    is_recent = start_line.version == "HTTP/1.1"
    if not is_recent and start_line.version != "HTTP/1.0":
        raise HTTPInputError("Unknown version")
    if not is_recent and "Transfer-Encoding" in headers:
        raise HTTPInputError("Unexpected Transfer-Encoding")
    host = headers.get("Host", None if is_recent else "")
    if host is None or not is_host(host):
        raise HTTPInputError("Doubtful Host")
    length = headers.get("Content-Length")
    if length is not None and _LENGTH.fullmatch(length) is None:
        raise HTTPInputError("Doubtful Content-Length")
